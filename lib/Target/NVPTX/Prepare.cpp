//===- Prepare.cpp - PTX of the prepare kernel ----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The one kernel that is written in C (Device/Prepare.c), since the runtime
// shares its arithmetic: from the bitcode that the build made of it to PTX.
//
//===----------------------------------------------------------------------===//

#include "PrintPTX.h"
#include "moa/abi/gpu_step.h"

#include "llvm/Bitcode/BitcodeReader.h"
#include "llvm/IR/LLVMContext.h"

using namespace moa;

/// LLVM bitcode of Device/Prepare.c, in a file that the build generates.
extern const unsigned char moaPrepareBitcode[];
extern const size_t moaPrepareBitcodeBytes;

/// Most registers of a thread that leave room for two blocks of a processor.
static constexpr uint32_t kRegisterBudget = 128;

GpuKernelFacts moa::prepareKernelFacts() {
  GpuKernelFacts facts;
  facts.function = "moa_prepare";
  facts.threads = MOA_GPU_PREPARE_THREADS;
  facts.registerBudget = kRegisterBudget;
  return facts;
}

llvm::Expected<std::string> moa::emitPreparePTX(const GpuChip &chip,
                                                const PtxEmitOptions &options) {
  const GpuKernelFacts facts = prepareKernelFacts();
  llvm::StringRef bytes(reinterpret_cast<const char *>(moaPrepareBitcode),
                        moaPrepareBitcodeBytes);
  llvm::LLVMContext context;
  llvm::Expected<std::unique_ptr<llvm::Module>> module = llvm::parseBitcodeFile(
      llvm::MemoryBufferRef(bytes, "Prepare.c"), context);
  if (!module)
    return module.takeError();
  llvm::Function *kernel = (*module)->getFunction(facts.function);
  if (!kernel)
    return llvm::createStringError("expected function '" + facts.function +
                                   "' in Prepare.c, found none");
  // The chip that the bitcode was made for is not the one asked for.
  kernel->removeFnAttr("target-cpu");
  kernel->removeFnAttr("target-features");
  kernel->addFnAttr("nvvm.reqntid", std::to_string(facts.threads));
  // Parameters are read where they are, not copied to each thread's memory.
  kernel->addParamAttr(0, llvm::Attribute::get(context, "nvvm.grid_constant"));
  // Without it, ptxas spills to fit a third block on a processor.
  kernel->addFnAttr("nvvm.maxnreg", std::to_string(facts.registerBudget));
  return printPTX(**module, facts.function, chip, options);
}
