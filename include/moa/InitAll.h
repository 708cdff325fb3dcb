//===- InitAll.h - Everything a tool registers ------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Dialects and passes that moa-opt and moa-lsp-server know: ours, and those
// upstream that our levels are lowered to. Kept short, so that tools start
// fast.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_INITALL_H
#define MOA_INITALL_H

namespace mlir {
class DialectRegistry;
} // namespace mlir

namespace moa {

/// Adds our dialects and the upstream ones our levels use.
void registerAllDialects(mlir::DialectRegistry &registry);

/// Registers our passes and pipelines, and upstream's clean-up passes.
void registerAllPasses();

} // namespace moa

#endif // MOA_INITALL_H
