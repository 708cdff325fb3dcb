//===- roundtrip.cpp - Fuzzing the assembly of our dialects ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What parses and verifies is printed, and its text parses to the same text.
//
//===----------------------------------------------------------------------===//

#include "Assembly.h"

#include "llvm/Support/raw_ostream.h"

static std::string print(mlir::ModuleOp module) {
  std::string text;
  llvm::raw_string_ostream os(text);
  module.print(os);
  return text;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  mlir::MLIRContext context(mlir::MLIRContext::Threading::DISABLED);
  moa::fuzz::prepare(context);
  auto module = moa::fuzz::parse(
      llvm::StringRef(reinterpret_cast<const char *>(data), size), context);
  if (!module)
    return 0;
  std::string text = print(*module);
  auto again = moa::fuzz::parse(text, context);
  if (!again || print(*again) != text) {
    llvm::errs() << "does not read back:\n" << text;
    __builtin_trap();
  }
  return 0;
}
