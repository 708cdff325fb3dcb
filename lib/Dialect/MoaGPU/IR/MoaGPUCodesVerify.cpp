//===- MoaGPUCodesVerify.cpp - Verifiers of 8-bit codes -------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What tiles and registers have to be where keys and values are 8-bit codes.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

using namespace mlir;
using namespace moa::gpu;

LogicalResult AsCodesOp::verify() {
  SharedType expected = getTile().getType().codes();
  if (getCodes().getType() == expected)
    return success();
  return emitOpError("(C1) expected the codes ")
         << expected << " of its tile, got " << getCodes().getType();
}

LogicalResult CopyWordsOp::verify() {
  auto put = dyn_cast<PutOp>((*this)->getParentOp());
  if (put && getFull() == put.getBody().getArgument(1))
    return success();
  return emitOpError("(C1) expected directly in the body of a moa_gpu.put, at "
                     "its barrier: the words are those of its stage");
}

LogicalResult LoadWovenOp::verify() {
  SharedType tile = getTile().getType();
  const int64_t column = getColumn();
  if (tile.getElementBytes() == 2 && column >= 0 && column % 16 == 0 &&
      column < tile.getCols())
    return success();
  return emitOpError("(C1) expected a tile of 16-bit elements and a column "
                     "that is a multiple of 16 below its columns, got ")
         << tile << " and " << column;
}

LogicalResult UnpackOp::verify() {
  if (!getType().isF16() && !getType().isBF16())
    return emitOpError("(C1) expected type f16 or bf16, got ") << getType();
  auto sizeOf = [](Value value) {
    return cast<VectorType>(value.getType()).getNumElements();
  };
  if (sizeOf(getPairs()) == 2 * sizeOf(getCodes()))
    return success();
  return emitOpError("(C2) expected a result of ")
         << 2 * sizeOf(getCodes()) << " pairs, got " << sizeOf(getPairs());
}
