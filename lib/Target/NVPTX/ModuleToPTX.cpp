//===- ModuleToPTX.cpp - NVVM dialect to PTX ------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads the launch facts off a kernel, translates to LLVM IR, optimises for the
// chip and prints PTX. One call compiles one kernel for one chip.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/NVPTX.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"

using namespace mlir;
using namespace moa;

/// The one function with `nvvm.kernel`.
static FailureOr<LLVM::LLVMFuncOp> findKernel(ModuleOp module) {
  SmallVector<LLVM::LLVMFuncOp> kernels;
  for (auto function : module.getOps<LLVM::LLVMFuncOp>())
    if (function->hasAttr(NVVM::NVVMDialect::getKernelFuncAttrName()))
      kernels.push_back(function);
  if (kernels.size() != 1)
    return module.emitError("expected one function with 'nvvm.kernel', found ")
           << kernels.size();
  if (kernels.front().isExternal())
    return kernels.front().emitError("expected a kernel with a body");
  return kernels.front();
}

FailureOr<GpuKernelFacts> moa::readGpuKernelFacts(ModuleOp module) {
  FailureOr<LLVM::LLVMFuncOp> kernel = findKernel(module);
  if (failed(kernel))
    return failure();
  GpuKernelFacts facts;
  facts.function = kernel->getName().str();
  const struct {
    StringRef name;
    uint32_t &value;
    int64_t least, most, step;
  } fields[] = {
      {"moa.threads", facts.threads, 32, 1024, 32},
      {"moa.shared_bytes", facts.sharedBytes, 0, UINT32_MAX, 1},
      {"moa.tile_rows", facts.tileRows, 0, UINT32_MAX, 1},
      {"moa.tile_keys", facts.tileKeys, 0, UINT32_MAX, 1},
      {"moa.register_budget", facts.registerBudget, 1, 255, 1},
  };
  for (const auto &field : fields) {
    auto attribute = (*kernel)->getAttrOfType<IntegerAttr>(field.name);
    int64_t value = attribute ? attribute.getInt() : -1;
    if (value < field.least || value > field.most || value % field.step) {
      InFlightDiagnostic error = kernel->emitError("expected attribute '")
                                 << field.name << "' from " << field.least
                                 << " to " << field.most;
      if (field.step > 1)
        error << " in steps of " << field.step;
      if (attribute)
        return error << ", got " << attribute;
      return error << ", found none; the conversion to NVVM sets it";
    }
    field.value = value;
  }
  return facts;
}

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

static void optimize(llvm::Module &module, llvm::TargetMachine &machine) {
  llvm::PassBuilder builder(&machine);
  llvm::LoopAnalysisManager lam;
  llvm::FunctionAnalysisManager fam;
  llvm::CGSCCAnalysisManager cam;
  llvm::ModuleAnalysisManager mam;
  builder.registerModuleAnalyses(mam);
  builder.registerCGSCCAnalyses(cam);
  builder.registerFunctionAnalyses(fam);
  builder.registerLoopAnalyses(lam);
  builder.crossRegisterProxies(lam, fam, cam, mam);
  builder.buildPerModuleDefaultPipeline(llvm::OptimizationLevel::O3)
      .run(module, mam);
}

/// What the optimiser had to remove and did not: calls and stack variables.
static LogicalResult checkOptimized(const llvm::Module &module,
                                    ModuleOp source) {
  for (const llvm::Function &function : module)
    for (const llvm::Instruction &instruction : llvm::instructions(function)) {
      if (auto *call = dyn_cast<llvm::CallBase>(&instruction)) {
        const llvm::Function *callee = call->getCalledFunction();
        if (!call->isInlineAsm() && (!callee || !callee->isIntrinsic()))
          return source.emitError("expected no call in the kernel, found one "
                                  "of '")
                 << (callee ? callee->getName() : "a pointer")
                 << "'; only functions defined in the module are inlined";
      }
      if (auto *alloca = dyn_cast<llvm::AllocaInst>(&instruction)) {
        std::string type;
        llvm::raw_string_ostream(type) << *alloca->getAllocatedType();
        return source.emitError("expected no variable in local memory, found "
                                "an alloca of ")
               << type
               << "; keep values in registers, and index them by constants "
                  "alone";
      }
    }
  return success();
}

FailureOr<std::string> moa::emitPTX(ModuleOp module, const GpuChip &chip,
                                    const PtxEmitOptions &options) {
  FailureOr<LLVM::LLVMFuncOp> kernel = findKernel(module);
  if (failed(kernel))
    return failure();
  registerBuiltinDialectTranslation(*module.getContext());
  registerLLVMDialectTranslation(*module.getContext());
  registerNVVMDialectTranslation(*module.getContext());
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> llvmModule =
      translateModuleToLLVMIR(module, context);
  if (!llvmModule)
    return module.emitError("cannot be translated to LLVM IR; lower it to the "
                            "LLVM and NVVM dialects first");
  std::string error;
  std::unique_ptr<llvm::TargetMachine> machine =
      createTargetMachine(chip, error);
  if (!machine)
    return module.emitError("no code generator for ")
           << chip.name << ": " << error;
  llvmModule->setTargetTriple(machine->getTargetTriple());
  llvmModule->setDataLayout(machine->createDataLayout());
  prepareFunctions(*llvmModule, kernel->getName());
  optimize(*llvmModule, *machine);
  if (options.llvmIR) {
    llvm::raw_string_ostream stream(*options.llvmIR);
    llvmModule->print(stream, nullptr);
  }
  if (failed(checkOptimized(*llvmModule, module)))
    return failure();

  SmallVector<char, 0> text;
  llvm::raw_svector_ostream stream(text);
  llvm::legacy::PassManager passes;
  if (machine->addPassesToEmitFile(passes, stream, nullptr,
                                   llvm::CodeGenFileType::AssemblyFile))
    return module.emitError("cannot emit PTX for ") << chip.name;
  passes.run(*llvmModule);
  std::string ptx(text.begin(), text.end());
  // Parameters that are written to, and wide values that are indexed, are put
  // there by the code generator.
  if (StringRef(ptx).contains("__local_depot"))
    return module.emitError("expected no local memory in the PTX for ")
           << chip.name << ", found a local depot; read parameters only, and "
           << "index values in registers by constants alone";
  return ptx;
}
