//===- moa-run.cpp - Run a compiled plan on random inputs -----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Parses options, runs, prints. Uses the C ABI alone.
//
//===----------------------------------------------------------------------===//

#include "Options.h"
#include "Run.h"

#include <cmath>
#include <cstdio>

static void printText(const Options &o, const Report &r) {
  std::printf("%s: %s kernels for %s%s%s\n", o.artifact.c_str(),
              r.dtype.c_str(), r.chip.c_str(), r.device.empty() ? "" : " on ",
              r.device.c_str());
  std::printf("KV bytes: allocated %llu, closed form %llu, dense %llu\n",
              (unsigned long long)r.allocatedBytes,
              (unsigned long long)r.closedFormBytes,
              (unsigned long long)r.denseBytes);
  if (o.check)
    std::printf("check: largest relative error %.3g at %s (tolerance %.1g)\n",
                r.worstError, r.worstWhere.c_str(), r.tolerance);
  if (o.bench) {
    std::printf("prefill: %.3f ms, %.1f useful GFLOP/s\n", r.prefillMs,
                r.usefulFlopsPerSecond * 1e-9);
    if (r.decodeMs > 0)
      std::printf("decode: %.3f ms a step, %.2f needed GB/s\n", r.decodeMs,
                  r.neededBytesPerSecond * 1e-9);
  }
}

/// A number as JSON has it: NaN and infinity are null.
static void printNumber(double value) {
  if (std::isfinite(value))
    std::printf("%.9g", value);
  else
    std::fputs("null", stdout);
}

static void printJson(const Options &o, const Report &r) {
  std::printf("{\"kv_bytes\": {\"allocated\": %llu, \"closed_form\": %llu, "
              "\"dense\": %llu}",
              (unsigned long long)r.allocatedBytes,
              (unsigned long long)r.closedFormBytes,
              (unsigned long long)r.denseBytes);
  if (o.check) {
    std::fputs(", \"check\": {\"max_rel_err\": ", stdout);
    printNumber(r.worstError);
    std::printf(", \"where\": \"%s\"}", r.worstWhere.c_str());
  }
  if (o.bench) {
    std::fputs(", \"prefill\": {\"ms\": ", stdout);
    printNumber(r.prefillMs);
    std::fputs(", \"useful_flops_per_s\": ", stdout);
    printNumber(r.usefulFlopsPerSecond);
    std::fputs("}", stdout);
    if (r.decodeMs > 0) {
      std::fputs(", \"decode\": {\"ms\": ", stdout);
      printNumber(r.decodeMs);
      std::fputs(", \"needed_bytes_per_s\": ", stdout);
      printNumber(r.neededBytesPerSecond);
      std::fputs("}", stdout);
    }
  }
  std::fputs("}\n", stdout);
}

int main(int argc, char **argv) {
  Options options;
  int code = parseOptions(argc, argv, options);
  if (code >= 0)
    return code;
  Report report;
  std::string error = runArtifact(options, report);
  if (!error.empty()) {
    std::fprintf(stderr, "moa-run: error: %s\n", error.c_str());
    return 1;
  }
  if (!report.remark.empty())
    std::fprintf(stderr, "moa-run: remark: %s\n", report.remark.c_str());
  if (options.json)
    printJson(options, report);
  else
    printText(options, report);
  if (report.allocatedBytes != report.closedFormBytes) {
    std::fputs("moa-run: error: the cache does not hold its closed form\n",
               stderr);
    return 1;
  }
  if (options.check && !(report.worstError <= report.tolerance)) {
    std::fprintf(stderr,
                 "moa-run: error: relative error %.3g exceeds the tolerance "
                 "%.1g at %s\n",
                 report.worstError, report.tolerance,
                 report.worstWhere.c_str());
    return 1;
  }
  return 0;
}
