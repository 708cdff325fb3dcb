//===- PrintPTX.h - LLVM IR to PTX ------------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What kernels have in common whatever they were written in: optimised for a
// chip, checked for calls and local memory, printed.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_TARGET_NVPTX_PRINTPTX_H
#define MOA_LIB_TARGET_NVPTX_PRINTPTX_H

#include "moa/Target/NVPTX.h"
#include "llvm/IR/Module.h"

namespace moa {

/// Compiles `module`, which has a kernel of that name, to PTX for `chip`. Other
/// functions are inlined; what is left of calls, and arrays that would lie in
/// local memory, are errors.
llvm::Expected<std::string> printPTX(llvm::Module &module,
                                     llvm::StringRef kernel,
                                     const GpuChip &chip,
                                     const PtxEmitOptions &options);

} // namespace moa

#endif // MOA_LIB_TARGET_NVPTX_PRINTPTX_H
