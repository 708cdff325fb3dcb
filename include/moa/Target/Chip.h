//===- Chip.h - Facts of chips that kernels are compiled for ----*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Plain facts: names, feature bits as the artifact stores them, and what a code
// generator needs to know. No code generation here; every level may include
// this header.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TARGET_CHIP_H
#define MOA_TARGET_CHIP_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include <cstdint>
#include <string>

namespace moa {

/// One CPU variant that kernels are compiled for.
struct CpuChip {
  /// Name on command lines and in artifacts: "x86-64-v4".
  llvm::StringRef name;
  /// MOA_CPU_* bits of moa/abi/artifact.h that a machine must have.
  uint32_t features;
  /// CPU and extra features as LLVM's code generator spells them.
  llvm::StringRef llvmCpu;
  llvm::StringRef llvmFeatures;
  /// f32 lanes of one vector register, and how many registers there are.
  int64_t vectorLanes;
  int64_t vectorRegisters;
  /// Whether vdpbf16ps multiplies pairs of bf16 into f32 sums.
  bool bf16Dot;
};

/// All CPU variants, most demanding first: the order in which a runtime prefers
/// them.
llvm::ArrayRef<CpuChip> cpuChips();

/// The variant of that name, or null.
const CpuChip *findCpuChip(llvm::StringRef name);

/// One GPU chip that kernels are compiled for, the least of its family: code
/// for it runs on every chip of the family.
struct GpuChip {
  /// Name on command lines, in artifacts, and as LLVM and ptxas spell it:
  /// "sm_90a".
  llvm::StringRef name;
  /// 10 * major + minor of the compute capability.
  uint32_t capability;
  /// Whether code for it runs on exactly that capability.
  bool archSpecific;
  /// PTX version that the kernels need, as LLVM spells the feature.
  llvm::StringRef ptxFeature;
  /// Most shared memory a block may have, static and dynamic, bytes.
  int64_t maxSharedBytes;
  /// Most registers a thread may have.
  int64_t maxRegisters;
  /// Registers of each of the four parts of a multiprocessor, over which the
  /// warps of a block go in turn. A warp takes them in units of 8 a thread.
  int64_t partRegisters;

  /// Most registers a thread of a block of `threads` may have: with more, the
  /// part with the most warps has no room for them, and nothing is launched.
  int64_t maxRegistersOf(int64_t threads) const;

  /// What the artifact stores as moa_artifact_image.features.
  uint32_t features() const;
};

/// All GPU chips, the preferred one first.
llvm::ArrayRef<GpuChip> gpuChips();

/// The chip of that name, or null.
const GpuChip *findGpuChip(llvm::StringRef name);

/// Their names, for messages: "sm_90a, sm_80".
std::string gpuChipNames();

} // namespace moa

#endif // MOA_TARGET_CHIP_H
