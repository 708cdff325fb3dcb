//===- WorkTest.cpp - The lists of work of one call -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// For random models and chunks: prefill items cover each row of each head once,
// their blocks hold every visible key once, decode shares cut a row the same
// way in any batch; merged partial results against float64.
//
//===----------------------------------------------------------------------===//

#include "sched/work.h"
#include "Reference.h"
#include "sched/merge.h"

#include "gtest/gtest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

/// A model, one sequence with `past` tokens, and the work of `tokens` more.
struct Planned {
  Planned(uint32_t seed, int64_t past, int64_t count, int64_t n)
      : random(seed), threads(1), past(past) {
    Shape shape;
    shape.lengthRule = seed % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
    fill(module, shape, random);
    cache = std::make_unique<CpuCache>(module, threads, 0);
    sequence = std::make_unique<Sequence>(*cache, module, cache->pool, n);
    tokens.add(module.geometry, past + count, random);
    if (past) {
      entry = tokens.entry(module.geometry, *sequence, 0, past);
      EXPECT_FALSE(cache->attend(0, 1, &entry, 1));
    }
    entry = tokens.entry(module.geometry, *sequence, past, past + count);
    AttendCall call = {0, 1, nullptr, &entry, 1};
    plan.addEntry(call, 0);
    EXPECT_FALSE(cache->pool.allocate(plan.newPageCount, plan.newPages));
    plan.place(module, cache->pool, call);
    work.build(module, cache->pool, plan, call);
  }

  std::mt19937 random;
  Module module;
  ThreadPool threads;
  int64_t past;
  std::unique_ptr<CpuCache> cache;
  std::unique_ptr<Sequence> sequence;
  Tokens tokens;
  moa_attend_entry entry;
  Plan plan;
  Work work;
};

/// How often the blocks of an item visit a block.
int visits(const moa_block_ranges &ranges, int64_t block) {
  return (block < ranges.sink_end) +
         (block >= ranges.edge_begin && block < ranges.end);
}

TEST(Work, PrefillCoversEachRowOnce) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    const int64_t pasts[] = {0, 1, 63, 64, 300}, counts[] = {2, 64, 65, 333};
    int64_t past = pasts[seed % 5], count = counts[seed % 4], n = 640;
    Planned p(seed, past, count, n);
    const Geometry &g = p.module.geometry;
    std::vector<int> covered(g.qHeads * count);
    for (const Task &task : p.work.tasks) {
      const moa_work_item &item = task.item;
      EXPECT_EQ(task.merge, nullptr);
      int64_t place = static_cast<const float *>(item.q) -
                      static_cast<const float *>(p.entry.q);
      int64_t row = place / (g.qHeads * kDim);
      auto head = uint32_t(place % (g.qHeads * kDim) / kDim);
      EXPECT_EQ(item.position, past + row);
      EXPECT_EQ((item.position + item.rows - 1) / MOA_PREFILL_ROWS,
                item.position / MOA_PREFILL_ROWS)
          << "rows of two row blocks";
      for (int64_t r = 0; r < item.rows; ++r) {
        ++covered[head * count + row + r];
        int64_t i = item.position + r;
        int64_t start = moa_window_start(&p.module.rule(0, head), i, n);
        EXPECT_EQ(item.starts[r], start);
        for (int64_t j = 0; j <= i; ++j)
          if (moa_visible(i, j, start, p.module.sink(0))) {
            ASSERT_EQ(visits(item.ranges, j / MOA_BLOCK_KEYS), 1)
                << "head " << head << " row " << i << " key " << j;
            ASSERT_NE(item.blocks[j / MOA_BLOCK_KEYS].k, nullptr);
          }
      }
    }
    EXPECT_EQ(std::count(covered.begin(), covered.end(), 1),
              int64_t(covered.size()));
  }
}

TEST(Work, MostCostlyFirst) {
  Planned p(2, 0, 640, 640);
  std::vector<uint32_t> order = p.work.order;
  ASSERT_EQ(order.size(), p.work.tasks.size());
  for (size_t i = 1; i < order.size(); ++i)
    EXPECT_GE(p.work.tasks[order[i - 1]].cost, p.work.tasks[order[i]].cost);
  EXPECT_GT(p.work.tasks[order.front()].cost, p.work.tasks[order.back()].cost);
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < order.size(); ++i)
    EXPECT_EQ(order[i], i);
}

TEST(Work, DecodeSharesPartTheBlocks) {
  for (uint32_t seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(seed);
    const int64_t pasts[] = {1, 64, 65, 511, 700, 1500};
    int64_t past = pasts[seed % 6], n = 1600;
    Planned p(seed, past, 1, n);
    const Geometry &g = p.module.geometry;
    std::vector<const Merge *> merges;
    std::vector<std::vector<int>> count;
    for (const Task &task : p.work.tasks) {
      ASSERT_NE(task.merge, nullptr);
      if (merges.empty() || merges.back() != task.merge) {
        merges.push_back(task.merge);
        count.emplace_back(past / MOA_BLOCK_KEYS + 1);
      }
      const moa_block_ranges &r = task.item.ranges;
      int64_t blocks = int64_t(r.sink_end) + r.end - r.edge_begin;
      EXPECT_LE(blocks, std::max<int64_t>(kDecodeShare, r.sink_end));
      for (size_t block = 0; block < count.back().size(); ++block)
        count.back()[block] += visits(r, int64_t(block));
    }
    ASSERT_EQ(merges.size(), g.kvHeads);
    for (uint32_t h = 0; h < g.kvHeads; ++h)
      for (int64_t block = 0; block <= past / MOA_BLOCK_KEYS; ++block) {
        EXPECT_LE(count[h][block], 1);
        bool seen = false;
        for (int64_t j = block * MOA_BLOCK_KEYS;
             j < (block + 1) * MOA_BLOCK_KEYS; ++j)
          for (uint32_t m = h * g.group(); m < (h + 1) * g.group(); ++m)
            seen |= moa_visible(past, j,
                                moa_window_start(&p.module.rule(0, m), past, n),
                                p.module.sink(0)) != 0;
        EXPECT_TRUE(!seen || count[h][block] == 1) << "block " << block;
      }
  }
}

/// Merges `shares` partials of a group of 2 and returns the rows.
std::vector<float> merged(std::vector<float> partials, uint32_t shares) {
  Geometry g;
  g.qHeads = 2;
  g.kvHeads = 1;
  g.headDim = kDim;
  std::vector<float> out(2 * kDim, NAN);
  Merge merge;
  merge.partials = partials.data();
  merge.shares = shares;
  merge.out = out.data();
  merge.headStride = kDim;
  merge.left = shares;
  for (uint32_t s = 0; s < shares; ++s) {
    for (float value : out)
      EXPECT_TRUE(std::isnan(value)) << "merged before the last share";
    finishShare(merge, g);
  }
  return out;
}

TEST(Merge, AgainstFloat64) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> values(-1, 1);
  for (uint32_t shares : {1u, 2u, 3u, 17u}) {
    std::vector<float> partials;
    for (uint32_t s = 0; s < shares * 2; ++s) {
      for (uint32_t d = 0; d < kDim; ++d)
        partials.push_back(values(random));
      partials.push_back(values(random) * 60);   // m: far apart.
      partials.push_back(1.5f + values(random)); // l.
    }
    std::vector<float> out = merged(partials, shares);
    for (uint32_t head = 0; head < 2; ++head)
      for (uint32_t d = 0; d < kDim; ++d) {
        double top = -INFINITY, sum = 0, value = 0;
        auto at = [&](uint32_t s, uint32_t i) {
          return double(partials[(s * 2 + head) * (kDim + 2) + i]);
        };
        for (uint32_t s = 0; s < shares; ++s)
          top = std::max(top, at(s, kDim));
        for (uint32_t s = 0; s < shares; ++s) {
          double weight = std::exp2(at(s, kDim) - top);
          sum += weight * at(s, kDim + 1);
          value += weight * at(s, d);
        }
        EXPECT_NEAR(out[head * kDim + d], value / sum, 1e-6);
      }
  }
}

TEST(Merge, EmptySharesCountForNothing) {
  std::vector<float> one(2 * (kDim + 2), 3.0f);
  std::vector<float> with(3 * 2 * (kDim + 2), NAN); // O of an empty share.
  for (uint32_t head = 0; head < 2; ++head)
    for (uint32_t s : {0u, 2u}) {
      float *partial = &with[(s * 2 + head) * (kDim + 2)];
      partial[kDim] = head ? -INFINITY : 1e30f;
      partial[kDim + 1] = 0;
    }
  std::copy(one.begin(), one.end(), with.begin() + 2 * (kDim + 2));
  EXPECT_EQ(merged(with, 3), merged(one, 1));
}

TEST(Merge, NaNOfOneHeadStaysThere) {
  std::vector<float> partials(2 * 2 * (kDim + 2), 1.0f);
  partials[kDim] = partials[kDim + 1] = NAN; // Share 0, head 0: m and l.
  std::vector<float> out = merged(partials, 2);
  for (uint32_t d = 0; d < kDim; ++d) {
    EXPECT_TRUE(std::isnan(out[d]));
    EXPECT_FLOAT_EQ(out[kDim + d], 1);
  }
}

TEST(Merge, StoresRoundToNearestEven) {
  const float in[] = {1.0f,     1.00390625f, 1.01171875f,   -0.0f,
                      65519.0f, 65520.0f,    5.9604645e-8f, INFINITY};
  uint16_t bf16[8], f16[8];
  storeRounded(in, 8, MOA_DTYPE_BF16, bf16);
  storeRounded(in, 8, MOA_DTYPE_F16, f16);
  // 1 + 2^-8 and 1 + 3 * 2^-8 are ties in bf16: to 1 and to 1 + 2^-6.
  EXPECT_EQ(bf16[0], 0x3f80);
  EXPECT_EQ(bf16[1], 0x3f80);
  EXPECT_EQ(bf16[2], 0x3f82);
  EXPECT_EQ(bf16[3], 0x8000);
  EXPECT_EQ(bf16[7], 0x7f80);
  EXPECT_EQ(f16[0], 0x3c00);
  EXPECT_EQ(f16[1], 0x3c04);
  EXPECT_EQ(f16[3], 0x8000);
  EXPECT_EQ(f16[4], 0x7bff); // The largest.
  EXPECT_EQ(f16[5], 0x7c00); // Half a step more: infinity.
  EXPECT_EQ(f16[6], 0x0001); // The smallest subnormal.
  EXPECT_EQ(f16[7], 0x7c00);
}

} // namespace
