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
#include <limits>

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

/// Rows of a page that are one warp's, and bytes that a lane moves at a time.
static constexpr int64_t kRows = 16, kPiece = 16, kPieceColumns = 8;

/// Without fresh keys no key is behind the first of them.
void Decode::findFresh(const Share &share) {
  Value fresh = b.loadField(share.place, offsetof(moa_gpu_decode_item, fresh),
                            b.getI32Type());
  freshFrom = b.select(b.less(b.i32(0), fresh), b.sub(length, fresh),
                       b.i32(std::numeric_limits<int32_t>::max()));
}

/// What a lane moves of each row: 16 bytes of a key or of a value. Lanes that
/// are left over do what the last one does.
SmallVector<Decode::Piece> Decode::piecesOf(const Share &share, Value page,
                                            Fresh which) {
  const int64_t inRow = headDim() / kPieceColumns, rowBytes = headDim() * 2;
  Value item = opaque(share.item);
  Value place = b.element(items, item, sizeof(moa_gpu_decode_item));
  auto field = [&](size_t offset, Type type) {
    return b.loadField(place, offset, type);
  };
  Type i64 = b.getI64Type();
  Value kvHead = field(offsetof(moa_gpu_decode_item, kv_head), b.getI32Type());
  auto source = [&](size_t tensor, size_t where) {
    return rowOf(tensor, field(where, i64), kvHead, Value());
  };
  auto stride = [&](size_t tensor) {
    return b.loadField(args, tensor + offsetof(moa_gpu_rows, token_stride),
                       i64);
  };
  constexpr size_t k = offsetof(moa_gpu_decode_args, k),
                   v = offsetof(moa_gpu_decode_args, v);
  Value keys, values;
  if (which != Fresh::Values)
    keys = source(k, offsetof(moa_gpu_decode_item, k));
  if (which != Fresh::Keys)
    values = source(v, offsetof(moa_gpu_decode_item, v));
  Value pool =
      b.loadField(args, offsetof(moa_gpu_decode_args, pool), b.globalPointer());
  Value id = pageId(loadPages(item), page);
  Value target = b.element(pool, id, 2 * MOA_BLOCK_KEYS * rowBytes);
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
    Value inPage = b.add(b.mul(half, MOA_BLOCK_KEYS), warpRow);
    piece.row = both ? inPage : warpRow;
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
    piece.target =
        b.offset(target, b.add(b.mul(inPage, rowBytes), b.mul(inHalf, kPiece)));
    pieces.push_back(piece);
  }
  return pieces;
}

/// Rows of the warp from the first fresh key on; all its lanes take part, or
/// none.
void Decode::addFresh(const Share &share, Value page, Value firstKey,
                      Value held, Fresh which) {
  Value key = b.add(firstKey, warpRow);
  b.ifThen(b.less(freshFrom, b.add(key, kRows)), [&] {
    SmallVector<Piece> pieces = piecesOf(share, page, which);
    auto inPage = [&](const Piece &piece, Value row) {
      return b.offset(piece.target, b.mul(row, headDim() * 2));
    };
    auto put = [&](const Piece &piece, Value row, Value value) {
      StorePieceOp::create(b, value, held, b.add(piece.row, row), piece.column);
    };
    Value from = b.max(b.sub(freshFrom, key), b.i32(0));
    Value behind = b.max(b.min(b.sub(length, key), b.i32(kRows)), b.i32(0));
    b.loop(from, behind, b.i32(1), {},
           [&](Value row, ValueRange) -> SmallVector<Value> {
             Value token = b.wide(b.sub(b.add(key, row), freshFrom));
             SmallVector<Value> loaded;
             for (const Piece &piece : pieces) {
               Value bytes = arith::MulIOp::create(
                   b, arith::MulIOp::create(b, token, piece.stride),
                   arith::ConstantOp::create(b, b.getI64IntegerAttr(2)));
               loaded.push_back(LLVM::LoadOp::create(
                   b, b.i32s(4), b.offset(piece.source, bytes), kPiece));
             }
             for (auto [piece, value] : llvm::zip_equal(pieces, loaded)) {
               put(piece, row, value);
               LLVM::StoreOp::create(b, value, inPage(piece, row), kPiece);
             }
             return {};
           });
    // Values behind the last key meet weights of zero, which a NaN survives.
    // The page in the pool has zeros there already unless it is new, or gets
    // them, or keys, from another item.
    Value zeros = arith::ConstantOp::create(b, b.getZeroAttr(b.i32s(4)));
    Value zero = b.loadField(share.place, offsetof(moa_gpu_decode_item, zero),
                             b.getI32Type());
    Value clears =
        b.either(b.less(b.i32(0), zero),
                 b.both(b.equal(zero, 0), b.lessEqual(freshFrom, firstKey)));
    b.loop(behind, b.i32(kRows), b.i32(1), {},
           [&](Value row, ValueRange) -> SmallVector<Value> {
             for (const Piece &piece : pieces)
               put(piece, row, zeros);
             b.ifThen(clears, [&] {
               for (const Piece &piece : pieces)
                 LLVM::StoreOp::create(b, zeros, inPage(piece, row), kPiece);
             });
             return {};
           });
    SealOp::create(b);
  });
}
