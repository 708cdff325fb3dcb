//===- module.h - A loaded artifact -----------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Tables of the model, entry points of its kernels in executable memory, and
// closed forms that follow from the rules.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_MODULE_H
#define MOA_RT_MODULE_H

#include "moa/abi/artifact.h"
#include "moa/abi/kernel_args.h"
#include "status.h"

#include <string>
#include <vector>

namespace moa::rt {

/// An entry point with what it needs. Function pointers, so that tests can
/// build a module from plain C++ kernels.
struct Kernel {
  void *entry = nullptr;
  size_t scratchBytes = 0;
};

/// Kernels of one layer; a null entry means the phase was not compiled.
struct LayerKernels {
  Kernel prefill, decode, append;
};

struct Geometry {
  uint32_t layers = 0, qHeads = 0, kvHeads = 0, headDim = 0;
  uint32_t dtype = MOA_DTYPE_F32;
  int32_t lengthRule = MOA_LENGTH_REQUEST;
  int64_t maxLength = 0;

  uint32_t group() const { return qHeads / kvHeads; }
  size_t elementBytes() const { return dtype == MOA_DTYPE_F32 ? 4 : 2; }
  size_t pageBytes() const {
    return static_cast<size_t>(moa_page_bytes(headDim, elementBytes()));
  }
};

class Module {
public:
  Module() = default;
  ~Module();
  Module(const Module &) = delete;
  Module &operator=(const Module &) = delete;

  /// Reads, checks and maps an artifact for a machine with `cpuFeatures`.
  static Status load(const uint8_t *bytes, size_t size,
                     const std::string &origin, uint32_t cpuFeatures,
                     std::unique_ptr<Module> &out);

  const moa_span_rule &rule(uint32_t layer, uint32_t head) const {
    return rules[size_t(layer) * geometry.qHeads + head];
  }
  /// Tokens of sink, the same for every head.
  int32_t sink() const { return rules[0].sink; }
  /// Smallest window start over a KV head's group, for row `i`.
  int64_t groupStart(uint32_t layer, uint32_t kvHead, int64_t i,
                     int64_t n) const;
  /// Pages of one KV head after `seen` tokens.
  moa_resident resident(uint32_t layer, uint32_t kvHead, int64_t seen,
                        int64_t n) const;

  Geometry geometry;
  std::vector<moa_span_rule> rules;
  std::vector<LayerKernels> layers;
  uint32_t artifactVersion = 0;
  uint32_t kernelCount = 0;
  uint8_t planId[32] = {};
  std::string chip; ///< Name of the variant in use.

private:
  Status mapKernels(const struct Artifact &artifact, uint32_t cpuFeatures,
                    const std::string &origin);

  void *code = nullptr;
  size_t codeSize = 0;
};

/// MOA_CPU_* bits of this machine that are worth using.
uint32_t detectCpuFeatures();

} // namespace moa::rt

#endif // MOA_RT_MODULE_H
