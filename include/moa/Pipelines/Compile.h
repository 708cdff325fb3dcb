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
#include "llvm/Support/raw_ostream.h"
#include <optional>
#include <string>
#include <vector>

namespace moa {

/// What compile() yields.
enum class EmitKind {
  Moa,      ///< The module at the moa level, as text.
  Tile,     ///< The module at the tile level, as text.
  LLVM,     ///< Optimised LLVM IR of each kernel and chip, as text.
  Assembly, ///< Assembly of each kernel and chip, as text.
  Artifact  ///< The bytes of a .moa file.
};

enum class Dtype { BF16, F16, F32 };

struct CompileOptions {
  EmitKind emit = EmitKind::Artifact;
  Dtype dtype = Dtype::BF16;
  Phases phases;
  /// Variants to compile for, the preferred one first; empty means all.
  std::vector<const CpuChip *> chips;
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
  std::string kind; ///< "prefill", "decode" or "append".
  std::vector<int64_t> layers;
  uint64_t instructions = 0;
  uint64_t codeBytes = 0;
  uint64_t scratchBytes = 0; ///< Per thread.
};

struct CompileStats {
  double seconds = 0;
  bool cacheHit = false;
  uint64_t artifactBytes = 0; ///< 0 where no artifact was made.
  std::vector<KernelStats> kernels;
};

struct CompileResult {
  std::vector<uint8_t> bytes; ///< The artifact, or text in UTF-8.
  CompileStats stats;
  /// What the cache or the dump folder could not do, one line each: the result
  /// is whole nevertheless.
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

/// One JSON object: seconds, cache_hit, artifact_bytes, kernels.
void printStats(const CompileStats &stats, llvm::raw_ostream &os);

} // namespace moa

#endif // MOA_PIPELINES_COMPILE_H
