//===- host_memory.h - The system's memory, or a caller's -------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Where a context on the CPU takes memory for callers and for pages.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_BACKEND_CPU_HOST_MEMORY_H
#define MOA_RT_BACKEND_CPU_HOST_MEMORY_H

#include "cache/page_pool.h"
#include "moa/runtime.h"

namespace moa::rt {

class HostMemory {
public:
  /// The system's.
  HostMemory() = default;
  /// A caller's, which outlives this and all memory that it gave.
  explicit HostMemory(const moa_allocator &from) : from(from) {}

  /// Memory at a multiple of 64 bytes.
  Status allocate(size_t bytes, void **out) const;
  void free(void *memory) const;
  /// Pages in slabs of this memory; outlived by it.
  std::unique_ptr<PageMemory> makePages(size_t pageBytes) const;

private:
  moa_allocator from = {};
};

} // namespace moa::rt

#endif // MOA_RT_BACKEND_CPU_HOST_MEMORY_H
