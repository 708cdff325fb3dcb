//===- KernelForm.h - What the CPU lowering takes ---------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The lowering keeps one state and one tile of scores a kernel, in scratch. A
// kernel must therefore be the one chain of operations that it expects.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOCPU_KERNELFORM_H
#define MOA_CONVERSION_TILETOCPU_KERNELFORM_H

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace moa::cpu {

/// Fails with an error at the operation at fault unless `kernel`, a function
/// with `moa_tile.config`, can be lowered.
llvm::LogicalResult checkKernelForm(mlir::func::FuncOp kernel);

} // namespace moa::cpu

#endif // MOA_CONVERSION_TILETOCPU_KERNELFORM_H
