//===- TileToGpu.cpp - Pipeline from tile kernels to NVVM -----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Our conversions, then the upstream ones. Nothing moves code between the
// spelling of products and LLVM but what is listed here: assembly keeps its
// order, and values in flight are tied to their waits.
//
//===----------------------------------------------------------------------===//

#include "moa/Pipelines/TileToGpu.h"

#include "moa/Conversion/Passes.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

void moa::buildTileToGpuDialectPipeline(OpPassManager &pm,
                                        const TileToGpuOptions &options) {
  ConvertMoaTileToGPUOptions conversion;
  conversion.chip = options.chip;
  conversion.columns = options.columns;
  pm.addPass(createConvertMoaTileToGPU(conversion));
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
}

void moa::buildTileToGpuPipeline(OpPassManager &pm,
                                 const TileToGpuOptions &options) {
  buildTileToGpuDialectPipeline(pm, options);
  pm.addPass(createConvertMoaGPUToNVVM());
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  pm.addPass(createSCFToControlFlowPass());
  pm.addPass(createConvertVectorToLLVMPass());
  pm.addPass(createArithToLLVMConversionPass());
  pm.addPass(createConvertControlFlowToLLVMPass());
  pm.addPass(createConvertFuncToLLVMPass());
  pm.addPass(createConvertNVVMToLLVMPass());
  pm.addPass(createReconcileUnrealizedCastsPass());
}
