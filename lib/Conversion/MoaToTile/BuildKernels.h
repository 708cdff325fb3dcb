//===- BuildKernels.h - Bodies of tile kernels ------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Builds the three kinds of kernel from their structure. Private to the
// conversion.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_MOATOTILE_BUILDKERNELS_H
#define MOA_CONVERSION_MOATOTILE_BUILDKERNELS_H

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "moa/Dialect/Moa/IR/Moa.h"
#include "moa/Dialect/MoaTile/IR/MoaTile.h"

namespace moa {

/// What distinguishes one kernel from another.
struct KernelStructure {
  KernelKind kind;
  int64_t headDim;
  int64_t group; ///< Query heads of a work item; 1 unless decode.
  mlir::Type dtype;
  tile::ConfigAttr config;
  tile::RopeAttr rope = {}; ///< Null unless rope.
  bool kv8 = false;         ///< Attention over blocks of 8 bits beside others.
  mlir::FloatAttr softCap = {}; ///< Of scores; null where they have none.

  /// "decode_d64_g3_f32", "rope_d64_half32_f32", "prefill_d64_bf16_kv8",
  /// "prefill_d256_bf16_cap50".
  std::string name() const;
};

/// Builds the kernel's function at the builder's insertion point.
mlir::func::FuncOp buildKernel(mlir::OpBuilder &builder, mlir::Location loc,
                               const KernelStructure &structure);

} // namespace moa

#endif // MOA_CONVERSION_MOATOTILE_BUILDKERNELS_H
