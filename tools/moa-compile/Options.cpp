//===- Options.cpp - Command line of moa-compile --------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The option table of Options.td and the checks of each value.
//
//===----------------------------------------------------------------------===//

#include "Options.h"

#include "llvm/ADT/StringSwitch.h"
#include "llvm/Config/llvm-config.h"
#include "llvm/Option/ArgList.h"
#include "llvm/Option/OptTable.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"

using namespace llvm::opt;
using namespace moa;
using llvm::StringRef;

namespace {

enum ID {
  OPT_INVALID = 0,
#define OPTION(...) LLVM_MAKE_OPT_ID(__VA_ARGS__),
#include "Options.inc"
#undef OPTION
};

#define OPTTABLE_STR_TABLE_CODE
#include "Options.inc"
#undef OPTTABLE_STR_TABLE_CODE

#define OPTTABLE_PREFIXES_TABLE_CODE
#include "Options.inc"
#undef OPTTABLE_PREFIXES_TABLE_CODE

constexpr OptTable::Info kInfos[] = {
#define OPTION(...) LLVM_CONSTRUCT_OPT_INFO(__VA_ARGS__),
#include "Options.inc"
#undef OPTION
};

class Table : public GenericOptTable {
public:
  Table() : GenericOptTable(OptionStrTable, OptionPrefixesTable, kInfos) {}
};

} // namespace

static int usage(const llvm::Twine &message) {
  llvm::errs() << "moa-compile: error: " << message
               << "\nmoa-compile: note: see moa-compile --help\n";
  return kUsage;
}

int moa::refuse(const llvm::Twine &what, const llvm::Twine &message,
                const llvm::Twine &cure) {
  llvm::errs() << what << ": error: " << message << '\n'
               << what << ": note: " << cure << '\n';
  return kRefused;
}

/// Faults of form: unknown options, missing values, more than one plan.
static std::optional<int> checkForm(const Table &table,
                                    const InputArgList &args,
                                    unsigned missingIndex,
                                    unsigned missingCount) {
  if (missingCount)
    return usage(llvm::Twine("expected a value after ") +
                 args.getArgString(missingIndex));
  for (const Arg *unknown : args.filtered(OPT_UNKNOWN)) {
    std::string text = unknown->getAsString(args), nearest;
    if (table.findNearest(text, nearest) <= 2)
      return usage("unknown option '" + text + "', did you mean '" + nearest +
                   "'?");
    return usage("unknown option '" + text + "'");
  }
  std::vector<std::string> plans = args.getAllArgValues(OPT_INPUT);
  if (plans.size() != 1)
    return usage("expected one plan: moa-compile PLAN.json --model MODEL -o "
                 "OUT.moa; got " +
                 llvm::Twine(plans.size()));
  if (!args.hasArg(OPT_model))
    return usage("expected --model with the model's config.json, or "
                 "layers=..,q_heads=..,kv_heads=..,head_dim=..");
  return std::nullopt;
}

/// All comma-separated values of an option, in order.
static std::vector<std::string> listOf(const InputArgList &args, ID option) {
  std::vector<std::string> values;
  for (const std::string &text : args.getAllArgValues(option)) {
    llvm::SmallVector<StringRef> parts;
    StringRef(text).split(parts, ',', -1, /*KeepEmpty=*/false);
    for (StringRef part : parts)
      values.push_back(part.trim().str());
  }
  return values;
}

/// Fills the chips in the order of preference. GPUs that were not asked for may
/// turn out to have no kernels.
static std::optional<int> readTargets(const InputArgList &args,
                                      CompileOptions &options) {
  std::vector<std::string> wanted = listOf(args, OPT_target);
  for (StringRef target : wanted)
    if (target != "cpu" && !findCpuChip(target) && !findGpuChip(target))
      return usage("expected --target cpu, one of its variants x86-64-v4-bf16, "
                   "x86-64-v4 and x86-64-v3, sm_90a or sm_80, got '" +
                   target + "'");
  for (const CpuChip &chip : cpuChips())
    if (wanted.empty() || llvm::is_contained(wanted, "cpu") ||
        llvm::is_contained(wanted, chip.name))
      options.chips.push_back(&chip);
  for (const GpuChip &chip : gpuChips())
    if (wanted.empty() || llvm::is_contained(wanted, chip.name))
      options.gpuChips.push_back(&chip);
  options.gpuRequired = !wanted.empty();
  return std::nullopt;
}

/// Leaves the chips that the level to print has a text for.
static std::optional<int> fitTargets(CompileOptions &options) {
  EmitKind emit = options.emit;
  if (emit == EmitKind::Assembly ||
      (emit == EmitKind::LLVM && !options.gpuRequired))
    options.gpuChips.clear();
  if (emit == EmitKind::Gpu || emit == EmitKind::Ptx || emit == EmitKind::Cubin)
    options.chips.clear();
  if (options.chips.empty() && options.gpuChips.empty())
    return usage(
        emit == EmitKind::Assembly
            ? "expected a CPU in --target beside --emit asm; GPUs have "
              "--emit ptx"
            : "expected sm_90a or sm_80 in --target beside --emit "
              "gpu, ptx and cubin");
  return std::nullopt;
}

/// The program's folder of finished cubins, and the site-packages folder that
/// its package lies in: it is SITE/moa/bin/moa-compile.
struct Surroundings {
  Surroundings() {
    static int inProgram;
    std::string program = llvm::sys::fs::getMainExecutable(nullptr, &inProgram);
    StringRef package =
        llvm::sys::path::parent_path(llvm::sys::path::parent_path(program));
    cubins = (package + "/cubins").str();
    sitePackages = llvm::sys::path::parent_path(package).str();
  }
  std::string cubins;
  std::string sitePackages;
};

/// Prints which assembler would be taken, or why none.
static int printPtxas(StringRef path) {
  llvm::Expected<Ptxas> ptxas = findPtxas(path, Surroundings().sitePackages);
  if (!ptxas) {
    llvm::errs() << "moa-compile: error: " << llvm::toString(ptxas.takeError())
                 << '\n';
    return kRefused;
  }
  llvm::outs() << ptxas->path << ' ' << ptxas->version << '\n';
  return 0;
}

/// Sets where finished cubins are, and whether new ones go there.
static void readCubins(const InputArgList &args, CompileOptions &options) {
  options.cubinDir =
      args.getLastArgValue(OPT_cubins, Surroundings().cubins).str();
  options.addCubins = args.hasArg(OPT_cubins);
  if (options.cubinDir == "none") {
    options.cubinDir.clear();
    options.addCubins = false;
  }
}

/// Finds the assembler where one is needed.
static std::optional<int> readPtxas(const InputArgList &args,
                                    Arguments &arguments) {
  CompileOptions &options = arguments.options;
  StringRef path = args.getLastArgValue(OPT_ptxas);
  bool needed = options.emit == EmitKind::Cubin;
  if (needed && path == "none")
    return usage("expected a ptxas beside --emit cubin, got --ptxas none");
  if (options.gpuChips.empty() || path == "none" ||
      (!needed && options.emit != EmitKind::Artifact))
    return std::nullopt;
  llvm::Expected<Ptxas> ptxas = findPtxas(path, Surroundings().sitePackages);
  if (ptxas) {
    options.ptxas = *ptxas;
    return std::nullopt;
  }
  std::string reason = llvm::toString(ptxas.takeError());
  if (needed || !path.empty())
    return refuse(path.empty() ? "--emit cubin" : "--ptxas", reason,
                  "install the CUDA toolkit's ptxas, or pass its path to "
                  "--ptxas");
  arguments.ptxRemark = reason;
  return std::nullopt;
}

static std::optional<int> readPhases(const InputArgList &args, Phases &phases) {
  std::vector<std::string> wanted = listOf(args, OPT_phase);
  if (wanted.empty())
    return std::nullopt;
  phases.prefill = phases.decode = phases.append = false;
  for (StringRef name : wanted) {
    bool *phase = llvm::StringSwitch<bool *>(name)
                      .Case("prefill", &phases.prefill)
                      .Case("decode", &phases.decode)
                      .Case("append", &phases.append)
                      .Default(nullptr);
    if (!phase)
      return usage("expected --phase prefill, decode or append, got '" + name +
                   "'");
    *phase = true;
  }
  if (!phases.prefill && !phases.decode)
    return usage("expected prefill or decode in --phase: the windows that say "
                 "what is kept come from them");
  return std::nullopt;
}

static std::optional<int> readRope(const InputArgList &args, Phases &phases) {
  const Arg *arg = args.getLastArg(OPT_rope);
  if (!arg)
    return std::nullopt;
  auto [layout, dim] = StringRef(arg->getValue()).split(':');
  RopeShape rope;
  int64_t rotated = 0;
  bool given = layout.size() != StringRef(arg->getValue()).size();
  std::optional<RopeLayout> known = symbolizeRopeLayout(layout);
  if (!known || (given && (dim.getAsInteger(10, rotated) || rotated < 2)))
    return usage("expected --rope half or interleaved, or with the elements "
                 "that are rotated, as in half:64, got '" +
                 llvm::Twine(arg->getValue()) + "'");
  rope.layout = *known;
  if (given)
    rope.rotaryDim = rotated;
  phases.rope = rope;
  return std::nullopt;
}

/// Looks a keyword up; a complaint lists those there are.
template <typename T, size_t N>
static std::optional<int>
readKeyword(const InputArgList &args, ID option, T &target,
            const std::pair<StringRef, T> (&keywords)[N]) {
  const Arg *arg = args.getLastArg(option);
  if (!arg)
    return std::nullopt;
  std::string expected;
  for (auto [name, value] : keywords) {
    if (name == arg->getValue()) {
      target = value;
      return std::nullopt;
    }
    expected += (expected.empty() ? "" : ", ") + name.str();
  }
  return usage(arg->getSpelling() + " expects one of " + expected + ", got '" +
               arg->getValue() + "'");
}

/// Reads a number that is at least `least`; returns whether it was given.
static std::optional<int> readNumber(const InputArgList &args, ID option,
                                     int64_t least,
                                     std::optional<int64_t> &target) {
  const Arg *arg = args.getLastArg(option);
  if (!arg)
    return std::nullopt;
  int64_t value;
  if (StringRef(arg->getValue()).getAsInteger(10, value) || value < least ||
      value > plan::kMaxLength)
    return usage(arg->getSpelling() + " expects a number from " +
                 llvm::Twine(least) + " to " + llvm::Twine(plan::kMaxLength) +
                 ", got '" + arg->getValue() + "'");
  target = value;
  return std::nullopt;
}

static std::optional<int> readValues(const InputArgList &args,
                                     Arguments &arguments) {
  CompileOptions &options = arguments.options;
  if (auto status = readTargets(args, options))
    return status;
  if (auto status = readPhases(args, options.phases))
    return status;
  if (auto status = readRope(args, options.phases))
    return status;
  if (auto status = readKeyword<Dtype>(
          args, OPT_dtype, options.dtype,
          {{"bf16", Dtype::BF16}, {"f16", Dtype::F16}, {"f32", Dtype::F32}}))
    return status;
  if (auto status = readKeyword<EmitKind>(args, OPT_emit, options.emit,
                                          {{"moa", EmitKind::Moa},
                                           {"tile", EmitKind::Tile},
                                           {"gpu", EmitKind::Gpu},
                                           {"llvm", EmitKind::LLVM},
                                           {"asm", EmitKind::Assembly},
                                           {"ptx", EmitKind::Ptx},
                                           {"cubin", EmitKind::Cubin},
                                           {"artifact", EmitKind::Artifact}}))
    return status;
  if (auto status = fitTargets(options))
    return status;
  readCubins(args, options);
  if (auto status = readPtxas(args, arguments))
    return status;
  std::optional<int64_t> jobs, maxLength;
  if (auto status = readNumber(args, OPT_layer, 0, options.layer))
    return status;
  if (auto status = readNumber(args, OPT_jobs, 1, jobs))
    return status;
  if (auto status = readNumber(args, OPT_max_length, 1, maxLength))
    return status;
  options.jobs = jobs.value_or(0);
  arguments.maxLength = maxLength.value_or(0);
  options.dumpDir = args.getLastArgValue(OPT_dump_dir);
  options.cacheDir = args.getLastArgValue(OPT_cache_dir);
  arguments.plan = args.getLastArgValue(OPT_INPUT);
  arguments.model = args.getLastArgValue(OPT_model);
  arguments.output = args.getLastArgValue(OPT_output);
  arguments.stats = args.hasArg(OPT_stats);
  return std::nullopt;
}

/// Options that contradict each other.
static std::optional<int> checkTogether(Arguments &arguments) {
  EmitKind emit = arguments.options.emit;
  if (arguments.output.empty()) {
    if (emit == EmitKind::Artifact || emit == EmitKind::Cubin)
      return usage(emit == EmitKind::Cubin ? "expected -o OUT.cubin"
                                           : "expected -o OUT.moa");
    arguments.output = "-";
  }
  if (arguments.stats && arguments.output == "-")
    return usage("expected -o FILE beside --stats, which takes the standard "
                 "output");
  if (arguments.options.layer && emit != EmitKind::Moa &&
      emit != EmitKind::Tile)
    return usage("expected --layer only with --emit moa or --emit tile");
  return std::nullopt;
}

std::optional<int> moa::parseArguments(llvm::ArrayRef<const char *> argv,
                                       Arguments &arguments) {
  Table table;
  unsigned missingIndex = 0, missingCount = 0;
  InputArgList args =
      table.ParseArgs(argv.drop_front(), missingIndex, missingCount);
  if (args.hasArg(OPT_help)) {
    table.printHelp(llvm::outs(),
                    "moa-compile PLAN.json --model MODEL -o "
                    "OUT.moa [options]",
                    "Compiles a plan of attention spans for a model");
    return 0;
  }
  if (args.hasArg(OPT_version)) {
    llvm::outs() << "moa-compile " MOA_VERSION " (LLVM " LLVM_VERSION_STRING
                    ")\n";
    return 0;
  }
  if (args.hasArg(OPT_print_ptxas))
    return printPtxas(args.getLastArgValue(OPT_ptxas));
  if (auto status = checkForm(table, args, missingIndex, missingCount))
    return status;
  if (auto status = readValues(args, arguments))
    return status;
  return checkTogether(arguments);
}
