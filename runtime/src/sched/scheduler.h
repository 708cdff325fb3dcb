//===- scheduler.h - Continuous batching ------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Owns the sequences of requests and decides what each step feeds; see
// moa/scheduler.h for the rules. Every running request is older than every one
// that waits: the youngest is preempted first and let in last.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_SCHEDULER_H
#define MOA_RT_SCHED_SCHEDULER_H

#include "moa/scheduler.h"
#include "sched/admission.h"

#include <unordered_map>
#include <vector>

namespace moa::rt {

/// Checked options, nothing left to default.
struct SchedulerShape {
  size_t sequences = 0; ///< Running at a time.
  int64_t tokens = 0;   ///< Rows of a step.
  int64_t chunk = 0;    ///< Rows of one prompt in a step.
  bool reserved = false;
  uint64_t limit = 0; ///< Pages, beside the cache's limit; 0 = none.
};

class Scheduler {
public:
  Scheduler(Cache &cache, const SchedulerShape &shape);
  ~Scheduler();
  Scheduler(const Scheduler &) = delete;
  Scheduler &operator=(const Scheduler &) = delete;

  Status submit(const moa_scheduler_request &submitted, uint64_t &id);
  Status addTokens(uint64_t id, const int64_t *tokens, size_t count);
  Status cancel(uint64_t id);
  /// Begins a step, if there is anything to do: entries() then has it.
  Status next();
  Status commit(const uint8_t *stops, size_t count);
  Status abortStep();

  const std::vector<moa_scheduler_entry> &entries() const { return step; }
  size_t decodes() const { return singles; }
  int64_t tokens() const { return stepTokens; }
  void fill(moa_scheduler_stats &stats) const;
  Cache &owner() const { return cache; }

private:
  using Place = RequestList::iterator;

  /// Rows to feed of a prompt, and the pages they take.
  struct Chunk {
    int64_t tokens = 0;
    uint64_t pages = 0;
  };

  Status find(uint64_t id, Place &place);
  void claimPages();
  Status countSurvivors(uint64_t used, size_t &survivors);
  void build(size_t survivors, uint64_t used);
  void admit(uint64_t used, uint64_t promised);
  bool admitNext(const PrefixMatch &match, uint64_t &used, uint64_t &promised);
  Chunk chunkOf(const Request &request, uint64_t used) const;
  void addEntry(Place place, int64_t tokens) noexcept;
  void makeSequence(Place place, const PrefixMatch &match = {});
  void dropSequence(Request &request) noexcept;
  void sendBack() noexcept;
  void undo(size_t started) noexcept;
  void remove(Place place) noexcept;
  void closeStep() noexcept;
  Status checkFed(size_t entry) const;

  Cache &cache;
  const SchedulerShape shape;
  const Admission admission;
  uint64_t lastId = 0;
  uint64_t mostSum = 0; ///< Of Request::most over running ones.
  RequestList running, waiting;
  std::unordered_map<uint64_t, Place> byId;
  // The step at hand, if any; there is room for every running request.
  std::vector<moa_scheduler_entry> step;
  std::vector<Place> members; ///< Of each entry.
  std::vector<Place> made;    ///< Got their sequences for this step.
  size_t singles = 0;
  int64_t stepTokens = 0;
  moa_scheduler_stats counts = {};
};

} // namespace moa::rt

#endif // MOA_RT_SCHED_SCHEDULER_H
