//===- Kernels.h - Kernels that a GPU runs ----------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One function a kernel: each builds a function of the GPU dialect with the
// parameters that moa/abi/gpu_args.h gives to its kind.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOGPU_KERNELS_H
#define MOA_CONVERSION_TILETOGPU_KERNELS_H

#include "KernelForm.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

namespace moa::gpu {

/// Copies of key and value rows into pages, on any chip.
mlir::LLVM::LLVMFuncOp buildAppend(mlir::OpBuilder &builder, mlir::Location loc,
                                   llvm::StringRef name,
                                   const KernelForm &form);

/// Attention of one row of each head of a group on Hopper: persistent over the
/// pages of all items.
mlir::LLVM::LLVMFuncOp buildDecode(mlir::OpBuilder &builder, mlir::Location loc,
                                   llvm::StringRef name,
                                   const KernelForm &form);

/// Attention of many rows from sm_80 on: persistent, every thread loads and
/// multiplies. As many tiles are fetched ahead as `sharedBytes` have room for.
mlir::LLVM::LLVMFuncOp buildPrefillAmpere(mlir::OpBuilder &builder,
                                          mlir::Location loc,
                                          llvm::StringRef name,
                                          const KernelForm &form,
                                          int64_t sharedBytes);
/// Shared memory that it takes with room for `tiles` tiles of keys or values;
/// it needs two.
int64_t prefillAmpereBytes(const KernelForm &form, int64_t tiles);

/// Attention of many rows on Hopper: persistent, warp-specialised.
mlir::LLVM::LLVMFuncOp buildPrefillHopper(mlir::OpBuilder &builder,
                                          mlir::Location loc,
                                          llvm::StringRef name,
                                          const KernelForm &form);

} // namespace moa::gpu

#endif // MOA_CONVERSION_TILETOGPU_KERNELS_H
