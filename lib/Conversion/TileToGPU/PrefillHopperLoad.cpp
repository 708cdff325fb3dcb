//===- PrefillHopperLoad.cpp - The warp that loads ------------------------===//
//--------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Queries of an item with the item itself, then keys and values tile by tile,
// each block from a page or from the tensors of the call.
//
//===----------------------------------------------------------------------===//

#include "PrefillHopper.h"

#include "mlir/Dialect/LLVMIR/NVVMDialect.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;
using namespace moa::gpu::prefill;

void PrefillHopper::produce() {
  Value zero = b.i32(0), one = b.i32(1);
  b.loop(
      b.blockId(), count, b.gridSize(), {zero, zero},
      [&](Value number, ValueRange carried) -> SmallVector<Value> {
        Item item =
            itemOf(b.loadStruct(items, number, sizeof(moa_gpu_prefill_item)));
        Value following = b.add(number, b.gridSize());
        b.prefetchStruct(items,
                         b.select(b.less(following, count), following, number),
                         sizeof(moa_gpu_prefill_item));
        // Where a tile's blocks lie is read before waiting for a stage for
        // what comes before it.
        SmallVector<Value> first = blockPlaces(item, zero);
        putQueries(item, carried[1]);
        b.loop(zero, item.uses, one, first, [&](Value step, ValueRange places) {
          SmallVector<Value> next = blockPlaces(item, b.add(step, 1));
          putTile(item, tileNumber(item, step), places,
                  b.add(carried[0], step));
          return next;
        });
        return {b.add(carried[0], item.uses), b.add(carried[1], 1)};
      });
}

void PrefillHopper::putQueries(const Item &item, Value use) {
  Value map = entryMap(item, offsetof(moa_gpu_entry_maps, q));
  auto put = PutOp::create(b, queryRing, use, item.fields);
  OpBuilder::InsertionGuard guard(b);
  Block *body = b.createBlock(&put.getBody(), {},
                              {queryTile, BarrierType::get(b.getContext())},
                              {b.getLoc(), b.getLoc()});
  for (int64_t rows = 0; rows < form.rows / 64; ++rows)
    for (int64_t panel = 0; panel < queryTile.getPanels(); ++panel)
      CopyInOp::create(b, map, b.i32(panel * MOA_GPU_PANEL),
                       b.add(FIELD(item, row), 64 * rows), FIELD(item, head),
                       body->getArgument(0),
                       b.getDenseI64ArrayAttr({rows, panel}),
                       body->getArgument(1), /*read_once=*/false);
}

/// Table entries of the blocks of step `step`; behind the last step those of
/// the tile that the sink's block is in, which the table has.
SmallVector<Value> PrefillHopper::blockPlaces(const Item &item, Value step) {
  int64_t blocks = form.keys / MOA_BLOCK_KEYS;
  Value first =
      b.add(FIELD(item, table), b.mul(tileNumber(item, step), blocks));
  SmallVector<Value> places;
  for (int64_t i = 0; i < blocks; ++i)
    places.push_back(b.loadI32(tables, b.add(first, i)));
  return places;
}

void PrefillHopper::putTile(const Item &item, Value tile, ValueRange places,
                            Value use) {
  Value firstBlock = b.mul(tile, form.keys / MOA_BLOCK_KEYS);
  for (bool values : {false, true}) {
    auto put =
        PutOp::create(b, values ? valueRing : keyRing, use, ValueRange{});
    OpBuilder::InsertionGuard guard(b);
    Block *body = b.createBlock(&put.getBody(), {},
                                {keyTile, BarrierType::get(b.getContext())},
                                {b.getLoc(), b.getLoc()});
    copyBlocks(*body, places, firstBlock, item, values);
  }
}

/// Each block of 64 keys comes from a page or from the call's own tensor.
void PrefillHopper::copyBlocks(Block &body, ValueRange ids, Value firstBlock,
                               const Item &item, bool values) {
  Value own = entryMap(item, values ? offsetof(moa_gpu_entry_maps, v)
                                    : offsetof(moa_gpu_entry_maps, k));
  Value pool = b.offset(maps, int64_t(offsetof(moa_gpu_prefill_maps, pool)));
  Value callStart = b.sub(FIELD(item, position), FIELD(item, row));
  for (auto [i, id] : llvm::enumerate(ids)) {
    Value fromCall = b.less(id, b.i32(0));
    Value row = b.sub(b.mul(b.add(firstBlock, i), MOA_BLOCK_KEYS), callStart);
    Value map = LLVM::SelectOp::create(b, fromCall, own, pool);
    row = b.select(fromCall, row, b.i32(0));
    Value plane = b.select(fromCall, FIELD(item, kv_head),
                           b.add(b.mul(id, 2), values ? 1 : 0));
    for (int64_t panel = 0; panel < keyTile.getPanels(); ++panel)
      CopyInOp::create(
          b, map, b.i32(panel * MOA_GPU_PANEL), row, plane, body.getArgument(0),
          b.getDenseI64ArrayAttr({int64_t(i), panel}), body.getArgument(1),
          /*read_once=*/false);
  }
}
