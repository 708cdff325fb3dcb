//===- prefix.cpp - Sequences that begin alike ----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// How much of a prefix is in the index, sequences that begin with it, and full
// pages that go there. Under the length rule `row` keys and values depend on
// the tokens alone, so a page of the same tokens is the same page.
//
//===----------------------------------------------------------------------===//

#include "cache/cache.h"

#include <algorithm>

namespace moa::rt {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

Status Cache::setPrefixReuse(uint64_t maxBytes, PrefixHash hash) {
  const size_t page = pool.pageBytes();
  if (module.geometry.lengthRule != MOA_LENGTH_ROW)
    return error(MOA_UNSUPPORTED, "prefixes cannot be reused under the length "
                                  "rule request: keys and values of a token "
                                  "depend on its request's length N; compile "
                                  "a plan with the length rule row");
  if (module.geometry.kv8)
    return error(MOA_UNSUPPORTED, "prefixes cannot be reused beside KV heads "
                                  "that keep 8 bits: what they hold of a token "
                                  "depends on how calls are cut; compile a "
                                  "plan whose kv.format is 16");
  if (maxBytes ? maxBytes < page : !pool.limit())
    return error(MOA_INVALID_ARGUMENT, "max_bytes is ", maxBytes,
                 ", expected a page of ", page,
                 " bytes at least, or 0 in a cache that has a limit");
  const uint64_t pages = maxBytes ? maxBytes / page : pool.limit();
  if (prefixes) {
    prefixes->setMostIdle(pages);
    pool.trim();
    return ok();
  }
  if (!sequences.empty() || !batches.empty())
    return error(MOA_INVALID_ARGUMENT, "the cache has ", sequences.size(),
                 " sequences and ", batches.size(),
                 " batches; turn prefix reuse on before the first of either");
  const size_t slots = size_t(module.geometry.layers) * module.geometry.kvHeads;
  auto index = std::make_unique<PrefixIndex>(slots, pages, hash);
  pool.setKeeper(*index);
  prefixes = std::move(index);
  return ok();
}

/// The most blocks, up to `count`, behind which a KV head finds all that later
/// rows see. No window starts earlier behind more blocks, so what is missing
/// behind some is missing behind all fewer ones that have it.
int64_t Cache::reusableBlocks(const std::vector<PrefixBlock *> &blocks,
                              int64_t count, uint32_t layer,
                              uint32_t kvHead) const {
  const size_t slot = size_t(layer) * module.geometry.kvHeads + kvHead;
  /// The last missing one of blocks [begin, end), or begin - 1.
  auto missing = [&](int64_t begin, int64_t end) {
    while (end > begin && blocks[end - 1]->pages[slot] != kNoPage)
      --end;
    return end - 1;
  };
  while (count > 0) {
    const moa_resident needed = resident(layer, kvHead, count * kBlock, 0);
    int64_t last = missing(needed.window_begin, needed.window_end);
    if (last < needed.window_begin)
      last = missing(0, needed.sink_pages);
    if (last < 0)
      return count;
    count = last;
  }
  return 0;
}

PrefixMatch Cache::findPrefix(uint64_t salt, const int64_t *tokens,
                              size_t count) const {
  PrefixMatch match;
  if (!prefixes)
    return match;
  // A row has to be left: the outputs of the last token are wanted.
  PrefixBlock *last = nullptr;
  for (size_t end = kBlock; end < count; end += kBlock) {
    PrefixBlock::Tokens block;
    std::copy_n(tokens + end - kBlock, kBlock, block.begin());
    last = prefixes->find(last, salt, block);
    if (!last)
      break;
    match.blocks.push_back(last);
  }
  match.common = match.tokens();
  const Geometry &g = module.geometry;
  int64_t found = match.blocks.size(), before;
  if (!found)
    return match;
  do {
    before = found;
    for (uint32_t layer = 0; layer < g.layers; ++layer)
      for (uint32_t h = 0; h < g.kvHeads; ++h)
        found = reusableBlocks(match.blocks, found, layer, h);
  } while (found < before);
  match.blocks.resize(found);
  for (uint32_t layer = 0; layer < g.layers; ++layer)
    for (uint32_t h = 0; h < g.kvHeads; ++h) {
      HeadPages head;
      head.resident = resident(layer, h, match.tokens(), 0);
      match.pages += moa_resident_count(&head.resident);
      for (int64_t block = 0; block < found; ++block)
        match.idle +=
            head.keeps(block) &&
            pool.holdersOf(
                match.blocks[block]->pages[size_t(layer) * g.kvHeads + h]) == 0;
    }
  return match;
}

void Cache::beginWith(Sequence &sequence, const PrefixMatch &match,
                      uint64_t salt, const int64_t *tokens, size_t count) {
  const Geometry &g = module.geometry;
  TokenChain chain(prefixes.get(), salt);
  chain.add(tokens, count);
  std::vector<LayerState> layers(g.layers);
  for (uint32_t layer = 0; layer < g.layers; ++layer) {
    layers[layer].seen = match.tokens();
    layers[layer].heads.resize(g.kvHeads);
    for (uint32_t h = 0; h < g.kvHeads; ++h) {
      HeadPages &head = layers[layer].heads[h];
      head.resident = resident(layer, h, match.tokens(), 0);
      for (int64_t block = 0; block < head.resident.window_end; ++block)
        head.pages.push_back(
            head.keeps(block)
                ? match.blocks[block]->pages[size_t(layer) * g.kvHeads + h]
                : kNoPage);
    }
  }
  // Nothing fails from here on.
  sequence.chain.swap(chain);
  sequence.layers.swap(layers);
  sequence.holdAll();
  ++sequence.revision;
  counters.prefix_tokens_asked += count;
  counters.prefix_tokens_reused += match.tokens();
  counters.prefix_pages_reused += match.pages;
}

static Status checkTokens(const Sequence &sequence, const int64_t *tokens,
                          size_t count) {
  if (!sequence.cache.prefixes)
    return error(MOA_INVALID_ARGUMENT,
                 "the cache does not reuse prefixes; call "
                 "moa_cache_set_prefix_reuse first");
  if (!tokens || !count)
    return error(MOA_INVALID_ARGUMENT, "no tokens; pass at least one");
  const int64_t longest = sequence.module.geometry.maxLength;
  const int64_t known = sequence.chain.tokens();
  if (count > static_cast<uint64_t>(longest - known))
    return error(MOA_OUT_OF_RANGE, known, " tokens known and ", count,
                 " new exceed the artifact's max length ", longest,
                 "; compile with a larger --max-length");
  return sequence.checkIdle();
}

Status Sequence::reuse(uint64_t salt, const int64_t *tokens, size_t count,
                       PrefixMatch &match) {
  MOA_RT_TRY(checkTokens(*this, tokens, count));
  for (const LayerState &layer : layers)
    if (layer.seen || chain.tokens())
      return error(MOA_INVALID_ARGUMENT, "the sequence has seen ", layer.seen,
                   " tokens and knows ", chain.tokens(),
                   "; call moa_sequence_reuse on a new sequence");
  match = cache.findPrefix(salt, tokens, count);
  cache.beginWith(*this, match, salt, tokens, count);
  return ok();
}

Status Sequence::addTokens(const int64_t *tokens, size_t count) {
  MOA_RT_TRY(checkTokens(*this, tokens, count));
  const int64_t known = chain.blocks();
  chain.add(tokens, count);
  for (uint32_t layer = 0; layer < layers.size(); ++layer)
    publish(layer, known);
  return ok();
}

void Sequence::publish(uint32_t layer, int64_t from) noexcept {
  LayerState &state = layers[layer];
  const int64_t full = std::min(state.seen / kBlock, chain.blocks());
  for (int64_t block = from; block < full; ++block)
    for (uint32_t h = 0; h < state.heads.size(); ++h) {
      const PageId own = state.heads[h].page(block);
      if (own == kNoPage)
        continue;
      const PageId kept = cache.prefixes->offer(
          chain.block(block), layer * state.heads.size() + h, own);
      if (kept == own)
        continue;
      // Another sequence was first: one page is enough.
      pool.share(kept);
      pool.release(own);
      state.heads[h].pages[block] = kept;
      ++revision;
      ++cache.counters.prefix_pages_merged;
    }
}

} // namespace moa::rt
