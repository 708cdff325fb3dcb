//===- PrefillHopper.cpp - Attention of many rows on Hopper ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One warp loads queries, keys and values through rings; two or three
// warpgroups of 64 rows each compute. A step starts the scores of its tile and
// the values of the tile before, and does its softmax while the values are
// multiplied:
//
//   wait keys(t); start S = Q K(t); start O += P V(t-1)
//   wait S; release keys(t); mask; softmax(S)
//   wait O; release values(t-1); P = round(S); rescale O if a maximum grew much
//
// The warpgroups take turns in starting products, so that one multiplies while
// another is at its softmax.
//
//===----------------------------------------------------------------------===//

#include "PrefillHopper.h"

#include "Kernels.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;
using namespace moa::gpu::prefill;

constexpr int64_t kStages = 2; ///< Of keys and of values.
constexpr int64_t kSharedLimit = 227 * 1024;

/// Registers of a thread at entry, of the loading warp, and of the others: what
/// a block's threads take together is what one block can have.
namespace {
struct Registers {
  int64_t entry, producer, consumer;
};
} // namespace

static Registers registersFor(int64_t warpgroups) {
  return warpgroups == 3 ? Registers{128, 32, 160} : Registers{168, 24, 240};
}

LLVM::LLVMFuncOp PrefillHopper::build(StringRef name) {
  LLVM::LLVMFuncOp function = b.attentionKernel(
      name, sizeof(moa_gpu_prefill_maps), 64, 3, 3, 2,
      LaunchAttr::get(b.getContext(), 128 * (warpgroups + 1),
                      registersFor(warpgroups).entry, form.rows, form.keys));
  OpBuilder::InsertionGuard guard(b);
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToStart(entry);
  maps = entry->getArgument(0);
  items = entry->getArgument(1);
  tables = entry->getArgument(2);
  starts = entry->getArgument(3);
  count = entry->getArgument(4);
  sink = entry->getArgument(5);
  scale = ScoreScale(b, form, entry->getArgument(6));

  MLIRContext *ctx = b.getContext();
  auto ring = [&](int64_t stages, SharedType tile, int64_t words = 0) -> Value {
    return RingOp::create(b, RingType::get(ctx, stages, tile, words),
                          warpgroups);
  };
  // The item travels with its queries, so that it is not fetched again.
  queryRing = ring(1, queryTile, sizeof(moa_gpu_prefill_item) / 4);
  keyRing = ring(kStages, keyTile);
  valueRing = ring(kStages, keyTile);
  // A place of their own for outputs lets the next item's queries load under
  // the end of this one.
  int64_t bytes = queryTile.getBytes() + 2 * kStages * keyTile.getBytes();
  if (bytes + queryTile.getBytes() <= kSharedLimit)
    staging = SharedOp::create(b, queryTile);

  auto roles = RolesOp::create(b, warpgroups, registersFor(warpgroups).producer,
                               registersFor(warpgroups).consumer);
  LLVM::ReturnOp::create(b, ValueRange{});
  b.createBlock(&roles.getProducer());
  produce();
  Block *consumer =
      b.createBlock(&roles.getConsumer(), {}, b.getI32Type(), b.getLoc());
  consume(consumer->getArgument(0));
  return function;
}

Item PrefillHopper::itemOf(SmallVector<Value> fields) {
  Item item;
  item.fields = std::move(fields);
  item.tiles = b.add(FIELD(item, window_tiles), FIELD(item, sink_tiles));
  item.uses = b.add(item.tiles, FIELD(item, sink_block));
  return item;
}

/// Tile of step t: down from the top, then the sink's from its highest, then
/// the one that begins with the sink block.
Value PrefillHopper::tileNumber(const Item &item, Value step) {
  Value inSink =
      b.select(b.less(step, item.tiles), b.sub(b.add(item.tiles, -1), step),
               FIELD(item, sink_tiles));
  return b.select(b.less(step, FIELD(item, window_tiles)),
                  b.sub(FIELD(item, top), step), inSink);
}

Value PrefillHopper::entryMap(const Item &item, size_t byteOffset) {
  Value entry = b.mul(FIELD(item, entry), sizeof(moa_gpu_entry_maps));
  return b.offset(
      maps, b.add(entry, offsetof(moa_gpu_prefill_maps, entries) + byteOffset));
}

LLVM::LLVMFuncOp moa::gpu::buildPrefillHopper(OpBuilder &builder, Location loc,
                                              StringRef name,
                                              const KernelForm &form) {
  return PrefillHopper(builder, loc, form).build(name);
}
