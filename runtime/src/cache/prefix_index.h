//===- prefix_index.h - Pages by the tokens they hold -----------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A tree of blocks of 64 tokens: a block is known by all tokens before it, and
// has the page of each KV head of each layer that holds its keys and values, as
// far as there is one. Pages stay behind the sequences that made them; those
// that were let go first are given up first.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_CACHE_PREFIX_INDEX_H
#define MOA_RT_CACHE_PREFIX_INDEX_H

#include "cache/page_pool.h"
#include "moa/abi/span.h"

#include <array>
#include <unordered_map>

namespace moa::rt {

/// A block of tokens behind a prefix. It exists while it has a page, a block
/// behind it, or a sequence whose newest block it is.
struct PrefixBlock {
  using Tokens = std::array<int64_t, MOA_BLOCK_KEYS>;

  PrefixBlock *before; ///< Null for the first of a prefix.
  uint64_t salt;       ///< Of the prefix.
  uint64_t hash;       ///< Of salt, prefix and tokens.
  Tokens tokens;
  std::vector<PageId> pages; ///< [layer][KV head]; kNoPage where none is kept.
  size_t kept = 0;           ///< Of pages.
  size_t users = 0;          ///< Blocks behind it, and sequences.
};

/// The hash of a block; `before` is that of the block before, or of the salt.
using PrefixHash = uint64_t (*)(uint64_t before,
                                const PrefixBlock::Tokens &tokens);
uint64_t hashOfBlock(uint64_t before, const PrefixBlock::Tokens &tokens);

/// The beginning of a sequence as far as the index has it.
struct PrefixMatch {
  std::vector<PrefixBlock *> blocks;
  int64_t common = 0; ///< Tokens that the index knows, with pages or without.
  uint64_t pages = 0; ///< That rows behind it see.
  uint64_t idle = 0;  ///< Of these, held by no sequence.

  int64_t tokens() const {
    return static_cast<int64_t>(blocks.size()) * MOA_BLOCK_KEYS;
  }
};

class PrefixIndex final : public PageKeeper {
public:
  /// A block has `slots` pages. Equal hashes cost time, nothing else.
  PrefixIndex(size_t slots, uint64_t mostIdle, PrefixHash hash = hashOfBlock)
      : slots(slots), most(mostIdle), hash(hash) {}
  PrefixIndex(const PrefixIndex &) = delete;
  PrefixIndex &operator=(const PrefixIndex &) = delete;

  /// The block with these tokens behind `before`, or null.
  PrefixBlock *find(const PrefixBlock *before, uint64_t salt,
                    const PrefixBlock::Tokens &tokens) const;
  /// Finds or makes it, for one user more.
  PrefixBlock *use(PrefixBlock *before, uint64_t salt,
                   const PrefixBlock::Tokens &tokens);
  /// One user fewer.
  void leave(PrefixBlock *block) noexcept;

  /// Takes a full page for a slot, unless there is one or the page is kept
  /// already; the page that holds the slot's keys and values now.
  PageId offer(PrefixBlock &block, size_t slot, PageId page) noexcept;

  void setMostIdle(uint64_t pages) noexcept { most = pages; }
  /// Pages kept, held by sequences or not.
  uint64_t kept() const { return keptPages; }
  /// Pages given up so far.
  uint64_t evicted() const { return givenUp; }
  /// Blocks there are.
  size_t blocks() const { return byHash.size(); }

  void makeRoom(uint64_t pages) override;
  bool keeps(PageId page) const noexcept override {
    return places[page].block != nullptr;
  }
  void becomesIdle(PageId page) noexcept override;
  void becomesHeld(PageId page) noexcept override;
  uint64_t idle() const noexcept override { return idlePages; }
  uint64_t mostIdle() const noexcept override { return most; }
  PageId giveUp() noexcept override;

private:
  /// Where a kept page is, and the pages let go before and after it.
  struct Place {
    PrefixBlock *block = nullptr;
    size_t slot = 0;
    PageId older = kNoPage, newer = kNoPage;
  };

  uint64_t hashOf(const PrefixBlock *before, uint64_t salt,
                  const PrefixBlock::Tokens &tokens) const {
    return hash(before ? before->hash : salt, tokens);
  }
  void removeUnused(PrefixBlock *block) noexcept;

  const size_t slots;
  uint64_t most;
  const PrefixHash hash;
  std::unordered_multimap<uint64_t, std::unique_ptr<PrefixBlock>> byHash;
  std::vector<Place> places;                 ///< Of each page of the pool.
  PageId oldest = kNoPage, newest = kNoPage; ///< Of the idle ones.
  uint64_t idlePages = 0, keptPages = 0, givenUp = 0;
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_PREFIX_INDEX_H
