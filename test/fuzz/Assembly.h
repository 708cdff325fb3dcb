//===- Assembly.h - Text to a verified module -------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the targets that read MLIR share: a context with our dialects, and a
// parser that keeps away what upstream is known not to survive.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_FUZZ_ASSEMBLY_H
#define MOA_TEST_FUZZ_ASSEMBLY_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"

namespace moa::fuzz {

/// Parses and verifies; null if refused. The module goes before `context`.
mlir::OwningOpRef<mlir::ModuleOp> parse(llvm::StringRef text,
                                        mlir::MLIRContext &context);

/// Registers the dialects on a context without threads or diagnostics.
void prepare(mlir::MLIRContext &context);

} // namespace moa::fuzz

#endif // MOA_TEST_FUZZ_ASSEMBLY_H
