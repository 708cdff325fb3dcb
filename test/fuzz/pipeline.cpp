//===- pipeline.cpp - Fuzzing the passes to tiles -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What parses and verifies goes through the passes of moa-to-tile, which refuse
// it or make a module that verifies.
//
//===----------------------------------------------------------------------===//

#include "Assembly.h"

#include "moa/Conversion/Passes.h"
#include "moa/Dialect/Moa/Transforms/Passes.h"
#include "moa/Dialect/MoaTile/Transforms/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Pass/PassManager.h"

using namespace moa;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  mlir::MLIRContext context(mlir::MLIRContext::Threading::DISABLED);
  fuzz::prepare(context);
  auto module = fuzz::parse(
      llvm::StringRef(reinterpret_cast<const char *>(data), size), context);
  if (!module)
    return 0;
  mlir::PassManager passes(&context);
  passes.addPass(createMoaAssignCacheLayout());
  passes.addPass(createMoaSelectTileConfig());
  passes.addPass(createMoaVerifyForm());
  passes.addPass(createConvertMoaToTile());
  mlir::OpPassManager &kernels =
      passes.nest<mlir::ModuleOp>().nest<mlir::func::FuncOp>();
  kernels.addPass(tile::createMoaSplitTileLoops());
  kernels.addPass(tile::createMoaVerifyTileForm());
  (void)passes.run(*module);
  return 0;
}
