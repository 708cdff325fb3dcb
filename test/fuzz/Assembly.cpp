//===- Assembly.cpp - Text to a verified module ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Assembly.h.
//
//===----------------------------------------------------------------------===//

#include "Assembly.h"

#include "moa/Dialect/Moa/IR/Moa.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"
#include "moa/Dialect/MoaTile/IR/MoaTile.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"

#include <string>

using namespace mlir;

void moa::fuzz::prepare(MLIRContext &context) {
  context.disableMultithreading();
  context.getDiagEngine().registerHandler(
      [](Diagnostic &) { return success(); });
  context.loadDialect<MoaDialect, tile::MoaTileDialect, gpu::MoaGPUDialect,
                      arith::ArithDialect, func::FuncDialect,
                      tensor::TensorDialect>();
}

OwningOpRef<ModuleOp> moa::fuzz::parse(llvm::StringRef text,
                                       MLIRContext &context) {
  // Upstream: bytecode and resources are other formats than assembly, whose
  // readers are not ours to test.
  if (text.starts_with("ML\xEFR") || text.contains("{-#"))
    return nullptr;
  // The lexer reads the NUL that files have behind their text.
  const std::string terminated = text.str();
  return parseSourceString<ModuleOp>(terminated, ParserConfig(&context));
}
