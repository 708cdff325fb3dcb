//===- KernelForm.h - What GPUs are lowered from ----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A GPU kernel rearranges a tile kernel as a whole, so it must be the one chain
// that is known: queries, one walk over all blocks with the whole mask, a
// store; or a copy of rows, rotated or not.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOGPU_KERNELFORM_H
#define MOA_CONVERSION_TILETOGPU_KERNELFORM_H

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "moa/Dialect/MoaTile/IR/MoaTile.h"

namespace moa::gpu {

/// The facts of a kernel that is of the form.
struct KernelForm {
  tile::ItemKind kind;
  int64_t headDim;
  mlir::Type element; ///< Of keys, values and outputs.
  int64_t rows;       ///< Query rows of an item; decode: heads of a group.
  int64_t keys;       ///< Keys of a tile.
  /// Decode: most query rows of an item, which the form does not say; else 0.
  int64_t columns;
  bool kv8 = false;         ///< Whether blocks of 8 bits stand beside others.
  float softCap = 0;        ///< Of scores, in units of log2; 0 for none.
  tile::RopeAttr rope = {}; ///< Null unless rope.
};

/// Reads the form of a function with `moa_tile.config`; an error at the
/// operation at fault where it is another.
mlir::FailureOr<KernelForm> matchKernelForm(mlir::func::FuncOp kernel);

} // namespace moa::gpu

#endif // MOA_CONVERSION_TILETOGPU_KERNELFORM_H
