//===- work.h - The work of one call ----------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// From sequences and chunks to lists of kernel items: which rows, which key
// blocks, where each block lies. Built before anything runs or changes.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_WORK_H
#define MOA_RT_SCHED_WORK_H

#include "cache/sequence.h"

#include <atomic>
#include <deque>
#include <memory>
#include <vector>

namespace moa::rt {

/// Key blocks in one share of a decode row's blocks. Fixed, so that a result
/// depends neither on the batch nor on the threads.
constexpr int64_t kDecodeShare = 8;

/// Shares of one decode row of one KV head; merged by whoever ends last.
struct Merge {
  float *partials = nullptr; ///< [shares][group][D + 2].
  uint32_t shares = 0;
  void *out = nullptr; ///< Row 0 of the group's first head.
  int64_t headStride = 0;
  std::atomic<uint32_t> left{0};
};

/// One item with what surrounds it.
struct Task {
  moa_work_item item;
  moa_attention_kernel kernel = nullptr;
  int64_t cost = 0;
  Merge *merge = nullptr; ///< Decode only.
};

/// One KV head of one entry: old pages, pages to come, and where blocks lie.
struct HeadWork {
  HeadPages *state = nullptr;
  moa_resident next = {0, 0, 0};
  size_t firstNew = 0; ///< Its new pages in Work::newPages.
  size_t newPages = 0;
  const moa_key_block *blocks = nullptr;
};

/// Everything one call of moa_attend does, in order of filling.
class Work {
public:
  void clear();

  /// Decides what each KV head of `entry` keeps and counts new pages.
  void planEntry(const moa_attend_entry &entry, uint32_t layer);
  /// Lays out blocks, appends and items of all entries; `newPages` is filled.
  void build(const Module &module, PagePool &pool, uint32_t layer, float scale,
             const moa_attend_entry *entries, size_t count);
  /// Makes the new state the sequences' state and returns pages no later row
  /// can see. Cannot fail: build() made room.
  void commit(PagePool &pool, uint32_t layer, const moa_attend_entry *entries,
              size_t count) noexcept;

  size_t newPageCount = 0;
  std::vector<PageId> newPages;
  std::vector<moa_append_item> appends;
  std::vector<Task> tasks;
  std::vector<uint32_t> order; ///< Tasks, most costly first.

private:
  struct Call; ///< What the builders share.

  void placeBlocks(const Call &call, HeadWork &head, uint32_t kvHead);
  void appendBlock(const Call &call, uint32_t kvHead, int64_t block, char *page,
                   bool fresh);
  void addPrefill(const Call &call, const HeadWork &head, uint32_t kvHead);
  void addDecode(const Call &call, const HeadWork &head, uint32_t kvHead);
  int32_t *takeStarts(size_t count);

  std::vector<HeadWork> heads; ///< [entry][KV head].
  // Buffers whose addresses items hold: sized before they are filled.
  std::vector<moa_key_block> blockTable;
  size_t blocksUsed = 0;
  std::deque<std::vector<int32_t>> startSlabs;
  size_t startSlab = 0, startUsed = 0;
  std::deque<Merge> merges;
  size_t mergesUsed = 0;
  std::vector<float> partials;
  size_t partialsUsed = 0;
};

} // namespace moa::rt

#endif // MOA_RT_SCHED_WORK_H
