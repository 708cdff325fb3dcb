//===- BuildModule.h - The module that compilation starts from --*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// From a plan and a model's shape to the moa level: a function for each layer
// and phase, with the layer's windows.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_PIPELINES_BUILDMODULE_H
#define MOA_PIPELINES_BUILDMODULE_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"
#include "moa/Dialect/Moa/IR/Moa.h"
#include "moa/Plan/Plan.h"
#include <optional>

namespace moa {

/// A rotation that calls may ask for.
struct RopeShape {
  RopeLayout layout = RopeLayout::Half;
  std::optional<int64_t> rotaryDim; ///< None: the head size.
};

/// Which kinds of call an artifact serves.
struct Phases {
  bool prefill = true; ///< Prompts and chunks of them.
  bool decode = true;  ///< One token a sequence.
  bool append = true;  ///< Storing keys and values.
  /// Storing keys and values after rotating queries and keys.
  std::optional<RopeShape> rope = std::nullopt;
};

/// Builds the module. `plan` is one for `shape` (plan::checkAgainstModel), and
/// `shape` one that kernels exist for (plan::checkModelShape). `dtype` is f32,
/// f16 or bf16. `planName` becomes the location of every operation.
mlir::OwningOpRef<mlir::ModuleOp>
buildModule(mlir::MLIRContext &context, const plan::Plan &plan,
            const plan::ModelShape &shape, mlir::Type dtype,
            const Phases &phases, llvm::StringRef planName);

} // namespace moa

#endif // MOA_PIPELINES_BUILDMODULE_H
