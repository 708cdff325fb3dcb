//===- GpuLowering.h - A kernel's levels on the way to a GPU ----*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Runs the pipelines for one GPU chip. Errors are reported on the module.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_PIPELINES_GPULOWERING_H
#define MOA_LIB_PIPELINES_GPULOWERING_H

#include "mlir/IR/BuiltinOps.h"
#include "moa/Target/Chip.h"

namespace moa {

/// From the moa level to kernels at the tile level, with the chip's tiles.
mlir::LogicalResult lowerToGpuTiles(mlir::ModuleOp module, const GpuChip &chip);

/// One kernel's module from the tile level to the gpu level; `columns` of a
/// decode kernel, or 0 for what its group needs.
mlir::LogicalResult lowerTilesToGpu(mlir::ModuleOp kernel, const GpuChip &chip,
                                    unsigned columns);

/// The same from the tile level to the LLVM and NVVM dialects.
mlir::LogicalResult lowerTilesToNvvm(mlir::ModuleOp kernel, const GpuChip &chip,
                                     unsigned columns);

} // namespace moa

#endif // MOA_LIB_PIPELINES_GPULOWERING_H
