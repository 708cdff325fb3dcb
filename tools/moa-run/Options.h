//===- Options.h - Command line of moa-run ----------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the user asked for, parsed and checked.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RUN_OPTIONS_H
#define MOA_RUN_OPTIONS_H

#include <cstdint>
#include <string>
#include <vector>

/// Where to run. Auto is CUDA device 0 if there is one and the artifact has
/// kernels for it, else the CPU.
enum class Where { Auto, Cpu, Cuda };

struct Options {
  std::string artifact;
  int64_t layer = -1; ///< -1 for all.
  int64_t batch = 1;
  std::vector<int64_t> prompts = {512}; ///< Reused in turn by the batch.
  int64_t newTokens = 8;
  int threads = 0;
  Where where = Where::Auto;
  int32_t ordinal = 0; ///< Of the CUDA device.
  uint64_t seed = 0;
  bool check = false, bench = false, json = false;

  int64_t prompt(int64_t sequence) const {
    return prompts[sequence % prompts.size()];
  }
};

/// Parses argv. Returns -1 to go on, else the exit code (0 after --help).
int parseOptions(int argc, char **argv, Options &options);

#endif // MOA_RUN_OPTIONS_H
