//===- thread_pool.cpp - Threads that share one list of work --------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of thread_pool.h.
//
//===----------------------------------------------------------------------===//

#include "sched/thread_pool.h"

#include <chrono>
#include <cstdlib>
#include <new>

namespace moa::rt {
namespace {

/// How long a thread spins before it sleeps or yields.
constexpr auto kSpin = std::chrono::microseconds(50);

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Spins until `done` or for kSpin; whether it is done.
template <typename Done> bool spin(Done done) {
  auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 64; ++i) {
      if (done())
        return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() - start < kSpin);
  return done();
}

} // namespace

ThreadPool::ThreadPool(int threads) : scratch(threads < 1 ? 1 : threads) {
  workers.reserve(scratch.size() - 1);
  try {
    for (size_t i = 1; i < scratch.size(); ++i)
      workers.emplace_back([this, i] { work(i); });
  } catch (...) { // Those that started are waited for.
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stopping = true;
  {
    std::lock_guard<std::mutex> lock(sleepLock);
    ++generation;
  }
  wake.notify_all();
  for (std::thread &worker : workers)
    worker.join();
}

void ThreadPool::take(size_t thread) {
  for (size_t i = next.fetch_add(1, std::memory_order_relaxed); i < count;
       i = next.fetch_add(1, std::memory_order_relaxed))
    (*body)(i, scratch[thread].get());
}

void ThreadPool::work(size_t thread) {
  uint64_t seen = 0;
  while (true) {
    auto changed = [&] { return generation.load() != seen; };
    if (!spin(changed)) {
      std::unique_lock<std::mutex> lock(sleepLock);
      wake.wait(lock, changed);
    }
    seen = generation.load();
    if (stopping)
      return;
    take(thread);
    busy.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::run(size_t items, size_t scratchBytes, const Body &work) {
  if (items == 0)
    return;
  std::lock_guard<std::mutex> lock(turn);
  if (scratchBytes > scratchSize || !scratch[0]) {
    size_t rounded = (scratchBytes + 64) / 64 * 64;
    for (auto &memory : scratch) {
      memory.reset(std::aligned_alloc(64, rounded));
      if (!memory) {
        scratchSize = 0;
        throw std::bad_alloc();
      }
    }
    scratchSize = rounded;
  }
  body = &work;
  count = items;
  next.store(0, std::memory_order_relaxed);
  if (items == 1 || workers.empty()) {
    take(0);
    return;
  }
  busy.store(workers.size(), std::memory_order_relaxed);
  {
    std::lock_guard<std::mutex> sleeping(sleepLock);
    ++generation;
  }
  wake.notify_all();
  take(0);
  auto idle = [&] { return busy.load(std::memory_order_acquire) == 0; };
  while (!spin(idle))
    std::this_thread::yield();
}

} // namespace moa::rt
