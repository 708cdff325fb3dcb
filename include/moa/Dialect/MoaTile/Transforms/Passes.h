//===- Passes.h - Passes on tile kernels ------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Declares the passes of the tile dialect and their registration.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_DIALECT_MOATILE_TRANSFORMS_PASSES_H
#define MOA_DIALECT_MOATILE_TRANSFORMS_PASSES_H

#include "mlir/Pass/Pass.h"
#include "moa/Dialect/MoaTile/IR/MoaTile.h"

namespace moa::tile {

#define GEN_PASS_DECL
#include "moa/Dialect/MoaTile/Transforms/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "moa/Dialect/MoaTile/Transforms/Passes.h.inc"

} // namespace moa::tile

#endif // MOA_DIALECT_MOATILE_TRANSFORMS_PASSES_H
