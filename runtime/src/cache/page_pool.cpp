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

namespace {

/// Anonymous memory, touched only when written.
class SystemPages : public PageMemory {
public:
  explicit SystemPages(size_t pageBytes)
      : perSlab(pagesOfSlab(pageBytes)), slabBytes(perSlab * pageBytes) {}
  ~SystemPages() override {
    for (char *slab : own)
      munmap(slab, slabBytes);
  }

  size_t pagesPerSlab() const override { return perSlab; }
  uint64_t bytes() const override { return own.size() * slabBytes; }
  Status grow(std::vector<char *> &slabs, uint64_t &usable) override {
    own.reserve(own.size() + 1);
    slabs.reserve(own.size() + 1);
    void *memory = mmap(nullptr, slabBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
      return error(MOA_OUT_OF_MEMORY, "cannot map ", slabBytes,
                   " bytes for pages: ", std::strerror(errno));
    own.push_back(static_cast<char *>(memory));
    slabs.push_back(own.back());
    usable += perSlab;
    return ok();
  }

private:
  const size_t perSlab, slabBytes;
  std::vector<char *> own;
};

} // namespace

Status PageMemory::spare(uint64_t, PageId &) {
  return error(MOA_UNSUPPORTED, "this memory has no spare pages");
}

Status PageMemory::copy(void *to, const void *from, size_t bytes) {
  std::memcpy(to, from, bytes);
  return ok();
}

size_t pagesOfSlab(size_t pageBytes) {
  return std::max<size_t>(1, (size_t(2) << 20) / pageBytes);
}

std::unique_ptr<PageMemory> makeSystemPages(size_t pageBytes) {
  return std::make_unique<SystemPages>(pageBytes);
}

PagePool::PagePool(size_t pageBytes, uint64_t limit, size_t scaleBytes)
    : PagePool(pageBytes, limit, makeSystemPages(pageBytes + scaleBytes),
               scaleBytes) {}

PagePool::PagePool(size_t pageBytes, uint64_t limit,
                   std::unique_ptr<PageMemory> from, size_t scaleBytes)
    : bytes(pageBytes), besideBytes(scaleBytes), mostPages(limit),
      memory(std::move(from)), pagesPerSlab(memory->pagesPerSlab()) {}

Status PagePool::grow() {
  if (usable >= INT32_MAX)
    return error(MOA_OUT_OF_MEMORY, "the pool has ", usable,
                 " pages, its most; set max_bytes and free sequences");
  if (made == usable)
    MOA_RT_TRY(memory->grow(slabs, made));
  // Room for every page in the free list first: release may not allocate.
  free.reserve(made);
  holders.resize(made);
  if (keeper)
    keeper->makeRoom(made);
  for (uint64_t page = made; page > usable; --page)
    free.push_back(static_cast<PageId>(page - 1));
  usable = made;
  return ok();
}

Status PagePool::setLimit(uint64_t pages) {
  const uint64_t most = memory->most();
  if (!pages)
    pages = most;
  if (most && pages > most)
    return error(MOA_INVALID_ARGUMENT, "a limit of ", pages, " pages of ",
                 bytes, " bytes, the cache was made for ", most,
                 " on this device; make a cache with larger max_bytes");
  if (pages && pages < taken)
    return error(MOA_INVALID_ARGUMENT, "a limit of ", pages, " pages of ",
                 bytes, " bytes, ", taken, " are in use; free sequences first");
  mostPages = pages;
  if (mostPages)
    trimTo(mostPages - taken);
  return ok();
}

void PagePool::setKeeper(PageKeeper &to) {
  to.makeRoom(usable);
  keeper = &to;
}

void PagePool::trimTo(uint64_t idlePages) noexcept {
  while (idle() > idlePages)
    free.push_back(keeper->giveUp());
}

Status PagePool::allocate(size_t count, std::vector<PageId> &pages) {
  if (mostPages && count > mostPages - taken) {
    ++refused;
    return error(MOA_OUT_OF_PAGES, "wanted ", count, " pages of ", bytes,
                 " bytes, ", mostPages - taken, " of ", mostPages,
                 " are free; free sequences or raise max_bytes");
  }
  pages.reserve(pages.size() + count);
  // Idle pages go only where the limit has no room beside them, or memory ends.
  uint64_t stay = idle();
  if (mostPages)
    stay = std::min(stay, mostPages - taken - count);
  while (free.size() + idle() - stay < count)
    if (Status failed = grow()) {
      if (free.size() + idle() < count)
        return failed;
      stay = free.size() + idle() - count;
    }
  trimTo(stay);
  for (size_t i = 0; i < count; ++i) {
    pages.push_back(free.back());
    holders[free.back()] = 1;
    free.pop_back();
  }
  taken += count;
  everTaken += count;
  references += count;
  mostTaken = std::max(mostTaken, taken);
  return ok();
}

void PagePool::share(PageId page) noexcept {
  ++references;
  if (++holders[page] > 1) {
    sharedPages += holders[page] == 2;
    return;
  }
  keeper->becomesHeld(page);
  ++everTaken;
  mostTaken = std::max(mostTaken, ++taken);
}

void PagePool::release(PageId page) noexcept {
  --references;
  if (--holders[page] > 0) {
    sharedPages -= holders[page] == 1;
    return;
  }
  --taken;
  if (!keeper || !keeper->keeps(page)) {
    free.push_back(page);
    return;
  }
  keeper->becomesIdle(page);
  trim();
}

} // namespace moa::rt
