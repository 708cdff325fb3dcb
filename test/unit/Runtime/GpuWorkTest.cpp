//===- GpuWorkTest.cpp - The lists of work of one call on a GPU -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// For random rules, chunks and tiles: what abi/gpu_args.h says that a kernel
// visits and masks is, row by row, what the definition says; every key once,
// every block where it can be read; and blocks of threads share tiles evenly.
// The same for pages of decoded rows and their cuts.
//
//===----------------------------------------------------------------------===//

#include "Reference.h"
#include "sched/gpu_work.h"

#include "gtest/gtest.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

/// A model for a GPU and sequences whose calls are planned and committed, but
/// not run.
struct Planner {
  explicit Planner(uint32_t seed) : random(seed) {
    Geometry &g = module.geometry;
    g.layers = 1;
    g.kvHeads = 1 + random() % 2;
    g.qHeads = g.kvHeads * (1 + random() % 4);
    g.headDim = 16;
    g.dtype = MOA_DTYPE_BF16;
    g.lengthRule = seed % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
    g.maxLength = 1 << 20;
    const int32_t sinks[] = {0, 1, 63, 64, 65, 128, 130, 200, 300};
    int32_t sink = sinks[random() % 9];
    for (uint32_t i = 0; i < g.qHeads; ++i)
      module.rules.push_back(randomRule(random, sink, g.lengthRule));
    LayerKernels kernels;
    const uint32_t rows[] = {64, 128, 192}, keys[] = {64, 128};
    kernels.prefill = {this, 0, 384, rows[random() % 3], keys[random() % 2]};
    kernels.decode = kernels.append = kernels.prefill;
    kernels.decode.grid = 1 + random() % 40;
    if (seed % 5 == 4)
      kernels.decode.entry = nullptr; // Single tokens are chunks then.
    module.layers.push_back(kernels);
    cache = std::make_unique<CpuCache>(module, threads, 0);
    grid = 1 + random() % 9;
  }

  Sequence &add(int64_t length) {
    sequences.push_back(
        std::make_unique<Sequence>(*cache, module, cache->pool, length));
    entries.push_back({});
    return *sequences.back();
  }

  /// Plans a call of these chunks, one a sequence.
  void plan(const std::vector<int64_t> &tokens) {
    const Geometry &g = module.geometry;
    for (size_t i = 0; i < tokens.size(); ++i) {
      moa_attend_entry &e = entries[i];
      e.sequence = reinterpret_cast<moa_sequence *>(sequences[i].get());
      e.tokens = tokens[i];
      e.q_head_stride = e.k_head_stride = e.v_head_stride = e.out_head_stride =
          g.headDim;
      e.q_row_stride = e.out_row_stride = int64_t(g.headDim) * g.qHeads;
      e.k_row_stride = e.v_row_stride = int64_t(g.headDim) * g.kvHeads;
      // Addresses that nobody reads.
      e.q = reinterpret_cast<void *>(uintptr_t(1 + i) << 40);
      e.k = reinterpret_cast<void *>(uintptr_t(101 + i) << 40);
      e.v = reinterpret_cast<void *>(uintptr_t(201 + i) << 40);
      e.out = reinterpret_cast<void *>(uintptr_t(301 + i) << 40);
    }
    call = {0, 1, nullptr, entries.data(), tokens.size()};
    placed.clear();
    for (size_t i = 0; i < tokens.size(); ++i)
      placed.addEntry(call, i);
    ASSERT_FALSE(cache->pool.allocate(placed.newPageCount, placed.newPages));
    placed.place(module, cache->pool, call);
    work.build(module, cache->pool, placed, call, grid);
  }
  void commit() { placed.commit(cache->pool, call); }

  std::mt19937 random;
  Module module;
  ThreadPool threads{1};
  std::unique_ptr<CpuCache> cache;
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<moa_attend_entry> entries;
  uint32_t grid;
  AttendCall call;
  Plan placed;
  GpuWork work;
};

/// The pages of a KV head that are sure to hold their keys once the call's
/// copies are done.
std::set<int32_t> filledPages(const Planner &p, size_t entry, uint32_t kvHead) {
  const HeadPages &head = p.sequences[entry]->layers[0].heads[kvHead];
  std::set<int32_t> pages;
  for (PageId page : head.pages)
    if (page != kNoPage)
      pages.insert(int32_t(page));
  for (PageId page : p.placed.newPages)
    pages.insert(int32_t(page));
  return pages;
}

/// Checks one tile against the definition.
void checkTile(const Planner &p, const PrefillLaunch &launch,
               const moa_gpu_prefill_item &item,
               std::set<std::pair<int64_t, int64_t>> &rowsDone) {
  const Kernel &kernel = p.module.layers[0].prefill;
  const int64_t rows = kernel.rows, keys = kernel.keys;
  const size_t entry = launch.entries[item.entry];
  EntryView view(p.module, p.call, entry);
  const moa_span_rule &rule = p.module.rule(0, item.head);
  const int64_t sink = p.module.sink(0);
  const int64_t bound =
      p.sequences[entry]->layers[0].heads[item.kv_head].firstResident();
  EXPECT_EQ(uint32_t(item.kv_head), item.head / p.module.geometry.group());
  EXPECT_GE(item.row, 0);
  EXPECT_EQ(item.row % rows, 0);
  EXPECT_EQ(item.position - item.row, view.past);
  ASSERT_GE(item.window_tiles, 1);
  ASSERT_TRUE(item.sink_block == 0 || item.sink_block == 1);

  // The tiles as the header orders them: first key and number of keys.
  std::vector<std::pair<int64_t, int64_t>> tiles;
  for (int64_t t = 0; t < item.window_tiles; ++t)
    tiles.push_back({(item.top - t) * keys, keys});
  for (int64_t t = item.sink_tiles - 1; t >= 0; --t)
    tiles.push_back({t * keys, keys});
  if (item.sink_block)
    tiles.push_back({item.sink_tiles * keys, MOA_BLOCK_KEYS});
  std::set<int64_t> blocks;
  for (auto [first, count] : tiles)
    for (int64_t block = first / 64; block < (first + count) / 64; ++block) {
      ASSERT_GE(block, 0);
      ASSERT_TRUE(blocks.insert(block).second) << "block in two tiles";
      ASSERT_LT(size_t(item.table + block), p.placed.places.size());
    }

  std::set<int32_t> pages = filledPages(p, entry, item.kv_head);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = item.row + r, i = item.position + r;
    if (row >= view.entry.tokens)
      continue;
    ASSERT_TRUE(rowsDone.insert({item.head, row}).second) << "row done twice";
    const int64_t right =
        std::max(bound, moa_window_start(&rule, i, view.length));
    const int64_t start =
        item.starts < 0 ? std::max<int64_t>(i + 1 - item.local, item.floor)
                        : p.work.starts[item.starts + r];
    ASSERT_EQ(start, right) << "row " << i;
    int64_t seen = 0;
    for (int64_t block : blocks)
      for (int64_t j = block * 64; j < block * 64 + 64; ++j) {
        if (!moa_visible(i, j, start, sink))
          continue;
        ++seen;
        int32_t place = p.placed.places[item.table + block];
        if (place == MOA_GPU_FROM_CALL) {
          ASSERT_GE(j - view.past, 0) << "key " << j << " was given up";
          ASSERT_LT(j - view.past, view.entry.tokens);
        } else {
          ASSERT_TRUE(pages.count(place)) << "page " << place;
        }
      }
    int64_t all = 0;
    for (int64_t j = 0; j <= i; ++j)
      all += j < sink || j >= right;
    ASSERT_EQ(seen, all) << "row " << i << " misses keys";
  }
}

int64_t chunkOf(std::mt19937 &random) {
  const int64_t sizes[] = {1, 1, 2, 63, 64, 65, 100, 130, 200, 333, 500};
  return sizes[random() % 11];
}

TEST(GpuWork, TilesSeeWhatTheDefinitionSays) {
  int64_t floors = 0, outside = 0, sinkBlocks = 0, sinkTiles = 0;
  for (uint32_t seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE(seed);
    Planner p(seed);
    const size_t count = 1 + p.random() % 3;
    for (size_t i = 0; i < count; ++i)
      p.add(300 + p.random() % 500);
    for (int step = 0; step < 4; ++step) {
      std::vector<int64_t> tokens;
      for (size_t i = 0; i < count; ++i) {
        tokens.push_back(chunkOf(p.random));
        if (step == 2) // Wider windows over what is gone: floors.
          p.sequences[i]->length += 600;
      }
      p.plan(tokens);
      size_t items = 0;
      std::vector<std::set<std::pair<int64_t, int64_t>>> done(count);
      for (const PrefillLaunch &launch : p.work.launches)
        for (size_t i = 0; i < launch.items; ++i, ++items) {
          const auto &item = p.work.prefill[launch.firstItem + i];
          checkTile(p, launch, item, done[launch.entries[item.entry]]);
          floors += item.floor > 0;
          sinkBlocks += item.sink_block;
          sinkTiles += item.sink_tiles;
          if (testing::Test::HasFatalFailure())
            return;
        }
      EXPECT_EQ(items, p.work.prefill.size());
      for (size_t i = 0; i < count; ++i) {
        EntryView view(p.module, p.call, i);
        EXPECT_EQ(
            int64_t(done[i].size()),
            view.decodes() ? 0 : view.entry.tokens * p.module.geometry.qHeads);
      }
      for (int32_t place : p.placed.places)
        outside += place == MOA_GPU_FROM_CALL;
      p.commit();
    }
  }
  // The cases that this test is about did occur.
  EXPECT_GT(floors, 100);
  EXPECT_GT(outside, 100);
  EXPECT_GT(sinkBlocks, 100);
  EXPECT_GT(sinkTiles, 100);
}

/// What blocks of a launch read first, by the loop over its items and pages.
void checkCuts(const Planner &p, const DecodeLaunch &launch, int32_t all) {
  ASSERT_LE(launch.grid, int32_t(p.module.layers[0].decode.grid));
  ASSERT_EQ(p.work.cuts.size(), size_t(launch.grid));
  std::vector<int32_t> ids, owners;
  for (size_t n = 0; n < launch.items; ++n) {
    const moa_gpu_decode_item &item = p.work.decode[n];
    const int32_t *lines = p.work.lines.data() + 4;
    for (int32_t i = 0; i < lines[n + 1] - lines[n]; ++i) {
      owners.push_back(int32_t(n));
      ids.push_back(p.work.pages[size_t(
          (i < item.sink_pages ? item.table : item.window_table) + i)]);
    }
  }
  int32_t reached = 0;
  for (const moa_gpu_cut &cut : p.work.cuts) {
    ASSERT_EQ(cut.begin, reached);
    ASSERT_LT(cut.begin, cut.end);
    reached = cut.end;
    ASSERT_EQ(cut.item, owners[size_t(cut.begin)]);
    for (int32_t i = 0; i < MOA_GPU_CUT_IDS; ++i)
      ASSERT_EQ(cut.ids[i],
                ids[size_t(std::min(cut.begin + i, cut.own.to - 1))]);
  }
  ASSERT_EQ(reached, all);
}

TEST(GpuWork, DecodeLinesHoldEachPageOnce) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Planner p(seed % 5 == 4 ? seed + 1 : seed);
    const Geometry &g = p.module.geometry;
    const size_t count = 1 + p.random() % 4;
    std::vector<int64_t> tokens;
    for (size_t i = 0; i < count; ++i) {
      p.add(300 + p.random() % 900);
      tokens.push_back(1 + int64_t(p.random() % 1200));
    }
    p.plan(tokens);
    p.commit();
    for (int step = 0; step < 3; ++step) {
      p.plan(std::vector<int64_t>(count, 1));
      ASSERT_EQ(p.work.decode.size(), count * g.kvHeads);
      // Equal strides make one launch.
      ASSERT_EQ(p.work.decodes.size(), 1u);
      const DecodeLaunch &launch = p.work.decodes[0];
      ASSERT_EQ(launch.items, p.work.decode.size());
      ASSERT_EQ(launch.line, 0u);
      const int32_t *lines = p.work.lines.data() + 4;
      ASSERT_EQ(p.work.lines.size(), 4 + p.work.decode.size() + 1);
      ASSERT_EQ(p.work.lines[0], int32_t(launch.items));
      const int32_t all = p.work.lines[1];
      ASSERT_EQ(lines[0], 0);
      ASSERT_EQ(lines[launch.items], all);
      for (size_t n = 0; n < p.work.decode.size(); ++n) {
        const moa_gpu_decode_item &item = p.work.decode[n];
        const size_t entry = n / g.kvHeads;
        const uint32_t kvHead = uint32_t(n % g.kvHeads);
        EntryView view(p.module, p.call, entry);
        const int64_t i = view.past;
        ASSERT_EQ(item.length, i + 1);
        ASSERT_GE(item.window_begin, item.sink_pages);
        ASSERT_EQ(item.tokens, 1);
        ASSERT_EQ(item.fresh, 1);
        ASSERT_EQ(item.kv_head, int32_t(kvHead));
        auto at = [](const moa_gpu_rows &rows, int64_t place, uint32_t head) {
          return static_cast<const char *>(rows.base) +
                 2 * (place * rows.unit + head * rows.head_stride);
        };
        ASSERT_EQ(at(launch.q, item.q, kvHead * g.group()),
                  view.query(0, kvHead * g.group()));
        ASSERT_EQ(at(launch.out, item.out, kvHead * g.group()),
                  view.output(0, kvHead * g.group()));
        ASSERT_EQ(at(launch.k, item.k, kvHead), view.key(0, kvHead));
        ASSERT_EQ(at(launch.v, item.v, kvHead), view.value(0, kvHead));
        std::vector<int64_t> line(item.sink_pages);
        std::iota(line.begin(), line.end(), 0);
        for (int64_t b = item.window_begin; b <= i / 64; ++b)
          line.push_back(b);
        ASSERT_EQ(lines[n + 1] - lines[n], int64_t(line.size()));
        std::set<int32_t> pages = filledPages(p, entry, kvHead);
        int32_t most = 0;
        for (uint32_t m = 0; m < MOA_MAX_GROUP; ++m) {
          uint32_t head = kvHead * g.group() + std::min(m, g.group() - 1);
          int64_t start =
              moa_window_start(&p.module.rule(0, head), i, view.length);
          ASSERT_EQ(item.starts[m], start);
          most = std::max(most, item.starts[m]);
          int64_t seen = 0, all = 0;
          for (int64_t block : line)
            for (int64_t j = block * 64; j < block * 64 + 64; ++j)
              seen += moa_visible(i, j, start, p.module.sink(0));
          for (int64_t j = 0; j <= i; ++j)
            all += moa_visible(i, j, start, p.module.sink(0));
          ASSERT_EQ(seen, all) << "head " << head;
        }
        ASSERT_EQ(item.start_max, most);
        const int32_t *table =
            p.placed.places.data() + p.placed.head(g, entry, kvHead).table;
        for (size_t page = 0; page < line.size(); ++page) {
          const int32_t id =
              p.work
                  .pages[(int64_t(page) < item.sink_pages ? item.table
                                                          : item.window_table) +
                         int64_t(page)];
          ASSERT_EQ(id, table[line[page]]);
          ASSERT_TRUE(pages.count(id));
        }
      }
      checkCuts(p, launch, all);
      if (testing::Test::HasFatalFailure())
        return;
      p.commit();
    }
  }
}

/// What a tile is dealt by.
int64_t costOf(const Planner &p, const moa_gpu_prefill_item &item) {
  const int64_t blocks = p.module.layers[0].prefill.keys / MOA_BLOCK_KEYS;
  return (item.window_tiles + item.sink_tiles) * blocks + item.sink_block +
         kTileCost;
}

/// What each block of threads has to do in a launch; a failure if one does not
/// begin with its most costly tiles.
std::vector<int64_t> loadsOf(const Planner &p, const PrefillLaunch &launch) {
  std::vector<int64_t> loads(p.grid), last(p.grid, INT64_MAX);
  for (size_t i = 0; i < launch.items; ++i) {
    const size_t block = i % p.grid;
    const int64_t cost = costOf(p, p.work.prefill[launch.firstItem + i]);
    EXPECT_LE(cost, last[block]) << "tile " << i;
    loads[block] += last[block] = cost;
  }
  return loads;
}

TEST(GpuWork, BlocksLieApartByLessThanATile) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    Planner p(seed);
    p.grid = 1 + p.random() % 20;
    std::vector<int64_t> tokens;
    for (int i = 0; i < 3; ++i) {
      p.add(3000);
      tokens.push_back(2 + p.random() % 3000);
    }
    p.plan(tokens);
    ASSERT_EQ(p.work.launches.size(), 1u);
    int64_t most = 0;
    for (const moa_gpu_prefill_item &item : p.work.prefill)
      most = std::max(most, costOf(p, item));
    std::vector<int64_t> loads = loadsOf(p, p.work.launches[0]);
    auto [low, high] = std::minmax_element(loads.begin(), loads.end());
    EXPECT_LE(*high - *low, most);
  }
}

/// Layer 16 of Llama-3-8B's published plan: half of the heads see all but the
/// first 1024 tokens, the others the last 1024.
TEST(GpuWork, BlocksOfAPublishedPlanGetEqualCosts) {
  const char *wide = "11110000101000001001110111110010";
  for (int64_t length : {4096, 8192, 16384, 32768, 65536}) {
    SCOPED_TRACE(length);
    Planner p(0);
    Geometry &g = p.module.geometry;
    g.kvHeads = 8;
    g.qHeads = 32;
    p.module.rules.clear();
    for (uint32_t head = 0; head < g.qHeads; ++head)
      p.module.rules.push_back(
          wide[head] == '1'
              ? moa_span_rule{-1024, 1, 64, 128, 64, MOA_LENGTH_REQUEST}
              : moa_span_rule{1024, 0, 64, 128, 64, MOA_LENGTH_REQUEST});
    p.module.layers[0].prefill.rows = p.module.layers[0].prefill.keys = 128;
    p.cache = std::make_unique<CpuCache>(p.module, p.threads, 0);
    p.grid = 132;
    p.add(length);
    p.plan({length});
    std::vector<int64_t> loads = loadsOf(p, p.work.launches[0]);
    const int64_t sum = std::accumulate(loads.begin(), loads.end(), int64_t(0));
    EXPECT_LE(double(*std::max_element(loads.begin(), loads.end())),
              1.03 * double(sum) / p.grid);
  }
}

TEST(GpuWork, EqualTilesOfAKvHeadStayTogether) {
  Planner p(2);
  Geometry &g = p.module.geometry;
  g.kvHeads = 3;
  g.qHeads = 6;
  p.module.rules.assign(6, {256, 0, 0, 64, 64, MOA_LENGTH_REQUEST});
  p.cache = std::make_unique<CpuCache>(p.module, p.threads, 0);
  p.grid = 1;
  p.add(5000);
  p.plan({5000});
  int pairs = 0;
  for (size_t i = 1; i < p.work.prefill.size(); ++i) {
    const moa_gpu_prefill_item &a = p.work.prefill[i - 1],
                               &b = p.work.prefill[i];
    if (costOf(p, a) != costOf(p, b))
      continue;
    ++pairs;
    EXPECT_LT(std::tie(a.kv_head, a.position, a.head),
              std::tie(b.kv_head, b.position, b.head));
  }
  EXPECT_GT(pairs, 100);
}

TEST(GpuWork, MoreEntriesThanALaunchHolds) {
  Planner p(0);
  std::vector<int64_t> tokens;
  for (int i = 0; i < 35; ++i) {
    p.add(400);
    tokens.push_back(20 + i);
  }
  p.plan(tokens);
  ASSERT_EQ(p.work.launches.size(), 3u);
  size_t next = 0, entry = 0;
  for (const PrefillLaunch &launch : p.work.launches) {
    EXPECT_EQ(launch.firstItem, next);
    next += launch.items;
    ASSERT_LE(launch.entries.size(), size_t(MOA_GPU_PREFILL_ENTRIES));
    for (size_t index : launch.entries)
      EXPECT_EQ(index, entry++);
  }
  EXPECT_EQ(next, p.work.prefill.size());
  EXPECT_EQ(entry, 35u);
}

} // namespace
