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

} // namespace moa

#endif // MOA_TARGET_CHIP_H
