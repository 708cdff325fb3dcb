//===- merge.cpp - Merging the shares of a decode row ---------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of merge.h.
//
//===----------------------------------------------------------------------===//

#include "sched/merge.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace moa::rt {
namespace {

uint16_t toBF16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (value != value)
    return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

uint16_t toF16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000)
    return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) // Rounds to 65520 or more: infinity.
    return static_cast<uint16_t>(sign | 0x7c00);
  uint32_t result;
  if (magnitude < 0x38800000) {
    // Subnormal: adding 0.5 leaves the rounded mantissa in the low bits.
    float wide;
    std::memcpy(&wide, &magnitude, 4);
    wide += 0.5f;
    std::memcpy(&result, &wide, 4);
    result -= 0x3f000000;
  } else {
    result = magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1);
    result >>= 13;
  }
  return static_cast<uint16_t>(sign | result);
}

/// Merges one head's shares and writes its output row.
void mergeHead(const Merge &merge, uint32_t head, const Geometry &g) {
  const size_t row = g.headDim + 2, share = size_t(g.group()) * row;
  const float *first = merge.partials + head * row;
  float top = -INFINITY;
  for (uint32_t s = 0; s < merge.shares; ++s)
    if (first[s * share + g.headDim + 1] != 0) // NaN counts as a result.
      top = std::max(top, first[s * share + g.headDim]);
  float sum = 0, out[1024] = {};
  for (uint32_t s = 0; s < merge.shares; ++s) {
    const float *partial = first + s * share;
    float l = partial[g.headDim + 1];
    if (l == 0)
      continue;
    float weight = std::exp2(partial[g.headDim] - top);
    sum += weight * l;
    for (uint32_t d = 0; d < g.headDim; ++d)
      out[d] += weight * partial[d];
  }
  for (uint32_t d = 0; d < g.headDim; ++d)
    out[d] /= sum;
  storeRounded(out, g.headDim, g.dtype,
               static_cast<char *>(merge.out) +
                   head * merge.headStride *
                       static_cast<int64_t>(g.elementBytes()));
}

} // namespace

void storeRounded(const float *from, size_t count, uint32_t dtype, void *to) {
  if (dtype == MOA_DTYPE_F32) {
    std::memcpy(to, from, count * sizeof(float));
    return;
  }
  auto *out = static_cast<uint16_t *>(to);
  for (size_t i = 0; i < count; ++i)
    out[i] = dtype == MOA_DTYPE_BF16 ? toBF16(from[i]) : toF16(from[i]);
}

void finishShare(Merge &merge, const Geometry &geometry) {
  if (merge.left.fetch_sub(1, std::memory_order_acq_rel) != 1)
    return;
  for (uint32_t head = 0; head < geometry.group(); ++head)
    mergeHead(merge, head, geometry);
}

} // namespace moa::rt
