//===- CPU.h - From LLVM dialect to a CPU image -----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The last step for CPUs: LLVM dialect to LLVM IR, optimised, to machine code
// that runs wherever it is mapped. Nothing is linked and nothing is left to
// relocate at load time.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TARGET_CPU_H
#define MOA_TARGET_CPU_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Support/LLVM.h"
#include "moa/Target/Chip.h"
#include "llvm/Support/Error.h"
#include <cstdint>
#include <string>
#include <vector>

namespace moa {

/// Position-independent machine code with its constants.
struct CpuImage {
  std::vector<uint8_t> code;
  /// Offset of the kernel's first instruction in `code`.
  uint64_t entry = 0;
  /// Scratch memory a call needs, bytes.
  uint64_t scratchBytes = 0;
  /// Machine instructions of the kernel.
  uint64_t instructions = 0;
};

/// What else to produce on the way; null pointers are skipped.
struct CpuEmitOptions {
  std::string *llvmIR = nullptr;   ///< Optimised LLVM IR, as text.
  std::string *assembly = nullptr; ///< Assembly, as text.
};

/// Compiles `module` (LLVM dialect, one function named `entry` with attribute
/// `moa.scratch_bytes`) for `chip`. Errors are reported on the module.
/// Thread-safe for different contexts.
mlir::FailureOr<CpuImage> emitCpuImage(mlir::ModuleOp module,
                                       llvm::StringRef entry,
                                       const CpuChip &chip,
                                       const CpuEmitOptions &options = {});

/// Lays the sections of a relocatable x86-64 ELF object out in one flat image
/// and resolves every relocation inside it. Fails, naming the symbol, when the
/// object needs anything from outside.
llvm::Expected<CpuImage> flattenObject(llvm::StringRef object,
                                       llvm::StringRef entry);

} // namespace moa

#endif // MOA_TARGET_CPU_H
