//===- CompileStats.h - Statistics that the cache kept ----------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The inverse of printStats, for the cache alone.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_PIPELINES_COMPILESTATS_H
#define MOA_LIB_PIPELINES_COMPILESTATS_H

#include "moa/Pipelines/Compile.h"

namespace moa {

/// Reads kernels and remarks from what printStats wrote; false when something
/// is missing.
bool readStats(llvm::StringRef text, CompileStats &stats);

} // namespace moa

#endif // MOA_LIB_PIPELINES_COMPILESTATS_H
