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

#include "moa/Dialect/Moa/IR/Moa.h"
#include "mlir/Pass/Pass.h"

namespace moa {

#define GEN_PASS_DECL
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"

} // namespace moa

#endif // MOA_DIALECT_MOA_TRANSFORMS_PASSES_H
