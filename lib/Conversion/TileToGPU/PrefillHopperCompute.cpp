//===- PrefillHopperCompute.cpp - Warpgroups that compute -----------------===//
//-------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The steps of PrefillHopper.cpp: the first tile, the loop over the others, the
// sink's block, the last values, the rows that leave.
//
//===----------------------------------------------------------------------===//

#include "PrefillHopper.h"

#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include <limits>

using namespace mlir;
using namespace moa;
using namespace moa::gpu;
using namespace moa::gpu::prefill;

/// By how much, in powers of two, a score may exceed the maximum that its row
/// goes by. Probabilities are then at most 2^8, far from the end of f16 (65504)
/// as of bf16; with as much more of a sum or an output, both f32, than relative
/// to the true maximum. A maximum that is too low makes no probability smaller:
/// none is lost that the true one would keep, and the key that set it has 1.
constexpr float kSlack = 8;

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
/// with this tile. A row takes a new maximum only if a score exceeds the old
/// one by more than kSlack, so that outputs, which are many, seldom need
/// rescaling. Where the maximum stays, the factor is exactly 1: it does not
/// matter to a row whether others of the warp rescale.
Softmax PrefillHopper::softmax(Value scores, const State &old) {
  auto pair = vector(2);
  Softmax result;
  Value high = scaledMaximum(scores);
  Value reach = arith::AddFOp::create(b, old.maximum, splat(pair, kSlack));
  Value grown =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OGT, high, reach);
  result.maximum = arith::SelectOp::create(b, grown, high, old.maximum);
  Value bound = boundOf(result.maximum, /*mayBeEmpty=*/form.keys < form.rows);
  result.exponents = Exp2Op::create(b, scores.getType(), scores, scale, bound);
  result.rescale = Exp2Op::create(b, pair, old.maximum, b.f32(1), bound);
  Value added = RowReduceOp::create(b, pair, Reduction::Add, result.exponents);
  result.sum = arith::AddFOp::create(
      b, arith::MulFOp::create(b, old.sum, result.rescale), added);
  // No sum is negative. But a vote that asks for sums comes after them, and it
  // stands before the fence: else the assembler moves the additions behind the
  // wait, where no product runs beside them.
  Value asked = arith::CmpFOp::create(b, arith::CmpFPredicate::ULT, result.sum,
                                      splat(pair, 0));
  auto rows =
      vector::ToElementsOp::create(b, arith::OrIOp::create(b, grown, asked));
  Value lanes = LaneCountOp::create(
      b, b.getI32Type(), b.either(rows.getResult(0), rows.getResult(1)));
  result.rescales = b.less(b.i32(0), lanes);
  return result;
}

/// Outputs so far, relative to the maxima that a tile's softmax has left.
Value PrefillHopper::rescaled(const Softmax &soft, Value output) {
  return b.branch(
      soft.rescales, outputType,
      [&]() -> SmallVector<Value> {
        return {RowScaleOp::create(b, outputType, output, soft.rescale)};
      },
      [&]() -> SmallVector<Value> { return {output}; })[0];
}

/// The largest score of each row, scaled.
Value PrefillHopper::scaledMaximum(Value scores) {
  auto pair = vector(2);
  Value high = RowReduceOp::create(b, pair, Reduction::Max, scores);
  high = LaneReduceOp::create(b, pair, Reduction::Max, high);
  Value scales = vector::BroadcastOp::create(b, pair, scale);
  return arith::MulFOp::create(b, high, scales);
}

Value PrefillHopper::pack(Value fragment) {
  int64_t size = cast<VectorType>(fragment.getType()).getNumElements();
  return PackOp::create(b, VectorType::get({size / 2}, b.getI32Type()),
                        fragment, TypeAttr::get(form.element));
}

/// What exponents are taken relative to: the maximum; 0 for a row that has not
/// seen a key yet, so that no infinity is taken from another. A row's own key
/// lies less than `rows` behind the last row's: two tiles of as many keys hold
/// it.
Value PrefillHopper::boundOf(Value maximum, bool mayBeEmpty) {
  if (!mayBeEmpty)
    return maximum;
  auto pair = vector(2);
  Value none = splat(pair, -std::numeric_limits<float>::infinity());
  Value empty =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, maximum, none);
  return arith::SelectOp::create(b, empty, splat(pair, 0), maximum);
}

/// The first tile alone: no outputs to add to or to rescale.
State PrefillHopper::firstStep(const Item &item, Value firstUse) {
  auto pair = vector(2);
  Value keys = getTile(keyRing, firstUse);
  Value scores = wait(startScores(keys, form.keys), 0);
  ReleaseOp::create(b, keyRing, firstUse);
  scores = maskWhereNeeded(item, scores, tileNumber(item, b.i32(0)));
  Value high = scaledMaximum(scores);
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
  output = rescaled(soft, output);
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
  output = rescaled(soft, output);
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
