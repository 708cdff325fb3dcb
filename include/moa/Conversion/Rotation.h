//===- Rotation.h - Vector code of rotary embeddings ------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The arithmetic of moa/abi/rope.h as vector operations, once for every target:
// what a CPU and a GPU compute of an angle has the same bits.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_ROTATION_H
#define MOA_CONVERSION_ROTATION_H

#include "mlir/IR/ImplicitLocOpBuilder.h"
#include <utility>

namespace moa {

/// Cosine and sine of pairs, each a vector of f32.
struct Rotation {
  mlir::Value cosine, sine;
};

/// The rotation of pairs with `turns`, a vector of i64, at `position`, an i64,
/// times `scale`, an f32.
Rotation rotationOf(mlir::ImplicitLocOpBuilder &b, mlir::Value turns,
                    mlir::Value position, mlir::Value scale);

/// Rotates pairs whose first and second elements are `x` and `y`, f32.
std::pair<mlir::Value, mlir::Value> rotate(mlir::ImplicitLocOpBuilder &b,
                                           const Rotation &rotation,
                                           mlir::Value x, mlir::Value y);

/// Rotates pairs that lie one after another in `pairs`, a vector of twice as
/// many f32.
mlir::Value rotateInterleaved(mlir::ImplicitLocOpBuilder &b,
                              const Rotation &rotation, mlir::Value pairs);

} // namespace moa

#endif // MOA_CONVERSION_ROTATION_H
