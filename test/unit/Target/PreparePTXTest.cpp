//===- PreparePTXTest.cpp - PTX and cubin of the prepare kernel -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The kernel that is written in C, for every GPU chip: its launch facts, what
// its PTX has and lacks, and what the assembler makes of it.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/NVPTX.h"

#include "moa/abi/gpu_step.h"
#include "gtest/gtest.h"

using namespace moa;
using llvm::StringRef;

namespace {

std::string ptxOf(const GpuChip &chip, std::string *llvmIR = nullptr) {
  llvm::Expected<std::string> ptx =
      emitPreparePTX(chip, PtxEmitOptions{llvmIR});
  return ptx ? *ptx : "failed: " + llvm::toString(ptx.takeError());
}

TEST(PreparePTX, EveryChip) {
  for (const GpuChip &chip : gpuChips()) {
    std::string llvmIR;
    const std::string ptx = ptxOf(chip, &llvmIR);
    for (const std::string &expected :
         {".target " + chip.name.str() + "\n",
          std::string(".visible .entry moa_prepare("),
          ".b8 moa_prepare_param_0[" +
              std::to_string(sizeof(moa_gpu_prepare_args)) + "]",
          ".reqntid " + std::to_string(MOA_GPU_PREPARE_THREADS) + "\n",
          // The span's product is rounded by itself.
          std::string("mul.rn.f64"), std::string("bar.sync")})
      EXPECT_TRUE(StringRef(ptx).contains(expected))
          << chip.name.str() << " lacks: " << expected << "\n"
          << ptx;
    // Nor is a word read past the caches' coherence that a thread of the block
    // may have written.
    for (StringRef unexpected : {"fma.rn.f64", "call", ".local", ".nc"})
      EXPECT_FALSE(StringRef(ptx).contains(unexpected))
          << chip.name.str() << " has: " << unexpected.str() << "\n"
          << ptx;
    EXPECT_TRUE(StringRef(llvmIR).contains("define"));
    EXPECT_FALSE(StringRef(llvmIR).contains("target-cpu")) << llvmIR;
  }
}

TEST(PreparePTX, FitsItsBudget) {
  llvm::Expected<Ptxas> ptxas = findPtxas();
  if (!ptxas)
    GTEST_SKIP() << llvm::toString(ptxas.takeError());
  for (const GpuChip &chip : gpuChips()) {
    GpuKernelFacts facts = prepareKernelFacts();
    const std::string ptx = ptxOf(chip);
    llvm::Expected<Cubin> cubin = assemblePTX(ptx, facts, chip, *ptxas);
    ASSERT_TRUE(bool(cubin)) << llvm::toString(cubin.takeError());
    EXPECT_GE(cubin->report.registers, 32u);
    EXPECT_EQ(cubin->report.spillBytes, 0u);
    EXPECT_EQ(cubin->report.sharedBytes, 2u * 4 * MOA_GPU_PREPARE_THREADS +
                                             sizeof(moa_gpu_prepare_shared));
    EXPECT_GT(cubin->instructions, 300u);
    EXPECT_LT(cubin->instructions, 3000u);
    // The gate is that of all kernels.
    facts.registerBudget = cubin->report.registers - 1;
    llvm::Expected<Cubin> refused = assemblePTX(ptx, facts, chip, *ptxas);
    ASSERT_FALSE(bool(refused));
    EXPECT_TRUE(StringRef(llvm::toString(refused.takeError()))
                    .contains("kernel 'moa_prepare' on " + chip.name.str() +
                              ": expected at most "));
  }
}

} // namespace
