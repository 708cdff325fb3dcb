//===- head_change.h - What becomes of a KV head's pages --------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The pages that a KV head takes and gives back as rows are added, decided
// before anything runs and made its state afterwards, without failing.
//
// A KV head that keeps 8 bits takes a page of the model's type for each block
// that begins. Once the next block begins it is complete and goes to half of
// another page, the half of its parity, and its own is given back; the page of
// the block before has the other half if it is 8 bits too. Rows of a call see
// in 8 bits what was complete before the call, and the call's own as it came.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_CACHE_HEAD_CHANGE_H
#define MOA_RT_CACHE_HEAD_CHANGE_H

#include "cache/sequence.h"

namespace moa::rt {

/// Blocks that go to 8 bits on the way from one state to another, and whether
/// the first of them goes to a page that is held.
struct Kv8Blocks {
  Kv8Blocks() = default;
  Kv8Blocks(const moa_resident &before, const moa_resident &next);

  int64_t begin = 0, end = 0;
  bool joins = false;

  bool has(int64_t block) const { return block >= begin && block < end; }
  /// Place of a block's page among the new ones; below 0: that of the block
  /// before, which is held.
  int64_t place(int64_t block) const {
    return block / 2 - (joins ? (begin + 1) / 2 : begin / 2);
  }
  /// New pages.
  int64_t pages() const { return end > begin ? place(end - 1) + 1 : 0; }
};

/// Pages for blocks from `block` on that `resident` keeps as they came.
int64_t fullPagesFrom(const moa_resident &resident, int64_t block);

/// New pages of a KV head on the way from `before`, with blocks below `begun`
/// begun, to `next`.
int64_t newPagesOf(const moa_resident &before, const moa_resident &next,
                   int64_t begun);

struct HeadChange {
  moa_resident next = {0, 0, 0, 0};
  int64_t past = 0;  ///< Tokens before.
  int64_t start = 0; ///< Smallest window start of the row that decides.
  /// Others hold the page that the first row goes to: the first of the new
  /// pages becomes a copy of it.
  bool copies = false;
  int64_t fullPages = 0; ///< New pages of blocks that stay as they come.
  Kv8Blocks kv8;
  /// Others hold the page with the block before `kv8.begin`: a new page gets
  /// that block too.
  bool brings = false;

  HeadChange() = default;
  /// What `tokens` more rows of a sequence do to a KV head.
  HeadChange(const Sequence &sequence, uint32_t layer, uint32_t kvHead,
             int64_t tokens);

  int64_t begun() const { return blocksOf(past); }
  /// New pages: a copy, those of full blocks, those of 8 bits.
  size_t newPages() const { return copies + fullPages + kv8.pages(); }
  /// The page that a block goes to in 8 bits; `fresh` are the new pages.
  PageId kv8Page(const HeadPages &head, const PageId *fresh,
                 int64_t block) const {
    const int64_t place = kv8.place(block);
    return place < 0 ? head.pages[block - 1]
                     : fresh[copies + fullPages + place];
  }
  /// Whether rows of the call see a block in 8 bits.
  bool seesKv8(const HeadPages &head, int64_t block) const {
    return head.isKv8(block) ||
           (kv8.has(block) && (block + 1) * MOA_BLOCK_KEYS <= past);
  }
  /// Makes it the head's state, of which `total` tokens are seen; there is room
  /// in the list of pages.
  void apply(HeadPages &head, PagePool &pool, const PageId *fresh,
             int64_t total) const noexcept;
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_HEAD_CHANGE_H
