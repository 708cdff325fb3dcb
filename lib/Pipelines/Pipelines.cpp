//===- Pipelines.cpp - Stages of the lowering -----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The order of passes from the moa dialect down, and its registration.
//
//===----------------------------------------------------------------------===//

#include "moa/Pipelines/Pipelines.h"

#include "moa/Conversion/Passes.h"
#include "moa/Dialect/Moa/Transforms/Passes.h"
#include "moa/Dialect/MoaTile/Transforms/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/Pass/PassRegistry.h"

using namespace mlir;

void moa::buildMoaToTilePipeline(OpPassManager &pm,
                                 const MoaToTileOptions &options) {
  if (!options.plan.empty()) {
    MoaApplyPlanOptions apply;
    apply.plan = options.plan;
    pm.addPass(createMoaApplyPlan(apply));
  }
  if (options.lint) {
    MoaLintPlanOptions lint;
    if (options.length > 0)
      lint.length = options.length;
    pm.addPass(createMoaLintPlan(lint));
  }
  if (options.length > 0) {
    MoaResolveSpansOptions resolve;
    resolve.length = options.length;
    pm.addPass(createMoaResolveSpans(resolve));
  }
  MoaAssignCacheLayoutOptions layout;
  layout.length = options.length;
  pm.addPass(createMoaAssignCacheLayout(layout));
  MoaSelectTileConfigOptions tile;
  tile.chip = options.gpu;
  pm.addPass(createMoaSelectTileConfig(tile));
  pm.addPass(createMoaVerifyForm());
  pm.addPass(createConvertMoaToTile());
  if (!options.gpu.empty())
    return;
  OpPassManager &kernels = pm.nest<ModuleOp>().nest<func::FuncOp>();
  kernels.addPass(tile::createMoaSplitTileLoops());
  kernels.addPass(tile::createMoaVerifyTileForm());
}

void moa::buildMoaToCpuPipeline(OpPassManager &pm,
                                const MoaToCpuOptions &options) {
  MoaToTileOptions toTile;
  toTile.plan = options.plan;
  buildMoaToTilePipeline(pm, toTile);
  TileToCpuOptions toCpu;
  toCpu.chip = options.chip;
  buildTileToCpuPipeline(pm.nest<ModuleOp>(), toCpu);
}

void moa::buildMoaToGpuPipeline(OpPassManager &pm,
                                const MoaToGpuOptions &options) {
  MoaToTileOptions toTile;
  toTile.plan = options.plan;
  toTile.gpu = options.chip;
  buildMoaToTilePipeline(pm, toTile);
  TileToGpuOptions toGpu;
  toGpu.chip = options.chip;
  buildTileToGpuPipeline(pm.nest<ModuleOp>(), toGpu);
}

void moa::registerPipelines() {
  PassPipelineRegistration<MoaToTileOptions>(
      "moa-to-tile", "Attention over windows to shared tile kernels",
      buildMoaToTilePipeline);
  PassPipelineRegistration<TileToCpuOptions>(
      "moa-tile-to-cpu", "Tile kernels, loops split, to the LLVM dialect",
      buildTileToCpuPipeline);
  PassPipelineRegistration<MoaToCpuOptions>(
      "moa-to-cpu", "Attention over windows to the LLVM dialect for one CPU",
      buildMoaToCpuPipeline);
  PassPipelineRegistration<TileToGpuOptions>(
      "moa-tile-to-gpu", "Tile kernels, loops whole, to NVVM and inline PTX",
      buildTileToGpuPipeline);
  PassPipelineRegistration<MoaToGpuOptions>(
      "moa-to-gpu", "Attention over windows to NVVM for one GPU",
      buildMoaToGpuPipeline);
}
