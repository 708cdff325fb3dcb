//===- scheduler.h - C ABI of the continuous batching scheduler -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Decides which rows of which requests a step feeds. It owns the sequences of
// its requests and decides by lengths: tensors and sampling stay with the
// caller, who attends to every layer of a step between next and commit. Tokens
// are needed only where requests are to reuse prefixes (moa/prefix.h).
//
// Order. Requests start in the order of arrival. A step first feeds one row of
// every running request whose next token waits for it, then chunks of prompts,
// the oldest first: each at most `chunk_tokens` rows, so that shorter requests
// behind a long prompt get the rest of `max_step_tokens`. Chunks end at
// multiples of 64 rows or with the prompt, and where its tokens are no longer
// those of others. Between two tokens of a running
// request lies one step, never more; every step feeds at least 64 rows of the
// oldest unfinished prompt, or what is left of it.
//
// Pages. A step is made only of rows whose pages are there. A request is let in
//   - MOA_ADMIT_OPTIMISTIC: when the pages of its prompt are there, beside what
//     started prompts still need and 1 % of the limit. When pages run out
//     later, the youngest running requests are preempted: their sequences go,
//     and they wait, in order of arrival, to be fed again from row 0. One that
//     was preempted comes back only when the pages of all running requests and
//     its own last until it has 64 more tokens, so it has these, or its end,
//     before it can be preempted again (unless a step is aborted, or others
//     take pages of the cache).
//   - MOA_ADMIT_RESERVED: when the most pages that it and every running request
//     can ever hold at once are there. Nothing is preempted then, as long as
//     others leave the pages of the cache alone and its limit is not lowered.
// Every step keeps the cache's limit at that moment (moa_cache_set_limit).
// In both the oldest request always goes on, so all of them end. Decisions
// follow from the order of calls alone.
//
// Rows. A request's rows are its prompt tokens, then its generated tokens: row
// prompt_tokens + i is the i-th token that was sampled for it. An entry asks
// for rows first_row to first_row + tokens - 1. After preemption or abort the
// rows start from 0 again, generated tokens included: keep them all until the
// request ends. Rows fed again in chunks may differ in rounding from the same
// rows fed one by one. A request whose tokens are known starts, and comes back,
// with the rows that its cache has pages of, and is asked for those behind.
//
// Errors, structs and threads as in runtime.h. A scheduler belongs to the
// thread of its cache. It borrows the cache: destroy it first.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_SCHEDULER_H
#define MOA_SCHEDULER_H

#include "moa/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct moa_scheduler moa_scheduler;

/// When a request is let in. Since: 1.3
enum { MOA_ADMIT_OPTIMISTIC = 0, MOA_ADMIT_RESERVED = 1 };

typedef struct moa_scheduler_options {
  size_t struct_size;
  uint32_t max_sequences; ///< Running at a time; 0 = 256.
  uint32_t admission;     ///< MOA_ADMIT_*.
  /// Rows of a step, at least max_sequences + 63; 0 = 2048 or that.
  int64_t max_step_tokens;
  /// Rows of one prompt in a step, 64 to max_step_tokens; 0 = 512.
  int64_t chunk_tokens;
  /// Most bytes of pages that the cache uses in a step, those of sequences
  /// outside of the scheduler included; 0 = the cache's limit, which holds in
  /// any case, as it is at each call.
  uint64_t max_bytes;
} moa_scheduler_options;

/// Makes a scheduler without requests; `options` may be NULL. Caller owns
/// `*out`. Fails with MOA_INVALID_ARGUMENT for options out of range.
/// Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_scheduler_create(moa_cache *cache,
                                         const moa_scheduler_options *options,
                                         moa_scheduler **out);
/// Destroys the scheduler and the sequences of its requests, those of a step
/// under way too. NULL is allowed. Threads: the cache's. Since: 1.3
MOA_API void moa_scheduler_destroy(moa_scheduler *scheduler);

typedef struct moa_scheduler_request {
  size_t struct_size;
  int64_t prompt_tokens;  ///< At least 1.
  int64_t max_new_tokens; ///< Tokens to sample at most; at least 1.
  uint64_t user;          ///< Given back in every entry.
  /// The prompt's tokens, copied, to begin with a prefix that is there, and for
  /// others to begin with; NULL: nothing is reused. The cache has prefix reuse
  /// on. Since: 1.4
  const int64_t *tokens;
  uint64_t salt; ///< As in moa_sequence_reuse. Since: 1.4
} moa_scheduler_request;

/// Adds a request behind those that wait; its number, from 1 on, goes to
/// `*id`. Allowed while a step is under way. Fails with MOA_OUT_OF_RANGE if
/// prompt and new tokens exceed the artifact's max length, with
/// MOA_OUT_OF_PAGES if the most pages that it holds at once exceed the limit:
/// it could never run. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_scheduler_submit(moa_scheduler *scheduler,
                                         const moa_scheduler_request *request,
                                         uint64_t *id);
/// Says which tokens follow those of a request that are known: sampled ones, so
/// that others can begin with them, and the request itself should it be
/// preempted. Fails with MOA_INVALID_ARGUMENT for a request that is not there,
/// that was submitted without tokens, for more tokens than committed steps have
/// sampled, and while the step of a moa_batch is under way that has its
/// sequence. Threads: the cache's. Since: 1.4
MOA_API moa_status *moa_scheduler_add_tokens(moa_scheduler *scheduler,
                                             uint64_t id, const int64_t *tokens,
                                             size_t count);
/// Takes a request away and gives its pages back; if it is part of the step
/// under way, when that is committed or aborted. Fails with
/// MOA_INVALID_ARGUMENT for a request that is not there (any more).
/// Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_scheduler_cancel(moa_scheduler *scheduler, uint64_t id);

/// What a step feeds of one request. Since: 1.3
typedef struct moa_scheduler_entry {
  uint64_t request; ///< Its number.
  uint64_t user;    ///< As submitted.
  /// Owned by the scheduler and valid until the step is over; to be passed to
  /// moa_attend or a batch and read, not to be changed or destroyed.
  moa_sequence *sequence;
  int64_t first_row; ///< Row of the sequence that the first token becomes.
  int64_t tokens;    ///< At least 1.
  int64_t generated; ///< Tokens sampled for the request so far.
  uint32_t samples;  ///< 1: a token is sampled from the last row.
  uint32_t last;     ///< 1: that token is the last of max_new_tokens.
} moa_scheduler_entry;

typedef struct moa_scheduler_step {
  size_t struct_size;
  size_t entry_size; ///< In: sizeof(moa_scheduler_entry).
  /// Borrowed; valid until the step is over.
  const moa_scheduler_entry *entries;
  size_t count; ///< 0: nothing to do, and no step is under way.
  /// The first so many entries have one token each and sample.
  size_t decodes;
  int64_t tokens; ///< Of all entries.
} moa_scheduler_step;

/// Begins a step: fills `*step` up to its struct_size. The caller then attends
/// to all entries in every layer: in one call of moa_attend a layer, or, where
/// all have one token (tokens == count), in a step of a moa_batch. Then commit
/// or abort. Fails with MOA_INVALID_ARGUMENT while a step is under way, and
/// with MOA_OUT_OF_PAGES if not even the oldest request can go on because
/// others hold pages of the cache. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_scheduler_next(moa_scheduler *scheduler,
                                       moa_scheduler_step *step);
/// Ends the step: its rows count. `stops[i]` other than 0 ends the request of
/// entry i with the token just sampled; requests with max_new_tokens end by
/// themselves. The pages of requests that end go back. `stops` has `count`
/// values, the step's count, or is NULL where none ends. Fails with
/// MOA_INVALID_ARGUMENT, the step still under way, if none is, if a request
/// stops at an entry that does not sample, or if a layer was not attended to.
/// Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_scheduler_commit(moa_scheduler *scheduler,
                                         const uint8_t *stops, size_t count);
/// Gives the step up after a failure: no row of it counts, no token was
/// sampled. Requests whose sequences the step has not touched go on as they
/// were; where some layers had been attended to, the sequence goes and its
/// rows are fed again from 0, the request keeping its place. (A call of
/// moa_attend that failed changed nothing and may also be made again.) Fails
/// with MOA_INVALID_ARGUMENT if no step is under way, or while the step of a
/// moa_batch is that has its sequences. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_scheduler_abort_step(moa_scheduler *scheduler);

typedef struct moa_scheduler_stats {
  size_t struct_size;
  uint64_t waiting, running; ///< Requests now.
  uint64_t submitted, finished, cancelled;
  uint64_t preemptions;
  uint64_t steps, aborted_steps; ///< Committed, given up.
  uint64_t rows;                 ///< Of committed steps.
  uint64_t rows_again;           ///< Of these, fed before and lost.
  uint64_t limit_bytes;          ///< Of pages; 0 = no limit.
  /// Sum over running requests of the most bytes that each can hold at once.
  uint64_t most_bytes;
} moa_scheduler_stats;

/// Fills `*stats` up to its struct_size. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_scheduler_get_stats(const moa_scheduler *scheduler,
                                            moa_scheduler_stats *stats);

#ifdef __cplusplus
}
#endif

#endif // MOA_SCHEDULER_H
