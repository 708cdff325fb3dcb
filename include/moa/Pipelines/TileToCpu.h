//===- TileToCpu.h - Pipeline from tile kernels to the LLVM dialect -*- C++
//-*-===//
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

#ifndef MOA_PIPELINES_TILETOCPU_H
#define MOA_PIPELINES_TILETOCPU_H

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassOptions.h"

namespace moa {

struct TileToCpuOptions : mlir::PassPipelineOptions<TileToCpuOptions> {
  Option<std::string> chip{
      *this, "chip",
      llvm::cl::desc("CPU variant to lower for (x86-64-v3, x86-64-v4)"),
      llvm::cl::init("x86-64-v4")};
};

/// Builds the passes that take a module of tile kernels, loops split, to the
/// LLVM dialect.
void buildTileToCpuPipeline(mlir::OpPassManager &pm,
                            const TileToCpuOptions &options);

} // namespace moa

#endif // MOA_PIPELINES_TILETOCPU_H
