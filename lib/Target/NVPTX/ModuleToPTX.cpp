//===- ModuleToPTX.cpp - NVVM dialect to PTX ------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads the launch facts off a kernel and translates it to LLVM IR, of which
// PrintPTX.h makes PTX. One call compiles one kernel for one chip.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/NVPTX.h"

#include "PrintPTX.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"

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

FailureOr<GpuKernelFacts> moa::readGpuKernelFacts(ModuleOp module,
                                                  const GpuChip &chip) {
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
  if (int64_t most = chip.maxRegistersOf(facts.threads);
      facts.registerBudget > most)
    return kernel->emitError("expected 'moa.register_budget' of at most ")
           << most << ", with which " << chip.name << " can launch a block of "
           << facts.threads << " threads, got " << facts.registerBudget
           << "; lower the budget or the threads";
  return facts;
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
  llvm::Expected<std::string> ptx =
      printPTX(*llvmModule, kernel->getName(), chip, options);
  if (!ptx)
    return module.emitError(llvm::toString(ptx.takeError()));
  return std::move(*ptx);
}
