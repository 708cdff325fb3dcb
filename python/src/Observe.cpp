//===- Observe.cpp - What a cache did, for Python -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Observe.h.
//
//===----------------------------------------------------------------------===//

#include "Observe.h"

moa_status *readStats(const moa_cache *cache, nanobind::dict &out) {
  moa_cache_stats stats = {};
  stats.struct_size = sizeof(stats);
  if (moa_status *failed = moa_cache_get_stats(cache, &stats))
    return failed;
  out["page_bytes"] = stats.page_bytes;
  out["pages_used"] = stats.pages_used;
  out["pages_high_water"] = stats.pages_high_water;
  out["pages_limit"] = stats.pages_limit;
  out["reserved_bytes"] = stats.reserved_bytes;
  out["sequences"] = stats.sequences;
  out["pages_shared"] = stats.pages_shared;
  out["pages_referenced"] = stats.pages_referenced;
  out["unused_bytes"] = stats.unused_bytes;
  out["pages_kept"] = stats.pages_kept;
  out["pages_indexed"] = stats.pages_indexed;
  return nullptr;
}

moa_status *readCounters(const moa_cache *cache, nanobind::dict &out) {
  moa_counters counters = {};
  counters.struct_size = sizeof(counters);
  if (moa_status *failed = moa_cache_get_counters(cache, &counters))
    return failed;
  out["attend_calls"] = counters.attend_calls;
  out["batch_attend_calls"] = counters.batch_attend_calls;
  out["failed_calls"] = counters.failed_calls;
  out["batch_steps"] = counters.batch_steps;
  out["tokens"] = counters.tokens;
  out["prefill_rows"] = counters.prefill_rows;
  out["decode_rows"] = counters.decode_rows;
  out["pages_taken"] = counters.pages_taken;
  out["pages_returned"] = counters.pages_returned;
  out["pages_copied"] = counters.pages_copied;
  out["page_bytes"] = counters.page_bytes;
  out["page_bytes_high_water"] = counters.page_bytes_high_water;
  out["out_of_pages"] = counters.out_of_pages;
  out["work_items"] = counters.work_items;
  out["work_splits"] = counters.work_splits;
  out["staging_wait_ns"] = counters.staging_wait_ns;
  out["sequences_created"] = counters.sequences_created;
  out["sequences_forked"] = counters.sequences_forked;
  out["sequences_truncated"] = counters.sequences_truncated;
  out["sequences_restored"] = counters.sequences_restored;
  out["prefix_tokens_asked"] = counters.prefix_tokens_asked;
  out["prefix_tokens_reused"] = counters.prefix_tokens_reused;
  out["prefix_pages_reused"] = counters.prefix_pages_reused;
  out["prefix_pages_merged"] = counters.prefix_pages_merged;
  out["prefix_pages_evicted"] = counters.prefix_pages_evicted;
  out["prefix_bytes_saved"] = counters.prefix_bytes_saved;
  out["prefix_bytes"] = counters.prefix_bytes;
  return nullptr;
}

moa_status *readPrometheus(const moa_cache *cache, const std::string &labels,
                           std::string &out) {
  size_t size = 0;
  if (moa_status *failed =
          moa_cache_format_prometheus(cache, labels.c_str(), nullptr, 0, &size))
    return failed;
  out.resize(size + 1);
  moa_status *failed = moa_cache_format_prometheus(cache, labels.c_str(),
                                                   out.data(), size + 1, &size);
  out.resize(size);
  return failed;
}
