//===- Pipelines.h - Pipeline from the moa dialect to tile kernels -*- C++
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

#ifndef MOA_PIPELINES_PIPELINES_H
#define MOA_PIPELINES_PIPELINES_H

#include "mlir/Pass/PassManager.h"
#include "mlir/Pass/PassOptions.h"
#include "moa/Pipelines/TileToCpu.h"
#include "moa/Pipelines/TileToGpu.h"

namespace moa {

struct MoaToTileOptions : mlir::PassPipelineOptions<MoaToTileOptions> {
  Option<std::string> plan{
      *this, "plan",
      llvm::cl::desc("Plan file whose windows the operations get; without it "
                     "they keep those they have")};
  Option<int64_t> length{
      *this, "length",
      llvm::cl::desc("Length N in tokens to evaluate span rules at; 0 keeps "
                     "the rules, as an artifact needs them"),
      llvm::cl::init(0)};
  Option<std::string> gpu{
      *this, "gpu",
      llvm::cl::desc("GPU to choose tiles for (sm_90a, sm_80); empty for CPUs, "
                     "whose loops are split by the mask they need")};
  Option<bool> lint{*this, "lint",
                    llvm::cl::desc("Remark on what the windows cost"),
                    llvm::cl::init(false)};
};

/// Builds the passes from attention over windows to shared tile kernels with
/// split loops, in the form that targets lower from.
void buildMoaToTilePipeline(mlir::OpPassManager &pm,
                            const MoaToTileOptions &options);

struct MoaToCpuOptions : mlir::PassPipelineOptions<MoaToCpuOptions> {
  Option<std::string> plan{
      *this, "plan", llvm::cl::desc("Plan file, as in the stage moa-to-tile")};
  Option<std::string> chip{
      *this, "chip",
      llvm::cl::desc("CPU variant to lower for (x86-64-v3, x86-64-v4)"),
      llvm::cl::init("x86-64-v4")};
};

/// Both stages: moa to tile, then each kernel module to the LLVM dialect.
void buildMoaToCpuPipeline(mlir::OpPassManager &pm,
                           const MoaToCpuOptions &options);

struct MoaToGpuOptions : mlir::PassPipelineOptions<MoaToGpuOptions> {
  Option<std::string> plan{
      *this, "plan", llvm::cl::desc("Plan file, as in the stage moa-to-tile")};
  Option<std::string> chip{*this, "chip",
                           llvm::cl::desc("GPU to lower for (sm_90a)"),
                           llvm::cl::init("sm_90a")};
};

/// Both stages: moa to tile, then each kernel module to NVVM.
void buildMoaToGpuPipeline(mlir::OpPassManager &pm,
                           const MoaToGpuOptions &options);

/// Registers moa-to-tile, moa-to-cpu, moa-to-gpu and the
/// stages below tiles for moa-opt.
void registerPipelines();

} // namespace moa

#endif // MOA_PIPELINES_PIPELINES_H
