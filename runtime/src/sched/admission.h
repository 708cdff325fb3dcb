//===- admission.h - When a request is let in -------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The rules by which pages are promised to requests: reserved in full, or
// optimistic with a watermark and a guard for requests that were preempted.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_ADMISSION_H
#define MOA_RT_SCHED_ADMISSION_H

#include "sched/request.h"

#include <list>

namespace moa::rt {

/// By arrival; requests move between lists without being copied.
using RequestList = std::list<Request>;

class Admission {
public:
  /// `ownLimit`, in pages, holds beside the cache's; 0 for none.
  Admission(const Cache &cache, bool reserved, uint64_t ownLimit);

  /// Most pages in use, as the cache has it now; 0 for no limit.
  uint64_t limit() const;

  /// Most pages that a request takes next, for one row or for a block of its
  /// prompt.
  uint64_t pagesNext(const Request &request) const;
  /// Whether `more` pages beside `used` ones keep the limit.
  bool fits(uint64_t used, uint64_t more) const {
    return !limit() || used + more <= limit();
  }
  /// Pages to take beside `used` ones.
  uint64_t room(uint64_t used) const {
    return !limit() ? UINT64_MAX : limit() - std::min(limit(), used);
  }

  /// Whether `request` may join `running`, all of which are older. `promised`:
  /// the pages in use, and those that the step's single rows and started
  /// prompts will take; `most`: the sum of most pages over `running`.
  bool admits(const Request &request, const RequestList &running,
              uint64_t promised, uint64_t most) const;

private:
  bool lasts(const Request &request, const RequestList &running) const;

  const Cache &cache;
  const bool reserved;
  const uint64_t ownLimit;
  const uint64_t heads, kv8Heads; ///< KV heads; of these, that keep 8 bits.
};

} // namespace moa::rt

#endif // MOA_RT_SCHED_ADMISSION_H
