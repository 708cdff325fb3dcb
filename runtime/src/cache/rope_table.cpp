//===- rope_table.cpp - Rotations of a cache ------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of rope_table.h.
//
//===----------------------------------------------------------------------===//

#include "cache/rope_table.h"

#include "moa/abi/rope.h"
#include "moa/abi/snapshot.h"

#include <cmath>

namespace moa::rt {
namespace {

/// "half:64", as moa-compile takes it.
std::string nameOf(uint32_t layout, uint32_t rotaryDim) {
  return (layout == MOA_ROPE_HALF ? "half:" : "interleaved:") +
         std::to_string(rotaryDim);
}

Status check(const Module &module, const moa_rope &rope) {
  const uint32_t dims = module.geometry.headDim;
  if (rope.layout > MOA_ROPE_INTERLEAVED)
    return error(MOA_INVALID_ARGUMENT, "layout is ", rope.layout,
                 ", expected MOA_ROPE_HALF or MOA_ROPE_INTERLEAVED");
  if (rope.rotary_dim < 2 || rope.rotary_dim % 2 || rope.rotary_dim > dims)
    return error(MOA_INVALID_ARGUMENT, "rotary_dim is ", rope.rotary_dim,
                 ", expected an even number from 2 to the head size ", dims);
  if (!rope.frequencies)
    return error(MOA_INVALID_ARGUMENT, "frequencies is NULL; pass ",
                 rope.rotary_dim / 2, " of them, in radians a token");
  for (uint32_t i = 0; i < rope.rotary_dim / 2; ++i)
    if (!std::isfinite(rope.frequencies[i]))
      return error(MOA_INVALID_ARGUMENT, "frequency ", i, " is ",
                   rope.frequencies[i], ", expected a finite value");
  if (!(rope.scale > 0) || !std::isfinite(rope.scale))
    return error(MOA_INVALID_ARGUMENT, "scale is ", rope.scale,
                 ", expected a finite value above 0; 1 leaves rotations as "
                 "they are");
  return ok();
}

Status checkKernel(const Module &module, uint32_t layer, const moa_rope &rope) {
  const LayerKernels &kernels = module.layers[layer];
  const std::string asked = nameOf(rope.layout, rope.rotary_dim);
  if (!kernels.rope.entry)
    return error(MOA_UNSUPPORTED, "layer ", layer,
                 " has no rope kernel; compile with --rope ", asked);
  if (kernels.rotation != moa_artifact_rotation(rope.layout, rope.rotary_dim))
    return error(MOA_UNSUPPORTED, "layer ", layer, " has a rope kernel for ",
                 nameOf(kernels.rotation >> 16, kernels.rotation & 0xFFFFu),
                 ", asked for ", asked, "; compile with --rope ", asked);
  return ok();
}

uint64_t fingerprintOf(const moa_rope &rope) {
  const uint64_t words[] = {rope.layout, rope.rotary_dim};
  const double scale = rope.scale;
  uint64_t hash =
      moa_snapshot_hash(MOA_SNAPSHOT_HASH_START, words, sizeof(words));
  hash = moa_snapshot_hash(hash, &scale, sizeof(scale));
  return moa_snapshot_hash(hash, rope.frequencies,
                           rope.rotary_dim / 2 * sizeof(double));
}

} // namespace

Status RopeTable::set(Device &device, const Module &module, uint32_t layer,
                      const moa_rope &rope) {
  const bool all = layer == MOA_ALL_LAYERS;
  if (!all)
    MOA_RT_TRY(module.checkLayer(layer));
  MOA_RT_TRY(check(module, rope));
  const uint32_t begin = all ? 0 : layer;
  const uint32_t end = all ? module.geometry.layers : layer + 1;
  for (uint32_t i = begin; i < end; ++i)
    MOA_RT_TRY(checkKernel(module, i, rope));
  std::vector<uint64_t> turns;
  for (uint32_t i = 0; i < rope.rotary_dim / 2; ++i)
    turns.push_back(moa_rope_turns(rope.frequencies[i]));
  auto memory = std::make_shared<Memory>(device);
  const size_t bytes = turns.size() * sizeof(uint64_t);
  MOA_RT_TRY(device.allocate(bytes, &memory->address));
  MOA_RT_TRY(device.copy(memory->address, turns.data(), bytes));
  layers.resize(module.geometry.layers);
  const uint64_t hash = fingerprintOf(rope);
  for (uint32_t i = begin; i < end; ++i)
    layers[i] = {{static_cast<const uint64_t *>(memory->address), rope.scale},
                 hash,
                 memory};
  return ok();
}

} // namespace moa::rt
