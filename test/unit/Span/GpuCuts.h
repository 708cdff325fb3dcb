//===- GpuCuts.h - What cuts of a line must be ------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Checks of how the blocks of a decode launch share the line of its items'
// pages, for cuts made by a host and by the prepare kernel.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_SPAN_GPUCUTS_H
#define MOA_TEST_UNIT_SPAN_GPUCUTS_H

#include "moa/abi/gpu_step.h"

#include "gtest/gtest.h"
#include <algorithm>
#include <map>
#include <vector>

namespace moa::test {

/// How a host shares the line whose items begin at `first`, the last of which
/// is where the line ends.
struct HostShares {
  HostShares(const std::vector<int32_t> &first, int32_t grid, int32_t parts) {
    const auto count = int32_t(first.size()) - 1;
    for (int32_t share = 0; share < MOA_GPU_CUT_APART; ++share)
      moa_gpu_try(&tried, first.data(), count, grid, parts, share);
    shares = moa_gpu_shares_of(count, first.back(), grid, parts, &tried);
  }
  HostShares(const HostShares &) = delete;

  moa_gpu_tried tried;
  moa_gpu_shares shares; ///< Points into `tried`.
};

/// Most pages of a block, two added for each end of an item that it has, where
/// a line is in equal parts. `owners`: the item of each page.
inline int32_t lineCost(const std::vector<int32_t> &owners, int32_t grid) {
  const auto pages = int32_t(owners.size());
  int32_t most = 0;
  for (int32_t block = 0, begin = 0, end; block < grid; ++block, begin = end) {
    end = begin + pages / grid + (block < pages % grid);
    const int32_t ends = owners[end - 1] - owners[begin] + 1;
    most = std::max(most, end - begin + 2 * ends);
  }
  return most;
}

/// An item by itself has as many parts of 8 pages or more as it may, as even as
/// they can be, the first of the blocks that are its own. `pages`: of a block.
inline void checkAlone(const std::map<int32_t, int32_t> &pages, int32_t item,
                       int32_t parts) {
  int32_t all = 0, small = INT32_MAX, large = 0, next = item * parts;
  for (const auto &[block, own] : pages) {
    ASSERT_EQ(block, next++) << "item " << item;
    all += own;
    small = std::min(small, own);
    large = std::max(large, own);
  }
  ASSERT_EQ(int32_t(pages.size()), std::min(parts, (all + 7) / 8));
  ASSERT_LE(large - small, 1);
}

/// Each page of a line is of one block, in the line's order, and no block has
/// many more than others; those that have none come last, or last of those of
/// an item by itself. `owners`: the item of each page.
inline void checkShares(const std::vector<moa_gpu_cut> &cuts,
                        const std::vector<int32_t> &owners, int32_t count,
                        int32_t parts) {
  const auto pages = int32_t(owners.size()), grid = int32_t(cuts.size());
  // Pages in each block of an item, by item and block.
  std::vector<std::map<int32_t, int32_t>> sharers(count);
  int32_t reached = 0, most = 0, fewest = pages, busy = 0;
  for (int32_t block = 0; block < grid; ++block) {
    const moa_gpu_cut &cut = cuts[block];
    ASSERT_EQ(cut.begin, reached) << "block " << block;
    ASSERT_EQ(cut.items, count);
    ASSERT_GE(cut.end, cut.begin);
    reached = cut.end;
    if (cut.begin == cut.end) {
      ASSERT_TRUE(parts || cut.begin == pages) << "block " << block;
      continue;
    }
    ++busy;
    most = std::max(most, cut.end - cut.begin);
    fewest = std::min(fewest, cut.end - cut.begin);
    for (int32_t page = cut.begin; page < cut.end; ++page)
      ++sharers[owners[page]][block];
  }
  ASSERT_EQ(reached, pages);
  for (const moa_gpu_cut &cut : cuts) {
    if (cut.begin == cut.end)
      continue;
    const int32_t last = owners[cut.end - 1];
    ASSERT_EQ(cut.item, owners[cut.begin]);
    for (const auto &[item, parts] :
         {std::pair(cut.item, cut.front), std::pair(last, cut.back)}) {
      ASSERT_EQ(parts.block, sharers[item].begin()->first);
      ASSERT_EQ(parts.count, int32_t(sharers[item].size()));
    }
  }
  std::vector<int32_t> first = {0};
  for (int32_t page = 1; page <= pages; ++page)
    if (page == pages || owners[page] != owners[page - 1])
      first.push_back(page);
  const HostShares host(first, grid, parts);
  const moa_gpu_shares &shares = host.shares;
  if (parts) {
    for (int32_t item = 0; item < count; ++item)
      checkAlone(sharers[item], item, parts);
    return;
  }
  if (!shares.apart) {
    ASSERT_EQ(busy, std::min(grid, pages));
    ASSERT_LE(most - fewest, 1);
    return;
  }
  const int32_t even = (pages + grid - 1) / grid;
  ASSERT_LE(most, std::max({MOA_GPU_CUT_LEAST, even + 2 + even / 16,
                            lineCost(owners, grid) - 2}));
  for (int32_t block = 0; block < busy; ++block)
    ASSERT_EQ(owners[cuts[block].begin], owners[cuts[block].end - 1]);
  for (const auto &item : sharers) {
    int32_t small = pages, large = 0, all = 0;
    for (const auto &[block, own] : item) {
      small = std::min(small, own);
      large = std::max(large, own);
      all += own;
    }
    ASSERT_LE(large - small, 1);
    // No more blocks than it takes.
    ASSERT_LT((int32_t(item.size()) - 1) * shares.apart, all);
  }
}

} // namespace moa::test

#endif // MOA_TEST_UNIT_SPAN_GPUCUTS_H
