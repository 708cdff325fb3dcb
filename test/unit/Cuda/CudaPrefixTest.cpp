//===- CudaPrefixTest.cpp - Prefixes on CUDA ------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// On the fake driver: sequences that begin with pages of others, in calls and
// in steps of a batch whose tables lie on the device, and pages that are found
// to be the same while steps go on.
//
//===----------------------------------------------------------------------===//

#include "CudaTestSupport.h"

#include "gtest/gtest.h"

#include <numeric>

using namespace moa;
using namespace moa::test;

namespace {

constexpr double kTolerance = 5e-3;
constexpr int64_t kTokens = 500;

class CudaPrefix : public FakeCudaTest {
protected:
  void open(uint32_t seed, bool dense = false) {
    random.seed(seed);
    Model model;
    model.layers = 2;
    model.lengthRule = MOA_LENGTH_ROW;
    model.randomRules(random);
    for (moa_span_rule &rule : model.rules)
      if (dense)
        rule.beta = 1, rule.alpha = 0;
    ASSERT_TRUE(session.open(model, 1 << 21));
    ASSERT_TRUE(session.cache.setPrefixReuse());
    ids.resize(kTokens);
    std::iota(ids.begin(), ids.end(), int64_t(seed) * 1000);
    for (uint32_t layer = 0; layer < 2; ++layer)
      tokens.push_back(std::make_unique<Tokens>(session, kTokens, random));
  }
  void close() {
    tokens.clear();
    session.cache = Cache();
    session.module = Module();
    session.context = Context();
  }
  /// A sequence that knows all tokens; how many it has seen.
  int64_t begin(Sequence &sequence) {
    int64_t reused = -1;
    EXPECT_TRUE(sequence.create(session.cache, 1));
    const auto calls = fakeCuda()->calls;
    EXPECT_TRUE(sequence.reuse(ids, reused));
    EXPECT_EQ(fakeCuda()->calls, calls); // Nothing is done on the device.
    return reused;
  }
  /// Rows by a call a layer.
  void feed(Sequence &sequence, int64_t from, int64_t to) {
    for (uint32_t layer = 0; layer < 2; ++layer)
      ASSERT_TRUE(session.cache.attend(
          layer, {tokens[layer]->entry(sequence, from, to)}));
  }
  /// The same row for all members.
  void step(Batch &batch, const std::vector<Sequence *> &members, int64_t row) {
    std::vector<moa_sequence *> handles;
    for (Sequence *member : members)
      handles.push_back(member->get());
    ASSERT_TRUE(batch.begin(handles));
    for (uint32_t layer = 0; layer < 2; ++layer) {
      const moa_attend_entry e =
          tokens[layer]->entry(*members[0], row, row + 1);
      const int64_t dim = session.model.dim;
      moa_batch_attend_options o = {};
      o.layer = layer;
      o.q = {const_cast<void *>(e.q), 0, e.q_row_stride, dim};
      o.k = {const_cast<void *>(e.k), 0, e.k_row_stride, dim};
      o.v = {const_cast<void *>(e.v), 0, e.v_row_stride, dim};
      o.out = {e.out, 0, e.out_row_stride, dim};
      ASSERT_TRUE(batch.attend(o));
    }
    batch.end();
  }
  void expectRows(int64_t from, int64_t to) {
    for (uint32_t layer = 0; layer < 2; ++layer) {
      EXPECT_LT(tokens[layer]->difference(layer, from, to, 1, {0, 0}),
                kTolerance)
          << "layer " << layer << ", rows " << from << " to " << to;
      tokens[layer]->clearOut();
    }
  }
  moa_counters counters() {
    moa_counters now = {};
    EXPECT_TRUE(session.cache.counters(now));
    return now;
  }

  std::mt19937 random;
  Session session;
  std::vector<int64_t> ids;
  std::vector<std::unique_ptr<Tokens>> tokens; ///< Of each layer.
};

TEST_F(CudaPrefix, RowsBehindAPrefixGiveTheDefinition) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    open(seed);
    {
      Batch batch;
      moa_batch_options options = {};
      options.max_sequences = 3;
      ASSERT_TRUE(batch.create(session.cache, options));
      auto one = std::make_unique<Sequence>();
      EXPECT_EQ(begin(*one), 0);
      feed(*one, 0, 130);
      for (int64_t row = 130; row < 200; ++row)
        step(batch, {one.get()}, row);
      expectRows(0, 200);
      // While it lives, and after it; calls, then steps.
      Sequence two, three;
      EXPECT_EQ(begin(two), 192);
      one.reset();
      EXPECT_EQ(begin(three), 192);
      feed(two, 192, 200);
      feed(three, 192, 195);
      feed(three, 195, 200);
      for (int64_t row = 200; row < 330; ++row)
        step(batch, {&two, &three}, row);
      expectRows(192, 330);
      // Blocks that both filled are held once.
      EXPECT_GT(counters().prefix_pages_merged, 0u);
      for (int64_t row = 330; row < 400; ++row)
        step(batch, {&three}, row);
      expectRows(330, 400);
      for (int64_t row = 330; row < 350; ++row)
        step(batch, {&two}, row);
      expectRows(330, 350);
      EXPECT_EQ(counters().prefix_tokens_reused, 2 * 192u);
    }
    moa_cache_stats stats = {};
    EXPECT_TRUE(session.cache.stats(stats));
    EXPECT_EQ(stats.pages_used, 0u);
    EXPECT_GT(stats.pages_kept, 0u);
    close();
  }
}

/// A page of the index is copied before a sequence that went back writes to it.
TEST_F(CudaPrefix, KeptPagesAreCopiedBeforeTheyAreWritten) {
  for (bool steps : {false, true}) {
    open(3, true);
    {
      Batch batch;
      moa_batch_options options = {};
      options.max_sequences = 1;
      ASSERT_TRUE(batch.create(session.cache, options));
      Sequence one, two;
      EXPECT_EQ(begin(one), 0);
      feed(one, 0, 128);
      ASSERT_TRUE(one.truncate(120));
      // Another row in the place of row 120.
      if (steps)
        step(batch, {&one}, 100);
      else
        feed(one, 100, 101);
      EXPECT_EQ(counters().pages_copied, 4u);
      EXPECT_EQ(begin(two), 128);
      feed(two, 128, 200);
      expectRows(128, 200);
    }
    close();
  }
}

/// Where the device has no memory left, pages that are kept make room.
TEST_F(CudaPrefix, KeptPagesMakeRoom) {
  open(1);
  {
    ASSERT_TRUE(session.cache.setLimit(60 * 4096));
    for (int round = 0; round < 6; ++round) {
      for (int64_t &id : ids)
        id += 10000; // Nothing is there.
      Sequence sequence;
      EXPECT_EQ(begin(sequence), 0);
      for (int64_t row = 0; row < 450; row += 50)
        feed(sequence, row, row + 50);
      expectRows(0, 450);
    }
    EXPECT_GT(counters().prefix_pages_evicted, 0u);
    EXPECT_EQ(counters().failed_calls, 0u);
  }
  close();
}

} // namespace
