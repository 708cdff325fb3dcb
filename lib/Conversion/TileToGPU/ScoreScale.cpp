//===- ScoreScale.cpp - From raw scores to exponents ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of ScoreScale.h.
//
//===----------------------------------------------------------------------===//

#include "ScoreScale.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace moa::gpu;

/// Queries and keys of 16 bits are rounded more coarsely than an approximate
/// tanh: 2^-9 in bf16, 2^-12 in f16 each.
ScoreScale::ScoreScale(KernelBuilder &b, const KernelForm &form, Value scale)
    : scale(scale), approximate(!form.element.isF32()) {
  if (!form.softCap)
    return;
  inner = arith::MulFOp::create(b, scale, b.f32(1 / form.softCap));
  this->scale = b.f32(form.softCap);
}

Value ScoreScale::raw(KernelBuilder &b, Value products) const {
  if (!inner)
    return products;
  return TanhOp::create(b, products.getType(), products, inner, approximate);
}
