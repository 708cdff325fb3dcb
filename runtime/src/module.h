//===- module.h - A loaded artifact -----------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Tables of the model, entry points of its kernels on a device, and closed
// forms that follow from the rules.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_MODULE_H
#define MOA_RT_MODULE_H

#include "moa/abi/artifact.h"
#include "moa/abi/kernel_args.h"
#include "status.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace moa::rt {

/// An entry point with what it needs. Function pointers on the CPU, so that
/// tests can build a module from plain C++ kernels; functions of the driver on
/// a GPU.
struct Kernel {
  void *entry = nullptr;
  size_t scratchBytes = 0; ///< A thread's on the CPU, a block's on a GPU.
  // The rest is for GPUs.
  uint32_t threads = 0; ///< Of a block.
  uint32_t rows = 0;    ///< Prefill: query rows of a tile; decode: columns.
  uint32_t keys = 0;    ///< Prefill: keys of a tile.
  uint32_t grid = 0;    ///< Blocks that run at a time on the whole device.
  bool maps = false;    ///< Reads through tensor maps (sm_90a, not f32).
  bool waits = false;   ///< For the launch before it by itself (sm_90a decode).
};

/// Keeps loaded kernels callable while it lives.
struct KernelCode {
  virtual ~KernelCode() = default;
};

/// What a device made of an artifact's kernels.
struct LoadedKernels {
  std::vector<Kernel> kernels; ///< A null entry: none for this device.
  /// By kernel: a decode kernel's image with more columns; empty on the CPU.
  std::vector<Kernel> wide;
  std::unique_ptr<KernelCode> code;
  std::string chip;   ///< Name of the variant in use.
  std::string remark; ///< One line on what fell back, or empty.
};

/// Kernels of one layer; a null entry means the phase was not compiled, or that
/// the device has no such kernel.
struct LayerKernels {
  Kernel prefill, decode, append, prepare, rope;
  Kernel wide; ///< Decode with more columns; null where `decode` has all.
  Kernel quantise;
  uint32_t rotation = 0; ///< Of rope: moa_artifact_rotation.
};

struct Geometry {
  uint32_t layers = 0, qHeads = 0, kvHeads = 0, headDim = 0;
  uint32_t dtype = MOA_DTYPE_F32;
  int32_t lengthRule = MOA_LENGTH_REQUEST;
  int64_t maxLength = 0;
  float softCap = 0; ///< Of scores; 0 where they have none.
  bool kv8 = false;  ///< Some KV head keeps pages in 8 bits.

  uint32_t group() const { return qHeads / kvHeads; }
  size_t elementBytes() const { return dtype == MOA_DTYPE_F32 ? 4 : 2; }
  size_t pageBytes() const {
    return static_cast<size_t>(moa_page_bytes(headDim, elementBytes()));
  }
  /// Of the scales beside each page.
  size_t scaleBytes() const { return kv8 ? MOA_KV8_SCALES * sizeof(float) : 0; }
  /// Codes of the keys of a block, or of its values, in 8 bits.
  size_t codeBytes() const { return size_t(MOA_BLOCK_KEYS) * headDim; }
};

class Device;

class Module {
public:
  Module() = default;
  Module(const Module &) = delete;
  Module &operator=(const Module &) = delete;

  /// Reads and checks an artifact and loads it on a device.
  static Status load(const uint8_t *bytes, size_t size,
                     const std::string &origin, Device &device,
                     std::unique_ptr<Module> &out);

  const moa_span_rule &rule(uint32_t layer, uint32_t head) const {
    return rules[size_t(layer) * geometry.qHeads + head];
  }
  /// MOA_KV_*: what a KV head keeps of complete pages.
  uint8_t kvFormat(uint32_t layer, uint32_t kvHead) const {
    return geometry.kv8 ? kvFormats[size_t(layer) * geometry.kvHeads + kvHead]
                        : uint8_t(MOA_KV_MODEL);
  }
  /// KV heads of all layers that keep pages in 8 bits.
  uint64_t kv8Heads() const {
    return kvFormats.size() -
           std::count(kvFormats.begin(), kvFormats.end(), MOA_KV_MODEL);
  }
  /// Tokens of sink, the same for every head of a layer.
  int32_t sink(uint32_t layer) const { return rule(layer, 0).sink; }
  /// Smallest window start over a KV head's group, for row `i`.
  int64_t groupStart(uint32_t layer, uint32_t kvHead, int64_t i,
                     int64_t n) const;
  /// Pages of one KV head after `seen` tokens, of which `margin` can be taken
  /// back. `start`, if wanted, becomes the smallest window start of the row
  /// that decides.
  moa_resident resident(uint32_t layer, uint32_t kvHead, int64_t seen,
                        int64_t n, int64_t margin = 0,
                        int64_t *start = nullptr) const;
  /// Pages of a sequence over all layers, in closed form.
  uint64_t residentPages(int64_t seen, int64_t n, int64_t margin) const;
  /// The decode kernel for `tokens` rows of a sequence: the one that reads
  /// their pages least often, of equals the one with fewer columns.
  const Kernel &decodeFor(uint32_t layer, int64_t tokens) const;
  /// Whether a decode kernel takes `tokens` rows of a sequence in one call: one
  /// row, or as many as fit in the columns of one item, so that no page is read
  /// twice.
  bool decodes(uint32_t layer, int64_t tokens) const;
  /// Refuses a layer that the model has not.
  Status checkLayer(uint32_t layer) const;

  Geometry geometry;
  std::vector<moa_span_rule> rules;
  std::vector<uint8_t>
      kvFormats; ///< Empty where all KV heads keep the model's.
  std::vector<LayerKernels> layers;
  uint32_t artifactVersion = 0;
  uint32_t kernelCount = 0;
  uint8_t planId[32] = {};
  std::string chip;   ///< Name of the variant in use.
  std::string remark; ///< One line on what fell back, or empty.

private:
  std::unique_ptr<KernelCode> code;
};

} // namespace moa::rt

#endif // MOA_RT_MODULE_H
