//===- SoftCap.h - Arithmetic of soft caps ----------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The hyperbolic tangent to the accuracy of f32, once for every target.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_SOFTCAP_H
#define MOA_CONVERSION_SOFTCAP_H

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace moa {

/// tanh of the elements of `x`, a vector of f32: relative error at most 2^-21,
/// NaN stays NaN.
mlir::Value tanhOf(mlir::ImplicitLocOpBuilder &b, mlir::Value x);

} // namespace moa

#endif // MOA_CONVERSION_SOFTCAP_H
