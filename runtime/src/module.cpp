//===- module.cpp - A loaded artifact -------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of module.h.
//
//===----------------------------------------------------------------------===//

#include "module.h"

#include "backend/device.h"
#include "moa/abi/gpu_step.h"

#include <algorithm>
#include <cstring>

namespace moa::rt {

int64_t Module::groupStart(uint32_t layer, uint32_t kvHead, int64_t i,
                           int64_t n) const {
  const uint32_t group = geometry.group();
  int64_t start = i;
  for (uint32_t g = 0; g < group; ++g)
    start = std::min(start,
                     moa_window_start(&rule(layer, kvHead * group + g), i, n));
  return start;
}

moa_resident Module::resident(uint32_t layer, uint32_t kvHead, int64_t seen,
                              int64_t n, int64_t margin, int64_t *start) const {
  const int64_t deciding = moa_deciding_row(seen, margin);
  const int64_t low = groupStart(layer, kvHead, deciding, n);
  if (start)
    *start = low;
  const moa_resident kept = moa_resident_pages(seen, low, sink(layer));
  return kvFormat(layer, kvHead) == MOA_KV_MODEL
             ? kept
             : moa_resident_kv8(kept, deciding);
}

uint64_t Module::residentPages(int64_t seen, int64_t n, int64_t margin) const {
  uint64_t pages = 0;
  for (uint32_t layer = 0; layer < geometry.layers; ++layer)
    for (uint32_t head = 0; head < geometry.kvHeads; ++head) {
      const moa_resident own = resident(layer, head, seen, n, margin);
      pages += moa_resident_count(&own);
    }
  return pages;
}

const Kernel &Module::decodeFor(uint32_t layer, int64_t tokens) const {
  const LayerKernels &kernels = layers[layer];
  const auto group = static_cast<int32_t>(geometry.group());
  auto reads = [&](const Kernel &kernel) {
    return moa_gpu_step_parts(static_cast<int32_t>(tokens),
                              static_cast<int32_t>(kernel.rows), group);
  };
  return kernels.wide.entry && reads(kernels.wide) < reads(kernels.decode)
             ? kernels.wide
             : kernels.decode;
}

bool Module::decodes(uint32_t layer, int64_t tokens) const {
  const LayerKernels &kernels = layers[layer];
  const uint32_t columns = std::max(kernels.decode.rows, kernels.wide.rows);
  return kernels.decode.entry &&
         (tokens == 1 || tokens * geometry.group() <= columns);
}

Status Module::checkLayer(uint32_t layer) const {
  if (layer < geometry.layers)
    return ok();
  return error(MOA_INVALID_ARGUMENT, "layer ", layer, ", expected below ",
               geometry.layers);
}

Status Module::load(const uint8_t *bytes, size_t size,
                    const std::string &origin, Device &device,
                    std::unique_ptr<Module> &out) {
  Artifact artifact;
  MOA_RT_TRY(readArtifact(bytes, size, origin, artifact));
  auto module = std::make_unique<Module>();
  const moa_artifact_header &header = artifact.header;
  Geometry &g = module->geometry;
  g.layers = header.layers;
  g.qHeads = header.q_heads;
  g.kvHeads = header.kv_heads;
  g.headDim = header.head_dim;
  g.dtype = header.dtype;
  g.lengthRule = header.length_rule;
  g.maxLength = header.max_length;
  g.softCap = header.soft_cap;
  module->artifactVersion = header.version;
  module->kernelCount = static_cast<uint32_t>(artifact.kernels.size());
  std::memcpy(module->planId, header.plan_id, sizeof(module->planId));
  module->rules = std::move(artifact.rules);
  for (uint8_t format : artifact.kvFormats)
    g.kv8 |= format != MOA_KV_MODEL;
  if (g.kv8)
    module->kvFormats = std::move(artifact.kvFormats);
  LoadedKernels loaded;
  MOA_RT_TRY(device.loadKernels(artifact, origin, loaded));
  auto kernelAt = [&](uint32_t index) {
    return index == MOA_NO_KERNEL ? Kernel() : loaded.kernels[index];
  };
  auto wideOf = [&](uint32_t index) {
    return index == MOA_NO_KERNEL || loaded.wide.empty() ? Kernel()
                                                         : loaded.wide[index];
  };
  auto rotationOf = [&](uint32_t index) {
    return index == MOA_NO_KERNEL ? 0 : artifact.kernels[index].facts.rotation;
  };
  for (const moa_artifact_layer &layer : artifact.layers)
    module->layers.push_back({kernelAt(layer.prefill), kernelAt(layer.decode),
                              kernelAt(layer.append), kernelAt(layer.prepare),
                              kernelAt(layer.rope), wideOf(layer.decode),
                              kernelAt(layer.quantise),
                              rotationOf(layer.rope)});
  module->code = std::move(loaded.code);
  module->chip = std::move(loaded.chip);
  module->remark = std::move(loaded.remark);
  out = std::move(module);
  return ok();
}

} // namespace moa::rt
