//===- PrefixTest.cpp - Sequences that begin alike ------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What is reused and what is kept, case by case: which prefixes, under equal
// hashes and under other salts, behind truncations and forks, in pools that are
// short; what is refused.
//
//===----------------------------------------------------------------------===//

#include "ToyModel.h"

#include "gtest/gtest.h"

#include <chrono>
#include <cstdio>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

/// One layer of two KV heads: one sees everything, the other a sink of a block
/// and 128 tokens.
struct TwoHeads {
  explicit TwoHeads(uint64_t maxPages = 0, PrefixHash hash = hashOfBlock)
      : model({1, 2, 1, MOA_LENGTH_ROW}, random, false) {
    for (moa_span_rule &rule : model.module.rules)
      rule = {0, 1, 64, 192, 64, MOA_LENGTH_ROW};
    model.module.rules[1].beta = 0;
    const uint64_t page = model.module.geometry.pageBytes();
    cache = std::make_unique<CpuCache>(model.module, model.threads,
                                       maxPages * page);
    EXPECT_FALSE(cache->setPrefixReuse(maxPages ? 0 : 1000 * page, hash));
  }

  /// Begins a sequence; what was reused goes to `match`.
  Sequence *begin(const Ids &ids, uint64_t salt = 0) {
    Sequence *sequence = newSequence(*cache);
    Status failed = sequence->reuse(salt, ids.data(), ids.size(), match);
    EXPECT_FALSE(failed) << failed->message;
    return sequence;
  }
  /// Feeds what is left of it and compares all rows with those from scratch.
  void finish(Sequence &sequence, const Ids &ids, int64_t chunk = 1000) {
    const std::vector<float> want = model.fromScratch(ids, 70);
    const auto count = static_cast<int64_t>(ids.size());
    for (int64_t from = sequence.layers[0].seen; from < count; from += chunk) {
      const std::vector<float> got = model.feed(*cache, sequence, ids, from,
                                                std::min(count, from + chunk));
      EXPECT_TRUE(std::equal(got.begin(), got.end(),
                             want.begin() + from * model.width()))
          << "rows from " << from;
    }
  }
  /// A sequence that computes what is not there, and goes; what was reused.
  int64_t serve(const Ids &ids, uint64_t salt = 0) {
    Sequence *sequence = begin(ids, salt);
    finish(*sequence, ids);
    cache->destroy(*sequence);
    return match.tokens();
  }

  std::mt19937 random{3};
  ToyModel model;
  std::unique_ptr<CpuCache> cache;
  PrefixMatch match;
};

/// `ids` to some place, then others.
Ids branch(const Ids &ids, size_t at, size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  Ids other = randomIds(random, count);
  std::copy_n(ids.begin(), at, other.begin());
  if (other[at] == ids[at])
    other[at] = 777;
  return other;
}

TEST(Prefix, LongestPrefixWhoseWindowsAreThere) {
  TwoHeads t;
  const Ids ids = randomIds(t.random, 1000);
  EXPECT_EQ(t.serve(ids), 0);
  // One call: the short window is there at its end alone.
  EXPECT_EQ(t.serve(ids), 960);
  EXPECT_EQ(t.match.common, 960);
  // Of the long head 15 pages, of the short one its sink and two.
  EXPECT_EQ(t.match.pages, 18u);
  EXPECT_EQ(t.match.idle, 18u);
  // Elsewhere the sink alone.
  EXPECT_EQ(t.serve(branch(ids, 700, 900, 1)), 64);
  EXPECT_EQ(t.match.common, 640);
  EXPECT_EQ(t.serve(branch(ids, 700, 900, 2)), 64);
  // A call that ends where they part makes the next begin there.
  const Ids third = branch(ids, 700, 900, 3);
  Sequence *sequence = t.begin(third);
  ASSERT_EQ(t.match.common, 640);
  t.model.feed(*t.cache, *sequence, third, 64, 640);
  t.finish(*sequence, third);
  EXPECT_EQ(t.serve(branch(ids, 700, 900, 4)), 640);
  // A token is left to be fed.
  EXPECT_EQ(t.serve(Ids(ids.begin(), ids.begin() + 640)), 64);
  EXPECT_EQ(t.serve(Ids(ids.begin(), ids.begin() + 641)), 640);
  EXPECT_EQ(t.serve(Ids(ids.begin(), ids.begin() + 63)), 0);
}

TEST(Prefix, PagesThatPassAreKept) {
  TwoHeads t;
  const Ids ids = randomIds(t.random, 700);
  Sequence *sequence = t.begin(ids);
  t.finish(*sequence, ids, 64);
  const Module &module = t.model.module;
  EXPECT_EQ(sequence->pagesHeld(), module.residentPages(700, 0, 700 % kBlock));
  EXPECT_EQ(t.cache->pool.used(), sequence->pagesHeld());
  // Ten full blocks of two heads; those of the short one that passed are idle.
  EXPECT_EQ(t.cache->prefixes->kept(), 20u);
  EXPECT_EQ(t.cache->pool.idle(), 10u - 3);
  // Every multiple of 64 is possible, while the sequence lives and after.
  for (int64_t at : {640, 64, 320, 448})
    EXPECT_EQ(t.serve(branch(ids, at, at + 5, 9)), at);
  t.cache->destroy(*sequence);
  EXPECT_EQ(t.cache->pool.used(), 0u);
  EXPECT_EQ(t.serve(branch(ids, 128, 200, 9)), 128);
  EXPECT_EQ(t.cache->counters.prefix_pages_merged, 0u);
}

TEST(Prefix, TheSameComputedTwiceIsHeldOnce) {
  TwoHeads t;
  const Ids ids = randomIds(t.random, 300);
  Sequence *one = t.begin(ids), *two = t.begin(ids);
  EXPECT_EQ(t.match.common, 256); // Known, though no page is there.
  t.finish(*one, ids);
  t.finish(*two, ids, 100);
  // All but the newest, which are not full.
  EXPECT_EQ(t.cache->pool.shared(), one->pagesHeld() - 2);
  EXPECT_EQ(t.cache->pool.used(), one->pagesHeld() + 2);
  EXPECT_GE(t.cache->counters.prefix_pages_merged, one->pagesHeld() - 2);
  t.cache->destroy(*one);
  Ids more = ids;
  more.resize(500, 5);
  ASSERT_FALSE(two->addTokens(more.data() + 300, 200));
  t.finish(*two, more);
}

TEST(Prefix, EqualHashesDoNotMix) {
  TwoHeads t(
      0, [](uint64_t, const PrefixBlock::Tokens &) -> uint64_t { return 7; });
  const Ids ids = randomIds(t.random, 400), others = randomIds(t.random, 400);
  Ids mixed = ids; // The blocks of both, behind other prefixes.
  std::copy_n(others.begin() + kBlock, 200, mixed.begin() + kBlock);
  EXPECT_EQ(t.serve(ids), 0);
  EXPECT_EQ(t.serve(others), 0);
  EXPECT_EQ(t.serve(mixed), 64);
  for (const Ids &each : {ids, others, mixed})
    EXPECT_EQ(t.serve(each), 384);
  EXPECT_EQ(t.cache->prefixes->blocks(), 6u + 6 + 5);
}

TEST(Prefix, SaltsShareNothing) {
  TwoHeads t;
  const Ids ids = randomIds(t.random, 400);
  EXPECT_EQ(t.serve(ids, 1), 0);
  EXPECT_EQ(t.serve(ids, 2), 0);
  EXPECT_EQ(t.match.common, 0);
  EXPECT_EQ(t.serve(ids, 1), 384);
  EXPECT_EQ(t.serve(ids, 2), 384);
  EXPECT_EQ(t.serve(ids), 0);
}

TEST(Prefix, KeptPagesAreNeverWrittenAgain) {
  TwoHeads t;
  const Ids ids = randomIds(t.random, 130);
  Sequence *sequence = t.begin(ids);
  t.finish(*sequence, ids, 64);
  const Ids other = branch(ids, 110, 200, 5);
  ASSERT_FALSE(sequence->truncate(110)); // Within a full block.
  EXPECT_EQ(sequence->chain.tokens(), 110);
  ASSERT_FALSE(sequence->addTokens(other.data() + 110, 90));
  t.finish(*sequence, other, 30);
  EXPECT_EQ(t.cache->counters.pages_copied, 2u);
  t.cache->destroy(*sequence);
  EXPECT_EQ(t.serve(ids), 128);
  EXPECT_EQ(t.serve(other), 192);
}

TEST(Prefix, ForksAndRestoredSequencesTakePart) {
  TwoHeads t;
  const Ids ids = randomIds(t.random, 200);
  Sequence *one = t.begin(Ids(ids.begin(), ids.begin() + 100)), *two = nullptr;
  t.model.feed(*t.cache, *one, ids, 0, 100);
  ASSERT_FALSE(t.cache->fork(*one, two));
  EXPECT_EQ(two->chain.tokens(), 100);
  ASSERT_FALSE(two->addTokens(ids.data() + 100, 100));
  t.finish(*two, ids);
  t.cache->destroy(*two);
  t.cache->destroy(*one);
  EXPECT_EQ(t.serve(ids), 192);
  // One that was told nothing before; it has its pages merged.
  Sequence *late = newSequence(*t.cache);
  t.model.feed(*t.cache, *late, ids, 0, 200);
  EXPECT_EQ(t.cache->pool.used(), late->pagesHeld());
  const uint64_t merged = t.cache->counters.prefix_pages_merged;
  ASSERT_FALSE(late->addTokens(ids.data(), 150));
  EXPECT_EQ(t.cache->counters.prefix_pages_merged, merged + 4);
  EXPECT_EQ(late->chain.blocks(), 2);
}

TEST(Prefix, TheNewestBlocksAreGivenUpFirst) {
  TwoHeads t(40);
  const Ids ids = randomIds(t.random, 1000);
  Sequence *sequence = t.begin(ids);
  t.finish(*sequence, ids, 64);
  t.cache->destroy(*sequence);
  const uint64_t kept = t.cache->pool.idle();
  EXPECT_EQ(kept, 30u);
  std::vector<PageId> pages;
  // First those that passed the window, from the front, then from the end.
  ASSERT_FALSE(t.cache->pool.allocate(10 + 12, pages));
  EXPECT_EQ(t.cache->prefixes->evicted(), 12u);
  EXPECT_EQ(t.cache->findPrefix(0, ids.data(), 1000).tokens(), 960);
  ASSERT_FALSE(t.cache->pool.allocate(2, pages));
  EXPECT_EQ(t.cache->findPrefix(0, ids.data(), 1000).tokens(), 64);
  for (PageId page : pages)
    t.cache->pool.release(page);
}

TEST(Prefix, EveryPageOfTheLimitCanBeHad) {
  TwoHeads t(30);
  const Ids ids = randomIds(t.random, 900);
  t.serve(ids);
  EXPECT_GT(t.cache->pool.idle(), 10u);
  std::vector<PageId> pages;
  Status failed = t.cache->pool.allocate(31, pages);
  ASSERT_TRUE(failed);
  EXPECT_NE(failed->message.find("30 of 30 are free"), std::string::npos)
      << failed->message;
  EXPECT_EQ(t.cache->prefixes->evicted(), 0u);
  ASSERT_FALSE(t.cache->pool.allocate(30, pages));
  EXPECT_EQ(t.cache->pool.idle(), 0u);
  EXPECT_EQ(t.cache->prefixes->blocks(), 0u);
  for (PageId page : pages)
    t.cache->pool.release(page);
  EXPECT_EQ(t.cache->pool.idle(), 0u);
  EXPECT_EQ(t.serve(ids), 0);
}

TEST(Prefix, NoMoreIsKeptThanAskedFor) {
  TwoHeads t(200);
  const uint64_t page = t.cache->pool.pageBytes();
  ASSERT_FALSE(t.cache->setPrefixReuse(20 * page));
  for (int i = 0; i < 5; ++i) {
    const Ids ids = randomIds(t.random, 500);
    t.serve(ids);
    EXPECT_EQ(t.cache->findPrefix(0, ids.data(), 500).tokens(), 448);
    EXPECT_LE(t.cache->pool.idle(), 20u);
  }
  EXPECT_EQ(t.cache->pool.idle(), 20u);
  ASSERT_FALSE(t.cache->setPrefixReuse(3 * page + 1));
  EXPECT_EQ(t.cache->pool.idle(), 3u);
  ASSERT_FALSE(t.cache->pool.setLimit(2));
  EXPECT_EQ(t.cache->pool.idle(), 2u);
}

/// A prompt of 512 blocks and one token in the shape of Llama-3-8B: heads that
/// see all and heads that see 1024 tokens, in turn.
TEST(Prefix, LongPromptsOfLargeModelsAreFoundFast) {
  std::mt19937 random(1);
  Module module;
  fill(module, {32, 8, 4, MOA_LENGTH_ROW}, random);
  for (size_t i = 0; i < module.rules.size(); ++i)
    module.rules[i] = {1024, i / 4 % 2 ? 1.0 : 0.0, 64, 128,
                       64,   MOA_LENGTH_ROW};
  ThreadPool threads(1);
  CpuCache cache(module, threads, 131072 * module.geometry.pageBytes());
  ASSERT_FALSE(cache.setPrefixReuse(0));
  const Ids ids = randomIds(random, 512 * kBlock + 1);
  std::vector<PageId> pages; // Every one of every block, as if computed.
  ASSERT_FALSE(cache.pool.allocate(512 * 256, pages));
  TokenChain chain(cache.prefixes.get());
  chain.add(ids.data(), ids.size());
  for (size_t i = 0; i < pages.size(); ++i)
    cache.prefixes->offer(chain.block(i / 256), i % 256, pages[i]);
  for (PageId page : pages)
    cache.pool.release(page);

  double best[2] = {1e9, 1e9};
  PrefixMatch match;
  for (int i = 0; i < 3; ++i) {
    Sequence *sequence = newSequence(cache);
    const auto begin = std::chrono::steady_clock::now();
    match = cache.findPrefix(0, ids.data(), ids.size());
    const auto found = std::chrono::steady_clock::now();
    cache.beginWith(*sequence, match, 0, ids.data(), ids.size());
    const auto end = std::chrono::steady_clock::now();
    best[0] = std::min(
        best[0],
        std::chrono::duration<double, std::milli>(found - begin).count());
    best[1] = std::min(
        best[1],
        std::chrono::duration<double, std::milli>(end - found).count());
    EXPECT_EQ(sequence->pagesHeld(), match.pages);
    cache.destroy(*sequence);
  }
  EXPECT_EQ(match.tokens(), 512 * kBlock);
  // The sink, and 15 blocks of the windows that are short.
  EXPECT_EQ(match.pages, 128u * 512 + 128 * 16);
  std::printf("%lld tokens: found in %.2f ms, begun with %llu pages in %.2f\n",
              static_cast<long long>(match.tokens()), best[0],
              static_cast<unsigned long long>(match.pages), best[1]);
}

TEST(Prefix, Refusals) {
  std::mt19937 random(1);
  Module request;
  fill(request, Shape(), random);
  ThreadPool threads(1);
  CpuCache fixed(request, threads, 1 << 20);
  Status failed = fixed.setPrefixReuse(0);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->code, MOA_UNSUPPORTED);
  EXPECT_NE(failed->message.find("length rule request"), std::string::npos);

  Module codes;
  Shape shape;
  shape.lengthRule = MOA_LENGTH_ROW;
  shape.kv8 = true;
  fill(codes, shape, random);
  CpuCache coded(codes, threads, 1 << 20);
  failed = coded.setPrefixReuse(0);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->code, MOA_UNSUPPORTED);
  EXPECT_NE(failed->message.find("keep 8 bits"), std::string::npos);

  TwoHeads t;
  CpuCache cache(t.model.module, threads, 0);
  const Ids ids = randomIds(random, 100);
  auto expect = [](Status status, moa_status_code code, const char *part) {
    ASSERT_TRUE(status) << part;
    EXPECT_EQ(status->code, code);
    EXPECT_NE(status->message.find(part), std::string::npos) << status->message;
  };
  expect(cache.setPrefixReuse(0), MOA_INVALID_ARGUMENT, "has a limit");
  expect(cache.setPrefixReuse(7), MOA_INVALID_ARGUMENT, "max_bytes is 7");
  Sequence *sequence = newSequence(cache);
  PrefixMatch match;
  expect(sequence->reuse(0, ids.data(), 100, match), MOA_INVALID_ARGUMENT,
         "does not reuse prefixes");
  expect(sequence->addTokens(ids.data(), 100), MOA_INVALID_ARGUMENT,
         "does not reuse prefixes");
  expect(cache.setPrefixReuse(1 << 20), MOA_INVALID_ARGUMENT,
         "has 1 sequences and 0 batches");
  cache.destroy(*sequence);
  ASSERT_FALSE(cache.setPrefixReuse(1 << 20));

  sequence = newSequence(cache);
  expect(sequence->reuse(0, nullptr, 3, match), MOA_INVALID_ARGUMENT,
         "no tokens");
  expect(sequence->addTokens(ids.data(), 0), MOA_INVALID_ARGUMENT, "no tokens");
  const Ids long_(t.model.module.geometry.maxLength + 1);
  expect(sequence->reuse(0, long_.data(), long_.size(), match),
         MOA_OUT_OF_RANGE, "exceed the artifact's max length");
  ASSERT_FALSE(sequence->reuse(0, ids.data(), 100, match));
  expect(sequence->reuse(0, ids.data(), 100, match), MOA_INVALID_ARGUMENT,
         "has seen 0 tokens and knows 100");
  expect(sequence->addTokens(long_.data(), long_.size() - 100),
         MOA_OUT_OF_RANGE, "100 tokens known");
  Batch batch(cache, {1, 1, 16});
  ASSERT_FALSE(batch.open());
  ASSERT_FALSE(batch.begin(&sequence, 1, 1, nullptr));
  expect(sequence->addTokens(ids.data(), 1), MOA_INVALID_ARGUMENT,
         "part of a step");
  batch.cancel();
  EXPECT_EQ(sequence->chain.tokens(), 100);
}

} // namespace
