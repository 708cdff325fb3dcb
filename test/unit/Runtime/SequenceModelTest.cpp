//===- SequenceModelTest.cpp - Random operations on sequences -------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Thousands of random operations on a cache and on plain lists beside it, with
// and without enough pages.
//
//===----------------------------------------------------------------------===//

#include "ListModel.h"

#include "gtest/gtest.h"

#include <algorithm>
#include <cstdlib>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

struct Counts {
  uint64_t refusals = 0, truncations = 0, truncationsRefused = 0, restores = 0;
  uint64_t reused = 0, merged = 0;
  uint64_t kv8Blocks = 0, kv8Brought = 0;
};

/// Runs `steps` operations of one random model.
void run(uint32_t seed, uint64_t maxPages, int steps, Counts &counts,
         bool prefixes = false) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed * 31 + 7);
  ListOptions options;
  options.shape.layers = 1 + random() % 2;
  options.shape.kvHeads = 1 + random() % 2;
  options.shape.group = 1 + random() % 3;
  options.shape.lengthRule = random() % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
  options.prefixes = prefixes;
  if (prefixes)
    options.shape.lengthRule = MOA_LENGTH_ROW;
  options.maxPages = maxPages;
  const int64_t margins[] = {0, 0, 1, 5, 64, 100};
  options.rollback = margins[random() % 6];
  options.shape.kv8 = !prefixes && random() % 2;
  ListModel model(seed, options);
  const char *last = "none";
  for (int step = 0; step < steps && !testing::Test::HasFailure(); ++step) {
    SCOPED_TRACE("operation " + std::to_string(step) + ", after " + last);
    last = model.step();
    EXPECT_FALSE(testing::Test::HasFailure()) << "in " << last;
  }
  while (!model.sequences.empty())
    model.destroy(0);
  EXPECT_EQ(model.cache->pool.used(), 0u);
  EXPECT_EQ(model.cache->pool.referenced(), 0u);
  model.cache->pool.dropIdle();
  if (prefixes) {
    EXPECT_EQ(model.cache->prefixes->kept(), 0u);
    EXPECT_EQ(model.cache->prefixes->blocks(), 0u);
  }
  counts.refusals += model.refusals;
  counts.truncations += model.truncations;
  counts.truncationsRefused += model.truncationsRefused;
  counts.restores += model.restores;
  counts.reused += model.reused;
  counts.merged += model.merged;
  counts.kv8Blocks += model.kv8Blocks;
  counts.kv8Brought += model.kv8Brought;
}

/// Models of each test; MOA_MODEL_SEEDS asks for more than make check runs.
uint32_t seeds() {
  const char *text = std::getenv("MOA_MODEL_SEEDS");
  return text ? std::max(40, std::atoi(text)) : 40;
}

TEST(SequenceModel, RandomOperations) {
  Counts counts;
  for (uint32_t seed = 0; seed < seeds() && !HasFailure(); ++seed)
    run(seed, 0, 150, counts);
  EXPECT_EQ(counts.refusals, 0u);
  EXPECT_GT(counts.truncations, 100u);
  EXPECT_GT(counts.truncationsRefused, 20u);
  EXPECT_GT(counts.restores, 20u);
  EXPECT_GT(counts.kv8Blocks, 1000u);
  EXPECT_GT(counts.kv8Brought, 5u);
}

TEST(SequenceModel, RandomOperationsShortOfPages) {
  Counts counts;
  for (uint32_t seed = 0; seed < seeds() && !HasFailure(); ++seed)
    run(100 + seed, 24, 150, counts);
  EXPECT_GT(counts.refusals, 50u);
}

TEST(SequenceModel, RandomOperationsWithPrefixes) {
  Counts counts;
  for (uint32_t seed = 0; seed < seeds() && !HasFailure(); ++seed)
    run(200 + seed, 0, 150, counts, true);
  EXPECT_EQ(counts.refusals, 0u);
  EXPECT_GT(counts.reused, 2000u);
  EXPECT_GT(counts.merged, 100u);
  EXPECT_GT(counts.truncations, 100u);
}

TEST(SequenceModel, RandomOperationsWithPrefixesShortOfPages) {
  Counts counts;
  for (uint32_t seed = 0; seed < seeds() && !HasFailure(); ++seed)
    run(300 + seed, 24, 150, counts, true);
  EXPECT_GT(counts.refusals, 50u);
  EXPECT_GT(counts.reused, 1000u);
}

/// A window of one token has nothing to see where a block ends, wherever that
/// is: all that was given up since is of no concern.
TEST(SequenceModel, WindowsOfOneTokenGoBackToAnyBlock) {
  for (int32_t lengthRule : {MOA_LENGTH_ROW, MOA_LENGTH_REQUEST})
    for (int32_t sink : {0, 64}) {
      ListOptions options;
      options.shape = {1, 1, 1, lengthRule, false};
      ListModel model(3, options);
      model.module.rules[0] = {1, 0, sink, sink + 1, 1, lengthRule};
      model.create();
      model.append({0}, {300});
      for (int64_t to : {256, 192, 128}) {
        model.truncate(0, to);
        model.storeAndRestore(0);
        model.append({0}, {3});
        model.raise(0, 7);
        model.truncate(0, to);
      }
      model.append({0}, {130});
      EXPECT_EQ(model.truncationsRefused, 0u);
    }
}

} // namespace
