//===- truncate.cpp - Sequences that go back ------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Dropping the newest rows, where what the rows to come see is still there; and
// raising N, which has to remember what was there before.
//
//===----------------------------------------------------------------------===//

#include "cache/cache.h"

#include <algorithm>

namespace moa::rt {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

/// Least length from which on no window starts before what is held.
int64_t Sequence::leastByWindow(uint32_t layer, uint32_t kvHead) const {
  const LayerState &state = layers[layer];
  const HeadPages &head = state.heads[kvHead];
  const uint32_t group = module.geometry.group();
  int64_t least = 0;
  for (uint32_t g = 0; g < group; ++g)
    least = std::max(
        least, moa_first_row_from(&module.rule(layer, kvHead * group + g),
                                  head.firstResident(), length, state.seen));
  return least;
}

/// The same, or that from which on no more was held already; and not within
/// blocks of 8 bits.
int64_t Sequence::leastLength(uint32_t layer, uint32_t kvHead) const {
  const HeadPages &head = layers[layer].heads[kvHead];
  int64_t least = 0;
  if (head.firstResident()) {
    least = leastByWindow(layer, kvHead);
    if (head.floor == head.resident.window_begin)
      least = std::min(least, head.since);
  }
  if (head.isKv8(head.resident.kv8_end - 1))
    least = std::max(least, head.resident.kv8_end * kBlock);
  // Lengths within the sink's pages are always possible.
  return least <= head.resident.sink_pages * kBlock + 1 ? 0 : least;
}

int64_t Sequence::leastLength() const {
  int64_t least = 0, most = layers[0].seen;
  for (const LayerState &state : layers)
    most = std::min(most, state.seen);
  for (uint32_t layer = 0; layer < layers.size(); ++layer)
    for (uint32_t h = 0; h < layers[layer].heads.size(); ++h)
      // Lengths within the sink's pages are always possible.
      if (most > layers[layer].heads[h].resident.sink_pages * kBlock)
        least = std::max(least, leastLength(layer, h));
  return least;
}

/// Whether a KV head holds all that rows from `tokens` on see.
bool Sequence::reaches(uint32_t layer, uint32_t kvHead, int64_t tokens) const {
  const HeadPages &head = layers[layer].heads[kvHead];
  const int64_t bound = head.firstResident();
  const int64_t start = module.groupStart(layer, kvHead, tokens, length);
  return bound == 0 || tokens <= head.resident.sink_pages * kBlock ||
         start >= bound ||
         // No page is begun, and none before is seen.
         (start >= tokens && tokens % kBlock == 0) ||
         (head.floor == head.resident.window_begin && tokens >= head.since);
}

/// The row to come goes to a page whose rows are there in 16 bits.
static Status checkKv8(const HeadPages &head, uint32_t layer, uint32_t kvHead,
                       int64_t tokens) {
  if (tokens % kBlock == 0 || !head.isKv8(tokens / kBlock))
    return ok();
  return error(MOA_NOT_RESIDENT, "cannot truncate to ", tokens,
               " tokens: layer ", layer, ", KV head ", kvHead,
               ": the rows before it from ", tokens / kBlock * kBlock,
               " on are kept in 8 bits and no row can be added to them; "
               "truncate to ",
               tokens / kBlock * kBlock, ", to another multiple of ", kBlock,
               ", or to ", head.resident.kv8_end * kBlock,
               " at least, or make the cache with more rollback_tokens");
}

Status Sequence::checkTruncate(int64_t tokens) const {
  MOA_RT_TRY(checkIdle());
  for (uint32_t layer = 0; layer < layers.size(); ++layer) {
    const LayerState &state = layers[layer];
    if (tokens < 0 || tokens > state.seen)
      return error(MOA_INVALID_ARGUMENT, "cannot truncate to ", tokens,
                   " tokens: layer ", layer, " has seen ", state.seen,
                   "; expected 0 to what every layer has seen");
    for (uint32_t h = 0; h < state.heads.size(); ++h)
      if (tokens < state.seen && !reaches(layer, h, tokens)) {
        const HeadPages &head = state.heads[h];
        const int64_t sinks = head.resident.sink_pages * kBlock;
        return error(
            MOA_NOT_RESIDENT, "cannot truncate to ", tokens, " tokens: layer ",
            layer, ", KV head ", h, ": rows to come see keys from position ",
            std::max(sinks, module.groupStart(layer, h, tokens, length)),
            " on, which is held only from ", head.firstResident(),
            " on; truncate to ", leastLength(), " at least, or to ", sinks,
            " at most, or make the cache with more rollback_tokens");
      }
    if (tokens < state.seen)
      for (uint32_t h = 0; h < state.heads.size(); ++h)
        MOA_RT_TRY(checkKv8(state.heads[h], layer, h, tokens));
  }
  return ok();
}

/// Leaves a KV head what it holds of `tokens` tokens.
void Sequence::drop(uint32_t layer, uint32_t kvHead, int64_t tokens) noexcept {
  HeadPages &head = layers[layer].heads[kvHead];
  moa_resident next = cache.resident(layer, kvHead, tokens, length);
  if (tokens <= head.resident.sink_pages * kBlock)
    // Nothing is missing any more.
    head.floor = 0, head.since = 0;
  else if (head.firstResident()) {
    // Short of what is held only where no row sees any of it.
    next.window_begin =
        std::min(std::max(next.window_begin, head.resident.window_begin),
                 next.window_end);
    // Should N rise: what is held begins there from these tokens on.
    if (module.geometry.lengthRule == MOA_LENGTH_REQUEST) {
      const bool same = head.floor == next.window_begin;
      head.since = same ? std::min(head.since, tokens) : tokens;
      head.floor = next.window_begin;
    }
  }
  if (module.kvFormat(layer, kvHead) != MOA_KV_MODEL) {
    const auto whole = static_cast<int32_t>(tokens / kBlock);
    next.kv8_end =
        std::max(std::min(head.resident.kv8_end, whole), next.window_begin);
  }
  head.resident = next;
  for (int64_t block = 0; block < static_cast<int64_t>(head.pages.size());
       ++block) {
    if (head.keeps(block))
      continue;
    const PageId page = head.drop(block);
    if (page != kNoPage)
      pool.release(page);
  }
}

Status Sequence::truncate(int64_t tokens) {
  MOA_RT_TRY(checkTruncate(tokens));
  for (uint32_t layer = 0; layer < layers.size(); ++layer) {
    LayerState &state = layers[layer];
    if (state.seen == tokens)
      continue;
    for (uint32_t h = 0; h < state.heads.size(); ++h) {
      const int64_t before = state.heads[h].firstResident();
      drop(layer, h, tokens);
      // Tables elsewhere have the first position that is held.
      if (state.heads[h].firstResident() != before)
        ++revision;
    }
    state.seen = tokens;
    state.dirtyTail = tokens % kBlock != 0;
  }
  chain.truncate(tokens);
  ++disturbed;
  ++cache.counters.sequences_truncated;
  return ok();
}

void Sequence::raise(int64_t to) noexcept {
  for (uint32_t layer = 0; layer < layers.size(); ++layer)
    for (uint32_t h = 0; h < layers[layer].heads.size(); ++h) {
      HeadPages &head = layers[layer].heads[h];
      if (!head.firstResident())
        continue;
      int64_t since = std::min(leastByWindow(layer, h) + cache.rollback,
                               layers[layer].seen);
      if (head.floor == head.resident.window_begin)
        since = std::min(since, head.since);
      head.since = since;
      head.floor = head.resident.window_begin;
    }
  length = to;
  ++revision;
}

} // namespace moa::rt
