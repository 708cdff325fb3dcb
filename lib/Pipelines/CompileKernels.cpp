//===- CompileKernels.cpp - Kernels to images, side by side ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of CompileKernels.h.
//
//===----------------------------------------------------------------------===//

#include "CompileKernels.h"

#include "GpuLowering.h"

#include "moa/Dialect/Moa/IR/Moa.h"
#include "moa/Dialect/MoaTile/IR/MoaTile.h"
#include "moa/Pipelines/TileToCpu.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"
#include "llvm/Support/raw_ostream.h"
#include <algorithm>
#include <atomic>
#include <thread>

using namespace mlir;
using namespace moa;

/// Lowers and emits one kernel for a CPU; false after an error was reported.
static bool compileForCpu(KernelJob &job, ModuleOp module, bool keepText) {
  PassManager pm(module.getContext());
  TileToCpuOptions options;
  options.chip = job.cpu->name.str();
  buildTileToCpuPipeline(pm, options);
  if (failed(pm.run(module)))
    return false;
  CpuEmitOptions emit;
  if (keepText) {
    llvm::raw_string_ostream(job.llvmDialect) << module << '\n';
    emit.llvmIR = &job.llvmIR;
    emit.assembly = &job.assembly;
  }
  FailureOr<CpuImage> image = emitCpuImage(module, job.name, *job.cpu, emit);
  if (failed(image))
    return false;
  job.image = std::move(*image);
  return true;
}

/// Takes the cubin of a job with PTX from the store: whichever is there where
/// there is no assembler, else one that the same version made.
static bool takeFinished(KernelJob &job, const KernelJobOptions &options) {
  if (!options.cubins)
    return false;
  std::optional<Cubin> cubin = options.cubins->load(job.ptx, *job.gpu);
  if (!cubin ||
      (options.ptxas && options.ptxas->version != cubin->ptxasVersion))
    return false;
  // What refuses a cubin refuses it here, too: the limits may have changed.
  if (llvm::Error error =
          checkPtxasReport(cubin->report, job.facts, *job.gpu)) {
    llvm::consumeError(std::move(error));
    return false;
  }
  job.cubin = std::move(cubin);
  return true;
}

/// Makes the cubin of a job with PTX, where there is a finished one or an
/// assembler.
static llvm::Error assemble(KernelJob &job, const KernelJobOptions &options) {
  if (takeFinished(job, options) || !options.ptxas)
    return llvm::Error::success();
  llvm::Expected<Cubin> cubin =
      assemblePTX(job.ptx, job.facts, *job.gpu, *options.ptxas);
  if (!cubin)
    return cubin.takeError();
  job.cubin = std::move(*cubin);
  if (options.cubins && options.addCubins)
    if (llvm::Error error =
            options.cubins->store(job.ptx, *job.gpu, *job.cubin))
      job.warning = llvm::toString(std::move(error));
  return llvm::Error::success();
}

/// Lowers and emits one for a GPU; false after an error was reported.
static bool compileForGpu(KernelJob &job, ModuleOp module,
                          const KernelJobOptions &options) {
  if (options.keepText) {
    OwningOpRef<ModuleOp> copy = module.clone();
    if (failed(lowerTilesToGpu(*copy, *job.gpu, job.columns)))
      return false;
    llvm::raw_string_ostream(job.gpuDialect) << *copy << '\n';
  }
  if (failed(lowerTilesToNvvm(module, *job.gpu, job.columns)))
    return false;
  FailureOr<GpuKernelFacts> facts = readGpuKernelFacts(module, *job.gpu);
  if (failed(facts))
    return false;
  job.facts = std::move(*facts);
  PtxEmitOptions emit;
  if (options.keepText) {
    llvm::raw_string_ostream(job.llvmDialect) << module << '\n';
    emit.llvmIR = &job.llvmIR;
  }
  FailureOr<std::string> ptx = emitPTX(module, *job.gpu, emit);
  if (failed(ptx))
    return false;
  job.ptx = std::move(*ptx);
  if (llvm::Error error = assemble(job, options)) {
    module.emitError(llvm::toString(std::move(error)));
    return false;
  }
  return true;
}

/// The kernel that is no module of the tile level.
static llvm::Error compilePrepare(KernelJob &job,
                                  const KernelJobOptions &options) {
  job.facts = prepareKernelFacts();
  PtxEmitOptions emit;
  if (options.keepText)
    emit.llvmIR = &job.llvmIR;
  llvm::Expected<std::string> ptx = emitPreparePTX(*job.gpu, emit);
  if (!ptx)
    return ptx.takeError();
  job.ptx = std::move(*ptx);
  return assemble(job, options);
}

static void runJob(KernelJob &job, const KernelJobOptions &options) {
  if (job.source.empty()) {
    if (llvm::Error error = compilePrepare(job, options))
      job.error = llvm::toString(std::move(error));
    return;
  }
  MLIRContext context(MLIRContext::Threading::DISABLED);
  context.loadDialect<MoaDialect, tile::MoaTileDialect, func::FuncDialect>();
  std::string messages;
  ScopedDiagnosticHandler handler(&context, [&](Diagnostic &diagnostic) {
    if (diagnostic.getSeverity() != DiagnosticSeverity::Error)
      return;
    llvm::raw_string_ostream os(messages);
    os << (messages.empty() ? "" : "; ") << diagnostic;
    for (Diagnostic &note : diagnostic.getNotes())
      os << "; " << note;
  });
  OwningOpRef<ModuleOp> module =
      parseSourceString<ModuleOp>(job.source, &context, job.name);
  bool done = module && (job.cpu ? compileForCpu(job, *module, options.keepText)
                                 : compileForGpu(job, *module, options));
  if (!done)
    job.error = messages.empty() ? "no reason given" : messages;
}

llvm::Error moa::compileKernels(llvm::MutableArrayRef<KernelJob> jobs,
                                const KernelJobOptions &options) {
  unsigned threads = options.threads;
  if (!threads)
    threads = std::max(1u, std::thread::hardware_concurrency());
  threads = std::min<size_t>(threads, jobs.size());
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t i; (i = next++) < jobs.size();)
      runJob(jobs[i], options);
  };
  std::vector<std::thread> helpers;
  for (unsigned i = 1; i < threads; ++i)
    helpers.emplace_back(work);
  work();
  for (std::thread &helper : helpers)
    helper.join();
  for (const KernelJob &job : jobs)
    if (!job.error.empty())
      return llvm::createStringError("kernel '" + job.name + "' for " +
                                     job.chipName() + ": " + job.error);
  return llvm::Error::success();
}
