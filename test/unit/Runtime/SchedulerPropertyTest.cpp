//===- SchedulerPropertyTest.cpp - Random arrivals ------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Random models, limits, arrivals, early ends, cancelled requests and failed
// steps: every step keeps the rules, no page is taken beyond the limit, all
// requests end, and nothing is held after them.
//
//===----------------------------------------------------------------------===//

#include "SchedulerTestSupport.h"

#include <cstdio>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

/// Steps until all requests have ended; the largest number allowed for it.
void finish(Caller &caller, int64_t most) {
  for (; caller.step(false); --most) {
    ASSERT_GT(most, 0) << "requests starve";
    if (testing::Test::HasFailure())
      return;
  }
}

struct Counts {
  uint64_t preemptions = 0, restarts = 0, steps = 0;
};

void run(uint32_t seed, bool failures, Counts &counts) {
  std::mt19937 random(seed);
  Shape shape;
  shape.layers = 1 + random() % 3;
  shape.kvHeads = 1 + random() % 2;
  shape.group = 1 + random() % 2;
  shape.lengthRule = random() % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
  shape.kv8 = random() % 2;
  const int64_t margins[] = {0, 0, 1, 8, 63, 64, 100};
  const int64_t rollback = margins[random() % 7];
  const uint64_t heads = uint64_t(shape.layers) * shape.kvHeads;
  // Requests of at most 12 blocks, some 1 to 6 of which fit.
  const uint64_t maxPages = heads * (14 + random() % 60);
  const bool limited = random() % 8;
  Server server(shape, random, limited ? maxPages : 0, false, rollback);
  moa_scheduler_options options = {};
  options.max_sequences = 1 + random() % 12;
  options.max_step_tokens = options.max_sequences + 63 + random() % 300;
  options.chunk_tokens = 64 + random() % (options.max_step_tokens - 63);
  options.admission = random() % 4 == 0;
  if (random() % 4 == 0)
    options.max_bytes = heads * 13 * server.pool().pageBytes();
  server.open(options);
  Caller caller(server, options, seed + 1);
  int64_t tokens = 0;
  for (int turn = 0; turn < 300; ++turn) {
    if (random() % 4 == 0)
      for (uint32_t i = 0, n = random() % 4; i < n; ++i) {
        const int64_t prompt =
            random() % 5 ? 1 + random() % 150 : 1 + random() % 500;
        const int64_t mostNew = 1 + random() % 200;
        caller.submit(prompt, mostNew);
        tokens += prompt + mostNew;
      }
    if (random() % 60 == 0)
      caller.cancelOne();
    // The limit moves, never below what a request can need.
    const uint64_t bytes = server.pool().pageBytes();
    if (failures && limited && !options.admission && random() % 20 == 0)
      caller.aborts |= !codeOf(moa_cache_set_limit(
          &server.cache, (maxPages + random() % maxPages) * bytes));
    caller.step(failures && random() % 25 == 0);
    if (const uint64_t limit = server.stats().limit_bytes) {
      ASSERT_LE(server.pool().used() * bytes, limit);
      if (!failures)
        ASSERT_LE(server.pool().highWater() * bytes, limit);
    }
    if (testing::Test::HasFailure())
      return;
  }
  // Every step takes the oldest request on by a row at least.
  finish(caller, tokens);
  const moa_scheduler_stats stats = server.stats();
  EXPECT_EQ(stats.submitted, stats.finished + stats.cancelled);
  EXPECT_EQ(stats.running + stats.waiting, 0u);
  EXPECT_EQ(stats.most_bytes, 0u);
  EXPECT_EQ(server.pool().used(), 0u);
  EXPECT_TRUE(server.cache.cache->sequences.empty());
  if (!stats.preemptions && !stats.aborted_steps)
    EXPECT_EQ(stats.rows_again, 0u);
  else if (!failures)
    EXPECT_LE(caller.restarts, stats.preemptions);
  counts.preemptions += stats.preemptions;
  counts.restarts += caller.restarts;
  counts.steps += stats.steps;
}

TEST(Scheduler, RandomArrivals) {
  Counts counts;
  for (uint32_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    run(seed, false, counts);
    if (HasFailure())
      return;
  }
  std::printf("%llu steps, %llu preemptions\n",
              static_cast<unsigned long long>(counts.steps),
              static_cast<unsigned long long>(counts.preemptions));
  EXPECT_GT(counts.preemptions, 100u);
}

TEST(Scheduler, RandomArrivalsAndFailures) {
  Counts counts;
  for (uint32_t seed = 1000; seed < 1100; ++seed) {
    SCOPED_TRACE(seed);
    run(seed, true, counts);
    if (HasFailure())
      return;
  }
  EXPECT_GT(counts.preemptions, 100u);
  EXPECT_GT(counts.restarts, counts.preemptions / 2);
}

} // namespace
