//===- PrefixConversationTest.cpp - Conversations that begin alike --------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Conversations of many turns behind a few system prompts, under random plans:
// what is computed behind a reused prefix has the bits of a computation from
// scratch, in caches with too few pages as well.
//
//===----------------------------------------------------------------------===//

#include "ToyModel.h"

#include "sched/request.h"

#include "gtest/gtest.h"

#include <algorithm>
#include <cstdio>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

struct Options {
  bool decode = false;  ///< Rows one by one, by decode kernels.
  bool batches = false; ///< Generated rows by steps of a batch.
  bool scarce = false;  ///< Pages for little more than one conversation.
};

class Conversations {
public:
  Conversations(uint32_t seed, const Options &options)
      : random(seed), options(options),
        model(shape(random), random, options.decode) {
    for (int i = 0; i < 2; ++i)
      systems.push_back(randomIds(random, 65 + random() % 200));
    for (int i = 0; i < 5; ++i)
      texts.push_back(systems[random() % 2]);
    const int64_t margins[] = {0, 0, 1, 70};
    const int64_t rollback = margins[random() % 4];
    const Module &module = model.module;
    const uint64_t heads = module.geometry.layers * module.geometry.kvHeads;
    const uint64_t pages = heads * (kLongest / MOA_BLOCK_KEYS + 3);
    cache = std::make_unique<CpuCache>(module, model.threads,
                                       (options.scarce ? pages : 20 * pages) *
                                           module.geometry.pageBytes(),
                                       rollback);
    EXPECT_FALSE(cache->setPrefixReuse(0));
  }

  void turn();
  /// All sequences go.
  void end() {
    while (!live.empty())
      drop();
  }

  static constexpr int64_t kLongest = 700;
  std::unique_ptr<CpuCache> cache;

private:
  static Shape shape(std::mt19937 &random) {
    Shape shape;
    shape.layers = 1 + random() % 3;
    shape.kvHeads = 1 + random() % 2;
    shape.group = 1 + random() % 2;
    return shape;
  }
  /// The oldest sequence that is still there goes.
  void drop() {
    cache->destroy(*live.front());
    live.erase(live.begin());
  }
  void check(const Sequence &sequence) const;
  std::vector<float> feed(Sequence &sequence, const Ids &ids, int64_t begin,
                          int64_t end);

  std::mt19937 random;
  const Options options;
  ToyModel model;
  std::vector<Ids> systems, texts;
  std::vector<Sequence *> live;
};

/// Rows of one call, for which older sequences go where pages are short.
std::vector<float> Conversations::feed(Sequence &sequence, const Ids &ids,
                                       int64_t begin, int64_t end) {
  std::vector<float> hidden;
  uint32_t layer = 0;
  for (;;) {
    Status failed =
        model.feed(*cache, {{&sequence, &ids, begin, end}}, hidden, layer);
    if (!failed)
      return hidden;
    EXPECT_EQ(failed->code, MOA_OUT_OF_PAGES) << failed->message;
    EXPECT_FALSE(live.empty()) << failed->message;
    if (live.empty())
      return hidden;
    drop();
  }
}

void Conversations::check(const Sequence &sequence) const {
  const int64_t seen = sequence.layers[0].seen;
  EXPECT_EQ(sequence.pagesHeld(),
            model.module.residentPages(
                seen, 0, std::max(cache->rollback, seen % MOA_BLOCK_KEYS)));
  const PagePool &pool = cache->pool;
  EXPECT_LE(pool.used() + pool.idle(), pool.limit());
  EXPECT_GE(cache->prefixes->kept(), pool.idle());
}

void Conversations::turn() {
  Ids &ids = texts[random() % texts.size()];
  if (ids.size() > kLongest - 150)
    ids = systems[random() % 2];
  const Ids said = randomIds(random, 1 + random() % 100);
  ids.insert(ids.end(), said.begin(), said.end());
  Sequence *sequence = newSequence(*cache);
  PrefixMatch match;
  ASSERT_FALSE(sequence->reuse(0, ids.data(), ids.size(), match));
  check(*sequence);
  const int64_t reused = match.tokens();
  std::vector<float> rows;
  auto append = [&](int64_t begin, int64_t end) {
    const std::vector<float> part = feed(*sequence, ids, begin, end);
    rows.insert(rows.end(), part.begin(), part.end());
  };
  const auto prompt = static_cast<int64_t>(ids.size());
  for (int64_t from = reused; from < prompt;) {
    const int64_t sizes[] = {1, 63, 64, 65, 200, match.common - from};
    int64_t chunk = options.decode ? 1 : sizes[random() % 6];
    chunk = std::min(chunk > 0 ? chunk : 1000, prompt - from);
    append(from, from + chunk);
    from += chunk;
  }
  Batch batch(*cache, {1, 1, 1 << 10});
  ASSERT_FALSE(batch.open());
  for (int64_t left = random() % 50; left > 0; --left) {
    ids.push_back(model.sample(&rows[rows.size() - model.width()]));
    ASSERT_FALSE(sequence->addTokens(&ids.back(), 1));
    if (options.batches) {
      const std::vector<float> row = model.step(batch, *sequence, ids.back());
      rows.insert(rows.end(), row.begin(), row.end());
    } else {
      append(ids.size() - 1, ids.size());
    }
  }
  check(*sequence);
  live.push_back(sequence);
  if (live.size() > random() % 4)
    drop();
  const int64_t sizes[] = {17, 64, 1000};
  const std::vector<float> want =
      model.fromScratch(ids, options.decode ? 1 : sizes[random() % 3]);
  ASSERT_EQ(want.size(), rows.size() + reused * model.width());
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(),
                         want.begin() + reused * model.width()))
      << "behind " << reused << " of " << ids.size() << " tokens";
}

void run(const Options &options, uint32_t seeds) {
  moa_counters sum = {};
  for (uint32_t seed = 0; seed < seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Conversations all(seed, options);
    for (int turn = 0; turn < 25; ++turn) {
      SCOPED_TRACE("turn " + std::to_string(turn));
      all.turn();
      if (testing::Test::HasFailure())
        return;
    }
    all.end();
    EXPECT_EQ(all.cache->pool.used(), 0u);
    EXPECT_EQ(all.cache->prefixes->kept(), all.cache->pool.idle());
    all.cache->pool.dropIdle();
    EXPECT_EQ(all.cache->prefixes->blocks(), 0u);
    const moa_counters now = all.cache->countersNow();
    sum.prefix_tokens_asked += now.prefix_tokens_asked;
    sum.prefix_tokens_reused += now.prefix_tokens_reused;
    sum.prefix_bytes_saved += now.prefix_bytes_saved;
    if (options.scarce)
      EXPECT_GT(now.prefix_pages_evicted, 0u);
  }
  const double rate =
      double(sum.prefix_tokens_reused) / double(sum.prefix_tokens_asked);
  std::printf("hit rate %.2f of %llu tokens, %.1f MiB saved\n", rate,
              static_cast<unsigned long long>(sum.prefix_tokens_asked),
              double(sum.prefix_bytes_saved) / (1 << 20));
  EXPECT_GT(rate, options.scarce ? 0.2 : 0.5);
}

TEST(PrefixConversations, EqualFromScratchBitForBit) { run({}, 12); }

TEST(PrefixConversations, DecodedRowsEqualFromScratchBitForBit) {
  run({true, false, false}, 4);
}

TEST(PrefixConversations, RowsOfBatchesEqualFromScratchBitForBit) {
  run({false, true, false}, 8);
}

TEST(PrefixConversations, ShortOfPagesEqualFromScratchBitForBit) {
  run({false, false, true}, 12);
}

} // namespace
