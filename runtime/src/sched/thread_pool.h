//===- thread_pool.h - Threads that share one list of work ------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A parallel loop over indices, taken one by one; the caller works too. Threads
// that wait spin for a moment, then sleep.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_THREAD_POOL_H
#define MOA_RT_SCHED_THREAD_POOL_H

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace moa::rt {

class ThreadPool {
public:
  /// What one index does; `scratch` is private to the thread.
  using Body = std::function<void(size_t index, void *scratch)>;

  /// `threads` includes the caller of run(); at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int threads() const { return static_cast<int>(scratch.size()); }

  /// Runs body(0) to body(count - 1), in that order of taking, and returns when
  /// all are done. Every thread gets `scratchBytes`, 64-byte aligned. Calls
  /// from several threads take turns. Throws bad_alloc before any work.
  void run(size_t count, size_t scratchBytes, const Body &body);

private:
  struct Free {
    void operator()(void *memory) const { std::free(memory); }
  };

  void work(size_t thread);
  void stop();
  void take(size_t thread);

  std::mutex turn; ///< Held by the caller of run().
  std::vector<std::unique_ptr<void, Free>> scratch;
  size_t scratchSize = 0;

  const Body *body = nullptr;
  size_t count = 0;
  std::atomic<size_t> next{0};
  std::atomic<size_t> busy{0};         ///< Workers that have not finished.
  std::atomic<uint64_t> generation{0}; ///< Raised for each run and at the end.
  std::atomic<bool> stopping{false};
  std::mutex sleepLock;
  std::condition_variable wake;
  std::vector<std::thread> workers;
};

} // namespace moa::rt

#endif // MOA_RT_SCHED_THREAD_POOL_H
