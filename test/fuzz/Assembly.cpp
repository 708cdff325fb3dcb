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

/// Whether text may name something of the LLVM dialect other than a pointer.
static bool namesLLVM(llvm::StringRef text) {
  for (size_t at = text.find("llvm."); at != llvm::StringRef::npos;
       at = text.find("llvm.", at + 1))
    if (!text.take_front(at).ends_with("!") ||
        !text.drop_front(at).starts_with("llvm.ptr"))
      return true;
  return false;
}

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
  // readers are not ours to test; nor are those of LLVM's operations.
  if (text.starts_with("ML\xEFR") || text.contains("{-#") || namesLLVM(text))
    return nullptr;
  // The lexer reads the NUL that files have behind their text.
  const std::string terminated = text.str();
  return parseSourceString<ModuleOp>(terminated, ParserConfig(&context));
}
