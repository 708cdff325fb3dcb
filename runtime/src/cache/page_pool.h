//===- page_pool.h - Pages of one size --------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Hands out pages by number and takes them back. Memory comes from the
// operating system in slabs and is touched only when written.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_CACHE_PAGE_POOL_H
#define MOA_RT_CACHE_PAGE_POOL_H

#include "status.h"

#include <vector>

namespace moa::rt {

using PageId = uint32_t;
constexpr PageId kNoPage = UINT32_MAX;

class PagePool {
public:
  /// `limit` in pages; 0 for none.
  PagePool(size_t pageBytes, uint64_t limit);
  ~PagePool();
  PagePool(const PagePool &) = delete;
  PagePool &operator=(const PagePool &) = delete;

  /// Appends `count` pages to `pages`, or fails and changes nothing.
  Status allocate(size_t count, std::vector<PageId> &pages);
  /// Takes a page back. Never fails.
  void release(PageId page) noexcept;

  /// First byte of a page; 64-byte aligned.
  char *data(PageId page) const {
    return slabs[page / pagesPerSlab] + (page % pagesPerSlab) * bytes;
  }

  size_t pageBytes() const { return bytes; }
  uint64_t limit() const { return mostPages; }
  uint64_t used() const { return taken; }
  uint64_t highWater() const { return mostTaken; }
  uint64_t reservedBytes() const {
    return uint64_t(slabs.size()) * pagesPerSlab * bytes;
  }

private:
  Status addSlab();

  const size_t bytes;
  const uint64_t mostPages;
  const size_t pagesPerSlab;
  std::vector<char *> slabs;
  std::vector<PageId> free; ///< Capacity for every page, so release is safe.
  uint64_t taken = 0, mostTaken = 0;
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_PAGE_POOL_H
