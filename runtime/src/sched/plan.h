//===- plan.h - Which pages a call needs and where blocks lie ---*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The part of a call that every back end shares: what each KV head keeps, which
// pages are new, what is copied into them, where each block of keys is read.
// Built before anything runs; committed without failing.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_PLAN_H
#define MOA_RT_SCHED_PLAN_H

#include "cache/head_change.h"
#include "moa/abi/gpu_args.h"
#include "sched/call.h"
#include "sched/rope.h"

#include <vector>

namespace moa::rt {

/// What brings the first `rows` rows of page `from` to page `to`, and zeros
/// behind them.
moa_append_item copyOfPage(const Geometry &geometry, const PagePool &pool,
                           PageId from, PageId to, int64_t rows, int64_t zero);

/// What brings a block to 8 bits in half of page `to`; rows of its keys and
/// values are still to be named. With `kept`, the other half of that page comes
/// along.
moa_quantise_item quantiseTo(const PagePool &pool, PageId to, int64_t block,
                             int32_t format, PageId kept);
/// Names the rows of page `from`.
void quantiseFrom(moa_quantise_item &item, const Geometry &geometry,
                  const PagePool &pool, PageId from);

/// One KV head of one entry.
struct HeadPlan {
  HeadPages *state = nullptr;
  HeadChange change;
  size_t firstNew = 0; ///< Its new pages in Plan::newPages.
  size_t table = 0;    ///< Its block table in Plan::places.
};

class Plan {
public:
  void clear();
  /// Decides what becomes of each KV head of an entry and counts new pages;
  /// `decided`, if given, says it of those for which it is not null.
  void addEntry(const AttendCall &call, size_t entry,
                const HeadChange *const *decided = nullptr);
  /// Lays out block tables and copies of all entries; `newPages` is filled.
  /// With `decodeAppends`, decode kernels copy their rows themselves. With
  /// `rope`, copies become rotations, of all rows.
  void place(const Module &module, const PagePool &pool, const AttendCall &call,
             bool decodeAppends = false, Rope rope = {});
  /// Makes the new state the sequences' state and returns pages no later row
  /// can see. Cannot fail: place() made room.
  void commit(PagePool &pool, const AttendCall &call) noexcept;

  const HeadPlan &head(const Geometry &g, size_t entry, uint32_t kvHead) const {
    return heads[entry * g.kvHeads + kvHead];
  }

  size_t newPageCount = 0;
  size_t copyCount = 0; ///< Of newPageCount: copies of shared pages.
  std::vector<PageId> newPages;
  /// Block tables: a page, or MOA_GPU_FROM_CALL where the block is read from
  /// the call's tensors or, given up, by nobody. Each has an even length. Which
  /// blocks lie in 8 bits says HeadChange::seesKv8.
  std::vector<int32_t> places;
  std::vector<moa_append_item> appends; ///< Without a rotation.
  std::vector<moa_rope_item> ropes;     ///< With one.
  /// After those: of blocks that the call's rows see in 8 bits,
  std::vector<moa_quantise_item> quantises;
  /// and of others, whose rows a decode kernel may append in this call.
  std::vector<moa_quantise_item> lateQuantises;

private:
  void placeHead(const EntryView &view, const PagePool &pool,
                 const HeadPlan &head, uint32_t kvHead, bool copies);
  void quantiseBlocks(const EntryView &view, const PagePool &pool,
                      const HeadPlan &head, uint32_t kvHead);
  void rotateBlock(const EntryView &view, uint32_t kvHead, int64_t block,
                   char *page, bool zero);

  Rope rope; ///< As place() was told.

  std::vector<HeadPlan> heads; ///< [entry][KV head].
};

} // namespace moa::rt

#endif // MOA_RT_SCHED_PLAN_H
