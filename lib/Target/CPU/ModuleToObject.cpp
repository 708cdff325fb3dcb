//===- ModuleToObject.cpp - LLVM dialect to a CPU image -------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Translates to LLVM IR, optimises for the chip, emits an ELF object and
// flattens it. One call compiles one kernel for one chip.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/CPU.h"

#include "../Optimize.h"

#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/SmallVectorMemoryBuffer.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Transforms/Utils/Cloning.h"

using namespace mlir;
using namespace moa;

static void initializeTarget() {
  static const bool done = [] {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    return true;
  }();
  (void)done;
}

static std::unique_ptr<llvm::TargetMachine>
createTargetMachine(const CpuChip &chip, std::string &error) {
  initializeTarget();
  llvm::Triple triple("x86_64-unknown-linux-gnu");
  const llvm::Target *target =
      llvm::TargetRegistry::lookupTarget(triple, error);
  if (!target)
    return nullptr;
  return std::unique_ptr<llvm::TargetMachine>(target->createTargetMachine(
      triple, chip.llvmCpu, chip.llvmFeatures, llvm::TargetOptions(),
      llvm::Reloc::PIC_, llvm::CodeModel::Small,
      llvm::CodeGenOptLevel::Aggressive));
}

/// Keeps the optimiser from calling memset and its kin, and pins the CPU.
static void prepareFunctions(llvm::Module &module, const CpuChip &chip,
                             StringRef entry) {
  for (llvm::Function &function : module) {
    if (function.isDeclaration())
      continue;
    function.addFnAttr("no-builtins");
    function.addFnAttr("target-cpu", chip.llvmCpu);
    if (!chip.llvmFeatures.empty())
      function.addFnAttr("target-features", chip.llvmFeatures);
    function.addFnAttr(llvm::Attribute::NoUnwind);
    if (function.getName() != entry)
      function.setLinkage(llvm::GlobalValue::InternalLinkage);
  }
}

static void optimize(llvm::Module &module, llvm::TargetMachine &machine) {
  llvm::PipelineTuningOptions tuning;
  // The kernels are vector code already.
  tuning.LoopVectorization = false;
  tuning.SLPVectorization = false;
  tuning.LoopUnrolling = false;
  optimizeModule(module, machine, tuning);
}

/// Object or assembly text of a copy of the module: emission changes it.
static bool emitFile(const llvm::Module &module, llvm::TargetMachine &machine,
                     llvm::CodeGenFileType type, SmallVectorImpl<char> &out) {
  std::unique_ptr<llvm::Module> copy = llvm::CloneModule(module);
  llvm::raw_svector_ostream stream(out);
  llvm::legacy::PassManager passes;
  if (machine.addPassesToEmitFile(passes, stream, nullptr, type))
    return false;
  passes.run(*copy);
  return true;
}

/// Counts lines of assembly text that are instructions.
static uint64_t countInstructions(StringRef assembly) {
  uint64_t count = 0;
  while (!assembly.empty()) {
    auto [line, rest] = assembly.split('\n');
    assembly = rest;
    StringRef text = line.ltrim();
    if (line.starts_with("\t") && !text.empty() && !text.starts_with(".") &&
        !text.starts_with("#"))
      ++count;
  }
  return count;
}

FailureOr<CpuImage> moa::emitCpuImage(ModuleOp module, StringRef entry,
                                      const CpuChip &chip,
                                      const CpuEmitOptions &options) {
  auto kernel = module.lookupSymbol(entry);
  if (!kernel)
    return module.emitError("expected a function named '")
           << entry << "' to compile";
  auto scratch = kernel->getAttrOfType<IntegerAttr>("moa.scratch_bytes");
  if (!scratch)
    return kernel->emitError("expected attribute 'moa.scratch_bytes'; ")
           << "convert-moa-tile-to-cpu sets it";

  registerBuiltinDialectTranslation(*module.getContext());
  registerLLVMDialectTranslation(*module.getContext());
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> llvmModule =
      translateModuleToLLVMIR(module, context);
  if (!llvmModule)
    return module.emitError("cannot be translated to LLVM IR; lower it to the "
                            "LLVM dialect first");
  std::string error;
  std::unique_ptr<llvm::TargetMachine> machine =
      createTargetMachine(chip, error);
  if (!machine)
    return module.emitError("no code generator for ")
           << chip.name << ": " << error;
  llvmModule->setTargetTriple(machine->getTargetTriple());
  llvmModule->setDataLayout(machine->createDataLayout());
  prepareFunctions(*llvmModule, chip, entry);
  optimize(*llvmModule, *machine);
  if (options.llvmIR) {
    llvm::raw_string_ostream stream(*options.llvmIR);
    llvmModule->print(stream, nullptr);
  }

  SmallVector<char, 0> assembly, object;
  if (!emitFile(*llvmModule, *machine, llvm::CodeGenFileType::AssemblyFile,
                assembly) ||
      !emitFile(*llvmModule, *machine, llvm::CodeGenFileType::ObjectFile,
                object))
    return module.emitError("cannot emit an object for ") << chip.name;
  if (options.assembly)
    options.assembly->assign(assembly.begin(), assembly.end());

  llvm::Expected<CpuImage> image =
      flattenObject(StringRef(object.data(), object.size()), entry);
  if (!image)
    return module.emitError(llvm::toString(image.takeError()));
  image->scratchBytes = scratch.getInt();
  image->instructions =
      countInstructions(StringRef(assembly.data(), assembly.size()));
  return std::move(*image);
}
