//===- GpuCutTest.cpp - How blocks share a line ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Lines of any items among the blocks of any grid, by the rule that hosts and
// the prepare kernel have in common.
//
//===----------------------------------------------------------------------===//

#include "GpuCuts.h"
#include "SpanTestSupport.h"

#include <array>
#include <numeric>

using namespace moa::test;

namespace {

TEST(GpuCut, BlocksOfAnyGridShareAnyLine) {
  int64_t apart = 0, empty = 0, parted = 0, alone = 0;
  for (uint32_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const auto count =
        int32_t(random.of<int64_t>({1, 8, random.between(1, 90)}));
    const auto parts =
        int32_t(seed % 4 ? 0 : random.of<int64_t>({1, 4, MOA_GPU_CUT_PARTS}));
    const auto grid = int32_t(
        parts ? parts * (count + random.between(0, 2))
              : random.of<int64_t>({1, 2, 104, 132, random.between(1, 600)}));
    std::vector<int32_t> first = {0}, owners;
    for (int32_t item = 0; item < count; ++item) {
      first.push_back(first.back() +
                      int32_t(random.of<int64_t>({1, random.between(1, 20),
                                                  random.between(1, 2000)})));
      owners.resize(first.back(), item);
    }
    const std::vector<moa_gpu_decode_item> items(count);
    const HostShares host(first, grid, parts);
    const moa_gpu_shares &shares = host.shares;
    std::vector<moa_gpu_cut> cuts;
    for (int32_t block = 0; block < grid; ++block)
      cuts.push_back(
          moa_gpu_cut_of(first.data(), count, items.data(), block, shares));
    checkShares(cuts, owners, count, parts);
    if (HasFatalFailure())
      return;
    apart += shares.apart != 0;
    empty += cuts.back().begin == cuts.back().end;
    parted += !parts && !shares.apart && cuts[0].front.count > 1;
    alone += parts && cuts[0].front.count > 1;
  }
  EXPECT_GT(alone, 20) << "items cut alone should be among the cases";
  EXPECT_GT(apart, 40) << "items by themselves should be among the cases";
  EXPECT_GT(empty, 40) << "blocks without pages should be among the cases";
  EXPECT_GT(parted, 20) << "items of several blocks should be among the cases";
}

int32_t upTo(int32_t pages, int32_t part) { return (pages + part - 1) / part; }

/// Items on a grid, and what parts of any size come to, by loops.
struct Items {
  int32_t all() const { return std::accumulate(own.begin(), own.end(), 0); }

  /// Blocks that have at most `part` pages of an item each.
  int32_t blocks(int32_t part) const {
    int32_t sum = 0;
    for (int32_t pages : own)
      sum += upTo(pages, part);
    return sum;
  }

  /// Pages of the longest of those.
  int32_t longest(int32_t part) const {
    int32_t most = 0;
    for (int32_t pages : own)
      most = std::max(most, upTo(pages, upTo(pages, part)));
    return most;
  }

  /// The smallest size of a part, none below `least`, that the grid holds.
  int32_t smallest(int32_t least) const {
    while (blocks(least) > grid)
      ++least;
    return least;
  }

  /// The item of each page.
  std::vector<int32_t> owners() const {
    std::vector<int32_t> owners;
    for (size_t item = 0; item < own.size(); ++item)
      owners.resize(owners.size() + own[item], int32_t(item));
    return owners;
  }

  /// Pages of a part where they are shared one by one, else 0.
  int32_t apart() const {
    std::vector<int32_t> first = {0};
    for (int32_t pages : own)
      first.push_back(first.back() + pages);
    return HostShares(first, grid, 0).shares.apart;
  }

  std::vector<int32_t> own; ///< Pages of each.
  int32_t grid;
};

TEST(GpuCut, ItemsOneByOneGetTheSmallestPartsThatFit) {
  int64_t exact = 0, held = 0, line = 0;
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    Items items;
    items.grid =
        int32_t(random.of<int64_t>({108, 132, random.between(2, 300)}));
    const int64_t count =
        random.between(1, std::min(items.grid - 1, MOA_GPU_CUT_APART));
    // Two kinds of heads; or any.
    const int64_t high = random.of<int64_t>({40, 200, 1200});
    const int64_t wide = random.between(1, high), low = random.between(1, high);
    const bool kinds = random.between(0, 3);
    for (int64_t i = 0; i < count; ++i)
      items.own.push_back(int32_t(kinds ? random.of<int64_t>({wide, wide, low})
                                        : random.between(1, high)));
    const int32_t pages = items.all(), part = items.apart();
    if (pages <= items.grid) {
      ASSERT_EQ(part, 0);
      continue;
    }
    const int32_t even = upTo(pages, items.grid);
    // A size that always fits.
    const int32_t own = upTo(pages, items.grid - int32_t(count));
    const int32_t least = std::max(even, MOA_GPU_CUT_LEAST);
    const int32_t smallest = items.smallest(least);
    const bool always =
        own <= std::max(MOA_GPU_CUT_LEAST, even + 2 + even / 16);
    const int32_t most = lineCost(items.owners(), items.grid) - 2;
    if (!part) {
      ++line;
      ASSERT_FALSE(always);
      ASSERT_GT(smallest, std::min(most, least + MOA_GPU_CUT_TRIES - 1));
      continue;
    }
    ASSERT_LE(items.blocks(part), items.grid);
    if (smallest - least < MOA_GPU_CUT_TRIES - 1) {
      ++exact;
      ASSERT_EQ(part, smallest);
    }
    if (always) {
      // Nor is the longest longer than of the size that always fits.
      ASSERT_LE(items.longest(part), items.longest(std::max(own, least)));
    } else {
      ++held;
      ASSERT_LE(items.longest(part), most);
    }
  }
  EXPECT_GT(exact, 500) << "parts among the first sizes should be cases";
  EXPECT_GT(held, 200) << "parts shorter than what always fits should be cases";
  EXPECT_GT(line, 500) << "lines in equal parts should be among the cases";
}

TEST(GpuCut, EqualItemsOneByOneGetEqualParts) {
  auto partsOf = [](int32_t count, int32_t pages) {
    const Items items = {std::vector<int32_t>(count, pages), 132};
    const int32_t part = items.apart();
    return part ? upTo(pages, part) : 0;
  };
  EXPECT_EQ(partsOf(8, 88), 11); // Of 8 pages: 88 blocks.
  EXPECT_EQ(partsOf(16, 88), 8);
  EXPECT_EQ(partsOf(32, 88), 4);
  EXPECT_EQ(partsOf(40, 60), 3);
  EXPECT_EQ(partsOf(8, 6600), 16); // Of more pages than sizes are tried for.
  // Pages by themselves; parts too long beside those of a line; many items.
  EXPECT_EQ(partsOf(4, 33), 0);
  EXPECT_EQ(partsOf(48, 88), 0);
  EXPECT_EQ(partsOf(66, 88), 0);
}

/// The parts of an item: pages of its own [begin, end), which part, of how
/// many.
using Parts = std::vector<std::array<int32_t, 4>>;

/// Those of an item of `pages` pages between others.
Parts partsAmong(std::vector<int32_t> before, int32_t pages,
                 const std::vector<int32_t> &behind, int32_t parts) {
  const auto item = int32_t(before.size());
  before.push_back(pages);
  before.insert(before.end(), behind.begin(), behind.end());
  const auto count = int32_t(before.size());
  std::vector<int32_t> first = {0};
  for (int32_t own : before)
    first.push_back(first.back() + own);
  const std::vector<moa_gpu_decode_item> items(count);
  const HostShares host(first, count * parts, parts);
  Parts found;
  for (int32_t block = 0; block < count * parts; ++block) {
    const moa_gpu_cut cut =
        moa_gpu_cut_of(first.data(), count, items.data(), block, host.shares);
    if (cut.begin < cut.end && cut.item == item)
      found.push_back({cut.begin - first[item], cut.end - first[item],
                       block - cut.front.block, cut.front.count});
  }
  return found;
}

TEST(GpuCut, AnItemByItselfIsCutTheSameWhateverIsAroundIt) {
  Random random(1);
  for (int round = 0; round < 200; ++round) {
    const auto parts = int32_t(random.between(1, MOA_GPU_CUT_PARTS));
    const auto pages = int32_t(random.between(1, 3000));
    const Parts alone = partsAmong({}, pages, {}, parts);
    ASSERT_EQ(alone.size(), size_t(std::min(parts, (pages + 7) / 8)));
    auto others = [&] {
      std::vector<int32_t> list(random.between(0, 70));
      for (int32_t &own : list)
        own = int32_t(random.between(1, 3000));
      return list;
    };
    ASSERT_EQ(partsAmong(others(), pages, others(), parts), alone);
  }
}

} // namespace
