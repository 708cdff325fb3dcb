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
#include "GpuLowering.h"
#include "moa/Conversion/Support.h"
#include "moa/Dialect/Moa/IR/Moa.h"
#include "moa/Pipelines/Pipelines.h"
#include "moa/Target/Artifact.h"
#include "moa/Target/Chip.h"
#include "moa/abi/gpu_args.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Diagnostics.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include <chrono>
#include <map>

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
  void addCpuJobs(ModuleOp tiles, const ArtifactContents &contents,
                  std::vector<KernelJob> &jobs);
  llvm::Error addGpuJobs(ModuleOp module, const ArtifactContents &contents,
                         std::vector<KernelJob> &jobs, CompileResult &result);
  void addWideJobs(const ArtifactContents &contents,
                   std::vector<KernelJob> &jobs);
  void addPrepareJobs(ArtifactContents &contents, std::vector<KernelJob> &jobs);
  llvm::Error compileAll(ModuleOp module, ModuleOp tiles,
                         ArtifactContents &contents, CompileResult &result);
  void dumpJob(const KernelJob &job, CompileResult &result);
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

static llvm::Error refuse(StringRef what, const llvm::Twine &message,
                          StringRef cure) {
  auto error = std::make_unique<plan::PlanError>();
  error->file = what.str();
  error->message = message.str();
  error->cure = cure.str();
  return llvm::Error(std::move(error));
}

/// A rotation fits the model, and calls that ask for it store keys.
static llvm::Error checkRope(const Phases &phases,
                             const plan::ModelShape &shape) {
  if (!phases.rope)
    return llvm::Error::success();
  int64_t dim = phases.rope->rotaryDim.value_or(shape.headDim);
  if (dim < 2 || dim % 2 || dim > shape.headDim)
    return refuse("--rope",
                  "expected an even number of elements, 2 to the head size " +
                      llvm::Twine(shape.headDim) + ", got " + llvm::Twine(dim),
                  "pass what the model rotates of a head, as in half:" +
                      std::to_string(shape.headDim));
  if (!phases.append)
    return refuse("--rope", "expected phase append beside it, found none",
                  "add append to --phase");
  return llvm::Error::success();
}

/// Pages of 8 bits stand beside pages of 16.
static llvm::Error checkFormats(const plan::Plan &plan, Dtype dtype,
                                StringRef planName) {
  if (!plan.hasKv8() || dtype != Dtype::F32)
    return llvm::Error::success();
  return refuse(planName,
                "kv/format: expected 16 with --dtype f32, found formats of 8 "
                "bits",
                "compile with --dtype bf16 or f16, or leave kv/format out");
}

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
  return !chip.bf16Dot || (kernel.dtype == MOA_DTYPE_BF16 && !kernel.kv8 &&
                           (kernel.kind == MOA_KERNEL_PREFILL ||
                            kernel.kind == MOA_KERNEL_DECODE));
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

/// The kernels of a module at the tile level, as text, in the order of the
/// artifact.
static std::vector<std::string> sourcesOf(ModuleOp module,
                                          const ArtifactContents &contents) {
  std::vector<std::string> sources;
  for (const ArtifactKernel &kernel : contents.kernels)
    llvm::raw_string_ostream(sources.emplace_back())
        << module.lookupSymbol<ModuleOp>(kernel.name);
  return sources;
}

void Compilation::addCpuJobs(ModuleOp tiles, const ArtifactContents &contents,
                             std::vector<KernelJob> &jobs) {
  std::vector<std::string> sources = sourcesOf(tiles, contents);
  for (auto [index, kernel] : llvm::enumerate(contents.kernels))
    for (const CpuChip *chip : chipsFor(kernel, options.chips)) {
      KernelJob &job = jobs.emplace_back();
      job.kernel = index;
      job.name = kernel.name;
      job.source = sources[index];
      job.cpu = chip;
    }
}

/// Adds a job for each kernel and GPU chip that has one. What has none is
/// refused or remarked upon.
llvm::Error Compilation::addGpuJobs(ModuleOp module,
                                    const ArtifactContents &contents,
                                    std::vector<KernelJob> &jobs,
                                    CompileResult &result) {
  // Chips that lack the same kernels for the same reason share a line.
  std::map<std::string, std::string> lacking;
  for (const GpuChip *chip : options.gpuChips) {
    std::map<std::string, std::string> names;
    SmallVector<size_t> indices;
    for (auto [index, kernel] : llvm::enumerate(contents.kernels)) {
      std::optional<std::string> why = whyUnsupportedOnGpu(
          kernel.kind, kernel.headDim, kernel.dtype, kernel.kv8, kernel.group);
      if (!why) {
        indices.push_back(index);
        continue;
      }
      std::string &list = names[*why];
      list += (list.empty() ? "" : ", ") + kernel.name;
    }
    for (const auto &[why, list] : names) {
      std::string &chips = lacking[list + ": " + why];
      chips += (chips.empty() ? "" : ", ") + chip->name.str();
    }
    if (indices.empty()) {
      if (options.gpuRequired || options.chips.empty())
        return refuse("--target",
                      "expected a kernel for " + chip->name + ", found none",
                      names.begin()->first);
      continue;
    }
    OwningOpRef<ModuleOp> tiles = module.clone();
    if (failed(lowerToGpuTiles(*tiles, *chip)))
      return internal("stage moa-to-tile");
    if (!options.dumpDir.empty())
      dump("tile." + chip->name.str() + ".mlir", textOf(*tiles, std::nullopt),
           result);
    std::vector<std::string> sources = sourcesOf(*tiles, contents);
    for (size_t index : indices) {
      KernelJob &job = jobs.emplace_back();
      job.kernel = index;
      job.name = contents.kernels[index].name;
      job.source = sources[index];
      job.gpu = chip;
    }
  }
  for (const auto &[what, chips] : lacking)
    result.stats.remarks.push_back("left out for " + chips + ": " + what);
  return llvm::Error::success();
}

/// Adds, behind each decode kernel that has room for less, one with all columns
/// there can be: it reads the pages of a step of several tokens less often.
/// Like prepare it belongs to artifacts.
void Compilation::addWideJobs(const ArtifactContents &contents,
                              std::vector<KernelJob> &jobs) {
  if (options.emit != EmitKind::Artifact)
    return;
  for (size_t i = 0, count = jobs.size(); i < count; ++i) {
    const ArtifactKernel &kernel = contents.kernels[jobs[i].kernel];
    if (!jobs[i].gpu || kernel.kind != MOA_KERNEL_DECODE ||
        moa_gpu_decode_columns(kernel.group) == MOA_MAX_GROUP ||
        whyUnsupportedOnGpu(kernel.kind, kernel.headDim, kernel.dtype,
                            kernel.kv8, MOA_MAX_GROUP))
      continue;
    KernelJob wide = jobs[i];
    wide.columns = MOA_MAX_GROUP;
    wide.name += "_c" + std::to_string(wide.columns);
    jobs.push_back(std::move(wide));
  }
}

/// Adds the kernel that makes the items of decode kernels, for the chips that
/// have such a kernel. It belongs to artifacts: --emit prints kernels of
/// phases.
void Compilation::addPrepareJobs(ArtifactContents &contents,
                                 std::vector<KernelJob> &jobs) {
  SmallVector<const GpuChip *> chips;
  for (const KernelJob &job : jobs)
    if (job.gpu && contents.kernels[job.kernel].kind == MOA_KERNEL_DECODE &&
        !llvm::is_contained(chips, job.gpu))
      chips.push_back(job.gpu);
  if (chips.empty() || options.emit != EmitKind::Artifact)
    return;
  const size_t index = addPrepareKernel(contents);
  for (const GpuChip *chip : chips) {
    KernelJob &job = jobs.emplace_back();
    job.kernel = index;
    job.name = contents.kernels[index].name;
    job.gpu = chip;
  }
}

void Compilation::dumpJob(const KernelJob &job, CompileResult &result) {
  std::string stem = job.name + "." + job.chipName().str();
  const std::pair<const char *, StringRef> texts[] = {
      {".gpu.mlir", job.gpuDialect},
      {".mlir", job.llvmDialect},
      {".ll", job.llvmIR},
      {".s", job.assembly},
      {".ptx", job.ptx},
      {".ptxas.txt", job.cubin ? StringRef(job.cubin->messages) : job.error}};
  for (auto [suffix, text] : texts)
    if (!text.empty())
      dump(stem + suffix, text, result);
}

/// What `--emit` prints of a job, under a line that names it.
static std::string textOf(const KernelJob &job, EmitKind emit) {
  StringRef mark = emit == EmitKind::LLVM       ? ";"
                   : emit == EmitKind::Assembly ? "#"
                                                : "//";
  StringRef text = emit == EmitKind::LLVM       ? job.llvmIR
                   : emit == EmitKind::Assembly ? job.assembly
                   : emit == EmitKind::Ptx      ? job.ptx
                                                : job.gpuDialect;
  return (mark + " kernel " + job.name + " for " + job.chipName() + "\n" +
          text + "\n")
      .str();
}

/// Moves what a job for a CPU made into the artifact's kernel.
static void addCpuImage(KernelJob &job, ArtifactKernel &kernel,
                        KernelStats &stats) {
  stats.instructions = job.image.instructions;
  stats.codeBytes = job.image.code.size();
  stats.scratchBytes = job.image.scratchBytes;
  ArtifactImage image;
  image.features = job.cpu->features;
  image.chip = job.cpu->name.str();
  image.code = std::move(job.image.code);
  image.entry = job.image.entry;
  image.scratchBytes = job.image.scratchBytes;
  kernel.images.push_back(std::move(image));
}

/// The same for a GPU: the cubin, and behind it PTX for drivers and chips that
/// do not take it.
static void addGpuImages(KernelJob &job, ArtifactKernel &kernel,
                         KernelStats &stats) {
  ArtifactImage image;
  image.features = job.gpu->features();
  image.chip = job.gpu->name.str();
  image.function = job.facts.function;
  image.scratchBytes = job.facts.sharedBytes;
  image.threads = job.facts.threads;
  image.rows = job.facts.tileRows;
  image.keys = job.facts.tileKeys;
  if (job.cubin) {
    const PtxasReport &report = job.cubin->report;
    stats.instructions = job.cubin->instructions;
    stats.registers = report.registers;
    stats.spillBytes = report.spillBytes;
    stats.sharedBytes = uint64_t(report.sharedBytes) + job.facts.sharedBytes;
    stats.ptxasVersion = job.cubin->ptxasVersion;
    stats.codeBytes = job.cubin->code.size();
    ArtifactImage cubin = image;
    cubin.target = MOA_TARGET_CUDA_CUBIN;
    cubin.registers = report.registers;
    cubin.code = std::move(job.cubin->code);
    kernel.images.push_back(std::move(cubin));
  }
  image.target = MOA_TARGET_CUDA_PTX;
  image.code.assign(job.ptx.begin(), job.ptx.end());
  image.code.push_back(0);
  stats.codeBytes += image.code.size();
  kernel.images.push_back(std::move(image));
}

llvm::Error Compilation::compileAll(ModuleOp module, ModuleOp tiles,
                                    ArtifactContents &contents,
                                    CompileResult &result) {
  std::vector<KernelJob> jobs;
  addCpuJobs(tiles, contents, jobs);
  if (llvm::Error error = addGpuJobs(module, contents, jobs, result))
    return error;
  addWideJobs(contents, jobs);
  addPrepareJobs(contents, jobs);
  bool cubins =
      options.emit == EmitKind::Artifact || options.emit == EmitKind::Cubin;
  if (options.emit == EmitKind::Cubin && jobs.size() != 1)
    return refuse("--emit cubin",
                  "expected one kernel for one GPU chip, found " +
                      llvm::Twine(jobs.size()),
                  "narrow it down with --phase and --target");

  KernelJobOptions jobOptions;
  jobOptions.threads = options.jobs;
  jobOptions.keepText =
      !options.dumpDir.empty() || options.emit != EmitKind::Artifact;
  const CubinStore store(options.cubinDir);
  if (cubins) {
    jobOptions.ptxas = options.ptxas ? &*options.ptxas : nullptr;
    jobOptions.cubins = options.cubinDir.empty() ? nullptr : &store;
    jobOptions.addCubins = options.addCubins;
  }
  llvm::Error error = compileKernels(jobs, jobOptions);
  for (const KernelJob &job : jobs) {
    dumpJob(job, result);
    if (!job.warning.empty())
      result.warnings.push_back(job.warning);
  }
  if (error)
    return llvm::createStringError(
        planName + ": error: " + llvm::toString(std::move(error)));

  std::string text;
  for (KernelJob &job : jobs) {
    ArtifactKernel &kernel = contents.kernels[job.kernel];
    if (options.emit != EmitKind::Artifact)
      text += textOf(job, options.emit);
    KernelStats stats;
    stats.name = job.name;
    stats.chip = job.chipName().str();
    stats.kind =
        kernel.kind == MOA_KERNEL_PREPARE
            ? "prepare"
            : stringifyKernelKind(static_cast<KernelKind>(kernel.kind)).str();
    stats.layers = kernel.layers;
    if (job.cpu)
      addCpuImage(job, kernel, stats);
    else
      addGpuImages(job, kernel, stats);
    result.stats.kernels.push_back(std::move(stats));
  }
  if (options.emit == EmitKind::Cubin)
    result.bytes = contents.kernels[jobs.front().kernel].images.front().code;
  else if (options.emit != EmitKind::Artifact)
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
  OwningOpRef<ModuleOp> tiles = module->clone();
  if (options.emit == EmitKind::Tile && options.chips.empty()) {
    if (failed(lowerToGpuTiles(*tiles, *options.gpuChips.front())))
      return internal("stage moa-to-tile");
  } else if (llvm::Error error = lowerToTiles(*tiles)) {
    return error;
  }
  if (options.emit == EmitKind::Tile) {
    setText(result, textOf(*tiles, options.layer));
    return llvm::Error::success();
  }
  if (dumping)
    dump("tile.mlir", textOf(*tiles, std::nullopt), result);
  FailureOr<ArtifactContents> contents = collectKernelTable(*tiles);
  if (failed(contents))
    return internal("the kernel table");
  if (llvm::Error error = compileAll(*module, *tiles, *contents, result))
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
  if (llvm::Error error = checkRope(requested.phases, shape))
    return std::move(error);
  if (llvm::Error error = checkFormats(plan, requested.dtype, planName))
    return std::move(error);
  CompileOptions options = requested;
  if (options.chips.empty() && options.gpuChips.empty())
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
