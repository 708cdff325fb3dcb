//===- request.h - One request of the scheduler -----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Lengths and pages of one request. Pages are counted in closed form from the
// rules, before a sequence holds them.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_REQUEST_H
#define MOA_RT_SCHED_REQUEST_H

#include "cache/cache.h"

#include <algorithm>

namespace moa::rt {

struct Request {
  uint64_t id = 0, user = 0;
  uint64_t salt = 0;
  std::vector<int64_t> tokens; ///< Known ones; empty where nothing is reused.
  int64_t prompt = 0, mostNew = 0; ///< Tokens.
  int64_t generated = 0;
  int64_t seen = 0;   ///< Rows of the sequence.
  int64_t fed = 0;    ///< Most rows that a sequence of it ever had.
  int64_t common = 0; ///< First tokens that it shares with others.
  Sequence *sequence = nullptr;
  uint64_t most = 0;      ///< Most pages in its life.
  uint64_t now = 0;       ///< Most pages while the tokens known so far are fed.
  uint64_t held = 0;      ///< At least the pages that the sequence holds.
  uint64_t claim = 0;     ///< Pages that the step at hand must have for it.
  bool runs = false;      ///< Else it waits.
  bool preempted = false; ///< Was, at least once.
  bool inStep = false;    ///< Part of the step under way.
  bool cancelled = false; ///< Goes when that is over.

  /// N of the length rule.
  int64_t length() const { return prompt + mostNew; }
  /// Rows that can be fed now.
  int64_t rows() const { return prompt + generated - seen; }
  /// Whether more than the row of its newest token is to be fed.
  bool prefills() const { return rows() > 1; }
};

/// Most pages that a sequence of length `n` holds at once while its first
/// `rows` rows are fed, by at most a block at a time: those held when the last
/// block begins, and the block. Never falls with `rows`, because no span does.
uint64_t mostPages(const Cache &cache, int64_t n, int64_t rows);

/// Pages that rows [seen, seen + rows) take, before others go back.
uint64_t newPages(const Cache &cache, int64_t n, int64_t seen, int64_t rows);

} // namespace moa::rt

#endif // MOA_RT_SCHED_REQUEST_H
