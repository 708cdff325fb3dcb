//===- gpu_work.h - The work of one call on a GPU ---------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// From a plan to the items of abi/gpu_args.h: tiles of query rows with the key
// tiles they visit, rows to decode with their pages, and the order in which
// blocks take them. Plain lists; nothing here talks to a device.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_GPU_WORK_H
#define MOA_RT_SCHED_GPU_WORK_H

#include "moa/abi/gpu_step.h"
#include "sched/plan.h"

#include <vector>

namespace moa::rt {

/// What a tile costs beside its blocks of keys, in such blocks: its first
/// scores and last values, beside which nothing else is multiplied.
constexpr int64_t kTileCost = 2;

/// One launch of the prefill kernel.
struct PrefillLaunch {
  size_t firstItem = 0, items = 0;
  std::vector<size_t> entries; ///< Of the call, by moa_gpu_prefill_item::entry.
};

/// One launch of a decode kernel: entries whose heads, and rows of those with
/// several, lie equally far apart; with items cut by themselves, those that the
/// same kernel is for.
struct DecodeLaunch {
  size_t firstItem = 0, items = 0;
  int64_t tokens = 1; ///< Most of an entry.
  size_t line = 0;    ///< Its moa_gpu_line in GpuWork::lines.
  size_t firstCut = 0;
  int32_t grid = 0; ///< Blocks; the last has pages unless items are cut alone.
  moa_gpu_rows q, k, v, out;
};

class GpuWork {
public:
  /// `decodeParts`: as in moa_cache_options.
  explicit GpuWork(int32_t decodeParts = 0) : decodeParts(decodeParts) {}
  /// Lays out all items of a placed plan. Prefill items are ordered for `grid`
  /// blocks of which block b takes items b, b + grid, and so on.
  void build(const Module &module, const PagePool &pool, const Plan &plan,
             const AttendCall &call, uint32_t grid);
  /// Puts blocks that prefill brings back in spare pages, from `first` on.
  void bringBack(const Module &module, const PagePool &pool, PageId first);

  std::vector<moa_gpu_prefill_item> prefill;
  std::vector<PrefillLaunch> launches;
  std::vector<moa_gpu_decode_item> decode;
  std::vector<DecodeLaunch> decodes;
  std::vector<int32_t> lines;    ///< A moa_gpu_line a decode launch.
  std::vector<moa_gpu_cut> cuts; ///< One a block of a decode launch.
  std::vector<int32_t> pages;    ///< Page ids that decode items visit.
  std::vector<int32_t> starts;   ///< Window starts of the length rule `row`.
  /// Block tables of prefill: the plan's, but for blocks in 8 bits.
  std::vector<int32_t> places;
  /// What brings those back that its rows see, a spare page each.
  std::vector<moa_quantise_item> backs;

private:
  /// A tile before it is put in order.
  struct Tile {
    moa_gpu_prefill_item item;
    int64_t cost;   ///< In blocks of keys.
    uint32_t block; ///< Of threads, that takes it.
  };
  /// What a block of threads has to do.
  struct Load {
    int64_t cost;
    uint32_t block;
  };

  void addPrefill(const EntryView &view, const HeadPlan &head, uint32_t kvHead,
                  int32_t entry);
  void addDecode(const EntryView &view, const Plan &plan, size_t entry);
  void addDecodeItem(const EntryView &view, const Plan &plan,
                     const HeadPlan &head, uint32_t kvHead);
  /// Appends the places of blocks [begin, end) of a head to `pages`.
  void addPlaces(const EntryView &view, const Plan &plan, const HeadPlan &head,
                 uint32_t kvHead, int64_t begin, int64_t end);
  void endLine(const Module &module, uint32_t layer);
  /// Where a rule's window starts for the rows of the tile at `first` begin in
  /// `starts`; -1 where the closed form holds.
  int32_t startsOf(const EntryView &view, const moa_span_rule &rule,
                   int64_t floor, int64_t first, int64_t rows);
  /// Takes blocks in 8 bits out of the table of a head that prefill reads.
  void takeBack(const EntryView &view, const PagePool &pool,
                const HeadPlan &head, uint32_t kvHead);
  void sortTiles();
  void deal(PrefillLaunch &launch, uint32_t grid);

  const int32_t decodeParts;
  // Of the launch at hand.
  std::vector<Tile> tiles;
  std::vector<Load> loads;
  std::vector<uint32_t> names; ///< By the block of a tile, its final number.
  std::vector<size_t> backAt;  ///< Of each of `backs`: its entry of `places`.
};

} // namespace moa::rt

#endif // MOA_RT_SCHED_GPU_WORK_H
