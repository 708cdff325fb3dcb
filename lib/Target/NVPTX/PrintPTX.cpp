//===- PrintPTX.cpp - LLVM IR to PTX --------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of PrintPTX.h.
//
//===----------------------------------------------------------------------===//

#include "PrintPTX.h"

#include "../Optimize.h"

#include "llvm/IR/InstIterator.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Target/TargetMachine.h"

using namespace moa;
using llvm::StringRef;

static void initializeTarget() {
  static const bool done = [] {
    LLVMInitializeNVPTXTargetInfo();
    LLVMInitializeNVPTXTarget();
    LLVMInitializeNVPTXTargetMC();
    LLVMInitializeNVPTXAsmPrinter();
    return true;
  }();
  (void)done;
}

static std::unique_ptr<llvm::TargetMachine>
createTargetMachine(const GpuChip &chip, std::string &error) {
  initializeTarget();
  llvm::Triple triple("nvptx64-nvidia-cuda");
  const llvm::Target *target =
      llvm::TargetRegistry::lookupTarget(triple, error);
  if (!target)
    return nullptr;
  return std::unique_ptr<llvm::TargetMachine>(target->createTargetMachine(
      triple, chip.name, chip.ptxFeature, llvm::TargetOptions(), std::nullopt,
      std::nullopt, llvm::CodeGenOptLevel::Aggressive));
}

/// Makes everything but the kernel disappear into it.
static void prepareFunctions(llvm::Module &module, StringRef kernel) {
  for (llvm::Function &function : module) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr(llvm::Attribute::NoUnwind);
    if (function.getName() == kernel)
      continue;
    function.setLinkage(llvm::GlobalValue::InternalLinkage);
    function.removeFnAttr(llvm::Attribute::NoInline);
    function.removeFnAttr(llvm::Attribute::OptimizeNone);
    function.addFnAttr(llvm::Attribute::AlwaysInline);
  }
}

/// What the optimiser had to remove and did not: calls and stack variables.
static llvm::Error checkOptimized(const llvm::Module &module) {
  for (const llvm::Function &function : module)
    for (const llvm::Instruction &instruction : llvm::instructions(function)) {
      if (auto *call = llvm::dyn_cast<llvm::CallBase>(&instruction)) {
        const llvm::Function *callee = call->getCalledFunction();
        if (!call->isInlineAsm() && (!callee || !callee->isIntrinsic()))
          return llvm::createStringError(
              "expected no call in the kernel, found one of '" +
              (callee ? callee->getName() : "a pointer") +
              "'; only functions defined in the module are inlined");
      }
      if (auto *alloca = llvm::dyn_cast<llvm::AllocaInst>(&instruction)) {
        std::string type;
        llvm::raw_string_ostream(type) << *alloca->getAllocatedType();
        return llvm::createStringError(
            "expected no variable in local memory, found an alloca of " + type +
            "; keep values in registers, and index them by constants alone");
      }
    }
  return llvm::Error::success();
}

llvm::Expected<std::string> moa::printPTX(llvm::Module &module,
                                          StringRef kernel, const GpuChip &chip,
                                          const PtxEmitOptions &options) {
  std::string error;
  std::unique_ptr<llvm::TargetMachine> machine =
      createTargetMachine(chip, error);
  if (!machine)
    return llvm::createStringError("no code generator for " + chip.name + ": " +
                                   error);
  module.setTargetTriple(machine->getTargetTriple());
  module.setDataLayout(machine->createDataLayout());
  prepareFunctions(module, kernel);
  optimizeModule(module, *machine);
  if (options.llvmIR) {
    llvm::raw_string_ostream stream(*options.llvmIR);
    module.print(stream, nullptr);
  }
  if (llvm::Error failure = checkOptimized(module))
    return std::move(failure);

  llvm::SmallVector<char, 0> text;
  llvm::raw_svector_ostream stream(text);
  llvm::legacy::PassManager passes;
  if (machine->addPassesToEmitFile(passes, stream, nullptr,
                                   llvm::CodeGenFileType::AssemblyFile))
    return llvm::createStringError("cannot emit PTX for " + chip.name);
  passes.run(module);
  std::string ptx(text.begin(), text.end());
  // Parameters that are written to, and wide values that are indexed, are put
  // there by the code generator.
  if (StringRef(ptx).contains("__local_depot"))
    return llvm::createStringError(
        "expected no local memory in the PTX for " + chip.name +
        ", found a local depot; read parameters only, and index values in "
        "registers by constants alone");
  return ptx;
}
