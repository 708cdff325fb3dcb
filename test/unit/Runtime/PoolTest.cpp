//===- PoolTest.cpp - Pages and threads -----------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The page pool never hands a page out twice and refuses whole; the thread pool
// runs every index once.
//
//===----------------------------------------------------------------------===//

#include "cache/page_pool.h"
#include "sched/thread_pool.h"

#include "gtest/gtest.h"

#include <cstring>
#include <random>
#include <set>

using namespace moa::rt;

namespace {

TEST(PagePool, PagesAreDistinctAlignedAndKept) {
  PagePool pool(192, 0);
  std::mt19937 random(1);
  std::vector<PageId> held;
  std::set<PageId> distinct;
  uint64_t most = 0;
  auto stamp = [&](PageId page) {
    std::memset(pool.data(page), int(page * 7 % 251), 192);
  };
  auto intact = [&](PageId page) {
    for (int i = 0; i < 192; ++i)
      if (uint8_t(pool.data(page)[i]) != page * 7 % 251)
        return false;
    return true;
  };
  for (int step = 0; step < 400; ++step) {
    size_t before = held.size();
    ASSERT_FALSE(pool.allocate(random() % 100, held));
    for (size_t i = before; i < held.size(); ++i) {
      ASSERT_TRUE(distinct.insert(held[i]).second) << "page " << held[i];
      ASSERT_EQ(reinterpret_cast<uintptr_t>(pool.data(held[i])) % 64, 0u);
      stamp(held[i]);
    }
    most = std::max<uint64_t>(most, held.size());
    for (size_t drop = random() % (held.size() + 1); drop > 0; --drop) {
      std::swap(held[random() % held.size()], held.back());
      ASSERT_TRUE(intact(held.back()));
      pool.release(held.back());
      distinct.erase(held.back());
      held.pop_back();
    }
    ASSERT_EQ(pool.used(), held.size());
  }
  EXPECT_EQ(pool.highWater(), most);
  EXPECT_GE(pool.reservedBytes(), most * 192);
}

TEST(PagePool, RefusesWholeAndSaysHowMany) {
  PagePool pool(64, 10);
  std::vector<PageId> pages;
  ASSERT_FALSE(pool.allocate(7, pages));
  Status status = pool.allocate(4, pages);
  ASSERT_TRUE(status);
  EXPECT_EQ(status->code, MOA_OUT_OF_PAGES);
  EXPECT_EQ(status->message, "wanted 4 pages of 64 bytes, 3 of 10 are free; "
                             "free sequences or raise max_bytes");
  EXPECT_EQ(pages.size(), 7u);
  EXPECT_EQ(pool.used(), 7u);
  pool.release(pages.back());
  pages.pop_back();
  ASSERT_FALSE(pool.allocate(4, pages));
  EXPECT_EQ(pool.used(), 10u);
  EXPECT_TRUE(pool.allocate(1, pages));
  EXPECT_FALSE(pool.allocate(0, pages));
}

TEST(PagePool, APageIsFreeAfterItsLastHolder) {
  PagePool pool(64, 10);
  std::vector<PageId> pages;
  ASSERT_FALSE(pool.allocate(2, pages));
  pool.share(pages[0]);
  pool.share(pages[0]);
  EXPECT_TRUE(pool.isShared(pages[0]));
  EXPECT_EQ(pool.shared(), 1u);
  EXPECT_EQ(pool.referenced(), 4u);
  EXPECT_EQ(pool.used(), 2u);
  pool.release(pages[0]);
  pool.release(pages[0]);
  EXPECT_FALSE(pool.isShared(pages[0]));
  EXPECT_EQ(pool.shared(), 0u);
  EXPECT_EQ(pool.used(), 2u);
  pool.release(pages[0]);
  EXPECT_EQ(pool.used(), 1u);
  EXPECT_EQ(pool.referenced(), 1u);
}

TEST(PagePool, TheLimitMovesButNotBelowUse) {
  PagePool pool(64, 4);
  std::vector<PageId> pages;
  ASSERT_FALSE(pool.allocate(3, pages));
  Status refused = pool.setLimit(2);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->message, "a limit of 2 pages of 64 bytes, 3 are in use; "
                              "free sequences first");
  EXPECT_EQ(pool.limit(), 4u);
  EXPECT_FALSE(pool.setLimit(3));
  EXPECT_TRUE(pool.allocate(1, pages));
  EXPECT_FALSE(pool.setLimit(5));
  EXPECT_FALSE(pool.allocate(2, pages));
  EXPECT_FALSE(pool.setLimit(0)); // None.
  EXPECT_FALSE(pool.allocate(100, pages));
}

TEST(ThreadPool, EveryIndexOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (size_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(count);
      pool.run(count, 0, [&](size_t i, void *) { ++runs[i]; });
      for (size_t i = 0; i < count; ++i)
        EXPECT_EQ(runs[i], 1) << threads << " threads, index " << i;
    }
  }
}

TEST(ThreadPool, ScratchIsPrivateAndGrows) {
  ThreadPool pool(4);
  for (size_t bytes : {8, 4096, 100, 70000}) {
    std::atomic<int> clashes{0};
    pool.run(200, bytes, [&](size_t i, void *scratch) {
      if (reinterpret_cast<uintptr_t>(scratch) % 64)
        ++clashes;
      std::memset(scratch, int(i), bytes);
      std::this_thread::yield();
      for (size_t b = 0; b < bytes; ++b)
        if (static_cast<uint8_t *>(scratch)[b] != uint8_t(i))
          ++clashes;
    });
    EXPECT_EQ(clashes, 0) << bytes;
  }
}

TEST(ThreadPool, ManyShortRunsAndPausesBetween) {
  ThreadPool pool(3);
  size_t total = 0;
  for (int round = 0; round < 2000; ++round) {
    std::atomic<size_t> done{0};
    pool.run(5, 0, [&](size_t, void *) { ++done; });
    total += done;
    if (round % 500 == 0) // Long enough for the workers to sleep.
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(total, 10000u);
}

TEST(ThreadPool, CallersTakeTurns) {
  ThreadPool pool(2);
  std::atomic<int> inside{0}, clashes{0}, done{0};
  auto caller = [&] {
    for (int i = 0; i < 100; ++i)
      pool.run(1, 0, [&](size_t, void *) {
        if (++inside != 1)
          ++clashes;
        std::this_thread::yield();
        --inside;
        ++done;
      });
  };
  std::thread other(caller);
  caller();
  other.join();
  EXPECT_EQ(clashes, 0);
  EXPECT_EQ(done, 200);
}

} // namespace
