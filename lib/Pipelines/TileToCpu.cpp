//===- TileToCpu.cpp - Pipeline from tile kernels to the LLVM dialect -----===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Our conversion, then the upstream ones in the order that leaves no cast
// behind.
//
//===----------------------------------------------------------------------===//

#include "moa/Pipelines/TileToCpu.h"

#include "moa/Conversion/Passes.h"

#include "mlir/Conversion/Passes.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

void moa::buildTileToCpuPipeline(OpPassManager &pm,
                                 const TileToCpuOptions &options) {
  ConvertMoaTileToCPUOptions conversion;
  conversion.chip = options.chip;
  pm.addPass(createConvertMoaTileToCPU(conversion));
  pm.addPass(createCanonicalizerPass());
  pm.addPass(createCSEPass());
  pm.addPass(createSCFToControlFlowPass());
  pm.addPass(createConvertVectorToLLVMPass());
  pm.addPass(createArithToLLVMConversionPass());
  pm.addPass(createConvertControlFlowToLLVMPass());
  pm.addPass(createConvertFuncToLLVMPass());
  pm.addPass(createReconcileUnrealizedCastsPass());
}
