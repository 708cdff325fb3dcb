//===- CudaFaultTest.cpp - Sequences and requests while a driver fails ----===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every driver call of the work that forks, truncations, snapshots in files and
// the scheduler lead to fails once in turn: the state is as before, and what
// comes behind gives the rows of the definition.
//
//===----------------------------------------------------------------------===//

#include "CudaTestSupport.h"

#include "gtest/gtest.h"

#include <cstdio>

using namespace moa;
using namespace moa::test;

namespace {

constexpr double kTolerance = 5e-3;

class CudaFault : public FakeCudaTest {
protected:
  void SetUp() override {
    FakeCudaTest::SetUp();
    Model model;
    model.layers = 2;
    ASSERT_TRUE(session.open(model, 1 << 20));
  }
  void TearDown() override {
    session.cache = Cache();
    session.module = Module();
    session.context = Context();
    FakeCudaTest::TearDown();
  }

  /// Calls `call` with the driver's first call failing, then the second, until
  /// it succeeds; behind each failure nothing has changed, and `mend` may put
  /// things right. How often it failed.
  template <typename Call, typename Mend>
  int failThrough(Call call, Mend mend) {
    for (int64_t at = 1;; ++at) {
      const moa_cache_stats before = stats();
      fakeCuda()->failed.clear();
      fakeCuda()->calls = 0;
      fakeCuda()->failAt = at;
      const Status status = call();
      fakeCuda()->failAt = 0;
      SCOPED_TRACE(fakeCuda()->failed + " at " + std::to_string(at));
      EXPECT_EQ(bool(status), fakeCuda()->failed.empty()) << status.message();
      if (status)
        return int(at) - 1;
      EXPECT_EQ(status.code(), MOA_DEVICE_ERROR) << status.message();
      const moa_cache_stats now = stats();
      EXPECT_EQ(now.pages_used, before.pages_used);
      EXPECT_EQ(now.pages_shared, before.pages_shared);
      EXPECT_EQ(now.pages_referenced, before.pages_referenced);
      EXPECT_EQ(now.sequences, before.sequences);
      mend();
      if (HasFailure())
        return int(at);
    }
  }
  template <typename Call> int failThrough(Call call) {
    return failThrough(call, [] {});
  }
  moa_cache_stats stats() {
    moa_cache_stats now = {};
    EXPECT_TRUE(session.cache.stats(now));
    return now;
  }

  std::mt19937 random{1};
  Session session;
};

TEST_F(CudaFault, ForksThatCopyTheirPages) {
  Tokens tokens(session, 200, random), others(session, 200, random);
  Sequence one, two;
  ASSERT_TRUE(one.create(session.cache, 200));
  for (uint32_t layer : {0, 1})
    ASSERT_TRUE(session.cache.attend(layer, {tokens.entry(one, 0, 100)}));
  // Making one asks nothing of the driver.
  EXPECT_EQ(failThrough([&] { return two.fork(one); }), 0);
  int failures = 0;
  for (uint32_t layer : {0, 1}) {
    // Decode, which copies and appends in one launch, then a chunk.
    failures += failThrough([&] {
      return session.cache.attend(layer, {others.entry(two, 100, 101)});
    });
    failures += failThrough([&] {
      return session.cache.attend(
          layer, {tokens.entry(one, 100, 140), others.entry(two, 101, 150)});
    });
  }
  EXPECT_GT(failures, 20);
  EXPECT_EQ(stats().pages_shared, 4u); // The first page of every head.
  EXPECT_LT(tokens.difference(0, 0, 140, 200, {0, 0}), kTolerance);
  // The fork's rows never reached the other's pages, nor the other way round.
  ASSERT_TRUE(two.truncate(100));
  for (uint32_t layer : {0, 1})
    ASSERT_TRUE(session.cache.attend(layer, {tokens.entry(two, 100, 140)}));
  EXPECT_LT(tokens.difference(1, 100, 140, 200, {0, 0}), kTolerance);
}

TEST_F(CudaFault, RowsBehindATruncation) {
  Tokens tokens(session, 200, random), drafts(session, 200, random);
  for (int64_t token = 0; token < 200; ++token)
    drafts.poison(token, NAN);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 200));
  int failures = 0;
  auto both = [&](Tokens &from, int64_t begin, int64_t end) {
    for (uint32_t layer : {0, 1})
      failures += failThrough([&] {
        return session.cache.attend(layer, {from.entry(sequence, begin, end)});
      });
  };
  both(tokens, 0, 90);
  for (int64_t seen = 90; seen < 150; seen += 20) {
    both(drafts, seen, seen + 8);
    EXPECT_EQ(failThrough([&] { return sequence.truncate(seen); }), 0);
    both(tokens, seen, seen + 20);
  }
  EXPECT_GT(failures, 40);
  EXPECT_LT(tokens.difference(1, 0, 150, 200, {0, 0}), kTolerance);
}

TEST_F(CudaFault, SnapshotsInFiles) {
  Tokens tokens(session, 200, random);
  Sequence one, two;
  ASSERT_TRUE(one.create(session.cache, 200));
  for (uint32_t layer : {0, 1})
    ASSERT_TRUE(session.cache.attend(layer, {tokens.entry(one, 0, 100)}));
  const std::string path = testing::TempDir() + "cuda-fault.mos";
  std::remove(path.c_str());
  // No file comes to be while a call fails.
  int failures = failThrough(
      [&] { return one.snapshot(path); },
      [&] { EXPECT_EQ(two.restore(session.cache, path).code(), MOA_IO); });
  EXPECT_GT(failures, 8);
  failures = failThrough([&] { return two.restore(session.cache, path); });
  EXPECT_GT(failures, 8);
  std::remove(path.c_str());
  one = Sequence();
  for (uint32_t layer : {0, 1})
    ASSERT_TRUE(session.cache.attend(layer, {tokens.entry(two, 100, 150)}));
  EXPECT_LT(tokens.difference(0, 100, 150, 200, {0, 0}), kTolerance);
}

/// Blocks that go to 8 bits, come back for a chunk, and are shared by a fork.
TEST_F(CudaFault, BlocksInEightBits) {
  session.cache = Cache();
  session.module = Module();
  session.context = Context();
  Model model;
  model.kvHeads = 3;
  model.kv8 = true;
  ASSERT_TRUE(session.open(model, 4 << 20));
  const std::vector<int64_t> bound(3, 0);
  Tokens tokens(session, 500, random);
  Sequence one, two;
  ASSERT_TRUE(one.create(session.cache, 500));
  int failures = 0;
  auto feed = [&](Sequence &sequence, int64_t begin, int64_t end) {
    failures += failThrough([&] {
      return session.cache.attend(0, {tokens.entry(sequence, begin, end)});
    });
  };
  feed(one, 0, 300);
  feed(one, 300, 340);
  ASSERT_TRUE(two.fork(one));
  feed(one, 340, 383);
  for (int64_t row = 383; row < 387; ++row)
    feed(one, row, row + 1);
  EXPECT_LT(tokens.difference(0, 0, 387, 500, bound), kTolerance);
  tokens.clearOut();
  feed(two, 340, 460);
  EXPECT_LT(tokens.difference(0, 340, 460, 500, bound), kTolerance);
  Batch batch;
  moa_batch_options options = {};
  options.max_sequences = 1;
  options.max_length = 500;
  ASSERT_TRUE(batch.create(session.cache, options));
  for (int64_t row = 387; row < 450; ++row) {
    failures += failThrough([&] { return batch.begin({one.get()}); });
    moa_attend_entry e = tokens.entry(one, row, row + 1);
    moa_batch_attend_options o = {};
    o.q = {const_cast<void *>(e.q), 0, e.q_row_stride, model.dim};
    o.k = {const_cast<void *>(e.k), 0, e.k_row_stride, model.dim};
    o.v = {const_cast<void *>(e.v), 0, e.v_row_stride, model.dim};
    o.out = {e.out, 0, e.out_row_stride, model.dim};
    failures += failThrough([&] { return batch.attend(o); });
    batch.end();
  }
  EXPECT_GT(failures, 300);
  EXPECT_LT(tokens.difference(0, 387, 450, 500, bound), kTolerance);
}

/// Two requests served while every driver call of every step fails once: a step
/// that failed is given up and made again, and no row counts twice.
TEST_F(CudaFault, StepsOfAScheduler) {
  constexpr int64_t kPrompts[] = {130, 70}, kNew = 4;
  Tokens first(session, 200, random), second(session, 200, random);
  Tokens *tokens[] = {&first, &second};
  Scheduler scheduler;
  ASSERT_TRUE(scheduler.create(session.cache));
  int failures = 0;
  EXPECT_EQ(failThrough([&] {
              uint64_t id = 0;
              return scheduler.submit(kPrompts[0], kNew, id, 0);
            }),
            0);
  uint64_t id = 0;
  ASSERT_TRUE(scheduler.submit(kPrompts[1], kNew, id, 1));
  uint64_t rows = 0;
  for (int64_t failAt = 1; !HasFailure();) {
    moa_scheduler_step step = {};
    ASSERT_TRUE(scheduler.next(step));
    if (!step.count)
      break;
    fakeCuda()->failed.clear();
    fakeCuda()->calls = 0;
    fakeCuda()->failAt = failAt;
    Status status;
    for (uint32_t layer = 0; layer < 2 && status; ++layer) {
      std::vector<moa_attend_entry> entries;
      for (size_t i = 0; i < step.count; ++i) {
        const moa_scheduler_entry &e = step.entries[i];
        moa_attend_entry rowsOf = tokens[e.user]->entry(Sequence(), e.first_row,
                                                        e.first_row + e.tokens);
        rowsOf.sequence = e.sequence;
        entries.push_back(rowsOf);
      }
      status = session.cache.attend(layer, entries);
    }
    fakeCuda()->failAt = 0;
    SCOPED_TRACE(fakeCuda()->failed + " at " + std::to_string(failAt));
    ASSERT_EQ(bool(status), fakeCuda()->failed.empty()) << status.message();
    if (!status) {
      ++failures;
      ++failAt;
      ASSERT_TRUE(scheduler.abortStep());
      continue;
    }
    failAt = 1;
    rows += step.tokens;
    ASSERT_TRUE(scheduler.commit(std::vector<uint8_t>(step.count, 0)));
  }
  moa_scheduler_stats done = {};
  ASSERT_TRUE(scheduler.stats(done));
  EXPECT_EQ(done.finished, 2u);
  EXPECT_EQ(done.aborted_steps, uint64_t(failures));
  EXPECT_GT(failures, 60);
  EXPECT_EQ(done.rows, rows);
  EXPECT_EQ(stats().pages_used, 0u);
  for (int i : {0, 1}) {
    const int64_t length = kPrompts[i] + kNew;
    for (uint32_t layer : {0, 1})
      EXPECT_LT(tokens[i]->difference(layer, 0, length - 1, length, {0, 0}),
                kTolerance)
          << i;
  }
}

} // namespace
