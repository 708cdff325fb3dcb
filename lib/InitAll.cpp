//===- InitAll.cpp - Everything a tool registers --------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of InitAll.h.
//
//===----------------------------------------------------------------------===//

#include "moa/InitAll.h"

#include "moa/Conversion/Passes.h"
#include "moa/Dialect/Moa/IR/Moa.h"
#include "moa/Dialect/Moa/Transforms/Passes.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"
#include "moa/Dialect/MoaTile/IR/MoaTile.h"
#include "moa/Dialect/MoaTile/Transforms/Passes.h"
#include "moa/Pipelines/Pipelines.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Transforms/Passes.h"

using namespace mlir;

void moa::registerAllDialects(DialectRegistry &registry) {
  registry.insert<MoaDialect, tile::MoaTileDialect, gpu::MoaGPUDialect,
                  NVVM::NVVMDialect, arith::ArithDialect,
                  cf::ControlFlowDialect, func::FuncDialect, LLVM::LLVMDialect,
                  math::MathDialect, scf::SCFDialect, vector::VectorDialect>();
}

void moa::registerAllPasses() {
  registerMoaPasses();
  tile::registerMoaTilePasses();
  registerMoaConversionPasses();
  registerTransformsPasses();
  registerPipelines();
}
