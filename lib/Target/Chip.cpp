//===- Chip.cpp - Table of chips ------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The tables behind Chip.h. The features of x86-64-v3 and v4 are those of the
// System V ABI's micro-architecture levels. Shared memory is what every chip of
// a family grants one block: 227 KiB on Hopper, 99 KiB on sm_86 and sm_89. A
// multiprocessor has 64 Ki registers from Ampere on, a quarter in each part.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/Chip.h"

#include "moa/abi/artifact.h"
#include <algorithm>

using namespace moa;

static const CpuChip kCpuChips[] = {
    {"x86-64-v4-bf16",
     MOA_CPU_X86_64_V3 | MOA_CPU_X86_64_V4 | MOA_CPU_AVX512_BF16, "x86-64-v4",
     "-prefer-256-bit,+avx512bf16", 16, 32, /*bf16Dot=*/true},
    {"x86-64-v4", MOA_CPU_X86_64_V3 | MOA_CPU_X86_64_V4, "x86-64-v4",
     "-prefer-256-bit", 16, 32, /*bf16Dot=*/false},
    {"x86-64-v3", MOA_CPU_X86_64_V3, "x86-64-v3", "", 8, 16,
     /*bf16Dot=*/false},
};

llvm::ArrayRef<CpuChip> moa::cpuChips() { return kCpuChips; }

const CpuChip *moa::findCpuChip(llvm::StringRef name) {
  for (const CpuChip &chip : kCpuChips)
    if (chip.name == name)
      return &chip;
  return nullptr;
}

static const GpuChip kGpuChips[] = {
    {"sm_90a", 90, /*archSpecific=*/true, "+ptx86", 227 * 1024, 255, 16 * 1024},
    {"sm_80", 80, /*archSpecific=*/false, "+ptx80", 99 * 1024, 255, 16 * 1024},
};

static_assert(MOA_GPU_MAX_SHARED_BYTES == 227 * 1024,
              "the largest of the table is what a reader accepts");

int64_t GpuChip::maxRegistersOf(int64_t threads) const {
  constexpr int64_t kWarp = 32, kParts = 4, kUnit = 8;
  const int64_t warps = (threads + kWarp - 1) / kWarp;
  const int64_t inPart = (warps + kParts - 1) / kParts;
  const int64_t most = partRegisters / (kWarp * inPart) / kUnit * kUnit;
  return std::min(most, maxRegisters);
}

uint32_t GpuChip::features() const {
  return capability | (archSpecific ? MOA_GPU_ARCH_SPECIFIC : 0);
}

llvm::ArrayRef<GpuChip> moa::gpuChips() { return kGpuChips; }

const GpuChip *moa::findGpuChip(llvm::StringRef name) {
  for (const GpuChip &chip : kGpuChips)
    if (chip.name == name)
      return &chip;
  return nullptr;
}

std::string moa::gpuChipNames() {
  std::string names;
  for (const GpuChip &chip : gpuChips())
    names += (names.empty() ? "" : ", ") + chip.name.str();
  return names;
}
