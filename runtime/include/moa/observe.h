//===- observe.h - C ABI of counters and traces ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a cache has done so far, as numbers and as text for Prometheus, and when
// calls began and ended, as a file that Perfetto and chrome://tracing open, or
// as ranges of a profiler such as NVTX's.
//
// Counters are always on: a few additions a call, none in kernels. They begin
// at 0 with the cache and only go up, but for page_bytes. A scheduler's own
// numbers, such as preemptions, are in moa_scheduler_stats (moa/scheduler.h).
//
// Errors, structs and threads as in runtime.h.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_OBSERVE_H
#define MOA_OBSERVE_H

#include "moa/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/// A row is a token in one layer. Since: 1.3
typedef struct moa_counters {
  size_t struct_size;
  uint64_t attend_calls;       ///< Of moa_attend, successful.
  uint64_t batch_attend_calls; ///< Of moa_batch_attend, successful; a replay of
                               ///< a captured call is none.
  /// Calls that returned a status, of moa_attend, moa_batch_begin,
  /// moa_batch_attend, moa_scheduler_next and moa_scheduler_commit.
  uint64_t failed_calls;
  uint64_t batch_steps; ///< Ended, not cancelled.
  /// Appended, each once, with its row in layer 0: when moa_attend returns,
  /// when a step ends.
  uint64_t tokens;
  /// Rows of all layers, by the kernel that attends to them; counted as
  /// `tokens` is. What is truncated later stays counted.
  uint64_t prefill_rows, decode_rows;
  /// Pages that left the pool, those of failed calls too, and that came back,
  /// each from its last holder. The difference is what is in use.
  uint64_t pages_taken, pages_returned;
  /// Shared pages that a sequence copied in order to write to them; when
  /// moa_attend returns, when a step ends.
  uint64_t pages_copied;
  uint64_t page_bytes;            ///< Of pages in use now: goes up and down.
  uint64_t page_bytes_high_water; ///< Largest page_bytes so far.
  uint64_t out_of_pages;          ///< Times the pool had too few pages.
  /// Items of attention kernels on lists that the host made; counted when they
  /// have run (CPU) or are enqueued (CUDA). Steps cut on a device have none.
  uint64_t work_items;
  uint64_t work_splits; ///< Of work_items on the CPU: further shares of decode
                        ///< rows that were cut because their windows are long.
  /// CUDA: time the host waited until a buffer for tables was free again.
  uint64_t staging_wait_ns;
  uint64_t sequences_created; ///< By moa_sequence_create and by schedulers.
  uint64_t sequences_forked;
  uint64_t sequences_truncated; ///< Successful calls.
  uint64_t sequences_restored;
  // Prefix reuse (moa/prefix.h); 0 where it is off. Since: 1.4
  uint64_t prefix_tokens_asked;  ///< Of sequences that began with their tokens
                                 ///< known: moa_sequence_reuse, schedulers.
  uint64_t prefix_tokens_reused; ///< Of these, whose pages were there.
  uint64_t prefix_pages_reused;  ///< That sequences began with.
  uint64_t prefix_pages_merged;  ///< That went back because another sequence
                                 ///< had computed the same.
  uint64_t prefix_pages_evicted; ///< Given up: others wanted them.
  /// Bytes of pages that sequences did not have to hold for themselves: of
  /// those reused and merged.
  uint64_t prefix_bytes_saved;
  uint64_t prefix_bytes; ///< Of pages that no sequence holds, kept for those to
                         ///< come: goes up and down.
} moa_counters;

/// Fills `*counters` up to its struct_size. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_cache_get_counters(const moa_cache *cache,
                                           moa_counters *counters);

/// Writes the counters in Prometheus' text format, version 0.0.4: HELP, TYPE
/// and a sample of each, named moa_cache_..., times in seconds. `labels`, NULL
/// or empty for none, goes into the braces of every sample as it is, so it is
/// in that format too: name="value" separated by commas, and in values \\, \"
/// and \n for a backslash, a quote and a new line. Sizes are as in snprintf: at
/// most `size` bytes of `buffer` are written, the last of them 0; `*needed`
/// becomes the length of the whole text without its 0, so all of it is there if
/// *needed < size. `buffer` may be NULL if `size` is 0. Fails with
/// MOA_INVALID_ARGUMENT for labels that are not well formed, with the place.
/// Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_cache_format_prometheus(const moa_cache *cache,
                                                const char *labels,
                                                char *buffer, size_t size,
                                                size_t *needed);

/// Writes from now on what calls do to a file of Chrome's trace event format,
/// in place of one that is there; NULL ends that. Events are complete ones
/// (ph X), times of the host's steady clock in microseconds since the start,
/// threads by their numbers in the system, results (moa_status_code) in
/// args.status:
///
///   module_load           args: bytes
///   attend                args: layer, entries, rows
///   batch_begin           args: sequences, rows (of a layer)
///   batch_attend          args: layer
///   batch_end
///   sequence_reuse        args: tokens, reused
///   scheduler_next        args: entries, decodes, rows
///   scheduler_commit      args: entries
///   run                   within attend or batch_attend: kernels (CPU), or
///                         what enqueues them (CUDA)
///
/// On a CUDA device these are times of the host: kernels run later. Events are
/// buffered, 64 KiB at a time; the file is whole when NULL was passed or the
/// context is destroyed. A file that cannot be written disturbs no call: what
/// follows is dropped, and ending the trace returns MOA_IO. Fails with MOA_IO
/// if the file cannot be opened and with MOA_INVALID_ARGUMENT if a trace is
/// being written. May be called while other threads use the context; their
/// calls under way are left out. Without a trace a call costs a test of a
/// flag or two more. Threads: any. Since: 1.3
MOA_API moa_status *moa_context_set_trace(moa_context *context,
                                          const char *path);

/// Functions that name ranges of a thread's time, such as nvtxRangePushA and
/// nvtxRangePop of NVTX, for profilers that show them beside kernels. Each
/// range of a thread ends before those around it. They may be called by any
/// thread that uses the context, must not throw and must not call this library.
/// Since: 1.4
typedef struct moa_range_hooks {
  size_t struct_size;
  void (*push)(void *user, const char *name); ///< `name` lives for the call.
  void (*pop)(void *user);
  void *user; ///< Passed to both; the caller's.
} moa_range_hooks;

/// Calls `hooks` around what a trace has as events, under the same names, with
/// or without a trace; NULL ends that, and there are none at first. The struct
/// is copied. Calls under way end with the hooks that they began with, so these
/// are needed until then. Threads: any. Since: 1.4
MOA_API moa_status *moa_context_set_range_hooks(moa_context *context,
                                                const moa_range_hooks *hooks);

#ifdef __cplusplus
}
#endif

#endif // MOA_OBSERVE_H
