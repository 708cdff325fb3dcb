//===- DecodeLoad.cpp - Decode: what the loading warp does ----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The warp reads the ids of up to 32 pages at a time, a lane each, and hands
// them out one by one. What the pages behind those need, ids and the next
// item's tables, is on its way meanwhile: with memory saturated a read takes as
// long as a page.
//
//===----------------------------------------------------------------------===//

#include "Decode.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

Decode::Pages Decode::loadPages(Value item) {
  Value place = b.element(items, item, sizeof(moa_gpu_decode_item));
  auto field = [&](size_t offset) {
    return b.loadField(place, offset, b.getI32Type());
  };
  Value first = b.loadI32(starts, item);
  Pages run;
  run.item = item;
  run.to = b.min(b.loadI32(starts, b.add(item, 1)), end);
  run.sinkEnd = b.add(first, field(offsetof(moa_gpu_decode_item, sink_pages)));
  run.sinkTable = b.sub(field(offsetof(moa_gpu_decode_item, table)), first);
  run.windowTable =
      b.sub(field(offsetof(moa_gpu_decode_item, window_table)), first);
  return run;
}

Value Decode::pageId(const Pages &run, Value page) {
  Value table =
      b.select(b.less(page, run.sinkEnd), run.sinkTable, run.windowTable);
  return b.loadI32(tables, b.add(table, page));
}

/// It waits for no launch before this one: the pages, but for rows that come
/// from the call, and what says where they are have been written earlier.
///
/// Pages are put in runs of up to 32 of one item. A run at hand, `own`, has its
/// ids in the lanes; those of the run behind are asked for before the first
/// page is put, and so are the tables of the item behind that run's.
void Decode::produce() {
  NVVM::PrefetchOp::create(b, NVVM::PrefetchCacheLevelAttr(),
                           NVVM::CacheEvictionPriorityAttr(), args, Value(),
                           b.getUnitAttr());
  Value lane = b.bitAnd(b.threadId(), 31), lastItem = b.add(count, -1);
  // Lanes behind the last page of an item read that page's id again.
  auto idsFrom = [&](const Pages &run, Value page) {
    return pageId(run, b.min(b.add(page, lane), b.add(run.to, -1)));
  };
  auto flatten = [](Value page, Value ids, const Pages &own,
                    const Pages &next) -> SmallVector<Value> {
    return {page,        ids,           own.item,        own.to,
            own.sinkEnd, own.sinkTable, own.windowTable, next.item,
            next.to,     next.sinkEnd,  next.sinkTable,  next.windowTable};
  };
  auto rebuild = [](ValueRange v) {
    return Pages{v[0], v[1], v[2], v[3], v[4]};
  };
  b.ifThen(b.less(begin, end), [&] {
    Pages first = loadPages(firstItem);
    Pages second = loadPages(b.min(b.add(firstItem, 1), lastItem));
    b.whileLoop(
        flatten(begin, idsFrom(first, begin), first, second),
        [&](ValueRange v) { return b.less(v[0], end); },
        [&](ValueRange v) -> SmallVector<Value> {
          Value page = v[0], ids = v[1];
          Pages own = rebuild(v.slice(2, 5)), next = rebuild(v.slice(7, 5));
          Value behind = b.min(b.add(page, 32), own.to);
          // Behind the block's last page nothing is read for use.
          Value stays =
              b.either(b.less(behind, own.to), b.lessEqual(end, behind));
          auto pick = [&](Value Pages::*part) {
            return b.select(stays, own.*part, next.*part);
          };
          Pages then = {pick(&Pages::item), pick(&Pages::to),
                        pick(&Pages::sinkEnd), pick(&Pages::sinkTable),
                        pick(&Pages::windowTable)};
          Value idsThen = idsFrom(then, behind);
          Pages afterwards = loadPages(b.min(b.add(then.item, 1), lastItem));
          b.loop(page, behind, b.i32(1), {},
                 [&](Value at, ValueRange) -> SmallVector<Value> {
                   putPage(broadcast(ids, b.sub(at, page)), b.sub(at, begin));
                   return {};
                 });
          return flatten(behind, idsThen, then, afterwards);
        });
  });
}

/// The value that lane `lane` has.
Value Decode::broadcast(Value value, Value lane) {
  return NVVM::ShflOp::create(b, value.getType(), b.i32(-1), value, lane,
                              b.i32(31), NVVM::ShflKind::idx, UnitAttr());
}

/// Keys are half 2 * id of the pool, values the one behind.
void Decode::putPage(Value id, Value use) {
  auto put = PutOp::create(b, ring, use, ValueRange{});
  OpBuilder::InsertionGuard guard(b);
  Block *body = b.createBlock(&put.getBody(), {},
                              {tile, BarrierType::get(b.getContext())},
                              {b.getLoc(), b.getLoc()});
  for (int64_t half : {0, 1})
    for (int64_t panel = 0; panel < tile.getPanels(); ++panel)
      CopyInOp::create(b, args, b.i32(panel * MOA_GPU_PANEL), b.i32(0),
                       b.add(b.mul(id, 2), half), body->getArgument(0),
                       b.getDenseI64ArrayAttr({half, panel}),
                       body->getArgument(1));
}
