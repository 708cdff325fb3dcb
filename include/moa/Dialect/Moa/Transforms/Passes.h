//===- Passes.h - Passes on the moa dialect ---------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Declares the passes of the moa dialect and their registration.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_DIALECT_MOA_TRANSFORMS_PASSES_H
#define MOA_DIALECT_MOA_TRANSFORMS_PASSES_H

#include "mlir/Pass/Pass.h"
#include "moa/Dialect/Moa/IR/Moa.h"
#include "moa/Plan/Plan.h"

namespace moa {

#define GEN_PASS_DECL
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"

/// The window of one layer of a plan.
WindowAttr planWindow(mlir::MLIRContext *context, const plan::Plan &plan,
                      int64_t layer, int64_t kvHeads);

} // namespace moa

#endif // MOA_DIALECT_MOA_TRANSFORMS_PASSES_H
