//===- CompileKernels.h - Kernels to images, side by side -------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Runs the back ends over (kernel, chip) pairs on several threads, each with a
// context of its own.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_PIPELINES_COMPILEKERNELS_H
#define MOA_LIB_PIPELINES_COMPILEKERNELS_H

#include "CubinStore.h"
#include "moa/Target/CPU.h"
#include "moa/Target/NVPTX.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/Support/Error.h"
#include <optional>
#include <string>

namespace moa {

/// One kernel to compile for one chip, and what came of it.
struct KernelJob {
  size_t kernel = 0;    ///< Index in the artifact's kernels.
  std::string name;     ///< As in the artifact.
  std::string source;   ///< Its module at the tile level, as text; empty
                        ///< for prepare, which comes with the compiler.
  unsigned columns = 0; ///< Of a decode kernel for a GPU; 0: what
                        ///< its group needs.
  const CpuChip *cpu = nullptr; ///< Borrowed; either this one
  const GpuChip *gpu = nullptr; ///< or this one is set.

  CpuImage image;             ///< For a CPU.
  GpuKernelFacts facts;       ///< For a GPU, as the three below.
  std::string ptx;            ///< As text.
  std::optional<Cubin> cubin; ///< Where there is an assembler.
  std::string gpuDialect;     ///< The module at the gpu level, as text.

  std::string llvmDialect; ///< The module before translation, as text.
  std::string llvmIR;      ///< Optimised.
  std::string assembly;    ///< For a CPU.
  std::string error;       ///< Empty when the job succeeded.
  std::string warning;     ///< Of a cubin that could not be kept.

  llvm::StringRef chipName() const { return cpu ? cpu->name : gpu->name; }
};

struct KernelJobOptions {
  unsigned threads = 0;               ///< At most so many; 0 = one per core.
  bool keepText = false;              ///< Fill the texts of every level.
  const Ptxas *ptxas = nullptr;       ///< Assembles cubins.
  const CubinStore *cubins = nullptr; ///< Where finished ones are; may be null.
  bool addCubins = false;             ///< Whether new ones are added there.
};

/// Runs all jobs. The first failure in the order of jobs is returned; what the
/// others produced is there nevertheless.
llvm::Error compileKernels(llvm::MutableArrayRef<KernelJob> jobs,
                           const KernelJobOptions &options);

} // namespace moa

#endif // MOA_LIB_PIPELINES_COMPILEKERNELS_H
