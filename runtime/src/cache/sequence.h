//===- sequence.h - What one sequence holds ---------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Per layer the tokens seen, per KV head the page of each block that is
// resident. Changes are prepared beside the old state and committed without
// failing.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_CACHE_SEQUENCE_H
#define MOA_RT_CACHE_SEQUENCE_H

#include "cache/page_pool.h"
#include "cache/token_chain.h"
#include "module.h"

#include <algorithm>

namespace moa::rt {

/// Blocks that `tokens` tokens have begun.
inline int64_t blocksOf(int64_t tokens) {
  return (tokens + MOA_BLOCK_KEYS - 1) / MOA_BLOCK_KEYS;
}

/// Pages of one KV head of one layer.
struct HeadPages {
  /// By absolute block; kNoPage where nothing is held.
  std::vector<PageId> pages;
  moa_resident resident = {0, 0, 0, 0};
  /// Where N rose last: what was held then began with block `floor`, as it
  /// would have from `since` tokens on.
  int32_t floor = 0;
  int64_t since = 0;

  PageId page(int64_t block) const {
    return block < static_cast<int64_t>(pages.size()) ? pages[block] : kNoPage;
  }
  /// Gives a block up; the page that nothing else of the head is in any more,
  /// or kNoPage.
  PageId drop(int64_t block) noexcept {
    const PageId page = pages[block];
    pages[block] = kNoPage;
    return page == this->page(block ^ 1) ? kNoPage : page;
  }
  /// Calls `visit` for each page; two blocks in 8 bits have one in common.
  template <typename Visit> void forPages(Visit visit) const {
    for (size_t block = 0; block < pages.size(); ++block)
      if (pages[block] != kNoPage && isFirstOf(block))
        visit(pages[block]);
  }
  /// Whether a block is the only one or the first in its page.
  bool isFirstOf(int64_t block) const {
    return block % 2 == 0 || pages[block] != pages[block - 1];
  }
  bool keeps(int64_t block) const {
    return block < resident.sink_pages ||
           (block >= resident.window_begin && block < resident.window_end);
  }
  /// Whether a block is held in 8 bits.
  bool isKv8(int64_t block) const {
    return block >= resident.window_begin && block < resident.kv8_end;
  }
  /// First position behind the sink that is held; 0 while nothing was given up.
  int64_t firstResident() const {
    return resident.window_begin > resident.sink_pages
               ? int64_t(resident.window_begin) * MOA_BLOCK_KEYS
               : 0;
  }
};

struct LayerState {
  int64_t seen = 0;
  /// Rows of the newest page behind the last one may not be zero; the next
  /// append zeros them.
  bool dirtyTail = false;
  std::vector<HeadPages> heads;
};

class Batch;
class Cache;

class Sequence {
public:
  Sequence(Cache &cache, const Module &module, PagePool &pool, int64_t length);
  ~Sequence();
  Sequence(const Sequence &) = delete;
  Sequence &operator=(const Sequence &) = delete;

  /// Refuses a sequence that is part of a step under way.
  Status checkIdle() const;
  /// What a KV head keeps after `tokens` more tokens: never pages that were
  /// given up before.
  /// `start`, if wanted, becomes the smallest window start of the next row.
  moa_resident after(uint32_t layer, uint32_t kvHead, int64_t tokens,
                     int64_t *start = nullptr) const;
  /// Whether the page that the next row of a KV head goes to has rows, and
  /// others have it too: sequences, or the index of prefixes.
  bool sharesNewest(uint32_t layer, uint32_t kvHead) const;
  /// Raises N.
  void raise(int64_t to) noexcept;
  /// Drops the newest rows; see moa_sequence_truncate.
  Status truncate(int64_t tokens);
  /// See moa_sequence_get_min_length.
  int64_t leastLength() const;
  /// Pages held over all layers, shared ones too.
  uint64_t pagesHeld() const;
  /// One more holds each of its pages.
  void holdAll() noexcept;
  /// Begins with pages of others; see moa_sequence_reuse.
  Status reuse(uint64_t salt, const int64_t *tokens, size_t count,
               PrefixMatch &match);
  /// See moa_sequence_add_tokens.
  Status addTokens(const int64_t *tokens, size_t count);
  /// Gives the index the full pages of a layer from a block on, as far as their
  /// tokens are known, and takes the index's where it has them already.
  void publish(uint32_t layer, int64_t from) noexcept;

  Cache &cache; ///< Owns the sequence.
  const Module &module;
  PagePool &pool;
  int64_t length; ///< N of the length rule `request`.
  std::vector<LayerState> layers;
  TokenChain chain;      ///< Tokens it was told, of rows seen or to come.
  Batch *step = nullptr; ///< Whose step it is part of.
  /// Counts changes, so that copies of the tables elsewhere know their age.
  uint64_t revision = 0;
  /// The last call or step that named it (see Cache::newCall), and its place
  /// there.
  uint64_t namedBy = 0;
  size_t namedAt = 0;
  /// Counts forks of it and truncations: what was found out of steps to come no
  /// longer holds.
  uint64_t disturbed = 0;

private:
  int64_t leastByWindow(uint32_t layer, uint32_t kvHead) const;
  int64_t leastLength(uint32_t layer, uint32_t kvHead) const;
  bool reaches(uint32_t layer, uint32_t kvHead, int64_t tokens) const;
  Status checkTruncate(int64_t tokens) const;
  void drop(uint32_t layer, uint32_t kvHead, int64_t tokens) noexcept;
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_SEQUENCE_H
