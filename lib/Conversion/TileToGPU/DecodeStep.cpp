//===- DecodeStep.cpp - Decode: one page in one warp ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Keys are the left operand, so that the heads of a group, and tokens, are the
// eight columns of a product rather than 16 rows of which most are empty:
//
//   S^T = K Q^T, 16 keys a warp; softmax down the columns; O^T += V^T P^T
//
// Four warps take 16 of a page's 64 keys each, and every warp keeps a state of
// its own until the share ends.
//
//===----------------------------------------------------------------------===//

#include "Decode.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

/// The maximum before any key: below all scores, and a power of two, so that
/// its product with the scale is exact and it differs from itself by zero.
static constexpr float kNoMaximum = -0x1p+100f;

/// Which rows and columns are the warp's, and which the lane's.
void Decode::takePlace(Value number) {
  warp = number;
  Value lane = b.bitAnd(b.threadId(), 31);
  laneRow = b.shift(lane, 2);
  laneColumn = b.mul(b.bitAnd(lane, 3), 2);
  stream = b.divide(warp, kSharers);
  warpRow = b.mul(b.remainder(warp, kSharers), MOA_BLOCK_KEYS / kSharers);
}

/// Where the thread's dimensions of its column start, for each column tile. The
/// queries themselves stay in registers unless they are too many.
void Decode::loadQueries(const Share &share) {
  length = share.facts.length;
  startMax = share.facts.startMax;
  findColumns(share);
  findFresh(share);
  queryRows.clear();
  queries.assign(columnTiles(), {});
  windowStarts.clear();
  for (int64_t i = 0; i < columnTiles(); ++i) {
    Value row = queryRow(share, offsetof(moa_gpu_decode_args, q), share.facts.q,
                         b.add(laneRow, kColumns * i));
    queryRows.push_back(b.offset(row, b.mul(laneColumn, form.kv8 ? 4 : 2)));
    for (int64_t k = 0; keepsQueries() && k < headDim() / 16; ++k)
      queries[i].push_back(loadQuery(i, k));
    Value column = b.add(laneColumn, kColumns * i);
    windowStarts.push_back(
        {startOf(share, column), startOf(share, b.add(column, 1))});
  }
  fetchFresh(share); // Last: nothing waits for it.
}

/// A right operand: dimensions 16 k + laneColumn + {0, 1} and those 8 on; or,
/// woven, 16 k + 2 laneColumn + {0, 2} and {1, 3}.
Value Decode::loadQuery(size_t columnTile, int64_t k) {
  if (form.kv8)
    return WeaveOp::create(
        b, b.i32s(2),
        LLVM::LoadOp::create(b, b.i32s(2),
                             b.offset(queryRows[columnTile], 32 * k), 8));
  SmallVector<Value> pairs;
  for (int64_t half : {0, 1})
    pairs.push_back(LLVM::LoadOp::create(
        b, b.getI32Type(), b.offset(queryRows[columnTile], 32 * k + 16 * half),
        4));
  return b.join(pairs);
}

Decode::State Decode::emptyState() {
  Columns columns;
  columns.outputs.assign(headDim() / 16, b.splat(4, 0));
  columns.maximum = b.splat(2, kNoMaximum);
  columns.sum = b.splat(2, 0);
  return State(columnTiles(), columns);
}

SmallVector<Value> Decode::flatten(const State &state) {
  SmallVector<Value> values;
  for (const Columns &columns : state) {
    values.append(columns.outputs);
    values.append({columns.maximum, columns.sum});
  }
  return values;
}

Decode::State Decode::rebuild(ValueRange values) {
  State state;
  const size_t size = headDim() / 16;
  for (int64_t i = 0; i < columnTiles(); ++i) {
    ValueRange own = values.slice(i * (size + 2), size + 2);
    state.push_back(
        {SmallVector<Value>(own.take_front(size)), own[size], own[size + 1]});
  }
  return state;
}

/// The warp's 16 rows of a half, 16 columns from `column`: a left operand.
Value Decode::loadBlock(const Half &half, int64_t column, bool transposed) {
  Value row = b.add(warpRow, half.row);
  if (form.kv8)
    return LoadWovenOp::create(b, b.i32s(4), half.tile, row, column,
                               transposed);
  return LoadMatrixOp::create(b, b.i32s(4), half.tile, row, column, transposed);
}

SmallVector<Value> Decode::scoresOf(const Half &keys) {
  return sumScores([&](int64_t k) { return loadBlock(keys, 16 * k, false); });
}

/// Scores of the warp's 16 keys, for each column tile, of `blockOf` their
/// dimensions from 16 k on. A product waits for the one whose sum it adds to:
/// where there is one tile, two sums take turns.
SmallVector<Value>
Decode::sumScores(llvm::function_ref<Value(int64_t)> blockOf) {
  const int64_t turns = columnTiles() == 1 ? 2 : 1;
  SmallVector<Value> sums(turns * columnTiles(), b.splat(4, 0));
  for (int64_t k = 0; k < headDim() / 16; ++k) {
    Value block = blockOf(k);
    for (int64_t i = 0; i < columnTiles(); ++i) {
      Value &sum = sums[k % turns * columnTiles() + i];
      sum = MultiplyOp::create(b, b.f32s(4), block, query(i, k), sum,
                               TypeAttr::get(form.element));
    }
  }
  if (turns == 1)
    return sums;
  return {arith::AddFOp::create(b, sums[0], sums[1]).getResult()};
}

/// O^T += V^T P^T: 16 dimensions a product, over the warp's 16 keys.
void Decode::addValues(const Half &values, ArrayRef<Value> probabilities,
                       State &state) {
  for (int64_t d = 0; d < headDim() / 16; ++d) {
    Value block = loadBlock(values, 16 * d, true);
    for (auto [i, columns] : llvm::enumerate(state))
      columns.outputs[d] =
          MultiplyOp::create(b, b.f32s(4), block, probabilities[i],
                             columns.outputs[d], TypeAttr::get(form.element));
  }
}

Decode::State Decode::step(Value firstKey, const State &before, HalfOf keys,
                           HalfOf values, const Codes &codes) {
  SmallVector<Value> scores =
      form.kv8 ? scoresOf(keys(), codes) : scoresOf(keys());
  for (Value &score : scores)
    score = scale.raw(b, score);
  // Masks only where some column does not see all of the page.
  Value behind = b.add(firstKey, MOA_BLOCK_KEYS);
  Value whole = b.both(
      b.lessEqual(behind, firstEnd),
      b.either(b.lessEqual(startMax, firstKey), b.lessEqual(behind, sink)));
  SmallVector<Type> types(scores.size(), b.f32s(4));
  // Of values in 8 bits, by column tile.
  SmallVector<Value> factors;
  if (form.kv8)
    types.append(scores.size(), b.f32s(2));
  auto withFactors = [&](SmallVector<Value> scores, bool whole) {
    if (form.kv8)
      scores.append(factorsOf(firstKey, codes, whole));
    return scores;
  };
  scores = b.branch(
      whole, types, [&] { return withFactors(scores, true); },
      [&] {
        SmallVector<Value> masked;
        Value key = b.add(firstKey, warpRow);
        for (auto [i, score] : llvm::enumerate(scores)) {
          Value column = b.add(laneColumn, kColumns * i);
          masked.push_back(MaskColumnsOp::create(
              b, b.f32s(4), score, key, windowStarts[i].first,
              windowStarts[i].second, endOf(column), endOf(b.add(column, 1)),
              sink));
        }
        return withFactors(masked, false);
      });
  factors.assign(scores.begin() + before.size(), scores.end());
  scores.truncate(before.size());

  auto pair = b.f32s(2);
  Value scales = splat(2, scale);
  State state = before;
  SmallVector<Value> probabilities;
  for (auto [columns, score] : llvm::zip_equal(state, scores)) {
    Value high = RowReduceOp::create(b, pair, Reduction::Max, score, true);
    high = LaneReduceOp::create(b, pair, Reduction::Max, high, true);
    high = arith::MaxNumFOp::create(b, high, columns.maximum);
    Value bound = arith::MulFOp::create(b, high, scales);
    Value exponents =
        Exp2Op::create(b, score.getType(), score, scale, bound, true);
    Value rescale = Exp2Op::create(b, pair, columns.maximum, scale, bound);
    Value added = RowReduceOp::create(b, pair, Reduction::Add, exponents, true);
    columns.maximum = high;
    columns.sum = arith::AddFOp::create(
        b, arith::MulFOp::create(b, columns.sum, rescale), added);
    for (Value &output : columns.outputs)
      output = RowScaleOp::create(b, output.getType(), output, rescale, true);
    Value rounded =
        PackOp::create(b, b.i32s(2), exponents, TypeAttr::get(form.element));
    probabilities.push_back(TransposeOp::create(b, b.i32s(2), rounded));
  }
  if (form.kv8)
    addValues(values(), probabilities, state, codes, factors);
  else
    addValues(values(), probabilities, state);
  return state;
}
