//===- work.h - The work of one call on the CPU ----------------------------*-
// C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// From a plan to lists of items of CPU kernels: which rows, which key blocks,
// where each block lies. Built before anything runs.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_WORK_H
#define MOA_RT_SCHED_WORK_H

#include "sched/plan.h"

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

/// Everything one call of moa_attend does on the CPU beside its copies.
class Work {
public:
  /// Lays out blocks and items of all entries of a placed plan.
  void build(const Module &module, const PagePool &pool, const Plan &plan,
             const AttendCall &call);

  std::vector<Task> tasks;
  std::vector<uint32_t> order; ///< Tasks, most costly first.
  size_t splits = 0;           ///< Shares of decode rows behind their first.

private:
  struct Head; ///< What the builders of one KV head share.

  const moa_key_block *layBlocks(const EntryView &view, const PagePool &pool,
                                 const int32_t *places, const HeadPlan &plan,
                                 uint32_t kvHead);
  void addPrefill(const Head &head);
  void addDecode(const Head &head);
  int32_t *takeStarts(size_t count);

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
