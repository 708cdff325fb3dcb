//===- cache.h - A page pool and its sequences ------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Owns pool, sequences and the buffers that calls reuse, so that a steady
// decode loop does not allocate.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_CACHE_CACHE_H
#define MOA_RT_CACHE_CACHE_H

#include "backend/device.h"
#include "cache/batch.h"
#include "cache/prefix_index.h"
#include "cache/rope_table.h"
#include "cache/sequence.h"
#include "moa/observe.h"
#include "observe/trace.h"
#include "sched/plan.h"

#include <memory>
#include <vector>

namespace moa::rt {

class Cache {
public:
  Cache(const Module &module, std::unique_ptr<PagePool> pages,
        std::unique_ptr<Executor> executor, int64_t rollback = 0)
      : ownPool(std::move(pages)), module(module), pool(*ownPool),
        rollback(rollback), executor(std::move(executor)) {}

  /// Makes a cache on the module's device.
  static Status create(Device &device, const Module &module, uint64_t maxBytes,
                       int64_t rollback, int32_t decodeParts,
                       std::unique_ptr<Cache> &out);

  /// Appends, attends and evicts for one layer; see moa_attend.
  Status attend(const AttendCall &call);
  /// The same for the rows of a step under way, whose new pages are there; it
  /// leaves evicting and counting to the step, which decided what becomes of
  /// KV heads [entry][KV head]; null for those whose pages stay.
  Status attendWith(const AttendCall &call, const std::vector<PageId> &pages,
                    const HeadChange *const *decided);
  /// Checks one layer of a step.
  Status checkStep(const StepCall &call, int64_t tokens) const;
  Status makeBatchDevice(const BatchShape &shape,
                         std::unique_ptr<BatchDevice> &out) {
    return executor->makeBatch(shape, out);
  }
  /// Sets the rotation of a layer, or of all; see moa_cache_set_rope.
  Status setRope(Device &device, uint32_t layer, const moa_rope &rope);
  /// The rotation of a layer that the model has.
  const Rope &ropeOf(uint32_t layer) const { return ropes.of(layer); }
  uint64_t ropeHashOf(uint32_t layer) const { return ropes.hashOf(layer); }
  /// A number for a call or step, by which it knows the sequences it named.
  uint64_t newCall() noexcept { return ++lastCall; }
  /// What a KV head holds after `seen` tokens; `start`, if wanted, becomes the
  /// smallest window start of the row that decides. Where prefixes are reused,
  /// that is the first of the newest block: a sequence can begin there.
  moa_resident resident(uint32_t layer, uint32_t kvHead, int64_t seen,
                        int64_t n, int64_t *start = nullptr) const {
    const int64_t margin =
        prefixes ? std::max(rollback, seen % MOA_BLOCK_KEYS) : rollback;
    return module.resident(layer, kvHead, seen, n, margin, start);
  }
  /// Keeps full pages for sequences to come; see moa_cache_set_prefix_reuse.
  Status setPrefixReuse(uint64_t maxBytes, PrefixHash hash = hashOfBlock);
  /// The longest beginning of `tokens`, short of all of them, whose pages are
  /// there that rows behind it see.
  PrefixMatch findPrefix(uint64_t salt, const int64_t *tokens,
                         size_t count) const;
  /// Makes an empty sequence one that has seen a match of these tokens. Throws
  /// before anything changes.
  void beginWith(Sequence &sequence, const PrefixMatch &match, uint64_t salt,
                 const int64_t *tokens, size_t count);
  /// Makes a sequence that shares all pages of another; see moa_sequence_fork.
  Status fork(Sequence &sequence, Sequence *&out);
  /// Copies pages ahead of a step's layers, on the step's stream.
  Status copyPages(const std::vector<moa_append_item> &copies, void *stream);
  /// Brings blocks of any layer to 8 bits; see Executor::quantise.
  Status quantise(const std::vector<moa_quantise_item> &items, void *stream);
  /// Takes a sequence out of every batch and destroys it.
  void destroy(Sequence &sequence) noexcept;
  /// Gives the batch's step up, if one is under way, and destroys it.
  void destroy(Batch &batch) noexcept;

  /// All counters at this moment.
  moa_counters countersNow() const;

private:
  Status check(const AttendCall &call, bool ofStep);
  Status run(const AttendCall &call);
  void count(const AttendCall &call) noexcept;
  int64_t reusableBlocks(const std::vector<PrefixBlock *> &blocks,
                         int64_t count, uint32_t layer, uint32_t kvHead) const;

  std::unique_ptr<PagePool> ownPool;

public:
  const Module &module;
  PagePool &pool;
  const int64_t rollback; ///< Tokens that can always be taken back.
  std::unique_ptr<PrefixIndex> prefixes; ///< Null where it is off.
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<std::unique_ptr<Batch>> batches;
  Trace *trace = nullptr;     ///< Of the context, if there is one.
  moa_counters counters = {}; ///< But what pool and executor know.

private:
  std::unique_ptr<Executor> executor; ///< Gone before the pool it works on.
  RopeTable ropes;
  Plan plan; ///< Reused by every call.
  uint64_t lastCall = 0;
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_CACHE_H
