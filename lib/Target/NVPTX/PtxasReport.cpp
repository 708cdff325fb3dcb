//===- PtxasReport.cpp - What ptxas says, as figures and errors -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads the lines of ptxas -v and decides which of them refuse a kernel. Knows
// the text alone, so that it is tested without the program.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/NVPTX.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/Regex.h"

using namespace moa;
using llvm::StringRef;

/// The number before `what` in the line, or 0.
static uint32_t numberBefore(StringRef line, StringRef what) {
  llvm::SmallVector<StringRef, 2> match;
  uint32_t value = 0;
  if (llvm::Regex(("([0-9]+) " + what).str()).match(line, &match))
    (void)match[1].getAsInteger(10, value);
  return value;
}

llvm::Expected<PtxasReport> moa::parsePtxasReport(StringRef text) {
  static constexpr StringRef advisory = "\\(C75[0-9][0-9]\\)";
  PtxasReport report;
  bool found = false;
  for (StringRef line : llvm::split(text, '\n')) {
    line = line.trim();
    if (llvm::Regex(advisory).match(line))
      report.advisories.push_back(line.str());
    else if (line.starts_with("ptxas warning"))
      report.warnings.push_back(line.str());
    report.stackBytes += numberBefore(line, "bytes stack frame");
    report.spillBytes += numberBefore(line, "bytes spill stores") +
                         numberBefore(line, "bytes spill loads");
    if (!line.contains("Used "))
      continue;
    found = true;
    report.registers = numberBefore(line, "registers");
    report.sharedBytes = numberBefore(line, "bytes smem");
  }
  if (!found)
    return llvm::createStringError(
        "expected 'Used N registers' in what ptxas says, found: " +
        (text.trim().empty() ? "nothing" : text.trim()));
  return report;
}

template <typename... Args>
static llvm::Error refuse(const char *format, Args &&...args) {
  return llvm::createStringError(
      llvm::formatv(format, std::forward<Args>(args)...).str());
}

llvm::Error moa::checkPtxasReport(const PtxasReport &report,
                                  const GpuKernelFacts &facts,
                                  const GpuChip &chip) {
  if (!report.advisories.empty())
    return refuse("expected no performance message of ptxas, found {0}: {1}",
                  report.advisories.size(),
                  llvm::join(report.advisories, "; "));
  if (report.stackBytes || report.spillBytes)
    return refuse("expected no spills and no stack frame, found {0} bytes "
                  "spilled and {1} bytes of stack with {2} registers; lower "
                  "the tile or raise the budget of {3} registers",
                  report.spillBytes, report.stackBytes, report.registers,
                  facts.registerBudget);
  if (report.registers > facts.registerBudget)
    return refuse("expected at most {0} registers a thread, found {1}",
                  facts.registerBudget, report.registers);
  if (int64_t most = chip.maxRegistersOf(facts.threads);
      report.registers > most)
    return refuse("expected at most {0} registers a thread, with which {1} can "
                  "launch a block of {2} threads, found {3}; lower the budget "
                  "of {4} registers or the threads",
                  most, chip.name, facts.threads, report.registers,
                  facts.registerBudget);
  uint64_t shared = uint64_t(report.sharedBytes) + facts.sharedBytes;
  if (shared > uint64_t(chip.maxSharedBytes))
    return refuse("expected at most {0} bytes of shared memory on {1}, found "
                  "{2} ({3} static, {4} dynamic)",
                  chip.maxSharedBytes, chip.name, shared, report.sharedBytes,
                  facts.sharedBytes);
  return llvm::Error::success();
}
