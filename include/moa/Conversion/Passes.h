//===- Passes.h - Conversions between levels --------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Declares the conversion passes and their registration. One definition file,
// Passes.td, holds all of them.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_PASSES_H
#define MOA_CONVERSION_PASSES_H

#include "mlir/Pass/Pass.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"
#include "moa/Dialect/MoaTile/IR/MoaTile.h"

namespace moa {

#define GEN_PASS_DECL
#include "moa/Conversion/Passes.h.inc"

#define GEN_PASS_REGISTRATION
#include "moa/Conversion/Passes.h.inc"

} // namespace moa

#endif // MOA_CONVERSION_PASSES_H
