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
    const moa_gpu_shares shares =
        moa_gpu_shares_of(count, first.back(), grid, parts);
    std::vector<int32_t> each;
    for (int32_t item = 0; shares.apart && item < count; ++item)
      each.push_back(
          moa_gpu_shares_apart(shares, first[item + 1] - first[item]));
    std::vector<moa_gpu_cut> cuts;
    for (int32_t block = 0; block < grid; ++block)
      cuts.push_back(moa_gpu_cut_of(first.data(), each.data(), count,
                                    items.data(), block, shares));
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

TEST(GpuCut, FewItemsAreSharedOneByOneWhereBlocksAreFewerThanPages) {
  EXPECT_EQ(moa_gpu_shares_of(8, 704, 132, 0).apart, 8); // 88 blocks.
  EXPECT_EQ(moa_gpu_shares_of(16, 1408, 132, 0).apart, 13);
  // Pages by themselves; a share of the grid each; many items.
  EXPECT_EQ(moa_gpu_shares_of(8, 132, 132, 0).apart, 0);
  EXPECT_EQ(moa_gpu_shares_of(32, 2816, 132, 0).apart, 0);
  EXPECT_EQ(moa_gpu_shares_of(128, 11264, 132, 0).apart, 0);
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
  const moa_gpu_shares shares =
      moa_gpu_shares_of(count, first.back(), count * parts, parts);
  Parts found;
  for (int32_t block = 0; block < count * parts; ++block) {
    const moa_gpu_cut cut = moa_gpu_cut_of(first.data(), nullptr, count,
                                           items.data(), block, shares);
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
