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
        Value laneRow = LaneRowOp::create(b, b.getI32Type());
        window =
            loadWindow(b, item, starts, groupRow, b.add(groupRow, laneRow), 64);
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

Value PrefillHopper::startScores(Value keys, int64_t keyCount) {
  return ScoresOp::create(b,
                          AsyncType::get(b.getContext(), b.f32s(keyCount / 2)),
                          queries, groupRow, keys, keyCount, form.headDim);
}

/// Scores become probabilities in f32, and the state's maximum and sum those
/// with this tile. A row takes a new maximum only if a score exceeds the old
/// one by more than kSlack, so that outputs, which are many, seldom need
/// rescaling. Where the maximum stays, the factor is exactly 1: it does not
/// matter to a row whether others of the warp rescale.
Softmax PrefillHopper::softmax(Value scores, const State &old) {
  auto pair = b.f32s(2);
  Softmax result;
  Value high = scaledMaximum(b, scores, scale);
  Value reach = arith::AddFOp::create(b, old.maximum, b.splat(2, kSlack));
  Value grown =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OGT, high, reach);
  result.maximum = arith::SelectOp::create(b, grown, high, old.maximum);
  // A row's own key lies less than `rows` behind the last row's: two tiles of
  // as many keys hold it.
  Value bound =
      boundOf(b, result.maximum, /*mayBeEmpty=*/form.keys < form.rows);
  result.exponents = Exp2Op::create(b, scores.getType(), scores, scale, bound);
  result.rescale = Exp2Op::create(b, pair, old.maximum, b.f32(1), bound);
  Value added = RowReduceOp::create(b, pair, Reduction::Add, result.exponents);
  result.sum = arith::AddFOp::create(
      b, arith::MulFOp::create(b, old.sum, result.rescale), added);
  // No sum is negative. But a vote that asks for sums comes after them, and it
  // stands before the fence: else the assembler moves the additions behind the
  // wait, where no product runs beside them.
  Value asked = arith::CmpFOp::create(b, arith::CmpFPredicate::ULT, result.sum,
                                      b.splat(2, 0));
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

Value PrefillHopper::pack(Value fragment) {
  int64_t size = cast<VectorType>(fragment.getType()).getNumElements();
  return PackOp::create(b, b.i32s(size / 2), fragment,
                        TypeAttr::get(form.element));
}

/// The first tile alone: no outputs to add to or to rescale.
State PrefillHopper::firstStep(const Item &item, Value firstUse) {
  auto pair = b.f32s(2);
  Value keys = getTile(keyRing, firstUse);
  Value products = wait(startScores(keys, form.keys), 0);
  ReleaseOp::create(b, keyRing, firstUse);
  Value scores = scale.raw(b, products);
  scores = maskedTile(item, scores, b.i32(0));
  Value high = scaledMaximum(b, scores, scale);
  Value bound = boundOf(b, high, /*mayBeEmpty=*/true);
  Value exponents = Exp2Op::create(b, scores.getType(), scores, scale, bound);
  Value sum = RowReduceOp::create(b, pair, Reduction::Add, exponents);
  return {b.splat(padded / 2, 0), high, sum, pack(exponents)};
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
  Value products = wait(product, 1);
  ReleaseOp::create(b, keyRing, use);
  Value scores = maskedTile(item, scale.raw(b, products), step);
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
  Value products = wait(product, 1);
  ReleaseOp::create(b, keyRing, use);
  if (staging) // The next item's queries load under the rest of this one.
    ReleaseOp::create(b, queryRing, queryUse);
  Value scores = masked(b, window, scale.raw(b, products),
                        b.mul(FIELD(item, sink_tiles), form.keys), sink);
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
  auto pair = b.f32s(2);
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
