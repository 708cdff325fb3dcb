//===- CacheTest.cpp - Pages, rows and refusals of a cache ----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Random models, chunks and batches: after every call the rows are those of the
// definition, and each KV head holds exactly the pages that a later row can
// see. Refused calls change nothing.
//
//===----------------------------------------------------------------------===//

#include "Reference.h"

#include "gtest/gtest.h"

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

/// Whether a KV head must hold a page after `seen` tokens: the page is not yet
/// full, or one of its keys is seen by a row to come. By trying rows and keys.
bool needed(const Module &module, uint32_t layer, uint32_t kvHead, int64_t page,
            int64_t seen, int64_t n, int64_t bound) {
  const uint32_t group = module.geometry.group();
  int64_t begin = page * MOA_BLOCK_KEYS;
  int64_t end = std::min(begin + MOA_BLOCK_KEYS, seen);
  if (begin >= seen)
    return false;
  if (end - begin < MOA_BLOCK_KEYS)
    return true;
  for (int64_t i = seen; i < seen + 130; ++i)
    for (uint32_t g = 0; g < group; ++g) {
      int64_t start =
          moa_window_start(&module.rule(layer, kvHead * group + g), i, n);
      for (int64_t j = begin; j < end; ++j)
        if (moa_visible(i, j, std::max(start, bound), module.sink(layer)))
          return true;
    }
  return false;
}

void expectPages(const Module &module, const Sequence &sequence,
                 const std::vector<std::vector<int64_t>> &bound) {
  uint64_t held = 0;
  for (uint32_t l = 0; l < module.geometry.layers; ++l)
    for (uint32_t h = 0; h < module.geometry.kvHeads; ++h) {
      const LayerState &layer = sequence.layers[l];
      const HeadPages &head = layer.heads[h];
      for (int64_t page = 0; page * MOA_BLOCK_KEYS <= layer.seen; ++page) {
        bool want = needed(module, l, h, page, layer.seen, sequence.length,
                           bound[l][h]);
        EXPECT_EQ(head.page(page) != kNoPage, want)
            << "layer " << l << " KV head " << h << " page " << page << " seen "
            << layer.seen;
        held += want;
      }
    }
  EXPECT_EQ(sequence.pagesHeld(), held);
}

std::vector<int64_t> bounds(const Sequence &sequence, uint32_t layer) {
  std::vector<int64_t> result;
  for (const HeadPages &head : sequence.layers[layer].heads)
    result.push_back(head.firstResident());
  return result;
}

int64_t randomChunk(std::mt19937 &random) {
  const int64_t sizes[] = {1, 1, 1, 2, 63, 64, 65, 130, 200};
  return sizes[random() % 9];
}

TEST(Cache, RowsAndPagesOfRandomModels) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    Module module;
    Shape shape;
    shape.layers = 1 + random() % 2;
    shape.kvHeads = 1 + random() % 3;
    shape.group = 1 + random() % 4;
    shape.lengthRule = seed % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
    fill(module, shape, random);
    const Geometry &g = module.geometry;
    ThreadPool threads(2);
    CpuCache cache(module, threads, 0);
    const int64_t n = 700;
    Sequence one(cache, module, cache.pool, n),
        two(cache, module, cache.pool, n);
    Sequence *sequences[] = {&one, &two};
    std::vector<Tokens> tokens(2 * g.layers);
    std::vector<std::vector<int64_t>> none(g.layers,
                                           std::vector<int64_t>(g.kvHeads, 0));
    for (int call = 0; call < 6; ++call) {
      int64_t chunk[] = {randomChunk(random), randomChunk(random)};
      for (uint32_t l = 0; l < g.layers; ++l) {
        moa_attend_entry entries[2];
        int64_t seen[2];
        for (int s = 0; s < 2; ++s) {
          Tokens &own = tokens[s * g.layers + l];
          seen[s] = sequences[s]->layers[l].seen;
          own.add(g, chunk[s], random);
          entries[s] = own.entry(g, *sequences[s], seen[s], seen[s] + chunk[s]);
        }
        // Once, rows are appended alone.
        const bool attends[] = {true, call != 3};
        if (!attends[1])
          entries[1].q = entries[1].out = nullptr;
        ASSERT_FALSE(cache.attend(l, 1, entries, 2));
        for (int s = 0; s < 2; ++s) {
          EXPECT_EQ(sequences[s]->layers[l].seen, seen[s] + chunk[s]);
          if (!attends[s])
            continue;
          EXPECT_LT(difference(module, l, tokens[s * g.layers + l], seen[s],
                               seen[s] + chunk[s], n, none[l]),
                    1e-5);
        }
      }
      expectPages(module, one, none);
      expectPages(module, two, none);
      EXPECT_EQ(cache.pool.used(), one.pagesHeld() + two.pagesHeld());
    }
    if (HasFailure())
      return;
  }
}

TEST(Cache, SequencesGiveTheirPagesBack) {
  std::mt19937 random(7);
  Module module;
  fill(module, {}, random);
  ThreadPool threads(1);
  CpuCache cache(module, threads, 0);
  for (int turn = 0; turn < 3; ++turn) {
    Sequence sequence(cache, module, cache.pool, 500);
    Tokens tokens;
    tokens.add(module.geometry, 300, random);
    moa_attend_entry entry = tokens.entry(module.geometry, sequence, 0, 300);
    ASSERT_FALSE(cache.attend(0, 1, &entry, 1));
    EXPECT_GT(cache.pool.used(), 0u);
  }
  EXPECT_EQ(cache.pool.used(), 0u);
}

TEST(Cache, OutOfPagesChangesNothing) {
  std::mt19937 random(3);
  Module module;
  fill(module, {}, random);
  for (moa_span_rule &rule : module.rules)
    rule.alpha = 0, rule.beta = 1; // Dense: every page stays.
  const Geometry &g = module.geometry;
  ThreadPool threads(2);
  CpuCache cache(module, threads, 5 * g.pageBytes() + 17); // Rounded down to 5.
  Sequence first(cache, module, cache.pool, 1000);
  Sequence second(cache, module, cache.pool, 1000);
  Tokens a, b;
  a.add(g, 128, random);
  b.add(g, 64, random);
  moa_attend_entry one = a.entry(g, first, 0, 128);
  ASSERT_FALSE(cache.attend(0, 1, &one, 1)); // 4 of 5 pages.
  std::vector<PageId> pages = first.layers[0].heads[0].pages;

  moa_attend_entry two = b.entry(g, second, 0, 64);
  Status refused = cache.attend(0, 1, &two, 1);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code, MOA_OUT_OF_PAGES);
  EXPECT_EQ(refused->message,
            "wanted 2 pages of 4096 bytes, 1 of 5 are free; free sequences or "
            "raise max_bytes");
  EXPECT_EQ(cache.pool.used(), 4u);
  EXPECT_EQ(second.layers[0].seen, 0);
  EXPECT_EQ(second.pagesHeld(), 0u);
  EXPECT_EQ(first.layers[0].heads[0].pages, pages);
  for (float value : b.out)
    ASSERT_TRUE(std::isnan(value)) << "a refused call wrote an output";

  // A batch of which one part does not fit: neither is run.
  a.add(g, 1, random);
  moa_attend_entry both[] = {a.entry(g, first, 128, 129), two};
  ASSERT_TRUE(cache.attend(0, 1, both, 2));
  EXPECT_EQ(first.layers[0].seen, 128);
  EXPECT_EQ(cache.pool.used(), 4u);

  // What still fits still works, and is right.
  a.add(g, 0, random);
  b.add(g, 0, random);
  CpuCache roomy(module, threads, 0);
  Sequence third(roomy, module, roomy.pool, 1000);
  moa_attend_entry again = b.entry(g, third, 0, 64);
  ASSERT_FALSE(roomy.attend(0, 1, &again, 1));
  EXPECT_LT(difference(module, 0, b, 0, 64, 1000, {0, 0}), 1e-5);
}

TEST(Cache, RaisedLengthWidensOverWhatIsHeld) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    Module module;
    fill(module, {}, random);
    for (moa_span_rule &rule : module.rules)
      rule.alpha = 0, rule.beta = 0.25;
    const Geometry &g = module.geometry;
    ThreadPool threads(2);
    CpuCache cache(module, threads, 0);
    Sequence sequence(cache, module, cache.pool, 1000);
    Tokens tokens;
    tokens.add(g, 900, random);
    moa_attend_entry entry = tokens.entry(g, sequence, 0, 900);
    ASSERT_FALSE(cache.attend(0, 1, &entry, 1));
    sequence.length = 3000;
    for (int64_t seen = 900, chunk; seen < 1300; seen += chunk) {
      chunk = randomChunk(random);
      std::vector<int64_t> bound = bounds(sequence, 0);
      EXPECT_GT(bound[0], 0);
      tokens.add(g, chunk, random);
      entry = tokens.entry(g, sequence, seen, seen + chunk);
      ASSERT_FALSE(cache.attend(0, 1, &entry, 1));
      EXPECT_LT(difference(module, 0, tokens, seen, seen + chunk, 3000, bound),
                1e-5);
      expectPages(module, sequence, {bounds(sequence, 0)});
    }
  }
}

} // namespace
