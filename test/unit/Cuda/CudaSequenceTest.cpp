//===- CudaSequenceTest.cpp - Forks, truncation, snapshots on CUDA --------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// On the fake driver: pages copied by calls and by steps of a batch whose
// tables lie on the device, rows after sequences went back, bytes to and from
// the device; every call of the driver failing in turn.
//
//===----------------------------------------------------------------------===//

#include "CudaTestSupport.h"

#include "gtest/gtest.h"

using namespace moa;
using namespace moa::test;

namespace {

constexpr double kTolerance = 5e-3;

class CudaSequence : public FakeCudaTest {
protected:
  void TearDown() override {
    close();
    FakeCudaTest::TearDown();
  }
  void close() {
    session.cache = Cache();
    session.module = Module();
    session.context = Context();
  }
  void forkAndDecode(bool decode);
  moa_cache_stats stats() {
    moa_cache_stats now = {};
    EXPECT_TRUE(session.cache.stats(now));
    return now;
  }
  /// One row by a step of a batch; its tensors are those of the tokens.
  Status step(Batch &batch, const std::vector<Sequence *> &members,
              Tokens &tokens, int64_t row) {
    std::vector<moa_sequence *> handles;
    for (Sequence *member : members)
      handles.push_back(member->get());
    if (Status status = batch.begin(handles); !status)
      return status;
    moa_attend_entry e = tokens.entry(*members[0], row, row + 1);
    moa_batch_attend_options o = {};
    // Every member gets the same row.
    const int64_t dim = session.model.dim;
    o.q = {const_cast<void *>(e.q), 0, e.q_row_stride, dim};
    o.k = {const_cast<void *>(e.k), 0, e.k_row_stride, dim};
    o.v = {const_cast<void *>(e.v), 0, e.v_row_stride, dim};
    o.out = {e.out, 0, e.out_row_stride, dim};
    return batch.attend(o);
  }

  std::mt19937 random{1};
  Session session;
};

/// With a decode kernel, which appends by itself, or without.
void CudaSequence::forkAndDecode(bool decode) {
  Model model;
  model.decode = decode;
  ASSERT_TRUE(session.open(model, 1 << 20));
  Tokens a(session, 200, random), b(session, 200, random);
  Sequence one, two;
  ASSERT_TRUE(one.create(session.cache, 200));
  // The same 100 tokens, then others.
  ASSERT_TRUE(session.cache.attend(0, {a.entry(one, 0, 100)}));
  ASSERT_TRUE(two.fork(one));
  EXPECT_EQ(stats().pages_used, 4u);
  EXPECT_EQ(stats().pages_shared, 4u);
  EXPECT_EQ(stats().pages_referenced, 8u);
  ASSERT_TRUE(session.cache.attend(0, {b.entry(two, 100, 101)}));
  EXPECT_EQ(stats().pages_used, 6u);
  EXPECT_EQ(stats().pages_shared, 2u);
  ASSERT_TRUE(session.cache.attend(0, {a.entry(one, 100, 101)}));
  ASSERT_TRUE(session.cache.attend(0, {a.entry(one, 101, 140)}));
  EXPECT_LT(a.difference(0, 0, 140, 200, {0, 0}), kTolerance);
  // The fork goes back to where it came from, and takes the other's rows.
  ASSERT_TRUE(two.truncate(100));
  ASSERT_TRUE(session.cache.attend(0, {a.entry(two, 100, 101)}));
  ASSERT_TRUE(session.cache.attend(0, {a.entry(two, 101, 140)}));
  EXPECT_LT(a.difference(0, 0, 140, 200, {0, 0}), kTolerance);
  one = Sequence();
  ASSERT_TRUE(session.cache.attend(0, {a.entry(two, 140, 200)}));
  EXPECT_LT(a.difference(0, 140, 200, 200, {0, 0}), kTolerance);
  two = Sequence();
  EXPECT_EQ(stats().pages_used, 0u);
}

TEST_F(CudaSequence, ForksGoTheirOwnWays) {
  for (bool decode : {true, false}) {
    forkAndDecode(decode);
    close();
  }
}

/// What is not finite in rows that were taken back does not come back.
TEST_F(CudaSequence, RowsTakenBackLeaveNothing) {
  ASSERT_TRUE(session.open(Model(), 1 << 20));
  Tokens good(session, 200, random), bad(session, 200, random);
  for (int64_t token = 0; token < 200; ++token)
    bad.poison(token, NAN);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 200));
  ASSERT_TRUE(session.cache.attend(0, {good.entry(sequence, 0, 90)}));
  int64_t seen = 90;
  for (int64_t chunk : {1, 5, 1, 30, 1}) {
    ASSERT_TRUE(
        session.cache.attend(0, {bad.entry(sequence, seen, seen + 20)}));
    ASSERT_TRUE(sequence.truncate(seen));
    ASSERT_TRUE(
        session.cache.attend(0, {good.entry(sequence, seen, seen + chunk)}));
    seen += chunk;
  }
  EXPECT_LT(good.difference(0, 0, seen, 200, {0, 0}), kTolerance);
}

/// Steps see the pages of forks and of sequences that went back, and every call
/// of the driver fails once in a step that copies.
TEST_F(CudaSequence, StepsCopyPages) {
  std::set<std::string> functions;
  for (int64_t at = 0;; ++at) {
    fakeCuda()->reset();
    ASSERT_TRUE(session.open(Model(), 4 << 20));
    {
      Tokens a(session, 300, random);
      Sequence one, two;
      ASSERT_TRUE(one.create(session.cache, 300));
      ASSERT_TRUE(session.cache.attend(0, {a.entry(one, 0, 100)}));
      Batch batch;
      moa_batch_options options = {};
      options.max_sequences = 2;
      ASSERT_TRUE(batch.create(session.cache, options));
      ASSERT_TRUE(step(batch, {&one}, a, 100));
      batch.end();
      ASSERT_TRUE(two.fork(one));
      const moa_cache_stats before = stats();
      fakeCuda()->calls = 0;
      fakeCuda()->failAt = at;
      Status status = step(batch, {&one, &two}, a, 101);
      fakeCuda()->failAt = 0;
      const std::string failed = fakeCuda()->failed;
      SCOPED_TRACE(failed + " at " + std::to_string(at));
      ASSERT_EQ(bool(status), failed.empty()) << status.message();
      if (!status) {
        functions.insert(failed);
        batch.cancel();
        EXPECT_EQ(stats().pages_used, before.pages_used);
        EXPECT_EQ(stats().pages_shared, before.pages_shared);
        ASSERT_TRUE(step(batch, {&one, &two}, a, 101));
      }
      Sequence three;
      EXPECT_EQ(three.fork(one).code(), MOA_INVALID_ARGUMENT);
      EXPECT_EQ(one.truncate(0).code(), MOA_INVALID_ARGUMENT);
      batch.end();
      EXPECT_EQ(stats().pages_shared, 2u);
      EXPECT_EQ(stats().pages_used, 6u);
      for (int64_t row = 102; row < 140; ++row) {
        ASSERT_TRUE(step(batch, {&two}, a, row));
        batch.end();
      }
      ASSERT_TRUE(two.truncate(110));
      for (int64_t row = 110; row < 150; ++row) {
        ASSERT_TRUE(step(batch, {&two}, a, row));
        batch.end();
      }
      ASSERT_LT(a.difference(0, 0, 150, 300, {0, 0}), kTolerance);
      a.clearOut();
      for (int64_t row = 102; row < 150; ++row) {
        ASSERT_TRUE(step(batch, {&one}, a, row));
        batch.end();
      }
      ASSERT_LT(a.difference(0, 102, 150, 300, {0, 0}), kTolerance);
      if (at > 0 && failed.empty())
        at = -2;
    }
    close();
    if (at == -2)
      break;
  }
  for (const char *name :
       {"cuLaunchKernel", "cuMemcpyHtoDAsync", "cuStreamIsCapturing"})
    EXPECT_TRUE(functions.count(name)) << name << " never failed";
}

TEST_F(CudaSequence, StoredAndRestoredWithEveryFailure) {
  ASSERT_TRUE(session.open(Model(), 1 << 20));
  Tokens a(session, 200, random);
  Sequence one;
  ASSERT_TRUE(one.create(session.cache, 200));
  ASSERT_TRUE(session.cache.attend(0, {a.entry(one, 0, 100)}));
  std::vector<char> bytes, other;
  ASSERT_TRUE(one.snapshot(bytes));
  int failures = 0;
  for (bool restore : {false, true})
    for (int64_t at = 1;; ++at) {
      const uint64_t used = stats().pages_used;
      Sequence two;
      fakeCuda()->failed.clear();
      fakeCuda()->calls = 0;
      fakeCuda()->failAt = at;
      Status status =
          restore ? two.restore(session.cache, bytes) : one.snapshot(other);
      fakeCuda()->failAt = 0;
      ASSERT_EQ(bool(status), fakeCuda()->failed.empty()) << status.message();
      if (status) {
        EXPECT_EQ(stats().pages_used, used + (restore ? 4 : 0));
        if (restore) {
          ASSERT_TRUE(session.cache.attend(0, {a.entry(two, 100, 101)}));
          ASSERT_TRUE(session.cache.attend(0, {a.entry(two, 101, 150)}));
          EXPECT_LT(a.difference(0, 0, 150, 200, {0, 0}), kTolerance);
        } else {
          EXPECT_EQ(bytes, other);
        }
        break;
      }
      ++failures;
      EXPECT_EQ(stats().pages_used, used);
    }
  EXPECT_GT(failures, 8);
}

TEST_F(CudaSequence, TheLimitStaysWithinTheAddresses) {
  ASSERT_TRUE(session.open(Model(), 1 << 20));
  EXPECT_TRUE(session.cache.setLimit(1 << 18));
  EXPECT_TRUE(session.cache.setLimit(1 << 20));
  Status refused = session.cache.setLimit(2 << 20);
  EXPECT_EQ(refused.code(), MOA_INVALID_ARGUMENT);
  EXPECT_NE(std::string(refused.message()).find("was made for 256"),
            std::string::npos)
      << refused.message();
  EXPECT_TRUE(session.cache.setLimit(0));
  EXPECT_EQ(stats().pages_limit, 256u);
}

} // namespace
