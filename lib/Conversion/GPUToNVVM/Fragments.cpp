//===- Fragments.cpp - Arithmetic on fragments to NVVM --------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A thread of a warpgroup holds, of a 64 x n product, rows r and r + 8 and of
// each group of 8 columns two: element 4j + 2h + c is row h, column 8j + 2l + c
// for lane l of the four that share the rows.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/Conversion/SoftCap.h"
#include <limits>

using namespace mlir;
using namespace moa::gpu;

/// Row (0 or 1) of element `e`.
static int64_t rowOf(int64_t e) { return e / 2 % 2; }

/// Row of element `e`, or its column.
static int64_t lineOf(int64_t e, bool byColumn) {
  return byColumn ? e % 2 : rowOf(e);
}

/// Column of element `e` for lane 0 of the four.
static int64_t columnOf(int64_t e) { return e / 4 * 8 + e % 2; }

void KernelLowering::lowerLaneRow(LaneRowOp op) {
  Value warp = bitAnd(shift(threadId(), 5), 3);
  Value lane = bitAnd(threadId(), 31);
  op.getResult().replaceAllUsesWith(add(mul(warp, 16), shift(lane, 2)));
}

void KernelLowering::lowerMask(MaskOp op) {
  SmallVector<Value> scores = split(op.getScores());
  Value none = f32(-std::numeric_limits<float>::infinity());
  Value first = add(op.getKey(), mul(bitAnd(threadId(), 3), 2));
  // Bounds of each row relative to the thread's first key, so that an element's
  // column is a constant in the comparisons.
  Value sink = sub(op.getSink(), first);
  Value own[2], start[2];
  for (int64_t row : {0, 1}) {
    own[row] = sub(add(op.getPosition(), 8 * row), first);
    start[row] = sub(row ? op.getStart1() : op.getStart0(), first);
  }
  for (auto [e, score] : llvm::enumerate(scores)) {
    Value column = i32(columnOf(e));
    int64_t row = rowOf(e);
    Value above = less(own[row], column);
    Value inSink = less(column, sink);
    Value left = less(column, start[row]);
    // Not visible: j > i, or left of the window and not in the sink.
    Value outside = arith::AndIOp::create(
        b, left,
        arith::XOrIOp::create(
            b, inSink, arith::ConstantOp::create(b, b.getBoolAttr(true))));
    Value hidden = arith::OrIOp::create(b, above, outside);
    score = select(hidden, none, score);
  }
  op.getResult().replaceAllUsesWith(join(scores, b.getF32Type()));
}

void KernelLowering::lowerRowReduce(RowReduceOp op) {
  SmallVector<Value> elements = split(op.getValue()), result;
  for (int64_t row : {0, 1}) {
    SmallVector<Value> level;
    for (auto [e, element] : llvm::enumerate(elements))
      if (lineOf(e, op.getByColumn()) == row)
        level.push_back(element);
    while (level.size() > 1) { // A tree, for short chains.
      SmallVector<Value> next;
      for (size_t i = 0; i + 1 < level.size(); i += 2)
        next.push_back(reduce(op.getKind(), level[i], level[i + 1]));
      if (level.size() % 2)
        next.push_back(level.back());
      level = std::move(next);
    }
    result.push_back(level.front());
  }
  op.getResult().replaceAllUsesWith(join(result, b.getF32Type()));
}

void KernelLowering::lowerLaneReduce(LaneReduceOp op) {
  SmallVector<Value> rows = split(op.getValue());
  // Lanes that share a row differ in the low two bits of their number, those
  // that share columns in the others.
  SmallVector<int64_t> masks = {1, 2};
  if (op.getByColumn())
    masks = {4, 8, 16};
  for (Value &row : rows)
    for (int64_t mask : masks)
      row = reduce(op.getKind(), row, shuffle(row, mask));
  op.getResult().replaceAllUsesWith(join(rows, b.getF32Type()));
}

void KernelLowering::lowerExp2(Exp2Op op) {
  SmallVector<Value> elements = split(op.getValue());
  SmallVector<Value> bound = split(op.getBound());
  for (Value &row : bound)
    row = arith::NegFOp::create(b, row);
  bool pair = elements.size() == 2;
  for (auto [e, element] : llvm::enumerate(elements))
    element = exp2(fma(element, op.getScale(),
                       bound[pair ? int64_t(e) : lineOf(e, op.getByColumn())]));
  op.getResult().replaceAllUsesWith(join(elements, b.getF32Type()));
}

void KernelLowering::lowerTanh(TanhOp op) {
  auto type = cast<VectorType>(op.getValue().getType());
  Value factors = vector::BroadcastOp::create(b, type, op.getFactor());
  Value scaled = arith::MulFOp::create(b, op.getValue(), factors);
  if (!op.getApproximate())
    return op.getResult().replaceAllUsesWith(tanhOf(b, scaled));
  SmallVector<Value> elements = split(scaled);
  for (Value &element : elements)
    element = LLVM::TanhOp::create(b, element, LLVM::FastmathFlags::afn);
  op.getResult().replaceAllUsesWith(join(elements, b.getF32Type()));
}

void KernelLowering::lowerRowScale(RowScaleOp op) {
  SmallVector<Value> elements = split(op.getValue());
  SmallVector<Value> factor = split(op.getFactor());
  for (auto [e, element] : llvm::enumerate(elements))
    element =
        arith::MulFOp::create(b, element, factor[lineOf(e, op.getByColumn())]);
  op.getResult().replaceAllUsesWith(join(elements, b.getF32Type()));
}

void KernelLowering::lowerReciprocal(ReciprocalOp op) {
  SmallVector<Value> rows = split(op.getValue());
  for (Value &row : rows) {
    Value positive = arith::CmpFOp::create(b, arith::CmpFPredicate::UGT, row,
                                           f32(0.0f)); // NaN stays NaN.
    Value inverse = NVVM::RcpApproxFtzF32Op::create(b, b.getF32Type(), row);
    row = select(positive, inverse, f32(0.0f));
  }
  op.getResult().replaceAllUsesWith(join(rows, b.getF32Type()));
}

void KernelLowering::lowerPack(PackOp op) {
  SmallVector<Value> elements = split(op.getValue()), pairs;
  auto type = VectorType::get({2}, op.getType());
  StringRef intrinsic = op.getType().isBF16() ? "llvm.nvvm.ff2bf16x2.rn"
                                              : "llvm.nvvm.ff2f16x2.rn";
  for (size_t i = 0; i < elements.size(); i += 2) {
    // The first operand is the high half.
    auto pair =
        LLVM::CallIntrinsicOp::create(b, type, b.getStringAttr(intrinsic),
                                      ValueRange{elements[i + 1], elements[i]});
    pairs.push_back(
        LLVM::BitcastOp::create(b, b.getI32Type(), pair.getResult(0)));
  }
  op.getResult().replaceAllUsesWith(join(pairs, b.getI32Type()));
}
