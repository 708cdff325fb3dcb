//===- Options.cpp - Command line of moa-run ------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Options.h.
//
//===----------------------------------------------------------------------===//

#include "Options.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

static const char *const kHelp =
    R"(usage: moa-run ARTIFACT.moa [options]

Runs a compiled plan on random inputs through the C ABI.

  --device auto|cpu|cuda[:I]
                      where to run; auto is CUDA device 0 if there is one and
                      the artifact has kernels for it, else the CPU
  --layer L|all       one layer, or all of them (default all)
  --batch B           sequences (default 1)
  --prompt N[,N2..]   prompt tokens; a list is used in turn (default 512)
  --new M             tokens decoded one by one after the prompt (default 8)
  --check             compare with float64 rows; exit 1 beyond the tolerance
  --bench             median times, useful FLOP/s, needed bytes/s; on a CUDA
                      device by the host's clock around whole passes behind a
                      warm one, launches included, caches not flushed
  --threads T         threads, 0 for one a core (default 0)
  --seed S            of the random inputs (default 0)
  --json              one JSON object instead of text
)";

static bool parseInt(const char *text, int64_t low, int64_t high,
                     int64_t &value) {
  char *end = nullptr;
  errno = 0;
  long long parsed = std::strtoll(text, &end, 10);
  if (errno || end == text || *end || parsed < low || parsed > high)
    return false;
  value = parsed;
  return true;
}

static int usage(const char *option, const char *found, const char *expected) {
  std::fprintf(stderr, "moa-run: error: %s: expected %s, got '%s'\n", option,
               expected, found);
  return 2;
}

static bool parseDevice(const std::string &text, Options &o) {
  o.ordinal = 0;
  if (text == "auto" || text == "cpu") {
    o.where = text == "cpu" ? Where::Cpu : Where::Auto;
    return true;
  }
  o.where = Where::Cuda;
  if (text == "cuda")
    return true;
  int64_t ordinal = 0;
  if (text.rfind("cuda:", 0) != 0 ||
      !parseInt(text.c_str() + 5, 0, 1 << 16, ordinal))
    return false;
  o.ordinal = static_cast<int32_t>(ordinal);
  return true;
}

static bool parsePrompts(const char *text, std::vector<int64_t> &prompts) {
  prompts.clear();
  std::string list = text;
  size_t begin = 0;
  while (begin <= list.size()) {
    size_t end = std::min(list.find(',', begin), list.size());
    int64_t value;
    if (!parseInt(list.substr(begin, end - begin).c_str(), 1, 1 << 30, value))
      return false;
    prompts.push_back(value);
    begin = end + 1;
  }
  return true;
}

int parseOptions(int argc, char **argv, Options &o) {
  for (int i = 1; i < argc; ++i) {
    std::string name = argv[i];
    if (name == "--help" || name == "-h") {
      std::fputs(kHelp, stdout);
      return 0;
    }
    if (name == "--check" || name == "--bench" || name == "--json") {
      (name == "--check"   ? o.check
       : name == "--bench" ? o.bench
                           : o.json) = true;
      continue;
    }
    if (name.rfind("--", 0) != 0) {
      if (!o.artifact.empty())
        return usage("ARTIFACT", argv[i], "one artifact");
      o.artifact = name;
      continue;
    }
    const char *known[] = {"--device", "--layer",   "--batch", "--prompt",
                           "--new",    "--threads", "--seed"};
    bool found = false;
    for (const char *option : known)
      found |= name == option;
    if (!found) {
      std::fprintf(stderr, "moa-run: error: unknown option '%s'; see --help\n",
                   argv[i]);
      return 2;
    }
    if (i + 1 == argc)
      return usage(argv[i], "", "a value");
    const char *value = argv[++i];
    int64_t number = 0;
    if (name == "--device") {
      if (!parseDevice(value, o))
        return usage("--device", value, "auto, cpu, cuda or cuda:NUMBER");
    } else if (name == "--layer") {
      if (!std::strcmp(value, "all"))
        o.layer = -1;
      else if (!parseInt(value, 0, 1 << 20, o.layer))
        return usage("--layer", value, "a layer number or 'all'");
    } else if (name == "--batch") {
      if (!parseInt(value, 1, 1 << 16, o.batch))
        return usage("--batch", value, "1 to 65536 sequences");
    } else if (name == "--prompt") {
      if (!parsePrompts(value, o.prompts))
        return usage("--prompt", value, "token counts of at least 1");
    } else if (name == "--new") {
      if (!parseInt(value, 0, 1 << 20, o.newTokens))
        return usage("--new", value, "0 or more tokens");
    } else if (name == "--threads") {
      if (!parseInt(value, 0, 1024, number))
        return usage("--threads", value, "0 to 1024");
      o.threads = static_cast<int>(number);
    } else {
      if (!parseInt(value, 0, INT64_MAX, number))
        return usage("--seed", value, "a number of at least 0");
      o.seed = static_cast<uint64_t>(number);
    }
  }
  if (o.artifact.empty()) {
    std::fputs("moa-run: error: expected an artifact; see --help\n", stderr);
    return 2;
  }
  return -1;
}
