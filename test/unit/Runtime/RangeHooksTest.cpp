//===- RangeHooksTest.cpp - Ranges of a profiler around calls -------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Hooks are called where a trace has events, nested and in pairs, from every
// thread; without any, nothing is called.
//
//===----------------------------------------------------------------------===//

#include "ObserveTestSupport.h"

#include "gtest/gtest.h"

#include <map>
#include <mutex>
#include <thread>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

/// Ranges of each thread, with a space for each range around them.
struct Ranges {
  moa_range_hooks hooks() { return {sizeof(moa_range_hooks), push, pop, this}; }
  static void push(void *user, const char *name) {
    auto &self = *static_cast<Ranges *>(user);
    std::lock_guard<std::mutex> locked(self.lock);
    size_t &depth = self.depths[std::this_thread::get_id()];
    self.names.push_back(std::string(depth++, ' ') + name);
  }
  static void pop(void *user) {
    auto &self = *static_cast<Ranges *>(user);
    std::lock_guard<std::mutex> locked(self.lock);
    EXPECT_GT(self.depths[std::this_thread::get_id()]--, 0u);
  }
  void expectClosed() {
    for (const auto &[thread, depth] : depths)
      EXPECT_EQ(depth, 0u);
  }

  std::mutex lock;
  std::map<std::thread::id, size_t> depths;
  std::vector<std::string> names;
};

using Names = std::vector<std::string>;

TEST(RangeHooks, AreCalledWhereATraceHasEvents) {
  Ranges first, second;
  Observed o;
  moa_sequence *a = o.create(1000);
  EXPECT_EQ(o.attend(0, a, 5), nullptr); // Before them.
  moa_range_hooks hooks = first.hooks();
  ASSERT_EQ(moa_context_set_range_hooks(o.context, &hooks), nullptr);
  hooks = {}; // They were copied.
  EXPECT_EQ(o.attend(1, a, 5), nullptr);
  expectRefused(o.attend(7, a, 2), MOA_INVALID_ARGUMENT, "layer");
  o.serve(10);
  EXPECT_EQ(first.names, (Names{"attend", " run", "attend", "scheduler_next",
                                "attend", " run", "attend", " run",
                                "scheduler_commit", "scheduler_commit"}));
  // Others in their place, then none.
  hooks = second.hooks();
  ASSERT_EQ(moa_context_set_range_hooks(o.context, &hooks), nullptr);
  o.step({a}, /*cancels=*/false);
  ASSERT_EQ(moa_context_set_range_hooks(o.context, nullptr), nullptr);
  EXPECT_EQ(o.attend(0, a, 1), nullptr);
  EXPECT_EQ(first.names.size(), 10u);
  EXPECT_EQ(second.names, (Names{"batch_begin", "batch_attend", " run",
                                 "batch_attend", " run", "batch_end"}));
  first.expectClosed();
  second.expectClosed();
}

TEST(RangeHooks, StandBesideATrace) {
  TemporaryFile file;
  Ranges ranges;
  Observed o;
  moa_sequence *a = o.create(1000);
  const moa_range_hooks hooks = ranges.hooks();
  ASSERT_EQ(moa_context_set_range_hooks(o.context, &hooks), nullptr);
  ASSERT_EQ(moa_context_set_trace(o.context, file.path()), nullptr);
  EXPECT_EQ(o.attend(0, a, 5), nullptr);
  ASSERT_EQ(moa_context_set_trace(o.context, nullptr), nullptr);
  EXPECT_EQ(readTrace(file).size(), 2u);
  EXPECT_EQ(ranges.names, (Names{"attend", " run"}));
}

/// Set, changed and taken away while other threads call.
TEST(RangeHooks, MayChangeBesideCalls) {
  Ranges ranges[2];
  Observed o;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      Observed own(o);
      moa_sequence *sequence = own.create(1000);
      for (int call = 0; call < 200; ++call)
        EXPECT_EQ(own.attend(0, sequence, 1), nullptr);
    });
  for (int change = 0; change < 100; ++change) {
    const moa_range_hooks hooks = ranges[change % 2].hooks();
    ASSERT_EQ(
        moa_context_set_range_hooks(o.context, change % 3 ? &hooks : nullptr),
        nullptr);
    std::this_thread::yield();
  }
  for (std::thread &thread : threads)
    thread.join();
  for (Ranges &own : ranges)
    own.expectClosed();
}

TEST(RangeHooks, Refusals) {
  Ranges ranges;
  Observed o;
  moa_range_hooks hooks = ranges.hooks();
  expectRefused(moa_context_set_range_hooks(nullptr, &hooks),
                MOA_INVALID_ARGUMENT, "context is NULL");
  hooks.push = nullptr;
  expectRefused(moa_context_set_range_hooks(o.context, &hooks),
                MOA_INVALID_ARGUMENT, "moa_range_hooks.push is NULL");
  hooks = ranges.hooks();
  hooks.pop = nullptr;
  expectRefused(moa_context_set_range_hooks(o.context, &hooks),
                MOA_INVALID_ARGUMENT, "moa_range_hooks.pop is NULL");
  hooks.struct_size = 0;
  expectRefused(moa_context_set_range_hooks(o.context, &hooks),
                MOA_INVALID_ARGUMENT, "moa_range_hooks.struct_size is 0");
}

} // namespace
