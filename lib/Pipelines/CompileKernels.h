//===- CompileKernels.h - Kernels to images, side by side -------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Runs the CPU back end over (kernel, chip) pairs on several threads, each with
// a context of its own.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_PIPELINES_COMPILEKERNELS_H
#define MOA_LIB_PIPELINES_COMPILEKERNELS_H

#include "moa/Target/CPU.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/Support/Error.h"
#include <string>

namespace moa {

/// One kernel to compile for one chip, and what came of it.
struct KernelJob {
  size_t kernel = 0;             ///< Index in the artifact's kernels.
  llvm::StringRef name;          ///< The kernel's function.
  llvm::StringRef source;        ///< Its module at the tile level, as text.
  const CpuChip *chip = nullptr; ///< Borrowed.

  CpuImage image;
  std::string llvmDialect; ///< The module before translation, as text.
  std::string llvmIR;      ///< Optimised.
  std::string assembly;
  std::string error; ///< Empty when the job succeeded.
};

/// Runs all jobs on at most `threads` threads (0 = one per core). The first
/// failure in the order of jobs is returned. Texts are filled when `keepText`.
llvm::Error compileKernels(llvm::MutableArrayRef<KernelJob> jobs,
                           unsigned threads, bool keepText);

} // namespace moa

#endif // MOA_LIB_PIPELINES_COMPILEKERNELS_H
