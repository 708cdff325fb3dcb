//===- sequence.cpp - What one sequence holds -----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of sequence.h.
//
//===----------------------------------------------------------------------===//

#include "cache/sequence.h"

#include "cache/cache.h"

#include <algorithm>

namespace moa::rt {

Sequence::Sequence(Cache &cache, const Module &module, PagePool &pool,
                   int64_t length)
    : cache(cache), module(module), pool(pool), length(length),
      layers(module.geometry.layers), chain(cache.prefixes.get()) {
  for (LayerState &layer : layers)
    layer.heads.resize(module.geometry.kvHeads);
}

/// The newest pages go first: of those that are kept, the ones that most
/// sequences begin with are given up last.
Sequence::~Sequence() {
  size_t blocks = 0;
  for (const LayerState &layer : layers)
    for (const HeadPages &head : layer.heads)
      blocks = std::max(blocks, head.pages.size());
  while (blocks--)
    for (const LayerState &layer : layers)
      for (const HeadPages &head : layer.heads)
        if (const PageId page = head.page(blocks);
            page != kNoPage && head.isFirstOf(blocks))
          pool.release(page);
}

void Sequence::holdAll() noexcept {
  for (const LayerState &layer : layers)
    for (const HeadPages &head : layer.heads)
      head.forPages([&](PageId page) { pool.share(page); });
}

moa_resident Sequence::after(uint32_t layer, uint32_t kvHead, int64_t tokens,
                             int64_t *start) const {
  const LayerState &state = layers[layer];
  const HeadPages &head = state.heads[kvHead];
  moa_resident next =
      cache.resident(layer, kvHead, state.seen + tokens, length, start);
  if (head.firstResident() > 0)
    next.window_begin = std::max(next.window_begin, head.resident.window_begin);
  // What is in 8 bits stays so.
  if (module.kvFormat(layer, kvHead) != MOA_KV_MODEL)
    next.kv8_end =
        std::max({next.kv8_end, head.resident.kv8_end, next.window_begin});
  return next;
}

Status Sequence::checkIdle() const {
  if (!step)
    return ok();
  return error(MOA_INVALID_ARGUMENT,
               "the sequence is part of a step under way; call moa_batch_end "
               "or moa_batch_cancel first");
}

bool Sequence::sharesNewest(uint32_t layer, uint32_t kvHead) const {
  const LayerState &state = layers[layer];
  const int64_t block = state.seen / MOA_BLOCK_KEYS;
  return state.seen % MOA_BLOCK_KEYS &&
         !pool.isWritable(state.heads[kvHead].pages[block]);
}

uint64_t Sequence::pagesHeld() const {
  uint64_t count = 0;
  for (const LayerState &layer : layers)
    for (const HeadPages &head : layer.heads)
      count += moa_resident_count(&head.resident);
  return count;
}

} // namespace moa::rt
