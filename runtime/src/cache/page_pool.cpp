//===- page_pool.cpp - Pages of one size ----------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of page_pool.h.
//
//===----------------------------------------------------------------------===//

#include "cache/page_pool.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>

namespace moa::rt {

/// Bytes of one slab, about.
constexpr size_t kSlabBytes = size_t(2) << 20;

PagePool::PagePool(size_t pageBytes, uint64_t limit)
    : bytes(pageBytes), mostPages(limit),
      pagesPerSlab(std::max<size_t>(1, kSlabBytes / pageBytes)) {}

PagePool::~PagePool() {
  for (char *slab : slabs)
    munmap(slab, pagesPerSlab * bytes);
}

Status PagePool::addSlab() {
  // Room for every page in the free list first: release may not allocate.
  size_t pages = (slabs.size() + 1) * pagesPerSlab;
  if (pages >= kNoPage)
    return error(MOA_OUT_OF_MEMORY, "the pool has ", slabs.size(),
                 " slabs, its most; set max_bytes and free sequences");
  free.reserve(pages);
  slabs.reserve(slabs.size() + 1);
  void *memory = mmap(nullptr, pagesPerSlab * bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return error(MOA_OUT_OF_MEMORY, "cannot map ", pagesPerSlab * bytes,
                 " bytes for pages: ", std::strerror(errno));
  slabs.push_back(static_cast<char *>(memory));
  for (size_t i = 0; i < pagesPerSlab; ++i)
    free.push_back(static_cast<PageId>(pages - 1 - i));
  return ok();
}

Status PagePool::allocate(size_t count, std::vector<PageId> &pages) {
  if (mostPages && count > mostPages - taken)
    return error(MOA_OUT_OF_PAGES, "wanted ", count, " pages of ", bytes,
                 " bytes, ", mostPages - taken, " of ", mostPages,
                 " are free; free sequences or raise max_bytes");
  pages.reserve(pages.size() + count);
  while (free.size() < count)
    MOA_RT_TRY(addSlab());
  for (size_t i = 0; i < count; ++i) {
    pages.push_back(free.back());
    free.pop_back();
  }
  taken += count;
  mostTaken = std::max(mostTaken, taken);
  return ok();
}

void PagePool::release(PageId page) noexcept {
  free.push_back(page);
  --taken;
}

} // namespace moa::rt
