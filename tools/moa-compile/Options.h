//===- Options.h - Command line of moa-compile ------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads the command line into a value, or says what is wrong with it.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TOOLS_MOA_COMPILE_OPTIONS_H
#define MOA_TOOLS_MOA_COMPILE_OPTIONS_H

#include "moa/Pipelines/Compile.h"

namespace moa {

/// What the user asked for, checked as far as it can be without reading files.
struct Arguments {
  std::string plan;
  std::string model;
  std::string output;    ///< "-" is the standard output.
  int64_t maxLength = 0; ///< Tokens; 0 = the model's.
  bool stats = false;
  /// Why GPU kernels are left as PTX; empty where they are not, or on request.
  std::string ptxRemark;
  CompileOptions options;
};

/// Exit status of the tool for refused input and for wrong usage.
constexpr int kRefused = 1;
constexpr int kUsage = 2;

/// Fills `arguments`. Returns a status to exit with when there is nothing to
/// compile: after --help, --version (0) or a complaint on the error stream.
std::optional<int> parseArguments(llvm::ArrayRef<const char *> argv,
                                  Arguments &arguments);

/// Prints `what: error: message` and `what: note: cure`; returns kRefused.
int refuse(const llvm::Twine &what, const llvm::Twine &message,
           const llvm::Twine &cure);

} // namespace moa

#endif // MOA_TOOLS_MOA_COMPILE_OPTIONS_H
