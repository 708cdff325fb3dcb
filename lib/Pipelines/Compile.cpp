//===- Compile.cpp - From a plan to an artifact ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The order of a compilation: cache, moa level, tile level, kernels, artifact;
// and the text of each level on request.
//
//===----------------------------------------------------------------------===//

#include "moa/Pipelines/Compile.h"

#include "CompileCache.h"
#include "CompileKernels.h"
#include "moa/Dialect/Moa/IR/Moa.h"
#include "moa/Pipelines/Pipelines.h"
#include "moa/Target/Artifact.h"
#include "moa/abi/kernel_args.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Diagnostics.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/Path.h"
#include <chrono>

using namespace mlir;
using namespace moa;

namespace {

/// One compilation from start to end.
class Compilation {
public:
  Compilation(const plan::Plan &plan, const plan::ModelShape &shape,
              const CompileOptions &options, StringRef planName)
      : plan(plan), shape(shape), options(options), planName(planName),
        context(MLIRContext::Threading::DISABLED),
        handler(&context, [this](Diagnostic &diagnostic) {
          if (diagnostic.getSeverity() != DiagnosticSeverity::Error)
            return;
          llvm::raw_string_ostream os(errors);
          os << (errors.empty() ? "" : "; ") << diagnostic;
          for (Diagnostic &note : diagnostic.getNotes())
            os << "; " << note;
        }) {}

  llvm::Error run(CompileResult &result);

private:
  llvm::Error lowerToTiles(ModuleOp module);
  llvm::Error compileAll(ModuleOp module, ArtifactContents &contents,
                         CompileResult &result);
  void dump(StringRef name, StringRef text, CompileResult &result);
  llvm::Error internal(StringRef stage) const {
    return llvm::createStringError(
        planName + ": error: compilation failed in " + stage + ": " + errors);
  }

  const plan::Plan &plan;
  const plan::ModelShape &shape;
  const CompileOptions &options;
  StringRef planName;
  MLIRContext context;
  std::string errors;
  ScopedDiagnosticHandler handler;
};

} // namespace

static Type dtypeOf(MLIRContext &context, Dtype dtype) {
  switch (dtype) {
  case Dtype::BF16:
    return BFloat16Type::get(&context);
  case Dtype::F16:
    return Float16Type::get(&context);
  case Dtype::F32:
    return Float32Type::get(&context);
  }
  llvm_unreachable("unknown dtype");
}

/// The module as text, with functions of other layers left out.
static std::string textOf(ModuleOp module, std::optional<int64_t> layer) {
  OwningOpRef<ModuleOp> copy;
  if (layer) {
    copy = module.clone();
    for (auto function :
         llvm::make_early_inc_range(copy->getOps<func::FuncOp>()))
      if (function->getAttrOfType<IntegerAttr>(kLayerAttrName).getInt() !=
          *layer)
        function.erase();
    module = *copy;
  }
  std::string text;
  // Not operator<<, which leaves aliases of attributes out.
  llvm::raw_string_ostream os(text);
  module.print(os);
  return text;
}

static void setText(CompileResult &result, StringRef text) {
  result.bytes.assign(text.bytes_begin(), text.bytes_end());
}

void Compilation::dump(StringRef name, StringRef text, CompileResult &result) {
  if (options.dumpDir.empty())
    return;
  llvm::SmallString<256> path(options.dumpDir);
  if (std::error_code error = llvm::sys::fs::create_directories(path)) {
    result.warnings.push_back(
        ("cannot create '" + path + "': " + error.message()).str());
    return;
  }
  llvm::sys::path::append(path, name);
  if (llvm::Error error = writeFileAtomically(path, text))
    result.warnings.push_back(llvm::toString(std::move(error)));
}

llvm::Error Compilation::lowerToTiles(ModuleOp module) {
  PassManager pm(&context);
  buildMoaToTilePipeline(pm, MoaToTileOptions());
  if (failed(pm.run(module)))
    return internal("stage moa-to-tile");
  return llvm::Error::success();
}

/// Whether an image for `chip` differs from that of the next plainer chip.
static bool isWorthCompiling(const CpuChip &chip,
                             const ArtifactKernel &kernel) {
  return !chip.bf16Dot ||
         (kernel.dtype == MOA_DTYPE_BF16 && kernel.kind != MOA_KERNEL_APPEND);
}

/// The chips to compile a kernel for. A chip that brings nothing to it is left
/// out, unless no other was asked for.
static SmallVector<const CpuChip *>
chipsFor(const ArtifactKernel &kernel, llvm::ArrayRef<const CpuChip *> chips) {
  SmallVector<const CpuChip *> kept;
  for (const CpuChip *chip : chips)
    if (isWorthCompiling(*chip, kernel))
      kept.push_back(chip);
  if (kept.empty())
    kept.assign(chips.begin(), chips.end());
  return kept;
}

llvm::Error Compilation::compileAll(ModuleOp module, ArtifactContents &contents,
                                    CompileResult &result) {
  std::vector<std::string> sources;
  for (const ArtifactKernel &kernel : contents.kernels) {
    auto home = module.lookupSymbol<ModuleOp>(kernel.name);
    llvm::raw_string_ostream(sources.emplace_back()) << home;
  }
  std::vector<KernelJob> jobs;
  for (auto [index, kernel] : llvm::enumerate(contents.kernels))
    for (const CpuChip *chip : chipsFor(kernel, options.chips)) {
      KernelJob job;
      job.kernel = index;
      job.name = kernel.name;
      job.source = sources[index];
      job.chip = chip;
      jobs.push_back(std::move(job));
    }
  bool keepText = !options.dumpDir.empty() || options.emit == EmitKind::LLVM ||
                  options.emit == EmitKind::Assembly;
  if (llvm::Error error = compileKernels(jobs, options.jobs, keepText))
    return llvm::createStringError(
        planName + ": error: " + llvm::toString(std::move(error)));

  std::string text;
  bool wantLLVM = options.emit == EmitKind::LLVM;
  for (KernelJob &job : jobs) {
    ArtifactKernel &kernel = contents.kernels[job.kernel];
    std::string stem = (job.name + "." + job.chip->name).str();
    dump(stem + ".mlir", job.llvmDialect, result);
    dump(stem + ".ll", job.llvmIR, result);
    dump(stem + ".s", job.assembly, result);
    text +=
        (llvm::Twine(wantLLVM ? ";" : "#") + " kernel " + job.name + " for " +
         job.chip->name + "\n" + (wantLLVM ? job.llvmIR : job.assembly) + "\n")
            .str();
    result.stats.kernels.push_back(
        {kernel.name, job.chip->name.str(),
         stringifyKernelKind(static_cast<KernelKind>(kernel.kind)).str(),
         kernel.layers, job.image.instructions, job.image.code.size(),
         job.image.scratchBytes});
    ArtifactImage image;
    image.features = job.chip->features;
    image.chip = job.chip->name.str();
    image.code = std::move(job.image.code);
    image.entry = job.image.entry;
    image.scratchBytes = job.image.scratchBytes;
    kernel.images.push_back(std::move(image));
  }
  if (options.emit != EmitKind::Artifact)
    setText(result, text);
  return llvm::Error::success();
}

llvm::Error Compilation::run(CompileResult &result) {
  OwningOpRef<ModuleOp> module =
      buildModule(context, plan, shape, dtypeOf(context, options.dtype),
                  options.phases, planName);
  bool dumping = !options.dumpDir.empty();
  if (dumping)
    dump("moa.mlir", textOf(*module, std::nullopt), result);
  if (options.emit == EmitKind::Moa) {
    setText(result, textOf(*module, options.layer));
    return llvm::Error::success();
  }
  if (llvm::Error error = lowerToTiles(*module))
    return error;
  if (dumping)
    dump("tile.mlir", textOf(*module, std::nullopt), result);
  if (options.emit == EmitKind::Tile) {
    setText(result, textOf(*module, options.layer));
    return llvm::Error::success();
  }
  FailureOr<ArtifactContents> contents = collectKernelTable(*module);
  if (failed(contents))
    return internal("the kernel table");
  if (llvm::Error error = compileAll(*module, *contents, result))
    return error;
  if (options.emit != EmitKind::Artifact)
    return llvm::Error::success();
  llvm::Expected<std::vector<uint8_t>> bytes = writeArtifact(*contents);
  if (!bytes)
    return llvm::createStringError(
        planName + ": error: " + llvm::toString(bytes.takeError()));
  result.bytes = std::move(*bytes);
  result.stats.artifactBytes = result.bytes.size();
  return llvm::Error::success();
}

llvm::Expected<CompileResult> moa::compile(const plan::Plan &plan,
                                           const plan::ModelShape &shape,
                                           const CompileOptions &requested,
                                           llvm::StringRef planName,
                                           llvm::StringRef modelName) {
  auto start = std::chrono::steady_clock::now();
  if (llvm::Error error = plan::checkModelShape(shape, modelName))
    return std::move(error);
  if (llvm::Error error = plan::checkAgainstModel(plan, shape, planName))
    return std::move(error);
  CompileOptions options = requested;
  if (options.chips.empty())
    for (const CpuChip &chip : cpuChips())
      options.chips.push_back(&chip);

  CompileResult result;
  bool caching = !options.cacheDir.empty() &&
                 options.emit == EmitKind::Artifact && options.dumpDir.empty();
  std::optional<CompileCache> cache;
  if (caching)
    cache.emplace(plan, shape, options);
  if (!cache || !cache->load(result)) {
    if (llvm::Error error =
            Compilation(plan, shape, options, planName).run(result))
      return std::move(error);
    if (cache)
      if (llvm::Error error = cache->store(result))
        result.warnings.push_back(llvm::toString(std::move(error)));
  }
  result.stats.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return result;
}

void moa::printStats(const CompileStats &stats, llvm::raw_ostream &os) {
  llvm::json::OStream json(os);
  json.object([&] {
    json.attribute("seconds", stats.seconds);
    json.attribute("cache_hit", stats.cacheHit);
    json.attribute("artifact_bytes", int64_t(stats.artifactBytes));
    json.attributeArray("kernels", [&] {
      for (const KernelStats &kernel : stats.kernels)
        json.object([&] {
          json.attribute("name", kernel.name);
          json.attribute("target", kernel.chip);
          json.attribute("kind", kernel.kind);
          json.attribute("layers", llvm::json::Array(kernel.layers));
          // Facts of GPU kernels.
          json.attribute("registers", nullptr);
          json.attribute("spill_bytes", nullptr);
          json.attribute("shared_bytes", nullptr);
          json.attribute("instructions", int64_t(kernel.instructions));
          json.attribute("code_bytes", int64_t(kernel.codeBytes));
          json.attribute("scratch_bytes", int64_t(kernel.scratchBytes));
        });
    });
  });
  os << '\n';
}
