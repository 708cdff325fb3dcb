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

/// Blocks of keys and values to 8-bit codes, and back, on any chip.
mlir::LLVM::LLVMFuncOp buildQuantise(mlir::OpBuilder &builder,
                                     mlir::Location loc, llvm::StringRef name,
                                     const KernelForm &form);

/// Rotations of query and key rows, and copies as of append, on any chip.
mlir::LLVM::LLVMFuncOp buildRope(mlir::OpBuilder &builder, mlir::Location loc,
                                 llvm::StringRef name, const KernelForm &form);

/// Attention of a few rows of each head of a group from sm_80 on: persistent
/// over the pages of all items. As many are fetched ahead as `sharedBytes` have
/// room for.
mlir::LLVM::LLVMFuncOp buildDecodeAmpere(mlir::OpBuilder &builder,
                                         mlir::Location loc,
                                         llvm::StringRef name,
                                         const KernelForm &form,
                                         int64_t sharedBytes);

/// The same on Hopper, where a warp loads and others compute.
mlir::LLVM::LLVMFuncOp buildDecodeHopper(mlir::OpBuilder &builder,
                                         mlir::Location loc,
                                         llvm::StringRef name,
                                         const KernelForm &form);

/// What prefill from sm_80 on keeps in shared memory beside the queries.
struct AmpereShape {
  int64_t keys;   ///< Of a step: those of a tile, or of a part of it.
  int64_t places; ///< For the keys or the values of a step.
};
/// The shape with the most keys a step, then the most places, that
/// `sharedBytes` have room for; or one that is too large, if none has.
AmpereShape prefillAmpereShape(const KernelForm &form, int64_t sharedBytes);
/// Shared memory that a shape takes.
int64_t prefillAmpereBytes(const KernelForm &form, const AmpereShape &shape);

/// Attention of many rows from sm_80 on: persistent, every thread loads and
/// multiplies.
mlir::LLVM::LLVMFuncOp buildPrefillAmpere(mlir::OpBuilder &builder,
                                          mlir::Location loc,
                                          llvm::StringRef name,
                                          const KernelForm &form,
                                          const AmpereShape &shape);

/// Attention of many rows on Hopper: persistent, warp-specialised.
mlir::LLVM::LLVMFuncOp buildPrefillHopper(mlir::OpBuilder &builder,
                                          mlir::Location loc,
                                          llvm::StringRef name,
                                          const KernelForm &form);

} // namespace moa::gpu

#endif // MOA_CONVERSION_TILETOGPU_KERNELS_H
