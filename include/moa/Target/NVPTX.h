//===- NVPTX.h - From NVVM dialect to PTX and cubin -------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The last steps for GPUs, each a function of its own: LLVM and NVVM dialects
// to PTX text, PTX to a cubin by ptxas, whose messages become errors. Code that
// ptxas had to repair, spilled or blew up is refused, never shipped.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TARGET_NVPTX_H
#define MOA_TARGET_NVPTX_H

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Support/LLVM.h"
#include "moa/Target/Chip.h"
#include "llvm/Support/Error.h"
#include <cstdint>
#include <string>
#include <vector>

namespace moa {

/// What a kernel's function says about its launch.
struct GpuKernelFacts {
  std::string function;        ///< Its name.
  uint32_t threads = 0;        ///< `moa.threads`: of a block.
  uint32_t sharedBytes = 0;    ///< `moa.shared_bytes`: dynamic, of a block.
  uint32_t tileRows = 0;       ///< `moa.tile_rows`: 0 where it means nothing.
  uint32_t tileKeys = 0;       ///< `moa.tile_keys`: likewise.
  uint32_t registerBudget = 0; ///< `moa.register_budget`: most of a thread.
};

/// Reads the facts off the one function with `nvvm.kernel` in `module`. Errors,
/// a register budget among them with which `chip` cannot launch the block, are
/// reported at the function, or at the module that lacks it.
mlir::FailureOr<GpuKernelFacts> readGpuKernelFacts(mlir::ModuleOp module,
                                                   const GpuChip &chip);

/// What else to produce on the way; null pointers are skipped.
struct PtxEmitOptions {
  std::string *llvmIR = nullptr; ///< Optimised LLVM IR, as text.
};

/// Compiles `module` (LLVM and NVVM dialects, one function with `nvvm.kernel`)
/// to PTX for `chip`. Other functions are inlined; what is left of calls, and
/// arrays that would lie in local memory, are errors. Errors are reported on
/// the module. Thread-safe for different contexts.
mlir::FailureOr<std::string> emitPTX(mlir::ModuleOp module, const GpuChip &chip,
                                     const PtxEmitOptions &options = {});

/// Launch facts of the prepare kernel (abi/gpu_step.h), the same for every
/// chip. It comes with the compiler and has no module.
GpuKernelFacts prepareKernelFacts();

/// Compiles it to PTX for `chip`, under the checks of emitPTX. Thread-safe.
llvm::Expected<std::string> emitPreparePTX(const GpuChip &chip,
                                           const PtxEmitOptions &options = {});

/// The assembler of the CUDA toolkit on this machine.
struct Ptxas {
  std::string path;
  std::string version; ///< "13.0.88".
};

/// How far ptxas optimises.
inline constexpr llvm::StringLiteral kPtxasLevel = "-O3";

/// The folders that may hold ptxas, in the order of search: those of PATH,
/// $CUDA_HOME/bin, $CUDA_PATH/bin, /usr/local/cuda/bin, and, where the folder
/// `sitePackages` is not empty, those of NVIDIA's Python packages in it.
std::vector<std::string> ptxasFolders(llvm::StringRef sitePackages);

/// Finds ptxas: at `path` if that is not empty, else the first in the folders
/// above that is new enough. The error says where it looked, and what a program
/// found there answered.
llvm::Expected<Ptxas> findPtxas(llvm::StringRef path = "",
                                llvm::StringRef sitePackages = "");

/// What ptxas -v says about one kernel.
struct PtxasReport {
  uint32_t registers = 0;              ///< Of a thread.
  uint32_t sharedBytes = 0;            ///< Static, of a block.
  uint32_t stackBytes = 0;             ///< Stack frame of a thread.
  uint32_t spillBytes = 0;             ///< Stores and loads, together.
  std::vector<std::string> advisories; ///< Lines with a code C75xx: products
                                       ///< serialised, waits injected, register
                                       ///< requests ignored.
  std::vector<std::string> warnings;   ///< Other lines that warn.
};

/// Reads the messages of `ptxas -v` for a module with one kernel. Fails when
/// they do not state the registers.
llvm::Expected<PtxasReport> parsePtxasReport(llvm::StringRef text);

/// Refuses a report with advisories, spills, a stack frame, more registers than
/// the budget or than a block of so many threads can be launched with, or more
/// shared memory than the chip has. The error says what was expected and found,
/// and repeats the lines of ptxas that show it.
llvm::Error checkPtxasReport(const PtxasReport &report,
                             const GpuKernelFacts &facts, const GpuChip &chip);

/// Machine code of one kernel.
struct Cubin {
  std::vector<uint8_t> code;
  PtxasReport report;
  uint64_t instructions = 0; ///< Machine instructions, padding included.
  std::string messages;      ///< All that ptxas said.
  std::string ptxasVersion;  ///< Of the ptxas that made it.
};

/// Assembles PTX with one kernel for `chip`, without a shell, in temporary
/// files that are gone afterwards, and checks what ptxas reports.
llvm::Expected<Cubin> assemblePTX(llvm::StringRef ptx,
                                  const GpuKernelFacts &facts,
                                  const GpuChip &chip, const Ptxas &ptxas);

} // namespace moa

#endif // MOA_TARGET_NVPTX_H
