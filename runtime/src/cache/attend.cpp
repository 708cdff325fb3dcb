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

#include <algorithm>

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

Status Cache::check(const AttendCall &call, bool ofStep) {
  const Geometry &g = module.geometry;
  const uint32_t layer = call.layer;
  const moa_attend_entry *entries = call.entries;
  const size_t count = call.count;
  MOA_RT_TRY(module.checkLayer(layer));
  if (count == 0 || !entries)
    return error(MOA_INVALID_ARGUMENT,
                 "no entries; pass at least one sequence");
  const LayerKernels &kernels = module.layers[layer];
  if (!kernels.append.entry && !ropeOf(layer))
    return error(MOA_UNSUPPORTED, "layer ", layer,
                 " has no append kernel; compile with --phase "
                 "prefill,decode,append");
  const uint64_t thisCall = newCall();
  for (size_t i = 0; i < count; ++i) {
    const moa_attend_entry &entry = entries[i];
    auto *sequence = reinterpret_cast<Sequence *>(entry.sequence);
    if (!sequence || &sequence->pool != &pool)
      return error(MOA_INVALID_ARGUMENT, "entry ", i,
                   ": the sequence is NULL or of another cache");
    if (sequence->step && !ofStep)
      return error(MOA_INVALID_ARGUMENT, "entry ", i,
                   ": the sequence is part of a step under way; call "
                   "moa_batch_end first");
    if (sequence->namedBy == thisCall)
      return error(MOA_INVALID_ARGUMENT, "entries ", sequence->namedAt, " and ",
                   i, " name the same sequence; a sequence may appear once");
    sequence->namedBy = thisCall;
    sequence->namedAt = i;
    if (entry.tokens < 1)
      return error(MOA_INVALID_ARGUMENT, "entry ", i, " has ", entry.tokens,
                   " tokens, expected at least 1");
    int64_t seen = sequence->layers[layer].seen;
    if (entry.tokens > g.maxLength - seen)
      return error(MOA_OUT_OF_RANGE, "entry ", i, ": ", seen,
                   " tokens seen and ", entry.tokens,
                   " new exceed the artifact's max length ", g.maxLength,
                   "; compile with a larger --max-length");
    // A step attends with every entry.
    const bool attends = entry.q || entry.out || ofStep;
    if (attends && !module.decodes(layer, entry.tokens) &&
        !kernels.prefill.entry)
      return error(MOA_UNSUPPORTED, "layer ", layer, " has no ",
                   entry.tokens == 1 ? "decode or prefill" : "prefill",
                   " kernel; compile with --phase prefill,decode,append");
    if (attends)
      MOA_RT_TRY(checkTensor(i, "q", entry.q, entry.tokens, g.qHeads,
                             entry.q_row_stride, entry.q_head_stride, g));
    MOA_RT_TRY(checkTensor(i, "k", entry.k, entry.tokens, g.kvHeads,
                           entry.k_row_stride, entry.k_head_stride, g));
    MOA_RT_TRY(checkTensor(i, "v", entry.v, entry.tokens, g.kvHeads,
                           entry.v_row_stride, entry.v_head_stride, g));
    if (attends)
      MOA_RT_TRY(checkTensor(i, "out", entry.out, entry.tokens, g.qHeads,
                             entry.out_row_stride, entry.out_head_stride, g));
  }
  return ok();
}

Status Cache::create(Device &device, const Module &module, uint64_t maxBytes,
                     int64_t rollback, int32_t decodeParts,
                     std::unique_ptr<Cache> &out) {
  std::unique_ptr<PagePool> pool;
  std::unique_ptr<Executor> executor;
  MOA_RT_TRY(device.makePool(module.geometry, maxBytes, pool));
  MOA_RT_TRY(device.makeExecutor(module, *pool, decodeParts, executor));
  out = std::make_unique<Cache>(module, std::move(pool), std::move(executor),
                                rollback);
  return ok();
}

Status Cache::setRope(Device &device, uint32_t layer, const moa_rope &rope) {
  if (!sequences.empty() || !batches.empty())
    return error(MOA_INVALID_ARGUMENT, "the cache has ", sequences.size(),
                 " sequences and ", batches.size(),
                 " batches; set rotations before the first of either");
  MOA_RT_TRY(ropes.set(device, module, layer, rope));
  pool.dropIdle(); // Their keys have other rotations.
  return ok();
}

Status Cache::checkStep(const StepCall &call, int64_t tokens) const {
  const Geometry &g = module.geometry;
  for (const auto &[name, tensor, heads] : call.tensors(g.qHeads, g.kvHeads))
    MOA_RT_TRY(checkTensor(0, name, tensor.data, tokens, heads,
                           tensor.tokenStride, tensor.headStride, g));
  return ok();
}

void Cache::destroy(Sequence &sequence) noexcept {
  for (const std::unique_ptr<Batch> &batch : batches)
    batch->forget(sequence);
  auto found =
      std::find_if(sequences.begin(), sequences.end(),
                   [&](const auto &owned) { return owned.get() == &sequence; });
  if (found == sequences.end())
    return;
  std::swap(*found, sequences.back());
  sequences.pop_back();
}

void Cache::destroy(Batch &batch) noexcept {
  batch.cancel();
  auto found =
      std::find_if(batches.begin(), batches.end(),
                   [&](const auto &owned) { return owned.get() == &batch; });
  if (found == batches.end())
    return;
  std::swap(*found, batches.back());
  batches.pop_back();
}

Status Cache::run(const AttendCall &call) {
  Span span(trace, "run");
  return executor->run(call, plan);
}

void Cache::count(const AttendCall &call) noexcept {
  ++counters.attend_calls;
  counters.pages_copied += plan.copyCount;
  for (size_t i = 0; i < call.count; ++i) {
    const uint64_t rows = call.entries[i].tokens;
    const EntryView view(module, call, i);
    if (view.attends())
      (view.decodes() ? counters.decode_rows : counters.prefill_rows) += rows;
    if (call.layer == 0)
      counters.tokens += rows;
  }
}

moa_counters Cache::countersNow() const {
  moa_counters now = counters;
  now.pages_taken = pool.takenEver();
  now.pages_returned = pool.takenEver() - pool.used();
  now.page_bytes = pool.used() * pool.pageBytes();
  now.page_bytes_high_water = pool.highWater() * pool.pageBytes();
  now.out_of_pages = pool.refusals();
  if (prefixes) {
    now.prefix_bytes = pool.idle() * pool.pageBytes();
    now.prefix_pages_evicted = prefixes->evicted();
    now.prefix_bytes_saved =
        (now.prefix_pages_reused + now.prefix_pages_merged) * pool.pageBytes();
  }
  now.work_items = executor->counts.items;
  now.work_splits = executor->counts.splits;
  now.staging_wait_ns = executor->counts.waitNs;
  return now;
}

/// Pages that are kept may hold rows of a call that failed behind their last.
static void markDirtyTails(const AttendCall &call) noexcept {
  for (size_t i = 0; i < call.count; ++i)
    call.sequence(i).layers[call.layer].dirtyTail = true;
}

Status Cache::attendWith(const AttendCall &call,
                         const std::vector<PageId> &pages,
                         const HeadChange *const *decided) {
  MOA_RT_TRY(check(call, true));
  MOA_RT_TRY(executor->check(call));
  plan.clear();
  for (size_t i = 0; i < call.count; ++i)
    plan.addEntry(call, i, decided + i * module.geometry.kvHeads);
  plan.newPages = pages;
  plan.place(module, pool, call, executor->decodeAppends(), ropeOf(call.layer));
  Status failed = run(call);
  if (failed)
    markDirtyTails(call);
  return failed;
}

Status Cache::attend(const AttendCall &call) {
  MOA_RT_TRY(check(call, false));
  MOA_RT_TRY(executor->check(call));
  plan.clear();
  for (size_t i = 0; i < call.count; ++i)
    plan.addEntry(call, i);
  MOA_RT_TRY(pool.allocate(plan.newPageCount, plan.newPages));
  auto undo = [&] {
    markDirtyTails(call);
    for (PageId page : plan.newPages)
      pool.release(page);
  };
  try {
    plan.place(module, pool, call, executor->decodeAppends(),
               ropeOf(call.layer));
    if (Status failed = run(call)) {
      undo();
      return failed;
    }
  } catch (...) {
    undo();
    throw;
  }
  plan.commit(pool, call);
  for (size_t i = 0; prefixes && i < call.count; ++i) {
    Sequence &sequence = call.sequence(i);
    const int64_t before =
        sequence.layers[call.layer].seen - call.entries[i].tokens;
    sequence.publish(call.layer, before / MOA_BLOCK_KEYS);
  }
  count(call);
  return ok();
}

} // namespace moa::rt
