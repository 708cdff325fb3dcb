//===- SchedulerTestSupport.h - Requests for the scheduler ------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A cache with a scheduler over it, behind the C ABI, and a caller that keeps
// account of every request by itself: what a step feeds is checked entry by
// entry against the rules that moa/scheduler.h states.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_RUNTIME_SCHEDULERTESTSUPPORT_H
#define MOA_TEST_UNIT_RUNTIME_SCHEDULERTESTSUPPORT_H

#include "Reference.h"
#include "api_support.h"
#include "moa/scheduler.h"

#include "gtest/gtest.h"

#include <map>

namespace moa::rt::test {

/// Frees a status; its code.
inline moa_status_code codeOf(moa_status *status) {
  const moa_status_code code = moa_status_get_code(status);
  moa_status_free(status);
  return code;
}

/// Expects a refusal with a code and a part of its message.
inline void expectRefused(moa_status *status, moa_status_code code,
                          const char *part) {
  EXPECT_EQ(moa_status_get_code(status), code);
  EXPECT_NE(std::string(moa_status_get_message(status)).find(part),
            std::string::npos)
      << moa_status_get_message(status);
  moa_status_free(status);
}

/// A model, its cache and a scheduler.
struct Server {
  /// `maxPages` of the cache, 0 for no limit, and the tokens that can be taken
  /// back. Kernels that do nothing keep account of pages alone.
  Server(const Shape &shape, std::mt19937 &random, uint64_t maxPages,
         bool computes, int64_t rollback = 0);
  ~Server() { moa_scheduler_destroy(scheduler); }

  void open(moa_scheduler_options options);
  uint64_t submit(int64_t prompt, int64_t mostNew);
  moa_scheduler_stats stats() const;
  const PagePool &pool() const { return cache.cache->pool; }

  Module module;
  ThreadPool threads;
  moa_cache cache;
  moa_scheduler *scheduler = nullptr;
};

/// What the caller of a scheduler knows of a request.
struct Client {
  int64_t prompt = 0, mostNew = 0, stopAfter = 0;
  int64_t generated = 0;
  int64_t next = 0;         ///< Row that is fed next.
  bool running = false;     ///< As far as steps show.
  bool lost = false;        ///< An aborted step may have cost its rows.
  int64_t restartedAt = -1; ///< Tokens generated when it came back.
};

/// Drives a server and checks every step.
class Caller {
public:
  Caller(Server &server, const moa_scheduler_options &options, uint32_t seed)
      : server(server), options(options), random(seed) {}

  void submit(int64_t prompt, int64_t mostNew);
  void cancelOne();
  /// One step; false where there was nothing to do. `fails`: attention stops
  /// in some layer and the step is aborted.
  bool step(bool fails);

  std::map<uint64_t, Client> clients; ///< That have not ended.
  uint64_t restarts = 0;
  bool aborts = false; ///< A step was aborted so far, or the limit moved.

private:
  void checkStep(const moa_scheduler_step &step);
  void attend(const moa_scheduler_step &step, uint32_t layers);

  Server &server;
  const moa_scheduler_options options;
  std::mt19937 random;
  moa_scheduler_stats before = {};
};

} // namespace moa::rt::test

#endif // MOA_TEST_UNIT_RUNTIME_SCHEDULERTESTSUPPORT_H
