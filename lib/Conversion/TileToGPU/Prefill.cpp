//===- Prefill.cpp - What prefill kernels have in common ------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Prefill.h.
//
//===----------------------------------------------------------------------===//

#include "Prefill.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include <limits>

using namespace mlir;
using namespace moa;
using namespace moa::gpu;
using namespace moa::gpu::prefill;

Window moa::gpu::prefill::loadWindow(KernelBuilder &b, const ItemFields &item,
                                     Value starts, Value firstRow,
                                     Value laneRow, int64_t rows) {
  Window window;
  window.position = b.add(FIELD(item, position), firstRow);
  window.lanePosition = b.add(FIELD(item, position), laneRow);
  Type i32 = b.getI32Type();
  SmallVector<Value> loaded = b.branch(
      b.less(FIELD(item, starts), b.i32(0)), {i32, i32, i32},
      [&]() -> SmallVector<Value> {
        Value start = b.sub(b.add(window.lanePosition, 1), FIELD(item, local));
        Value last = b.sub(b.add(window.position, rows), FIELD(item, local));
        Value floor = FIELD(item, floor);
        return {b.max(start, floor), b.max(b.add(start, 8), floor),
                b.max(last, floor)};
      },
      [&]() -> SmallVector<Value> {
        Value index = b.add(FIELD(item, starts), laneRow);
        Value last = b.add(b.add(FIELD(item, starts), firstRow), rows - 1);
        return {b.loadI32(starts, index), b.loadI32(starts, b.add(index, 8)),
                b.loadI32(starts, last)};
      });
  window.start0 = loaded[0];
  window.start1 = loaded[1];
  window.startMax = loaded[2];
  return window;
}

Value moa::gpu::prefill::masked(KernelBuilder &b, const Window &window,
                                Value scores, Value firstKey, Value sink) {
  return MaskOp::create(b, scores.getType(), scores, window.lanePosition,
                        firstKey, window.start0, window.start1, sink);
}

Value moa::gpu::prefill::maskWhereNeeded(KernelBuilder &b, const Window &window,
                                         Value scores, Value firstKey,
                                         int64_t keys, Value sink) {
  Value end = b.add(firstKey, keys);
  Value diagonal = b.less(b.add(window.position, 1), end);
  Value edge = b.both(b.less(firstKey, window.startMax), b.less(sink, end));
  return b.branch(
      b.either(diagonal, edge), scores.getType(),
      [&]() -> SmallVector<Value> {
        return {masked(b, window, scores, firstKey, sink)};
      },
      [&]() -> SmallVector<Value> { return {scores}; })[0];
}

Value moa::gpu::prefill::scaledMaximum(KernelBuilder &b, Value scores,
                                       Value scale) {
  VectorType pair = b.f32s(2);
  Value high = RowReduceOp::create(b, pair, Reduction::Max, scores);
  high = LaneReduceOp::create(b, pair, Reduction::Max, high);
  Value scales = vector::BroadcastOp::create(b, pair, scale);
  return arith::MulFOp::create(b, high, scales);
}

Value moa::gpu::prefill::boundOf(KernelBuilder &b, Value maximum,
                                 bool mayBeEmpty) {
  if (!mayBeEmpty)
    return maximum;
  Value none = b.splat(2, -std::numeric_limits<float>::infinity());
  Value empty =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, maximum, none);
  return arith::SelectOp::create(b, empty, b.splat(2, 0), maximum);
}
