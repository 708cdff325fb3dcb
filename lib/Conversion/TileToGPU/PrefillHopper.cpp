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
//   wait O; release values(t-1); rescale O; P = round(S)
//
// The warpgroups take turns in starting products, so that one multiplies while
// another is at its softmax.
//
//===----------------------------------------------------------------------===//

#include "Builder.h"
#include "Kernels.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/abi/gpu_args.h"
#include <limits>

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

namespace {

constexpr int64_t kStages = 2; ///< Of keys and of values.
constexpr int64_t kSharedLimit = 227 * 1024;
/// Named barriers: from 1 on for turns, from 4 on for each warpgroup's own.
constexpr int64_t kTurnBarrier = 1, kGroupBarrier = 4;

/// Registers of a thread at entry, of the loading warp, and of the others: what
/// a block's threads take together is what one block can have.
struct Registers {
  int64_t entry, producer, consumer;
};
Registers registersFor(int64_t warpgroups) {
  return warpgroups == 3 ? Registers{128, 32, 160} : Registers{168, 24, 240};
}

/// An item's fields, and what follows from them for both roles.
struct Item {
  SmallVector<Value> fields;
  Value tiles; ///< Window and sink tiles.
  Value uses;  ///< Stages that the item takes: tiles and the sink block.

  Value field(size_t byteOffset) const { return fields[byteOffset / 4]; }
};
#define FIELD(item, name) (item).field(offsetof(moa_gpu_prefill_item, name))

/// What a step hands to the next: outputs, maximum, sum, probabilities.
struct State {
  Value output, maximum, sum, probabilities;

  SmallVector<Value> values() const {
    return {output, maximum, sum, probabilities};
  }
  static State from(ValueRange v) { return {v[0], v[1], v[2], v[3]}; }
};

/// What a tile's softmax gives.
struct Softmax {
  Value exponents, rescale, maximum, sum;
};

class PrefillHopper {
public:
  PrefillHopper(OpBuilder &builder, Location loc, const KernelForm &form)
      : b(loc, builder), form(form), warpgroups(form.rows / 64),
        padded((form.headDim + MOA_GPU_PANEL - 1) / MOA_GPU_PANEL *
               MOA_GPU_PANEL),
        queryTile(
            SharedType::get(b.getContext(), form.rows, padded, form.element)),
        keyTile(
            SharedType::get(b.getContext(), form.keys, padded, form.element)),
        outputType(vector(padded / 2)) {}

  LLVM::LLVMFuncOp build(StringRef name);

private:
  VectorType vector(int64_t size) {
    return VectorType::get({size}, b.getF32Type());
  }
  LLVM::LLVMFuncOp makeFunction(StringRef name);
  Item itemOf(SmallVector<Value> fields);
  Value tileNumber(const Item &item, Value step);
  Value entryMap(const Item &item, size_t byteOffset);

  void produce();
  void putQueries(const Item &item, Value use);
  SmallVector<Value> blockPlaces(const Item &item, Value step);
  void putTile(const Item &item, Value tile, ValueRange places, Value use);
  void copyBlocks(Block &body, ValueRange ids, Value firstBlock,
                  const Item &item, bool values);

  void consume(Value group);
  Item getQueries(Value use);
  void prepareRows(const Item &item);
  State firstStep(const Item &item, Value firstUse);
  State step(const Item &item, Value step, Value firstUse, const State &state,
             Value group);
  State sinkStep(const Item &item, Value firstUse, Value queryUse,
                 const State &state);
  State lastValues(const Item &item, Value firstUse, Value queryUse,
                   const State &state);
  Softmax softmax(Value scores, const State &old);
  Value masked(const Item &item, Value scores, Value firstKey);
  Value maskWhereNeeded(const Item &item, Value scores, Value tile);
  void store(const Item &item, const State &state, Value group);
  Value startScores(Value keys, int64_t count);
  Value getTile(Value ring, Value use) {
    return GetOp::create(b, keyTile, TypeRange{}, ring, use).getTile();
  }
  Value startValues(Value probabilities, Value values, Value output) {
    return AccumulateOp::create(b, AsyncType::get(b.getContext(), outputType),
                                probabilities, values, output);
  }
  Value scales(); ///< The scale, once a row.
  Value boundOf(Value maximum, bool mayBeEmpty);
  Value pack(Value fragment);
  Value splat(VectorType type, float value) {
    return arith::ConstantOp::create(b, DenseElementsAttr::get(type, value));
  }
  Value nextTurn(Value group);
  void turn(BarrierAction action, Value barrier) {
    BarrierOp::create(b, action, barrier, 2 * 128);
  }
  void oneThread(llvm::function_ref<void()> body) {
    auto op = OneThreadOp::create(b);
    OpBuilder::InsertionGuard guard(b);
    b.createBlock(&op.getBody());
    body();
  }
  Value wait(Value product, int64_t pending) {
    return WaitOp::create(b, cast<AsyncType>(product.getType()).getFragment(),
                          product, pending);
  }

  KernelBuilder b;
  const KernelForm form;
  const int64_t warpgroups; ///< That compute.
  const int64_t padded;     ///< Head size rounded up to whole panels.
  const SharedType queryTile, keyTile;
  const VectorType outputType;

  Value maps, items, tables, starts, count, sink, scale; ///< Parameters.
  Value queryRing, keyRing, valueRing;
  Value staging; ///< Null where outputs leave through the query tile.
  // Of the item at hand, in a consumer.
  Value queries, groupRow, position, lanePosition, start0, start1, startMax;
};

} // namespace

LLVM::LLVMFuncOp PrefillHopper::makeFunction(StringRef name) {
  MLIRContext *ctx = b.getContext();
  Type global = b.globalPointer(), i32 = b.getI32Type();
  auto function = LLVM::LLVMFuncOp::create(
      b, name,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(ctx),
                                  {LLVM::LLVMPointerType::get(ctx), global,
                                   global, global, i32, i32, b.getF32Type()}));
  auto mapBytes =
      LLVM::LLVMArrayType::get(b.getI8Type(), sizeof(moa_gpu_prefill_maps));
  function.setArgAttr(0, "llvm.byval", TypeAttr::get(mapBytes));
  function.setArgAttr(0, "llvm.align", b.getI64IntegerAttr(64));
  function->setAttr("nvvm.kernel", b.getUnitAttr());
  function.setArgAttr(0, "nvvm.grid_constant", b.getUnitAttr());
  for (unsigned i : {1, 2, 3}) {
    function.setArgAttr(i, "llvm.noalias", b.getUnitAttr());
    function.setArgAttr(i, "llvm.readonly", b.getUnitAttr());
  }
  function->setAttr(kLaunchAttrName,
                    LaunchAttr::get(ctx, 128 * (warpgroups + 1),
                                    registersFor(warpgroups).entry, form.rows,
                                    form.keys));
  return function;
}

LLVM::LLVMFuncOp PrefillHopper::build(StringRef name) {
  LLVM::LLVMFuncOp function = makeFunction(name);
  OpBuilder::InsertionGuard guard(b);
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToStart(entry);
  maps = entry->getArgument(0);
  items = entry->getArgument(1);
  tables = entry->getArgument(2);
  starts = entry->getArgument(3);
  count = entry->getArgument(4);
  sink = entry->getArgument(5);
  scale = entry->getArgument(6);

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

//===----------------------------------------------------------------------===//
// The loading warp
//===----------------------------------------------------------------------===//

void PrefillHopper::produce() {
  Value zero = b.i32(0), one = b.i32(1);
  b.loop(
      b.blockId(), count, b.gridSize(), {zero, zero},
      [&](Value number, ValueRange carried) -> SmallVector<Value> {
        Item item =
            itemOf(b.loadStruct(items, number, sizeof(moa_gpu_prefill_item)));
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
                       body->getArgument(1));
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
          b.getDenseI64ArrayAttr({int64_t(i), panel}), body.getArgument(1));
  }
}

//===----------------------------------------------------------------------===//
// The warpgroups that compute
//===----------------------------------------------------------------------===//

void PrefillHopper::consume(Value group) {
  Value zero = b.i32(0), one = b.i32(1);
  groupRow = b.mul(group, 64);
  // The first turn is warpgroup 0's: the last one gives it away.
  b.branch(
      b.less(b.i32(warpgroups - 2), group), {},
      [&]() -> SmallVector<Value> {
        turn(BarrierAction::Arrive, b.i32(kTurnBarrier));
        return {};
      },
      [] { return SmallVector<Value>(); });
  b.loop(
      b.blockId(), count, b.gridSize(), {zero, zero},
      [&](Value number, ValueRange carried) -> SmallVector<Value> {
        Value firstUse = carried[0], queryUse = carried[1];
        Item item = getQueries(queryUse);
        prepareRows(item);
        State state = firstStep(item, firstUse);
        state = State::from(b.loop(
            one, item.tiles, one, state.values(), [&](Value t, ValueRange v) {
              return step(item, t, firstUse, State::from(v), group).values();
            }));
        auto hasSink = b.less(zero, FIELD(item, sink_block));
        SmallVector<Type> types;
        for (Value value : state.values())
          types.push_back(value.getType());
        state = State::from(b.branch(
            hasSink, types,
            [&] { return sinkStep(item, firstUse, queryUse, state).values(); },
            [&] {
              return lastValues(item, firstUse, queryUse, state).values();
            }));
        store(item, state, group);
        if (!staging)
          ReleaseOp::create(b, queryRing, queryUse);
        return {b.add(firstUse, item.uses), b.add(queryUse, 1)};
      });
  oneThread([&] { CopyOutWaitOp::create(b); });
}

/// Waits for an item's queries and the item.
Item PrefillHopper::getQueries(Value use) {
  SmallVector<Type> words(sizeof(moa_gpu_prefill_item) / 4, b.getI32Type());
  auto get = GetOp::create(b, queryTile, words, queryRing, use);
  queries = get.getTile();
  return itemOf(SmallVector<Value>(get.getWords()));
}

/// Positions and window starts of the thread's two rows, and the largest start
/// of the warpgroup's.
void PrefillHopper::prepareRows(const Item &item) {
  Value laneRow = LaneRowOp::create(b, b.getI32Type());
  position = b.add(FIELD(item, position), groupRow);
  lanePosition = b.add(position, laneRow);
  SmallVector<Value> loaded = b.branch(
      b.less(FIELD(item, starts), b.i32(0)),
      {b.getI32Type(), b.getI32Type(), b.getI32Type()},
      [&]() -> SmallVector<Value> {
        Value start = b.sub(b.add(lanePosition, 1), FIELD(item, local));
        Value floor = FIELD(item, floor);
        Value last = b.sub(b.add(position, 64), FIELD(item, local));
        return {b.max(start, floor), b.max(b.add(start, 8), floor),
                b.max(last, floor)};
      },
      [&]() -> SmallVector<Value> {
        Value first = b.add(FIELD(item, starts), groupRow);
        Value index = b.add(first, laneRow);
        return {b.loadI32(starts, index), b.loadI32(starts, b.add(index, 8)),
                b.loadI32(starts, b.add(first, 63))};
      });
  start0 = loaded[0];
  start1 = loaded[1];
  startMax = loaded[2];
}

Value PrefillHopper::startScores(Value keys, int64_t keyCount) {
  return ScoresOp::create(b,
                          AsyncType::get(b.getContext(), vector(keyCount / 2)),
                          queries, groupRow, keys, keyCount, form.headDim);
}

Value PrefillHopper::masked(const Item &item, Value scores, Value firstKey) {
  return MaskOp::create(b, scores.getType(), scores, lanePosition, firstKey,
                        start0, start1, sink);
}

/// Masks a tile that the diagonal or the left end of a window cuts.
Value PrefillHopper::maskWhereNeeded(const Item &item, Value scores,
                                     Value tile) {
  Value firstKey = b.mul(tile, form.keys);
  Value end = b.add(firstKey, form.keys);
  Value diagonal = b.less(b.add(position, 1), end);
  Value edge = b.both(b.less(firstKey, startMax), b.less(sink, end));
  return b.branch(
      b.either(diagonal, edge), scores.getType(),
      [&]() -> SmallVector<Value> { return {masked(item, scores, firstKey)}; },
      [&]() -> SmallVector<Value> { return {scores}; })[0];
}

/// Scores become probabilities in f32, and the state's maximum and sum those
/// with this tile; `rescale` is what outputs so far must be multiplied with.
Softmax PrefillHopper::softmax(Value scores, const State &old) {
  auto pair = vector(2);
  Softmax result;
  Value high = RowReduceOp::create(b, pair, Reduction::Max, scores);
  high = LaneReduceOp::create(b, pair, Reduction::Max, high);
  high = arith::MaxNumFOp::create(b, high, old.maximum);
  Value bound = boundOf(high, /*mayBeEmpty=*/form.keys < form.rows);
  result.exponents = Exp2Op::create(b, scores.getType(), scores, scale, bound);
  result.rescale = Exp2Op::create(b, pair, old.maximum, scale, bound);
  Value added = RowReduceOp::create(b, pair, Reduction::Add, result.exponents);
  result.maximum = high;
  result.sum = arith::AddFOp::create(
      b, arith::MulFOp::create(b, old.sum, result.rescale), added);
  return result;
}

Value PrefillHopper::scales() {
  return vector::BroadcastOp::create(b, vector(2), scale);
}

Value PrefillHopper::pack(Value fragment) {
  int64_t size = cast<VectorType>(fragment.getType()).getNumElements();
  return PackOp::create(b, VectorType::get({size / 2}, b.getI32Type()),
                        fragment, TypeAttr::get(form.element));
}

/// The maximum times the scale; 0 for a row that has not seen a key yet, so
/// that no infinity is taken from another. A row's own key lies less than
/// `rows` behind the last row's: two tiles of as many keys hold it.
Value PrefillHopper::boundOf(Value maximum, bool mayBeEmpty) {
  Value bound = arith::MulFOp::create(b, maximum, scales());
  if (!mayBeEmpty)
    return bound;
  auto pair = vector(2);
  Value none = splat(pair, -std::numeric_limits<float>::infinity());
  Value empty =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, maximum, none);
  return arith::SelectOp::create(b, empty, splat(pair, 0), bound);
}

/// The first tile alone: no outputs to add to or to rescale.
State PrefillHopper::firstStep(const Item &item, Value firstUse) {
  auto pair = vector(2);
  Value keys = getTile(keyRing, firstUse);
  Value scores = wait(startScores(keys, form.keys), 0);
  ReleaseOp::create(b, keyRing, firstUse);
  scores = maskWhereNeeded(item, scores, tileNumber(item, b.i32(0)));
  Value high = RowReduceOp::create(b, pair, Reduction::Max, scores);
  high = LaneReduceOp::create(b, pair, Reduction::Max, high);
  Value bound = boundOf(high, /*mayBeEmpty=*/true);
  Value exponents = Exp2Op::create(b, scores.getType(), scores, scale, bound);
  Value sum = RowReduceOp::create(b, pair, Reduction::Add, exponents);
  return {splat(outputType, 0), high, sum, pack(exponents)};
}

State PrefillHopper::step(const Item &item, Value step, Value firstUse,
                          const State &state, Value group) {
  Value use = b.add(firstUse, step), before = b.add(use, -1);
  Value keys = getTile(keyRing, use);
  turn(BarrierAction::Sync, b.add(group, kTurnBarrier));
  Value product = startScores(keys, form.keys);
  Value values = getTile(valueRing, before);
  Value sums = startValues(state.probabilities, values, state.output);
  turn(BarrierAction::Arrive, nextTurn(group));
  Value scores = wait(product, 1);
  ReleaseOp::create(b, keyRing, use);
  scores = maskWhereNeeded(item, scores, tileNumber(item, step));
  Softmax soft = softmax(scores, state);
  OrderFenceOp::create(b, valueRing, before);
  Value output = wait(sums, 0);
  ReleaseOp::create(b, valueRing, before);
  Value probabilities = pack(soft.exponents);
  output = RowScaleOp::create(b, outputType, output, soft.rescale);
  return {output, soft.maximum, soft.sum, probabilities};
}

/// The barrier of the warpgroup whose turn comes after that of `group`.
Value PrefillHopper::nextTurn(Value group) {
  Value isLast = b.less(b.i32(warpgroups - 2), group);
  return b.select(isLast, b.i32(kTurnBarrier), b.add(group, kTurnBarrier + 1));
}

/// The 64 keys behind the last sink tile, then their values.
State PrefillHopper::sinkStep(const Item &item, Value firstUse, Value queryUse,
                              const State &state) {
  Value use = b.add(firstUse, item.tiles), before = b.add(use, -1);
  Value keys = getTile(keyRing, use);
  Value product = startScores(keys, MOA_BLOCK_KEYS);
  Value values = getTile(valueRing, before);
  Value sums = startValues(state.probabilities, values, state.output);
  Value scores = wait(product, 1);
  ReleaseOp::create(b, keyRing, use);
  if (staging) // The next item's queries load under the rest of this one.
    ReleaseOp::create(b, queryRing, queryUse);
  scores = masked(item, scores, b.mul(FIELD(item, sink_tiles), form.keys));
  Softmax soft = softmax(scores, state);
  OrderFenceOp::create(b, valueRing, before);
  Value output = wait(sums, 0);
  ReleaseOp::create(b, valueRing, before);
  Value probabilities = pack(soft.exponents);
  output = RowScaleOp::create(b, outputType, output, soft.rescale);
  Value sinkValues = getTile(valueRing, use);
  output = wait(startValues(probabilities, sinkValues, output), 0);
  ReleaseOp::create(b, valueRing, use);
  return {output, soft.maximum, soft.sum, state.probabilities};
}

/// The values of the last tile.
State PrefillHopper::lastValues(const Item &item, Value firstUse,
                                Value queryUse, const State &state) {
  if (staging)
    ReleaseOp::create(b, queryRing, queryUse);
  Value use = b.add(b.add(firstUse, item.tiles), -1);
  Value values = getTile(valueRing, use);
  Value output =
      wait(startValues(state.probabilities, values, state.output), 0);
  ReleaseOp::create(b, valueRing, use);
  return {output, state.maximum, state.sum, state.probabilities};
}

/// Divides, rounds, and sends the warpgroup's 64 rows out.
void PrefillHopper::store(const Item &item, const State &state, Value group) {
  auto pair = vector(2);
  Value sum = LaneReduceOp::create(b, pair, Reduction::Add, state.sum);
  Value inverse = ReciprocalOp::create(b, pair, sum);
  Value output = pack(RowScaleOp::create(b, outputType, state.output, inverse));
  Value barrier = b.add(group, kGroupBarrier);
  Value tile = staging ? staging : queries;
  auto meet = [&] { BarrierOp::create(b, BarrierAction::Sync, barrier, 128); };
  if (staging) { // What was there has left.
    oneThread([&] { CopyOutWaitOp::create(b); });
    meet();
  }
  StageOp::create(b, output, tile, groupRow);
  meet();
  oneThread([&] {
    CopyOutOp::create(b, tile, groupRow,
                      entryMap(item, offsetof(moa_gpu_entry_maps, out)),
                      b.add(FIELD(item, row), groupRow), FIELD(item, head));
    if (!staging)
      CopyOutWaitOp::create(b);
  });
}

LLVM::LLVMFuncOp moa::gpu::buildPrefillHopper(OpBuilder &builder, Location loc,
                                              StringRef name,
                                              const KernelForm &form) {
  return PrefillHopper(builder, loc, form).build(name);
}
