//===- request.cpp - One request of the scheduler -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of request.h.
//
//===----------------------------------------------------------------------===//

#include "sched/request.h"

#include "cache/head_change.h"

namespace moa::rt {
namespace {

/// Sums what `count(layer, head)` says over all KV heads.
template <typename Count> uint64_t sum(const Module &module, Count count) {
  const Geometry &g = module.geometry;
  uint64_t pages = 0;
  for (uint32_t layer = 0; layer < g.layers; ++layer)
    for (uint32_t head = 0; head < g.kvHeads; ++head)
      pages += count(layer, head);
  return pages;
}

/// Pages at once while the block behind those of `resident` begins; of blocks
/// in 8 bits the most that as many take wherever they lie.
int64_t mostWithBlock(const moa_resident &resident, bool kv8) {
  if (!kv8)
    return moa_resident_count(&resident) + 1;
  const int64_t begin = moa_resident_full_begin(&resident);
  const int64_t blocks = begin - resident.window_begin;
  return resident.sink_pages + (blocks + 1) / 2 + 1 +
         (resident.window_end - begin) + 1;
}

} // namespace

uint64_t mostPages(const Cache &cache, int64_t n, int64_t rows) {
  const int64_t begun = (rows - 1) / MOA_BLOCK_KEYS * MOA_BLOCK_KEYS;
  const Module &module = cache.module;
  return sum(module, [&](uint32_t layer, uint32_t head) {
    return mostWithBlock(cache.resident(layer, head, begun, n),
                         module.kvFormat(layer, head) != MOA_KV_MODEL);
  });
}

uint64_t newPages(const Cache &cache, int64_t n, int64_t seen, int64_t rows) {
  return sum(cache.module, [&](uint32_t layer, uint32_t head) {
    return newPagesOf(cache.resident(layer, head, seen, n),
                      cache.resident(layer, head, seen + rows, n),
                      blocksOf(seen));
  });
}

} // namespace moa::rt
