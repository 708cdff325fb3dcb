//===- Compile.h - From a plan to an artifact -------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The compile driver: everything moa-compile does apart from reading options
// and writing files.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_PIPELINES_COMPILE_H
#define MOA_PIPELINES_COMPILE_H

#include "moa/Pipelines/BuildModule.h"
#include "moa/Target/Chip.h"
#include "moa/Target/NVPTX.h"
#include "llvm/Support/raw_ostream.h"
#include <optional>
#include <string>
#include <vector>

namespace moa {

/// What compile() yields.
enum class EmitKind {
  Moa,      ///< The module at the moa level, as text.
  Tile,     ///< The module at the tile level, as text.
  Gpu,      ///< Each kernel at the gpu level, for each GPU chip, as text.
  LLVM,     ///< Optimised LLVM IR of each kernel and chip, as text.
  Assembly, ///< Assembly of each kernel and CPU variant, as text.
  Ptx,      ///< PTX of each kernel and GPU chip, as text.
  Cubin,    ///< The cubin of the one kernel for the one GPU chip.
  Artifact  ///< The bytes of a .moa file.
};

enum class Dtype { BF16, F16, F32 };

struct CompileOptions {
  EmitKind emit = EmitKind::Artifact;
  Dtype dtype = Dtype::BF16;
  Phases phases;
  /// CPU variants to compile for, the preferred one first. If these and the
  /// GPU chips are empty, all CPU variants.
  std::vector<const CpuChip *> chips;
  /// GPU chips to compile for, the preferred one first.
  std::vector<const GpuChip *> gpuChips;
  /// Whether a GPU chip that no kernel can be compiled for is refused; else a
  /// remark says so.
  bool gpuRequired = false;
  /// Assembler of cubins; none leaves PTX alone.
  std::optional<Ptxas> ptxas;
  /// Folder of finished cubins, taken from where there is no assembler, or one
  /// of the version that made them; empty means none.
  std::string cubinDir;
  /// Whether what the assembler makes is added to it.
  bool addCubins = false;
  /// Layer to print at the levels Moa and Tile; none means all.
  std::optional<int64_t> layer;
  /// Kernels compiled at a time; 0 means one per core.
  unsigned jobs = 0;
  /// Folder that every level is written to; empty means none.
  std::string dumpDir;
  /// Folder of finished artifacts; empty means none.
  std::string cacheDir;
};

/// One kernel compiled for one chip.
struct KernelStats {
  std::string name;
  std::string chip;
  std::string kind; ///< "prefill", "decode", "append", "rope" or
                    ///< "prepare".
  std::vector<int64_t> layers;
  std::optional<uint64_t> instructions; ///< None for PTX alone.
  uint64_t codeBytes = 0;               ///< Cubin and PTX together.
  uint64_t scratchBytes = 0;            ///< CPU: per thread.
  /// GPU, where there is a cubin: per thread, per thread, per block.
  std::optional<uint64_t> registers, spillBytes, sharedBytes;
  std::string ptxasVersion; ///< Of what made the cubin; empty without one.
};

struct CompileStats {
  double seconds = 0;
  bool cacheHit = false;
  uint64_t artifactBytes = 0; ///< 0 where no artifact was made.
  std::vector<KernelStats> kernels;
  /// What was left out and why, one line each.
  std::vector<std::string> remarks;
};

struct CompileResult {
  std::vector<uint8_t> bytes; ///< The artifact, or text in UTF-8.
  CompileStats stats;
  /// What the cache, the cubins' or the dump folder could not do, one line
  /// each: the result is whole nevertheless.
  std::vector<std::string> warnings;
};

/// Compiles a plan that parsePlan accepted. The shape is checked, and the plan
/// against it; `planName` and `modelName` are used in messages. Refusals of the
/// input are PlanErrors.
llvm::Expected<CompileResult> compile(const plan::Plan &plan,
                                      const plan::ModelShape &shape,
                                      const CompileOptions &options,
                                      llvm::StringRef planName,
                                      llvm::StringRef modelName);

/// One JSON object: seconds, cache_hit, artifact_bytes, kernels, remarks.
void printStats(const CompileStats &stats, llvm::raw_ostream &os);

} // namespace moa

#endif // MOA_PIPELINES_COMPILE_H
