//===- page_pool.h - Pages of one size --------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Hands out pages by number and takes them back. Memory comes in slabs, from
// the operating system or from a device, when pages are first needed.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_CACHE_PAGE_POOL_H
#define MOA_RT_CACHE_PAGE_POOL_H

#include "status.h"

#include <memory>
#include <vector>

namespace moa::rt {

using PageId = uint32_t;
constexpr PageId kNoPage = UINT32_MAX;

/// Where pages lie.
class PageMemory {
public:
  virtual ~PageMemory() = default;
  /// Pages of each slab; page p is page p % that of slab p / that.
  virtual size_t pagesPerSlab() const = 0;
  /// Makes more pages usable: the slabs there are now, and the number of pages
  /// usable in all, more than before. Fails without a trace.
  virtual Status grow(std::vector<char *> &slabs, uint64_t &usable) = 0;
  /// Page 0 where all pages lie in one slab that is known from the start; else
  /// null.
  virtual char *base() const { return nullptr; }
  /// Bytes taken for pages.
  virtual uint64_t bytes() const = 0;
};

class PagePool {
public:
  /// Pages in the process's memory; `limit` in pages, 0 for none.
  PagePool(size_t pageBytes, uint64_t limit);
  PagePool(size_t pageBytes, uint64_t limit,
           std::unique_ptr<PageMemory> memory);
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

  /// See PageMemory::base.
  char *base() const { return memory->base(); }
  size_t pageBytes() const { return bytes; }
  uint64_t limit() const { return mostPages; }
  uint64_t used() const { return taken; }
  uint64_t highWater() const { return mostTaken; }
  uint64_t reservedBytes() const { return memory->bytes(); }

private:
  Status grow();

  const size_t bytes;
  const uint64_t mostPages;
  std::unique_ptr<PageMemory> memory;
  const size_t pagesPerSlab;
  std::vector<char *> slabs;
  std::vector<PageId> free; ///< Capacity for every page, so release is safe.
  uint64_t usable = 0;      ///< Pages made so far.
  uint64_t taken = 0, mostTaken = 0;
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_PAGE_POOL_H
