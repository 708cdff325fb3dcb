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

#include "cache/sequence.h"
#include "sched/work.h"

#include <memory>
#include <vector>

namespace moa::rt {

class ThreadPool;

class Cache {
public:
  Cache(const Module &module, ThreadPool &threads, uint64_t maxBytes)
      : module(module), threads(threads),
        pool(module.geometry.pageBytes(),
             maxBytes / module.geometry.pageBytes()) {}

  /// Appends, attends and evicts for one layer; see moa_attend.
  Status attend(uint32_t layer, float scale, const moa_attend_entry *entries,
                size_t count);

  const Module &module;
  ThreadPool &threads;
  PagePool pool;
  std::vector<std::unique_ptr<Sequence>> sequences;

private:
  Status check(uint32_t layer, const moa_attend_entry *entries, size_t count);

  Work work; ///< Reused by every call.
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_CACHE_H
