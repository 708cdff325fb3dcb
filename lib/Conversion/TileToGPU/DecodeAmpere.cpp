//===- DecodeAmpere.cpp - Decode from sm_80 on ----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Four warps fetch and compute, all on one page; what else memory is to be kept
// busy with, other blocks of the multiprocessor ask for. Keys and values of a
// page follow one another through the same places in shared memory:
//
//   await keys(p);   fetch ahead; put fresh ones; S^T = K Q^T; softmax
//   await values(p); fetch ahead; put fresh ones; O^T += V^T P^T
//
// What is fetched is ahead of what is computed, in this item or the next: a
// cursor walks the line in front.
//
//===----------------------------------------------------------------------===//

#include "Decode.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

namespace {

class DecodeAmpere : public Decode {
public:
  DecodeAmpere(OpBuilder &builder, Location loc, const KernelForm &form,
               int64_t sharedBytes)
      : Decode(builder, loc, form), sharedBytes(sharedBytes),
        tile(SharedType::get(builder.getContext(), MOA_BLOCK_KEYS,
                             llvm::alignTo(form.headDim, MOA_GPU_PANEL),
                             form.element)) {
    firstRows = {{Fresh::Keys, {}}, {Fresh::Values, {}}};
  }

private:
  /// Where fetches are. The run of pages behind that at hand is read ahead, and
  /// so are ids: as long before their use as a page takes.
  struct Cursor {
    Value page;      ///< Whose id is read next.
    Pages own, next; ///< The run that it is in (without item), and the next.
    SmallVector<Value> ids; ///< Of pages before it, in their order.
    /// Scales of the page to be computed, where it may have codes, as i32.
    SmallVector<Value> scales;
  };

  int64_t streams() const override { return 1; }
  /// Most that a thread of two blocks can have, or of three where shared memory
  /// has room for them.
  int64_t registers() const override { return headDim() <= 64 ? 168 : 255; }
  int64_t loaders() const override { return 0; }
  void placePages(int64_t bytes) override;
  void run() override;

  Cursor start();
  Value advance(Cursor &cursor);
  void fetchHalf(Value id, int64_t half, Value page, Value use);
  State attend(const Share &share, Value page, const State &state,
               Cursor &cursor);
  static SmallVector<Value> flattenCursor(const Cursor &cursor);
  Cursor rebuildCursor(ValueRange values) const;
  SmallVector<Value> loadScales(Value place);
  /// Ids that are kept: of the pages whose keys and values are fetched next,
  /// or, where codes have scales, from the page to be computed on.
  int64_t idsKept() const { return form.kv8 ? ahead() + 1 : 2; }
  /// How many pages before the step on a page its keys are fetched; values are
  /// one step later.
  int64_t ahead() const { return places / 2; }
  Value i64(int64_t value) {
    return arith::ConstantOp::create(b, b.getI64IntegerAttr(value));
  }

  const int64_t sharedBytes;
  const SharedType tile; ///< Keys or values of a page.
  int64_t places = 0;
  Value buffers, pool;
};

} // namespace

void DecodeAmpere::placePages(int64_t bytes) {
  places = bytes + 4 * tile.getBytes() <= sharedBytes ? 4 : 2;
  buffers =
      BuffersOp::create(b, BuffersType::get(b.getContext(), places, tile));
}

//===----------------------------------------------------------------------===//
// The cursor
//===----------------------------------------------------------------------===//

SmallVector<Value> DecodeAmpere::flattenCursor(const Cursor &cursor) {
  const Pages &own = cursor.own, &next = cursor.next;
  SmallVector<Value> values = {
      cursor.page, own.to,  own.sinkEnd,  own.sinkTable,  own.windowTable,
      next.item,   next.to, next.sinkEnd, next.sinkTable, next.windowTable};
  values.append(cursor.ids);
  values.append(cursor.scales);
  return values;
}

DecodeAmpere::Cursor DecodeAmpere::rebuildCursor(ValueRange v) const {
  const size_t scales = form.kv8 ? MOA_KV8_SCALES : 0;
  return {v[0],
          {Value(), v[1], v[2], v[3], v[4]},
          {v[5], v[6], v[7], v[8], v[9]},
          SmallVector<Value>(v.drop_front(10).drop_back(scales)),
          SmallVector<Value>(v.take_back(scales))};
}

/// Those of the page that a place is in; of any page if it has no codes.
SmallVector<Value> DecodeAmpere::loadScales(Value place) {
  Value table = b.loadField(args, offsetof(moa_gpu_decode_args, scales),
                            b.globalPointer());
  Value page = b.select(hasCodes(place), pageOf(place), b.i32(0));
  return b.loadStruct(table, page, 4 * MOA_KV8_SCALES);
}

/// Returns the id of the cursor's page, and goes to the next. Behind the
/// block's last page it is that page's id again, which no one fetches.
Value DecodeAmpere::advance(Cursor &cursor) {
  Pages &own = cursor.own, &next = cursor.next;
  Value id = pageId(own, b.min(cursor.page, b.add(own.to, -1)));
  cursor.page = b.add(cursor.page, 1);
  Value leaves = b.both(b.lessEqual(own.to, cursor.page), b.less(own.to, end));
  SmallVector<Type> types(9, b.getI32Type());
  SmallVector<Value> runs = b.branch(
      leaves, types,
      [&]() -> SmallVector<Value> {
        Pages then = loadPages(itemBehind(next.item));
        return {next.to,          next.sinkEnd,   next.sinkTable,
                next.windowTable, then.item,      then.to,
                then.sinkEnd,     then.sinkTable, then.windowTable};
      },
      [&]() -> SmallVector<Value> {
        return {own.to,          own.sinkEnd,    own.sinkTable,
                own.windowTable, next.item,      next.to,
                next.sinkEnd,    next.sinkTable, next.windowTable};
      });
  own = {Value(), runs[0], runs[1], runs[2], runs[3]};
  next = {runs[4], runs[5], runs[6], runs[7], runs[8]};
  return id;
}

/// The cursor behind the ids of the block's first pages, one more than are
/// ahead. A block without pages reads nothing.
DecodeAmpere::Cursor DecodeAmpere::start() {
  SmallVector<Type> types(10 + ahead() + 1 + (form.kv8 ? MOA_KV8_SCALES : 0),
                          b.getI32Type());
  return rebuildCursor(b.branch(
      b.less(begin, end), types,
      [&] {
        Cursor cursor;
        cursor.page = begin;
        cursor.own = first;
        cursor.next = second;
        for (int64_t i = 0; i <= ahead(); ++i)
          cursor.ids.push_back(advance(cursor));
        if (form.kv8)
          cursor.scales = loadScales(cursor.ids.front());
        return flattenCursor(cursor);
      },
      [&] { return SmallVector<Value>(types.size(), b.i32(0)); }));
}

/// Keys (0) or values (1) of a line page, if the block has it.
void DecodeAmpere::fetchHalf(Value id, int64_t half, Value page, Value use) {
  const int64_t rowBytes = form.headDim * 2, bytes = MOA_BLOCK_KEYS * rowBytes;
  if (!form.kv8) {
    Value start = arith::MulIOp::create(b, b.wide(id), i64(2 * bytes));
    FetchOp::create(b, b.offset(b.offset(pool, start), half * bytes),
                    i64(rowBytes), b.i32(0), b.i32(MOA_BLOCK_KEYS),
                    form.headDim, buffers, use, b.less(page, end), Value());
    return;
  }
  // A page has four quarters: codes of keys or values of a block fill one,
  // elements two.
  Value codes = hasCodes(id);
  Value page2 = b.bitAnd(id, (int64_t(1) << MOA_GPU_CODES_SHIFT) - 1);
  Value start = arith::MulIOp::create(
      b,
      b.select(codes, b.wide(b.add(b.mul(page2, 2), half)),
               arith::MulIOp::create(b, b.wide(id), i64(4)).getResult()),
      i64(bytes / 2));
  Value ofHalf = b.select(codes, i64(0), i64(half * bytes));
  FetchOp::create(b, b.offset(b.offset(pool, start), ofHalf),
                  b.select(codes, i64(form.headDim), i64(rowBytes)), b.i32(0),
                  b.i32(MOA_BLOCK_KEYS), form.headDim, buffers, use,
                  b.less(page, end), codes);
}

//===----------------------------------------------------------------------===//
// Steps
//===----------------------------------------------------------------------===//

void DecodeAmpere::run() {
  takePlace(WarpOp::create(b, b.getI32Type()));
  pool =
      b.loadField(args, offsetof(moa_gpu_decode_args, pool), b.globalPointer());
  Cursor first = start();
  for (int64_t use = 0; use < places - 1; ++use)
    fetchHalf(first.ids[use / 2], use % 2, b.add(begin, use / 2), b.i32(use));
  first.ids.erase(first.ids.begin(), first.ids.end() - idsKept());
  auto body = [&](const Share &share, ValueRange cursor) {
    loadQueries(share);
    SmallVector<Value> init = flatten(emptyState());
    const size_t size = init.size();
    init.append(cursor.begin(), cursor.end());
    SmallVector<Value> result =
        b.loop(share.from, share.to, b.i32(1), init,
               [&](Value page, ValueRange carried) {
                 Cursor own = rebuildCursor(carried.drop_front(size));
                 State state = rebuild(carried.take_front(size));
                 SmallVector<Value> values =
                     flatten(attend(share, page, state, own));
                 values.append(flattenCursor(own));
                 return values;
               });
    mergeWarps(share, rebuild(ValueRange(result).take_front(size)));
    return SmallVector<Value>(ValueRange(result).drop_front(size));
  };
  forShares(loadFacts(firstItem), flattenCursor(first), body);
}

/// Uses 2 i and 2 i + 1 are those of the block's page i; places - 1 uses are
/// fetched ahead.
Decode::State DecodeAmpere::attend(const Share &share, Value page,
                                   const State &state, Cursor &cursor) {
  Value use = b.mul(b.sub(page, begin), 2), behind = b.add(use, 1);
  Value newer = cursor.ids.back(), older = cursor.ids.end()[-2];
  Codes codes;
  if (form.kv8)
    codes = codesOf(cursor.ids.front(), cursor.scales);
  cursor.ids.erase(cursor.ids.begin());
  cursor.ids.push_back(advance(cursor));
  // A page's time before they are used.
  if (form.kv8)
    cursor.scales = loadScales(cursor.ids.front());
  Value firstKey = b.mul(blockNumber(share, page), MOA_BLOCK_KEYS);
  auto keys = [&]() -> Half {
    Value held = AwaitOp::create(b, tile, buffers, use, places - 2);
    fetchHalf(older, 1, b.add(page, ahead() - 1), b.add(use, places - 1));
    addFresh(share, page, firstKey, held, Fresh::Keys);
    return {held, 0};
  };
  auto values = [&]() -> Half {
    Value held = AwaitOp::create(b, tile, buffers, behind, places - 2);
    fetchHalf(newer, 0, b.add(page, ahead()), b.add(use, places));
    addFresh(share, page, firstKey, held, Fresh::Values);
    return {held, 0};
  };
  return step(firstKey, state, keys, values, codes);
}

LLVM::LLVMFuncOp moa::gpu::buildDecodeAmpere(OpBuilder &builder, Location loc,
                                             StringRef name,
                                             const KernelForm &form,
                                             int64_t sharedBytes) {
  return DecodeAmpere(builder, loc, form, sharedBytes).build(name);
}
