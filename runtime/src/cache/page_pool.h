//===- page_pool.h - Pages of one size --------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Hands out pages by number, counts which sequences hold each and takes them
// back from the last, or leaves them to a keeper until they are wanted. Memory
// comes in slabs, from the operating system or from a device, when pages are
// first needed.
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
  /// The scales beside page 0, where those of all pages lie apart from them;
  /// else null: then they lie behind the pages of each slab.
  virtual char *scales() const { return nullptr; }
  /// Bytes taken for pages.
  virtual uint64_t bytes() const = 0;
  /// Makes `pages` spare pages usable, which are nobody's: for what a device
  /// puts there during a call. The first of them, counted as pages are.
  virtual Status spare(uint64_t pages, PageId &first);
  /// Most pages there can ever be, spare ones and what is between included; 0
  /// for no limit.
  virtual uint64_t addressable() const { return most(); }
  /// Most pages there can ever be; 0 for no limit.
  virtual uint64_t most() const { return 0; }
  /// Waits until no call under way reads or writes pages.
  virtual Status settle() { return ok(); }
  /// Copies between pages and the process's memory; settle() comes before.
  virtual Status copy(void *to, const void *from, size_t bytes);
};

/// Keeps pages beyond the sequences that hold them, until others want them. Its
/// pages are never written again.
class PageKeeper {
public:
  virtual ~PageKeeper() = default;
  /// Any of the first `pages` pages may be kept from now on.
  virtual void makeRoom(uint64_t pages) = 0;
  virtual bool keeps(PageId page) const noexcept = 0;
  /// The last sequence lets go of a page that is kept.
  virtual void becomesIdle(PageId page) noexcept = 0;
  /// A sequence takes an idle page.
  virtual void becomesHeld(PageId page) noexcept = 0;
  /// Pages that no sequence holds.
  virtual uint64_t idle() const noexcept = 0;
  /// Most of them that it wants.
  virtual uint64_t mostIdle() const noexcept = 0;
  /// Gives up the idle page that comes first.
  virtual PageId giveUp() noexcept = 0;
};
/// Pages of one slab of host memory, which has about 2 MiB.
size_t pagesOfSlab(size_t pageBytes);
/// Anonymous memory of the system, touched only when written.
std::unique_ptr<PageMemory> makeSystemPages(size_t pageBytes);

class PagePool {
public:
  /// Pages in the process's memory; `limit` in pages, 0 for none. Beside each
  /// page lie `scaleBytes` of scales.
  PagePool(size_t pageBytes, uint64_t limit, size_t scaleBytes = 0);
  /// Pages in `memory`, whose pages have room for the scales.
  PagePool(size_t pageBytes, uint64_t limit, std::unique_ptr<PageMemory> memory,
           size_t scaleBytes = 0);
  PagePool(const PagePool &) = delete;
  PagePool &operator=(const PagePool &) = delete;

  /// Appends `count` pages to `pages`, each with one holder, or fails and
  /// changes nothing. Where none is free, the keeper gives idle ones up.
  Status allocate(size_t count, std::vector<PageId> &pages);
  /// One more holds the page.
  void share(PageId page) noexcept;
  /// One fewer holds the page; after the last it is free, or idle where it is
  /// kept. Never fails.
  void release(PageId page) noexcept;
  bool isShared(PageId page) const { return holders[page] > 1; }
  /// How many hold the page, its keeper left out.
  uint32_t holdersOf(PageId page) const { return holders[page]; }
  /// Whether the one who holds the page may write to it.
  bool isWritable(PageId page) const {
    return holders[page] == 1 && !(keeper && keeper->keeps(page));
  }

  /// Names the keeper of this pool's pages; it outlives every holder.
  void setKeeper(PageKeeper &keeper);
  /// Makes the keeper give up what is more than it wants.
  void trim() noexcept { trimTo(keeper->mostIdle()); }
  /// Makes it give up all idle pages.
  void dropIdle() noexcept {
    if (keeper)
      trimTo(0);
  }
  /// Pages that are kept and held by nobody; not in use.
  uint64_t idle() const { return keeper ? keeper->idle() : 0; }

  /// First byte of a page; 64-byte aligned.
  char *data(PageId page) const {
    return slabs[page / pagesPerSlab] + (page % pagesPerSlab) * bytes;
  }

  /// The scales beside a page, where the pool has any.
  float *scales(PageId page) const {
    if (char *table = memory->scales())
      return reinterpret_cast<float *>(table + page * besideBytes);
    return reinterpret_cast<float *>(slabs[page / pagesPerSlab] +
                                     pagesPerSlab * bytes +
                                     (page % pagesPerSlab) * besideBytes);
  }

  /// Another limit, in pages; 0 for the most there can be. Refused below what
  /// is in use.
  Status setLimit(uint64_t pages);
  /// See PageMemory::settle.
  Status settle() { return memory->settle(); }
  /// A page's bytes, and its scales behind them, to and from the process's
  /// memory.
  Status read(PageId page, char *to) {
    MOA_RT_TRY(memory->copy(to, data(page), bytes));
    return besideBytes ? memory->copy(to + bytes, scales(page), besideBytes)
                       : ok();
  }
  Status write(PageId page, const char *from) {
    MOA_RT_TRY(memory->copy(data(page), from, bytes));
    return besideBytes ? memory->copy(scales(page), from + bytes, besideBytes)
                       : ok();
  }

  /// See PageMemory::base.
  char *base() const { return memory->base(); }
  /// See PageMemory.
  Status spare(uint64_t pages, PageId &first) {
    return memory->spare(pages, first);
  }
  uint64_t addressable() const { return memory->addressable(); }
  size_t pageBytes() const { return bytes; }
  uint64_t limit() const { return mostPages; }
  /// Pages that somebody holds.
  uint64_t used() const { return taken; }
  /// Pages that more than one holds.
  uint64_t shared() const { return sharedPages; }
  /// Pages in use, each as often as it is held.
  uint64_t referenced() const { return references; }
  uint64_t highWater() const { return mostTaken; }
  /// Pages taken so far, again and again; less used() they came back.
  uint64_t takenEver() const { return everTaken; }
  /// Times there were too few pages.
  uint64_t refusals() const { return refused; }
  uint64_t reservedBytes() const { return memory->bytes(); }

private:
  Status grow();
  void trimTo(uint64_t idlePages) noexcept;

  const size_t bytes, besideBytes; ///< Of a page, of its scales.
  uint64_t mostPages;
  std::unique_ptr<PageMemory> memory;
  const size_t pagesPerSlab;
  std::vector<char *> slabs;
  std::vector<PageId> free; ///< Capacity for every page, so release is safe.
  std::vector<uint32_t> holders; ///< Of each usable page.
  PageKeeper *keeper = nullptr;
  uint64_t usable = 0; ///< Pages that are taken, idle or in `free`.
  uint64_t made = 0;   ///< Pages of the memory: more where the list of
                       ///< free ones found no room for the newest.
  uint64_t taken = 0, mostTaken = 0;
  uint64_t sharedPages = 0, references = 0;
  uint64_t everTaken = 0, refused = 0;
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_PAGE_POOL_H
