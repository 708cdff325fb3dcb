//===- prefix_index.cpp - Pages by the tokens they hold -------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of prefix_index.h. A hash only says where to look: a block is
// found when it stands behind the same block and has the same tokens.
//
//===----------------------------------------------------------------------===//

#include "cache/prefix_index.h"

namespace moa::rt {

uint64_t hashOfBlock(uint64_t before, const PrefixBlock::Tokens &tokens) {
  uint64_t hash = before;
  for (int64_t token : tokens) {
    hash = (hash ^ static_cast<uint64_t>(token)) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 32;
  }
  return hash;
}

PrefixBlock *PrefixIndex::find(const PrefixBlock *before, uint64_t salt,
                               const PrefixBlock::Tokens &tokens) const {
  auto [at, end] = byHash.equal_range(hashOf(before, salt, tokens));
  for (; at != end; ++at) {
    PrefixBlock *block = at->second.get();
    if (block->before == before && block->salt == salt &&
        block->tokens == tokens)
      return block;
  }
  return nullptr;
}

PrefixBlock *PrefixIndex::use(PrefixBlock *before, uint64_t salt,
                              const PrefixBlock::Tokens &tokens) {
  PrefixBlock *block = find(before, salt, tokens);
  if (!block) {
    auto made = std::make_unique<PrefixBlock>();
    block = made.get();
    block->before = before;
    block->salt = salt;
    block->hash = hashOf(before, salt, tokens);
    block->tokens = tokens;
    block->pages.assign(slots, kNoPage);
    byHash.emplace(block->hash, std::move(made));
    if (before)
      ++before->users;
  }
  ++block->users;
  return block;
}

void PrefixIndex::leave(PrefixBlock *block) noexcept {
  --block->users;
  removeUnused(block);
}

/// Removes a block that nothing needs, and those before it that nothing needs
/// then.
void PrefixIndex::removeUnused(PrefixBlock *block) noexcept {
  while (block && block->users == 0 && block->kept == 0) {
    PrefixBlock *before = block->before;
    auto at = byHash.equal_range(block->hash).first;
    while (at->second.get() != block)
      ++at;
    byHash.erase(at);
    block = before;
    if (block)
      --block->users;
  }
}

PageId PrefixIndex::offer(PrefixBlock &block, size_t slot,
                          PageId page) noexcept {
  PageId &own = block.pages[slot];
  if (own == kNoPage && !keeps(page)) {
    own = page;
    places[page].block = &block;
    places[page].slot = slot;
    ++block.kept;
    ++keptPages;
  }
  return own == kNoPage ? page : own;
}

void PrefixIndex::makeRoom(uint64_t pages) {
  if (places.size() < pages)
    places.resize(pages);
}

void PrefixIndex::becomesIdle(PageId page) noexcept {
  places[page].older = newest;
  places[page].newer = kNoPage;
  (newest == kNoPage ? oldest : places[newest].newer) = page;
  newest = page;
  ++idlePages;
}

void PrefixIndex::becomesHeld(PageId page) noexcept {
  const Place &place = places[page];
  (place.older == kNoPage ? oldest : places[place.older].newer) = place.newer;
  (place.newer == kNoPage ? newest : places[place.newer].older) = place.older;
  --idlePages;
}

PageId PrefixIndex::giveUp() noexcept {
  const PageId page = oldest;
  becomesHeld(page); // Leaves the list.
  PrefixBlock *block = places[page].block;
  block->pages[places[page].slot] = kNoPage;
  places[page].block = nullptr;
  --block->kept;
  --keptPages;
  ++givenUp;
  removeUnused(block);
  return page;
}

} // namespace moa::rt
