//===- attend.cpp - One call of moa_attend --------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Checks everything, builds the work, runs it and commits. Until the last step
// nothing of the cache has changed that a caller could see.
//
//===----------------------------------------------------------------------===//

#include "cache/cache.h"
#include "sched/merge.h"
#include "sched/thread_pool.h"

#include <algorithm>
#include <cmath>

namespace moa::rt {
namespace {

/// Checks pointer and strides of one tensor of an entry.
Status checkTensor(size_t entry, const char *name, const void *pointer,
                   int64_t rows, int64_t heads, int64_t rowStride,
                   int64_t headStride, const Geometry &g) {
  if (!pointer)
    return error(MOA_INVALID_ARGUMENT, "entry ", entry, ": ", name,
                 " is NULL; pass the address of row 0, head 0");
  if (reinterpret_cast<uintptr_t>(pointer) % g.elementBytes())
    return error(MOA_INVALID_ARGUMENT, "entry ", entry, ": ", name,
                 " is not aligned to its ", g.elementBytes(), "-byte elements");
  auto bad = [&](int64_t extent, int64_t stride) {
    return extent > 1 && stride < int64_t(g.headDim);
  };
  if (bad(rows, rowStride) || bad(heads, headStride))
    return error(MOA_INVALID_ARGUMENT, "entry ", entry, ": ", name,
                 " has row stride ", rowStride, " and head stride ", headStride,
                 ", expected at least the head size ", g.headDim,
                 " in elements; make the tensor contiguous");
  return ok();
}

} // namespace

Status Cache::check(uint32_t layer, const moa_attend_entry *entries,
                    size_t count) {
  const Geometry &g = module.geometry;
  if (layer >= g.layers)
    return error(MOA_INVALID_ARGUMENT, "layer ", layer, ", expected below ",
                 g.layers);
  if (count == 0 || !entries)
    return error(MOA_INVALID_ARGUMENT,
                 "no entries; pass at least one sequence");
  const LayerKernels &kernels = module.layers[layer];
  if (!kernels.append.entry)
    return error(MOA_UNSUPPORTED, "layer ", layer,
                 " has no append kernel; compile with --phase "
                 "prefill,decode,append");
  for (size_t i = 0; i < count; ++i) {
    const moa_attend_entry &entry = entries[i];
    auto *sequence = reinterpret_cast<Sequence *>(entry.sequence);
    if (!sequence || &sequence->pool != &pool)
      return error(MOA_INVALID_ARGUMENT, "entry ", i,
                   ": the sequence is NULL or of another cache");
    for (size_t j = 0; j < i; ++j)
      if (entries[j].sequence == entry.sequence)
        return error(MOA_INVALID_ARGUMENT, "entries ", j, " and ", i,
                     " name the same sequence; a sequence may appear once");
    if (entry.tokens < 1)
      return error(MOA_INVALID_ARGUMENT, "entry ", i, " has ", entry.tokens,
                   " tokens, expected at least 1");
    int64_t seen = sequence->layers[layer].seen;
    if (entry.tokens > g.maxLength - seen)
      return error(MOA_OUT_OF_RANGE, "entry ", i, ": ", seen,
                   " tokens seen and ", entry.tokens,
                   " new exceed the artifact's max length ", g.maxLength,
                   "; compile with a larger --max-length");
    bool decode = entry.tokens == 1 && kernels.decode.entry;
    if (!decode && !kernels.prefill.entry)
      return error(MOA_UNSUPPORTED, "layer ", layer, " has no ",
                   entry.tokens == 1 ? "decode or prefill" : "prefill",
                   " kernel; compile with --phase prefill,decode,append");
    MOA_RT_TRY(checkTensor(i, "q", entry.q, entry.tokens, g.qHeads,
                           entry.q_row_stride, entry.q_head_stride, g));
    MOA_RT_TRY(checkTensor(i, "k", entry.k, entry.tokens, g.kvHeads,
                           entry.k_row_stride, entry.k_head_stride, g));
    MOA_RT_TRY(checkTensor(i, "v", entry.v, entry.tokens, g.kvHeads,
                           entry.v_row_stride, entry.v_head_stride, g));
    MOA_RT_TRY(checkTensor(i, "out", entry.out, entry.tokens, g.qHeads,
                           entry.out_row_stride, entry.out_head_stride, g));
  }
  return ok();
}

Status Cache::attend(uint32_t layer, float scale,
                     const moa_attend_entry *entries, size_t count) {
  MOA_RT_TRY(check(layer, entries, count));
  const LayerKernels &kernels = module.layers[layer];
  work.clear();
  for (size_t i = 0; i < count; ++i)
    work.planEntry(entries[i], layer);
  MOA_RT_TRY(pool.allocate(work.newPageCount, work.newPages));
  try {
    work.build(module, pool, layer, scale, entries, count);

    auto append = reinterpret_cast<moa_append_kernel>(kernels.append.entry);
    if (count * module.geometry.kvHeads >= work.appends.size()) {
      // A token a sequence: waking threads would cost more than the copies.
      for (const moa_append_item &item : work.appends)
        append(&item, nullptr);
    } else {
      threads.run(
          work.appends.size(), kernels.append.scratchBytes,
          [&](size_t i, void *scratch) { append(&work.appends[i], scratch); });
    }
    size_t scratchBytes =
        std::max(kernels.prefill.scratchBytes, kernels.decode.scratchBytes);
    threads.run(work.order.size(), scratchBytes, [&](size_t i, void *scratch) {
      Task &task = work.tasks[work.order[i]];
      task.kernel(&task.item, scratch);
      if (task.merge)
        finishShare(*task.merge, module.geometry);
    });
  } catch (...) {
    for (PageId page : work.newPages)
      pool.release(page);
    throw;
  }
  work.commit(pool, layer, entries, count);
  return ok();
}

} // namespace moa::rt
