//===- GpuLowering.cpp - A kernel's levels on the way to a GPU ------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of GpuLowering.h.
//
//===----------------------------------------------------------------------===//

#include "GpuLowering.h"

#include "moa/Pipelines/Pipelines.h"

using namespace mlir;
using namespace moa;

LogicalResult moa::lowerToGpuTiles(ModuleOp module, const GpuChip &chip) {
  PassManager pm(module.getContext());
  MoaToTileOptions options;
  options.gpu = chip.name.str();
  buildMoaToTilePipeline(pm, options);
  return pm.run(module);
}

static void setOptions(TileToGpuOptions &options, const GpuChip &chip,
                       unsigned columns) {
  options.chip = chip.name.str();
  options.columns = columns;
}

LogicalResult moa::lowerTilesToGpu(ModuleOp kernel, const GpuChip &chip,
                                   unsigned columns) {
  PassManager pm(kernel.getContext());
  TileToGpuOptions options;
  setOptions(options, chip, columns);
  buildTileToGpuDialectPipeline(pm, options);
  return pm.run(kernel);
}

LogicalResult moa::lowerTilesToNvvm(ModuleOp kernel, const GpuChip &chip,
                                    unsigned columns) {
  PassManager pm(kernel.getContext());
  TileToGpuOptions options;
  setOptions(options, chip, columns);
  buildTileToGpuPipeline(pm, options);
  return pm.run(kernel);
}
