//===- Optimize.h - What LLVM IR goes through for every target --*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// LLVM's own pipeline at its highest level, with what a target tunes.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_TARGET_OPTIMIZE_H
#define MOA_LIB_TARGET_OPTIMIZE_H

#include "llvm/Passes/PassBuilder.h"

namespace moa {

inline void optimizeModule(llvm::Module &module, llvm::TargetMachine &machine,
                           llvm::PipelineTuningOptions tuning = {}) {
  llvm::PassBuilder builder(&machine, tuning);
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

} // namespace moa

#endif // MOA_LIB_TARGET_OPTIMIZE_H
