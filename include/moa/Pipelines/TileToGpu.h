//===- TileToGpu.h - Pipeline from tile kernels to NVVM ---------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One stage of the lowering: options and a build function, used by moa-opt and
// by the compile driver alike.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_PIPELINES_TILETOGPU_H
#define MOA_PIPELINES_TILETOGPU_H

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassOptions.h"

namespace moa {

struct TileToGpuOptions : mlir::PassPipelineOptions<TileToGpuOptions> {
  Option<std::string> chip{*this, "chip",
                           llvm::cl::desc("GPU to lower for (sm_90a)"),
                           llvm::cl::init("sm_90a")};
  Option<unsigned> columns{
      *this, "columns",
      llvm::cl::desc("columns of decode kernels (0: what the group needs)"),
      llvm::cl::init(0)};
};

/// Builds the passes that take a module of one tile kernel, its loop whole, to
/// the moa_gpu dialect.
void buildTileToGpuDialectPipeline(mlir::OpPassManager &pm,
                                   const TileToGpuOptions &options);

/// Builds those passes and the ones that go on to the LLVM and NVVM dialects.
void buildTileToGpuPipeline(mlir::OpPassManager &pm,
                            const TileToGpuOptions &options);

} // namespace moa

#endif // MOA_PIPELINES_TILETOGPU_H
