//===- plan.cpp - Which pages a call needs and where blocks lie -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of plan.h.
//
//===----------------------------------------------------------------------===//

#include "sched/plan.h"

#include <algorithm>

namespace moa::rt {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

void Plan::clear() {
  newPageCount = 0;
  newPages.clear();
  places.clear();
  appends.clear();
  heads.clear();
}

void Plan::addEntry(const AttendCall &call, size_t entry) {
  Sequence &sequence = call.sequence(entry);
  LayerState &state = sequence.layers[call.layer];
  for (uint32_t h = 0; h < state.heads.size(); ++h) {
    HeadPlan head;
    head.state = &state.heads[h];
    head.next = sequence.after(call.layer, h, call.entries[entry].tokens);
    head.firstNew = newPageCount;
    auto count = [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block)
        if (head.state->page(block) == kNoPage)
          ++head.newPages;
    };
    count(0, head.next.sink_pages);
    count(head.next.window_begin, head.next.window_end);
    newPageCount += head.newPages;
    heads.push_back(head);
  }
}

/// Copies the chunk's part of one block into its page.
void Plan::appendBlock(const EntryView &view, uint32_t kvHead, int64_t block,
                       char *page, bool zero) {
  int64_t begin = std::max(block * kBlock, view.past);
  int64_t end = std::min((block + 1) * kBlock, view.total);
  const Geometry &g = view.module.geometry;
  size_t place = (begin - block * kBlock) * g.headDim * g.elementBytes();
  moa_append_item item = {};
  item.k = view.key(begin - view.past, kvHead);
  item.v = view.value(begin - view.past, kvHead);
  item.page_k = page + place;
  item.page_v = page + g.pageBytes() / 2 + place;
  item.k_stride = view.entry.k_row_stride;
  item.v_stride = view.entry.v_row_stride;
  item.rows = static_cast<int32_t>(end - begin);
  item.zero = zero ? static_cast<int32_t>((block + 1) * kBlock - end) : 0;
  appends.push_back(item);
}

void Plan::placeHead(const EntryView &view, const PagePool &pool,
                     const HeadPlan &head, uint32_t kvHead, bool zeroTails) {
  int64_t count = (view.total + kBlock - 1) / kBlock;
  int32_t *table = places.data() + head.table;
  HeadPages next;
  next.resident = head.next;
  size_t fresh = head.firstNew;
  for (int64_t block = 0; block < count; ++block) {
    PageId page = head.state->page(block);
    bool isNew = page == kNoPage && next.keeps(block);
    if (isNew)
      page = newPages[fresh++];
    // Without a page, a whole block of the call that no later row sees is read
    // where the caller has it; an older one was given up and no range has it.
    table[block] = page == kNoPage ? MOA_GPU_FROM_CALL : int32_t(page);
    if (page != kNoPage && (block + 1) * kBlock > view.past)
      appendBlock(view, kvHead, block, pool.data(page), isNew || zeroTails);
  }
}

void Plan::place(const Module &module, const PagePool &pool,
                 const AttendCall &call, bool zeroTails) {
  const uint32_t kvHeads = module.geometry.kvHeads;
  size_t length = 0;
  for (size_t i = 0; i < call.count; ++i) {
    EntryView view(module, call, i);
    size_t blocks = (view.total + kBlock - 1) / kBlock;
    for (uint32_t h = 0; h < kvHeads; ++h) {
      HeadPlan &head = heads[i * kvHeads + h];
      head.table = length;
      length += (blocks + 1) / 2 * 2;
      if (head.state->pages.size() < blocks)
        head.state->pages.resize(blocks, kNoPage);
    }
  }
  places.assign(length, MOA_GPU_FROM_CALL);
  for (size_t i = 0; i < call.count; ++i) {
    EntryView view(module, call, i);
    for (uint32_t h = 0; h < kvHeads; ++h)
      placeHead(view, pool, heads[i * kvHeads + h], h, zeroTails);
  }
}

void Plan::commit(PagePool &pool, const AttendCall &call) noexcept {
  for (HeadPlan &plan : heads) {
    HeadPages &head = *plan.state;
    head.resident = plan.next;
    size_t fresh = plan.firstNew;
    for (size_t block = 0; block < head.pages.size(); ++block) {
      PageId &page = head.pages[block];
      bool keep = head.keeps(static_cast<int64_t>(block));
      if (keep && page == kNoPage) {
        page = newPages[fresh++];
      } else if (!keep && page != kNoPage) {
        pool.release(page);
        page = kNoPage;
      }
    }
  }
  for (size_t i = 0; i < call.count; ++i)
    call.sequence(i).layers[call.layer].seen += call.entries[i].tokens;
}

} // namespace moa::rt
