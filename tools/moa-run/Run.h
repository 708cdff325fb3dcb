//===- Run.h - One run of moa-run -------------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Prompts, decode steps, checks and times of an artifact, through the C ABI
// alone.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RUN_RUN_H
#define MOA_RUN_RUN_H

#include "Options.h"

#include <string>

struct Report {
  double worstError = 0; ///< NaN when an output was NaN.
  std::string worstWhere;
  double tolerance = 0;
  uint64_t allocatedBytes = 0, closedFormBytes = 0, denseBytes = 0;
  double prefillMs = 0, usefulFlopsPerSecond = 0;
  double decodeMs = 0, neededBytesPerSecond = 0;
  std::string chip, dtype;
  std::string device; ///< Name of the CUDA device, or empty.
  std::string remark; ///< What fell back, or empty.
};

/// Runs; returns an empty string or what went wrong.
std::string runArtifact(const Options &options, Report &report);

#endif // MOA_RUN_RUN_H
