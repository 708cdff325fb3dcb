//===- MoaGPUFragmentVerify.cpp - Verifiers of arithmetic on fragments ----===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Sizes alone: of each group of 4 elements two belong to either row of the
// thread.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

using namespace mlir;
using namespace moa::gpu;

static int64_t sizeOf(Value value) {
  return cast<VectorType>(value.getType()).getNumElements();
}

static LogicalResult expectQuads(Operation *op, Value fragment) {
  if (sizeOf(fragment) % 4 == 0)
    return success();
  return op->emitOpError("(C1) expected a fragment of a multiple of 4 "
                         "elements, got ")
         << sizeOf(fragment);
}

LogicalResult MaskOp::verify() { return expectQuads(*this, getScores()); }
LogicalResult RowReduceOp::verify() { return expectQuads(*this, getValue()); }
LogicalResult TanhOp::verify() { return expectQuads(*this, getValue()); }
LogicalResult RowScaleOp::verify() { return expectQuads(*this, getValue()); }

LogicalResult Exp2Op::verify() {
  return sizeOf(getValue()) == 2 ? success() : expectQuads(*this, getValue());
}

LogicalResult PackOp::verify() {
  if (failed(expectQuads(*this, getValue())))
    return failure();
  if (sizeOf(getResult()) * 2 != sizeOf(getValue()))
    return emitOpError("(C1) expected a result of ")
           << sizeOf(getValue()) / 2 << " pairs, got " << sizeOf(getResult());
  if (!getType().isF16() && !getType().isBF16())
    return emitOpError("(C2) expected type f16 or bf16, got ") << getType();
  return success();
}
