//===- host_memory.cpp - The system's memory, or a caller's ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of host_memory.h.
//
//===----------------------------------------------------------------------===//

#include "backend/cpu/host_memory.h"

#include <cstdlib>

namespace moa::rt {
namespace {

constexpr size_t kAlignment = 64;

/// Slabs of a caller's allocator.
class CallersPages : public PageMemory {
public:
  CallersPages(const HostMemory &memory, size_t pageBytes)
      : memory(memory), pageBytes(pageBytes), perSlab(pagesOfSlab(pageBytes)) {}
  ~CallersPages() override {
    for (char *slab : own)
      memory.free(slab);
  }

  size_t pagesPerSlab() const override { return perSlab; }
  uint64_t bytes() const override { return own.size() * perSlab * pageBytes; }
  Status grow(std::vector<char *> &slabs, uint64_t &usable) override {
    own.reserve(own.size() + 1);
    slabs.reserve(own.size() + 1);
    void *slab = nullptr;
    MOA_RT_TRY(memory.allocate(perSlab * pageBytes, &slab));
    own.push_back(static_cast<char *>(slab));
    slabs.push_back(own.back());
    usable += perSlab;
    return ok();
  }

private:
  const HostMemory memory;
  const size_t pageBytes, perSlab;
  std::vector<char *> own;
};

} // namespace

Status HostMemory::allocate(size_t bytes, void **out) const {
  if (!from.allocate) {
    if (posix_memalign(out, kAlignment, bytes))
      return error(MOA_OUT_OF_MEMORY, "cannot allocate ", bytes, " bytes");
    return ok();
  }
  void *memory = from.allocate(from.user, bytes, kAlignment);
  if (!memory)
    return error(MOA_OUT_OF_MEMORY, "the context's allocator gave no ", bytes,
                 " bytes; free sequences or caches, or let it give more");
  if (reinterpret_cast<uintptr_t>(memory) % kAlignment) {
    from.deallocate(from.user, memory);
    return error(MOA_INVALID_ARGUMENT, "the context's allocator gave memory ",
                 "that does not lie at a multiple of ", kAlignment,
                 " bytes; mend its allocate function");
  }
  *out = memory;
  return ok();
}

void HostMemory::free(void *memory) const {
  if (from.allocate)
    from.deallocate(from.user, memory);
  else
    std::free(memory);
}

std::unique_ptr<PageMemory> HostMemory::makePages(size_t pageBytes) const {
  if (from.allocate)
    return std::make_unique<CallersPages>(*this, pageBytes);
  return makeSystemPages(pageBytes);
}

} // namespace moa::rt
