//===- api_scheduler.cpp --------------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The C ABI of the scheduler. No exception leaves this file.
//
//===----------------------------------------------------------------------===//

#include "moa/scheduler.h"

#include "api_support.h"
#include "sched/scheduler.h"

using namespace moa::rt;

struct moa_scheduler {
  Scheduler scheduler;
};

namespace {

/// Fills in defaults and checks ranges.
Status readShape(const Cache &cache, moa_scheduler_options o,
                 SchedulerShape &shape) {
  if (o.max_sequences == 0)
    o.max_sequences = 256;
  if (o.max_sequences > MOA_MAX_BATCH)
    return error(MOA_INVALID_ARGUMENT, "max_sequences is ", o.max_sequences,
                 ", expected at most ", MOA_MAX_BATCH);
  // Beside a row of every other sequence there is room for a block of a prompt.
  const int64_t least = int64_t(o.max_sequences) + MOA_BLOCK_KEYS - 1;
  if (o.max_step_tokens == 0)
    o.max_step_tokens = std::max<int64_t>(2048, least);
  if (o.max_step_tokens < least || o.max_step_tokens > INT32_MAX)
    return error(MOA_INVALID_ARGUMENT, "max_step_tokens is ", o.max_step_tokens,
                 ", expected max_sequences + 63 = ", least, " to ", INT32_MAX);
  if (o.chunk_tokens == 0)
    o.chunk_tokens = std::min<int64_t>(512, o.max_step_tokens);
  if (o.chunk_tokens < MOA_BLOCK_KEYS || o.chunk_tokens > o.max_step_tokens)
    return error(MOA_INVALID_ARGUMENT, "chunk_tokens is ", o.chunk_tokens,
                 ", expected ", MOA_BLOCK_KEYS, " to max_step_tokens ",
                 o.max_step_tokens);
  if (o.admission > MOA_ADMIT_RESERVED)
    return error(MOA_INVALID_ARGUMENT, "admission is ", o.admission,
                 ", expected MOA_ADMIT_OPTIMISTIC (0) or MOA_ADMIT_RESERVED "
                 "(1)");
  const uint64_t page = cache.pool.pageBytes();
  MOA_RT_TRY(checkLimit(o.max_bytes, page));
  shape.sequences = o.max_sequences;
  shape.tokens = o.max_step_tokens;
  shape.chunk = o.chunk_tokens;
  shape.reserved = o.admission == MOA_ADMIT_RESERVED;
  shape.limit = o.max_bytes / page;
  return ok();
}

/// The cache of a scheduler, or null for none.
Cache *ownerOf(moa_scheduler *scheduler) {
  return scheduler ? &scheduler->scheduler.owner() : nullptr;
}

} // namespace

extern "C" {

moa_status *moa_scheduler_create(moa_cache *cache,
                                 const moa_scheduler_options *options,
                                 moa_scheduler **out) {
  return guard([&]() -> Status {
    if (!cache || !out)
      return missing(!cache ? "cache" : "out");
    moa_scheduler_options o;
    MOA_RT_TRY(readOptions(options, o, "moa_scheduler_options"));
    SchedulerShape shape;
    MOA_RT_TRY(readShape(*cache->cache, o, shape));
    *out = new moa_scheduler{{*cache->cache, shape}};
    return ok();
  });
}

void moa_scheduler_destroy(moa_scheduler *scheduler) { delete scheduler; }

moa_status *moa_scheduler_submit(moa_scheduler *scheduler,
                                 const moa_scheduler_request *request,
                                 uint64_t *id) {
  return guard([&]() -> Status {
    if (!scheduler || !request || !id)
      return missing(!scheduler ? "scheduler" : !request ? "request" : "id");
    moa_scheduler_request r;
    MOA_RT_TRY(readOptions(request, r, "moa_scheduler_request"));
    return scheduler->scheduler.submit(r, *id);
  });
}

moa_status *moa_scheduler_add_tokens(moa_scheduler *scheduler, uint64_t id,
                                     const int64_t *tokens, size_t count) {
  return guard([&]() -> Status {
    if (!scheduler || !tokens)
      return missing(!scheduler ? "scheduler" : "tokens");
    return scheduler->scheduler.addTokens(id, tokens, count);
  });
}

moa_status *moa_scheduler_cancel(moa_scheduler *scheduler, uint64_t id) {
  return guard([&]() -> Status {
    if (!scheduler)
      return missing("scheduler");
    return scheduler->scheduler.cancel(id);
  });
}

moa_status *moa_scheduler_next(moa_scheduler *scheduler,
                               moa_scheduler_step *step) {
  Cache *owner = ownerOf(scheduler);
  return observe(owner, "scheduler_next", [&](Span &span) -> Status {
    if (!scheduler || !step)
      return missing(!scheduler ? "scheduler" : "step");
    moa_scheduler_step full;
    MOA_RT_TRY(readOptions(step, full, "moa_scheduler_step"));
    MOA_RT_TRY(checkEntrySize(full.entry_size, sizeof(moa_scheduler_entry),
                              "moa_scheduler_entry"));
    const Scheduler &s = scheduler->scheduler;
    MOA_RT_TRY(scheduler->scheduler.next());
    full.entries = s.entries().data();
    full.count = s.entries().size();
    full.decodes = s.decodes();
    full.tokens = s.tokens();
    span.arg("entries", static_cast<int64_t>(full.count));
    span.arg("decodes", static_cast<int64_t>(full.decodes));
    span.arg("rows", full.tokens);
    return writeInfo(full, step, "moa_scheduler_step");
  });
}

moa_status *moa_scheduler_commit(moa_scheduler *scheduler, const uint8_t *stops,
                                 size_t count) {
  Cache *owner = ownerOf(scheduler);
  return observe(owner, "scheduler_commit", [&](Span &span) -> Status {
    if (!scheduler)
      return missing("scheduler");
    span.arg("entries",
             static_cast<int64_t>(scheduler->scheduler.entries().size()));
    return scheduler->scheduler.commit(stops, count);
  });
}

moa_status *moa_scheduler_abort_step(moa_scheduler *scheduler) {
  return guard([&]() -> Status {
    if (!scheduler)
      return missing("scheduler");
    return scheduler->scheduler.abortStep();
  });
}

moa_status *moa_scheduler_get_stats(const moa_scheduler *scheduler,
                                    moa_scheduler_stats *stats) {
  return guard([&]() -> Status {
    if (!scheduler)
      return missing("scheduler");
    moa_scheduler_stats full = {};
    scheduler->scheduler.fill(full);
    return writeInfo(full, stats, "moa_scheduler_stats");
  });
}

} // extern "C"
