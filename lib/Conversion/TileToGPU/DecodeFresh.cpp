//===- DecodeFresh.cpp - Decode: keys that are in no page yet -------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The last keys of an item come from the call. The warp that a fresh key's row
// belongs to puts key and value into the page, in shared memory, where no other
// warp reads them, and in the pool; rows behind the last key become zeros.
//
//===----------------------------------------------------------------------===//

#include "Decode.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "llvm/Support/MathExtras.h"
#include <limits>

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

/// Rows of a page that are one warp's, and bytes that a lane moves at a time.
static constexpr int64_t kRows = 16, kPiece = 16, kPieceColumns = 8;

/// Without fresh keys no key is behind the first of them.
void Decode::findFresh(const Share &share) {
  Value fresh = share.facts.fresh;
  freshFrom = b.select(b.less(b.i32(0), fresh), b.sub(length, fresh),
                       b.i32(std::numeric_limits<int32_t>::max()));
}

/// Asks for the first row and the last page's id long before they are used:
/// with memory saturated a read takes as long as several pages. Fresh rows are
/// at most MOA_MAX_GROUP: the item's last two pages have them all.
void Decode::fetchFresh(const Share &share) {
  if (!asksEarly())
    return;
  Value any = b.less(freshFrom, length);
  size_t pieces = 0;
  for (FirstRow &row : firstRows)
    pieces += piecesIn(row.which);
  SmallVector<Type> types(pieces, b.i32s(4));
  types.push_back(b.getI32Type());
  SmallVector<Value> early = b.branch(
      b.both(any, b.less(b.add(share.facts.last, -2), end)), types,
      [&] {
        SmallVector<Value> loaded;
        for (FirstRow &row : firstRows)
          for (const Piece &piece : piecesOf(share.facts, row.which))
            loaded.push_back(loadPiece(piece, b.i32(0)));
        loaded.push_back(
            pageId(loadPages(share.item), b.add(share.facts.last, -1)));
        return loaded;
      },
      [&] {
        SmallVector<Value> none(pieces, zeroPiece());
        none.push_back(b.i32(0));
        return none;
      });
  for (FirstRow &row : firstRows) {
    ArrayRef<Value> own = ArrayRef(early).take_front(piecesIn(row.which));
    row.pieces.assign(own.begin(), own.end());
    early.erase(early.begin(), early.begin() + own.size());
  }
  lastId = early.front();
}

Value Decode::zeroPiece() {
  return arith::ConstantOp::create(b, b.getZeroAttr(b.i32s(4)));
}

/// Rounds of a warp's lanes over the pieces of a row.
int64_t Decode::piecesIn(Fresh which) {
  const int64_t inRow = headDim() / kPieceColumns;
  return llvm::divideCeil(which == Fresh::Both ? 2 * inRow : inRow, 32);
}

/// What a lane moves of each row: 16 bytes of a key or of a value. Lanes that
/// are left over do what the last one does.
SmallVector<Decode::Piece> Decode::piecesOf(const Facts &facts, Fresh which) {
  const int64_t inRow = headDim() / kPieceColumns;
  auto source = [&](size_t tensor, Value place) {
    return rowOf(tensor, place, facts.kvHead, Value());
  };
  auto stride = [&](size_t tensor) {
    return b.loadField(args, tensor + offsetof(moa_gpu_rows, token_stride),
                       b.getI64Type());
  };
  constexpr size_t k = offsetof(moa_gpu_decode_args, k),
                   v = offsetof(moa_gpu_decode_args, v);
  Value keys, values;
  if (which != Fresh::Values)
    keys = source(k, facts.k);
  if (which != Fresh::Keys)
    values = source(v, facts.v);
  Value lane = b.bitAnd(opaque(b.threadId()), 31);
  const bool both = which == Fresh::Both;
  const int64_t numbers = both ? 2 * inRow : inRow;
  SmallVector<Piece> pieces;
  for (int64_t from = 0; from < numbers; from += 32) {
    Value number = b.min(b.add(lane, from), b.i32(numbers - 1));
    // Of the page; what is held has both, or this one alone.
    Value half =
        both ? b.divide(number, inRow) : b.i32(which == Fresh::Values ? 1 : 0);
    Value inHalf = both ? b.remainder(number, inRow) : number;
    Piece piece;
    piece.column = b.mul(inHalf, kPieceColumns);
    piece.pageRow = b.add(b.mul(half, MOA_BLOCK_KEYS), warpRow);
    piece.row = both ? piece.pageRow : warpRow;
    Value base;
    if (both) {
      Value isKey = b.equal(half, 0);
      base = b.select(isKey, keys, values);
      piece.stride = b.select(isKey, stride(k), stride(v));
    } else {
      base = keys ? keys : values;
      piece.stride = stride(keys ? k : v);
    }
    piece.source = b.offset(base, b.mul(inHalf, kPiece));
    pieces.push_back(piece);
  }
  return pieces;
}

/// Of a token, counted from the first fresh one.
Value Decode::loadPiece(const Piece &piece, Value token) {
  Value elements = arith::MulIOp::create(b, b.wide(token), piece.stride);
  Value two = arith::ConstantOp::create(b, b.getI64IntegerAttr(2));
  Value bytes = arith::MulIOp::create(b, elements, two);
  return LLVM::LoadOp::create(b, b.i32s(4), b.offset(piece.source, bytes),
                              kPiece);
}

/// Rows of the warp in the page whose first key is `firstKey`: `fresh` gets
/// those that are fresh, `behind` those behind the last key.
void Decode::forFresh(Value firstKey, ArrayRef<Piece> pieces,
                      ArrayRef<Value> firstRow, FreshRow fresh,
                      llvm::function_ref<void(Value)> behind) {
  Value key = b.add(firstKey, warpRow);
  Value from = b.max(b.sub(freshFrom, key), b.i32(0));
  Value last = b.max(b.min(b.sub(length, key), b.i32(kRows)), b.i32(0));
  Value tokens = b.sub(length, freshFrom);
  const SmallVector<Type> types(rowsAtOnce() * pieces.size(), b.i32s(4));
  b.loop(from, last, b.i32(rowsAtOnce()), {},
         [&](Value row, ValueRange) -> SmallVector<Value> {
           Value token = b.sub(b.add(key, row), freshFrom);
           auto load = [&] {
             SmallVector<Value> loaded;
             for (int64_t i = 0; i < rowsAtOnce(); ++i) {
               Value own = b.max(b.min(b.add(token, i), b.add(tokens, -1)),
                                 b.i32(asksEarly() ? 1 : 0));
               for (const Piece &piece : pieces)
                 loaded.push_back(loadPiece(piece, own));
             }
             return loaded;
           };
           // Of all but the first token, where that is here already.
           SmallVector<Value> others =
               asksEarly() ? b.branch(b.less(b.i32(1), tokens), types, load,
                                      [&] {
                                        return SmallVector<Value>(types.size(),
                                                                  zeroPiece());
                                      })
                           : load();
           for (int64_t i = 0; i < rowsAtOnce(); ++i) {
             Value isFirst = b.equal(b.add(token, i), 0);
             SmallVector<Value> values;
             for (size_t n = 0; n < pieces.size(); ++n) {
               Value other = others[i * pieces.size() + n];
               values.push_back(
                   asksEarly() ? b.select(isFirst, firstRow[n], other) : other);
             }
             Value own = b.add(row, i);
             b.ifThen(b.less(own, last), [&] { fresh(own, values); });
           }
           return {};
         });
  b.loop(last, b.i32(kRows), b.i32(1), {},
         [&](Value row, ValueRange) -> SmallVector<Value> {
           behind(row);
           return {};
         });
}

/// Into the tile, which the warp is about to read, and into the pool. Values
/// behind the last key meet weights of zero, which a NaN survives.
void Decode::addFresh(const Share &share, Value page, Value firstKey,
                      Value held, Fresh which) {
  const int64_t rowBytes = headDim() * 2;
  const FirstRow *first = llvm::find_if(
      firstRows, [&](const FirstRow &row) { return row.which == which; });
  Value touched = b.less(freshFrom, b.add(b.add(firstKey, warpRow), kRows));
  b.ifThen(touched, [&] {
    // Read anew: registers are few.
    const Facts facts = loadFacts(opaque(share.item));
    SmallVector<Piece> pieces = piecesOf(facts, which);
    Value pool = b.loadField(args, offsetof(moa_gpu_decode_args, pool),
                             b.globalPointer());
    auto idOf = [&] {
      return SmallVector<Value>{pageId(loadPages(share.item), page)};
    };
    Value id =
        asksEarly()
            ? b.branch(
                  b.equal(b.sub(share.facts.last, page), 1), b.getI32Type(),
                  [&] { return SmallVector<Value>{lastId}; }, idOf)[0]
            : idOf()[0];
    Value target = b.element(pool, id, 2 * MOA_BLOCK_KEYS * rowBytes);
    auto put = [&](const Piece &piece, Value row, Value value) {
      StorePieceOp::create(b, value, held, b.add(piece.row, row), piece.column);
    };
    auto store = [&](const Piece &piece, Value row, Value value) {
      Value bytes = b.add(b.mul(b.add(piece.pageRow, row), rowBytes),
                          b.mul(piece.column, 2));
      LLVM::StoreOp::create(b, value, b.offset(target, bytes), kPiece);
    };
    // The page in the pool has zeros behind its last key already unless it is
    // new, or gets them, or keys, from another item.
    Value clears = b.either(
        b.less(b.i32(0), facts.zero),
        b.both(b.equal(facts.zero, 0), b.lessEqual(freshFrom, firstKey)));
    forFresh(
        firstKey, pieces, first->pieces,
        [&](Value row, ArrayRef<Value> values) {
          for (auto [piece, value] : llvm::zip_equal(pieces, values)) {
            put(piece, row, value);
            store(piece, row, value);
          }
        },
        [&](Value row) {
          for (const Piece &piece : pieces)
            put(piece, row, zeroPiece());
          b.ifThen(clears, [&] {
            for (const Piece &piece : pieces)
              store(piece, row, zeroPiece());
          });
        });
    SealOp::create(b);
  });
}
