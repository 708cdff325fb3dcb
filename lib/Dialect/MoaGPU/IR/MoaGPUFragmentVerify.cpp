//===- MoaGPUFragmentVerify.cpp - Verifiers of fragments and products -----===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Sizes of fragments against tiles, and the order of waits: products end in the
// order of their start, and a wait that leaves the wrong number pending reads
// registers that are still being written.
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

LogicalResult ScoresOp::verify() {
  SharedType q = getQueries().getType(), k = getKeysTile().getType();
  int64_t depth = getDepth(), keys = getKeys();
  if (q.getCols() != k.getCols() || q.getElementType() != k.getElementType() ||
      depth < 16 || depth % 16 || depth > q.getCols())
    return emitOpError("(C1) expected tiles of equal columns and types and a "
                       "depth of a multiple of 16 up to those columns, got ")
           << q << ", " << k << " and depth " << depth;
  if (keys < 8 || keys % 8 || keys > 256 || keys > k.getRows())
    return emitOpError("(C2) expected keys to be a multiple of 8 from 8 to ")
           << std::min<int64_t>(256, k.getRows()) << ", got " << keys;
  int64_t size = getResult().getType().getFragment().getNumElements();
  if (size != keys / 2)
    return emitOpError("(C3) expected a fragment of ")
           << keys / 2 << " elements, got " << size;
  return success();
}

LogicalResult AccumulateOp::verify() {
  SharedType v = getValues().getType();
  int64_t keys = sizeOf(getProbabilities()) * 4;
  if (keys > v.getRows() || keys % 16)
    return emitOpError("(C1) expected probabilities of a multiple of 16 keys "
                       "up to the tile's ")
           << v.getRows() << ", got " << keys;
  if (sizeOf(getAccumulator()) * 2 != v.getCols())
    return emitOpError("(C2) expected an accumulator of ")
           << v.getCols() / 2 << " elements, got " << sizeOf(getAccumulator());
  if (v.getCols() > 256)
    return emitOpError("(C3) expected values of at most 256 columns, got ")
           << v.getCols();
  return success();
}

/// Whether the product that `op` starts is still in flight at `wait`.
static bool inFlightAt(Operation &op, WaitOp wait) {
  for (Operation *user : op.getResult(0).getUsers())
    if (user->getBlock() == wait->getBlock() && user->isBeforeInBlock(wait))
      return false;
  return true;
}

LogicalResult WaitOp::verify() {
  Operation *start = getProduct().getDefiningOp();
  if (!start || start->getBlock() != (*this)->getBlock() ||
      !getProduct().hasOneUse())
    return emitOpError("(C1) expected a product that was started in the same "
                       "block and has no other use")
               .attachNote(getProduct().getLoc())
           << "a product must not cross a block while its registers are being "
              "written";
  int64_t younger = 0;
  bool seen = false;
  for (Operation &op : *(*this)->getBlock()) {
    if (&op == *this)
      break;
    if (&op == start) {
      seen = true;
      continue;
    }
    if (!isa<ScoresOp, AccumulateOp>(op) || !inFlightAt(op, *this))
      continue;
    if (!seen)
      return emitOpError("(C3) expected no older product in flight")
                 .attachNote(op.getLoc())
             << "wait for this one first: products end in the order of their "
                "start";
    ++younger;
  }
  int64_t pending = getPending();
  if (pending != younger)
    return emitOpError("(C2) expected pending ")
           << younger << ", the products started later and in flight, got "
           << pending;
  return success();
}
