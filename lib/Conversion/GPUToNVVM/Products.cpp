//===- Products.cpp - Asynchronous products to NVVM -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Descriptors of tiles with the 128-byte swizzle, and the products on them. A
// fragment in flight is kept as its vector until the wait returns it.
//
//===----------------------------------------------------------------------===//

#include "InlinePTX.h"
#include "Lowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace moa::gpu;

/// Bits 0-13: address / 16; 16-29: leading step / 16; 32-45: step between
/// groups of 8 rows, 1024 bytes, / 16; 62: the 128-byte swizzle. A stage's
/// distance is added last: what is before it is the same in all rounds of a
/// loop, so that little stands between a turn and its first product.
Value KernelLowering::descriptor(Value tile, Value row, int64_t leadingBytes) {
  auto [first, stage] = stages.lookup(tile);
  Value place = address(first ? first : lowered[tile]);
  if (row)
    place = add(place, mul(row, 128));
  Value low = shift(bitAnd(place, 0x3FFFF), 4);
  Value wide = arith::ExtUIOp::create(b, b.getI64Type(), low);
  int64_t bits =
      int64_t(1) << 62 | int64_t(1024 / 16) << 32 | (leadingBytes / 16) << 16;
  Value rest = arith::ConstantOp::create(b, b.getI64IntegerAttr(bits));
  Value whole = arith::OrIOp::create(b, wide, rest);
  if (!stage)
    return whole;
  // Shared memory ends below the address bits' reach: no carry leaves them.
  int64_t bytes = cast<SharedType>(tile.getType()).getBytes();
  Value distance =
      arith::ExtUIOp::create(b, b.getI64Type(), mul(stage, bytes / 16));
  return arith::AddIOp::create(b, whole, distance);
}

void KernelLowering::lowerScores(ScoresOp op) {
  SharedType q = op.getQueries().getType(), k = op.getKeysTile().getType();
  ptx::Product shape{q.getElementType(), int64_t(op.getKeys()),
                     int64_t(op.getDepth()), q.getPanelBytes(),
                     k.getPanelBytes()};
  Value a = descriptor(op.getQueries(), op.getRow(), 16);
  Value bDescriptor = descriptor(op.getKeysTile(), Value(), 16);
  lowered[op.getResult()] =
      join(ptx::startScores(b, shape, a, bDescriptor), b.getF32Type());
}

void KernelLowering::lowerAccumulate(AccumulateOp op) {
  SharedType v = op.getValues().getType();
  SmallVector<Value> p = split(op.getProbabilities());
  ptx::Product shape{v.getElementType(), v.getCols(),
                     static_cast<int64_t>(p.size()) * 4, 0, v.getPanelBytes()};
  Value tile = descriptor(op.getValues(), Value(), v.getPanelBytes());
  lowered[op.getResult()] =
      join(ptx::startAccumulate(b, shape, p, tile, split(op.getAccumulator())),
           b.getF32Type());
}

void KernelLowering::lowerWait(WaitOp op) {
  SmallVector<Value> values =
      ptx::waitProducts(b, op.getPending(), split(lowered[op.getProduct()]));
  op.getResult().replaceAllUsesWith(join(values, b.getF32Type()));
}
