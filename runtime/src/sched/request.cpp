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

namespace moa::rt {
namespace {

/// Sums over all KV heads what `count` says of the pages after `seen` tokens.
template <typename Count>
uint64_t sum(const Cache &cache, int64_t n, int64_t seen, Count count) {
  const Geometry &g = cache.module.geometry;
  uint64_t pages = 0;
  for (uint32_t layer = 0; layer < g.layers; ++layer)
    for (uint32_t head = 0; head < g.kvHeads; ++head)
      pages += count(cache.resident(layer, head, seen, n));
  return pages;
}

} // namespace

uint64_t mostPages(const Cache &cache, int64_t n, int64_t rows) {
  const int64_t begun = (rows - 1) / MOA_BLOCK_KEYS * MOA_BLOCK_KEYS;
  return sum(cache, n, begun, [](const moa_resident &resident) {
    return moa_resident_count(&resident) + 1;
  });
}

uint64_t newPages(const Cache &cache, int64_t n, int64_t seen, int64_t rows) {
  const int64_t begun = blocksOf(seen);
  return sum(cache, n, seen + rows, [&](const moa_resident &resident) {
    return pagesFrom(resident, begun);
  });
}

} // namespace moa::rt
