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

moa_append_item copyOfPage(const Geometry &g, const PagePool &pool, PageId from,
                           PageId to, int64_t rows, int64_t zero) {
  const size_t half = g.pageBytes() / 2;
  moa_append_item item = {};
  item.k = pool.data(from);
  item.v = pool.data(from) + half;
  item.page_k = pool.data(to);
  item.page_v = pool.data(to) + half;
  item.k_stride = item.v_stride = g.headDim;
  item.rows = static_cast<int32_t>(rows);
  item.zero = static_cast<int32_t>(zero);
  return item;
}

moa_quantise_item quantiseTo(const PagePool &pool, PageId to, int64_t block,
                             int32_t format, PageId kept) {
  moa_quantise_item item = {};
  item.page = pool.data(to);
  item.scales = pool.scales(to);
  if (kept != kNoPage) {
    item.kept = pool.data(kept);
    item.kept_scales = pool.scales(kept);
  }
  item.half = static_cast<int32_t>(block % 2);
  item.format = format;
  return item;
}

void quantiseFrom(moa_quantise_item &item, const Geometry &g,
                  const PagePool &pool, PageId from) {
  const char *data = pool.data(from);
  item.k = data;
  item.v = data + g.pageBytes() / 2;
  item.k_stride = item.v_stride = g.headDim;
}

void Plan::clear() {
  newPageCount = copyCount = 0;
  newPages.clear();
  appends.clear();
  ropes.clear();
  quantises.clear();
  lateQuantises.clear();
  heads.clear();
}

void Plan::addEntry(const AttendCall &call, size_t entry,
                    const HeadChange *const *decided) {
  Sequence &sequence = call.sequence(entry);
  LayerState &state = sequence.layers[call.layer];
  for (uint32_t h = 0; h < state.heads.size(); ++h) {
    HeadPlan head;
    head.state = &state.heads[h];
    head.change =
        decided && decided[h]
            ? *decided[h]
            : HeadChange(sequence, call.layer, h, call.entries[entry].tokens);
    head.firstNew = newPageCount;
    newPageCount += head.change.newPages();
    copyCount += head.change.copies;
    heads.push_back(head);
  }
}

/// The chunk's part of one block, and its page if it has one.
static moa_append_item itemOf(const EntryView &view, uint32_t kvHead,
                              int64_t block, char *page, bool zero) {
  int64_t begin = std::max(block * kBlock, view.past);
  int64_t end = std::min((block + 1) * kBlock, view.total);
  const Geometry &g = view.module.geometry;
  size_t place = (begin - block * kBlock) * g.headDim * g.elementBytes();
  moa_append_item item = {};
  item.k = view.key(begin - view.past, kvHead);
  item.v = view.value(begin - view.past, kvHead);
  if (page) {
    item.page_k = page + place;
    item.page_v = page + g.pageBytes() / 2 + place;
  }
  item.k_stride = view.entry.k_row_stride;
  item.v_stride = view.entry.v_row_stride;
  item.rows = static_cast<int32_t>(end - begin);
  item.zero =
      page && zero ? static_cast<int32_t>((block + 1) * kBlock - end) : 0;
  return item;
}

/// Rotates the chunk's part of one block, keys and the queries of their group,
/// and copies it into its page if it has one.
void Plan::rotateBlock(const EntryView &view, uint32_t kvHead, int64_t block,
                       char *page, bool zero) {
  const uint32_t group = view.module.geometry.group();
  const int64_t begin = std::max(block * kBlock, view.past);
  moa_rope_item item = {};
  item.append = itemOf(view, kvHead, block, page, zero);
  if (view.attends()) {
    item.q = const_cast<char *>(view.query(begin - view.past, kvHead * group));
    item.q_row_stride = view.entry.q_row_stride;
    item.q_head_stride = view.entry.q_head_stride;
    item.heads = static_cast<int32_t>(group);
  }
  item.turns = rope.turns;
  item.position = static_cast<int32_t>(begin);
  item.scale = rope.scale;
  ropes.push_back(item);
}

/// Brings complete blocks to 8 bits. Those complete before the call are seen so
/// by its rows.
void Plan::quantiseBlocks(const EntryView &view, const PagePool &pool,
                          const HeadPlan &head, uint32_t kvHead) {
  const HeadChange &change = head.change;
  int32_t *table = places.data() + head.table;
  for (int64_t block = change.kv8.begin; block < change.kv8.end; ++block) {
    const PageId page =
        change.kv8Page(*head.state, newPages.data() + head.firstNew, block);
    const bool brings = change.brings && block == change.kv8.begin;
    moa_quantise_item item =
        quantiseTo(pool, page, block, view.module.kvFormat(view.layer, kvHead),
                   brings ? head.state->pages[block - 1] : kNoPage);
    const int64_t token = block * kBlock - view.past;
    if (token >= 0) {
      item.k = view.key(token, kvHead);
      item.v = view.value(token, kvHead);
      item.k_stride = view.entry.k_row_stride;
      item.v_stride = view.entry.v_row_stride;
    } else {
      quantiseFrom(item, view.module.geometry, pool,
                   static_cast<PageId>(table[block]));
    }
    if (change.seesKv8(*head.state, block)) {
      quantises.push_back(item);
      table[block] = static_cast<int32_t>(page);
    } else {
      lateQuantises.push_back(item);
    }
  }
}

void Plan::placeHead(const EntryView &view, const PagePool &pool,
                     const HeadPlan &head, uint32_t kvHead, bool copies) {
  static_assert(int32_t(kNoPage) == MOA_GPU_FROM_CALL, "tables are copied");
  const int64_t count = blocksOf(view.total), begun = blocksOf(view.past);
  const PageId *old = head.state->pages.data();
  int32_t *table = places.data() + head.table;
  std::copy(old, old + begun, table);
  // The last block begun, if it is not full, grows; the rest is new.
  const int64_t first = view.past / kBlock;
  const HeadChange &change = head.change;
  HeadPages next;
  next.resident = change.next;
  size_t fresh = head.firstNew;
  for (int64_t block = first; block < count; ++block) {
    PageId page = block < begun ? old[block] : kNoPage;
    const bool copied = change.copies && block < begun;
    const bool isNew =
        copied || (block >= begun && next.keeps(block) && !next.isKv8(block));
    if (isNew)
      page = newPages[fresh++];
    if (copied) {
      // The rows that are new, and zeros behind them, come from elsewhere.
      const int64_t rows = view.past % kBlock;
      appends.push_back(copyOfPage(view.module.geometry, pool, old[block], page,
                                   rows, copies ? 0 : kBlock - rows));
    }
    // Without a page, a whole block of the call that no later row sees is read
    // where the caller has it; an older one was given up and no range has it.
    table[block] = static_cast<int32_t>(page);
    char *target = copies && page != kNoPage ? pool.data(page) : nullptr;
    const bool zeros = isNew || view.dirtyTail;
    if (rope)
      rotateBlock(view, kvHead, block, target, zeros);
    else if (target)
      appends.push_back(itemOf(view, kvHead, block, target, zeros));
  }
  if (count % 2)
    table[count] = MOA_GPU_FROM_CALL;
  quantiseBlocks(view, pool, head, kvHead);
}

void Plan::place(const Module &module, const PagePool &pool,
                 const AttendCall &call, bool decodeAppends, Rope rotation) {
  rope = rotation;
  const uint32_t kvHeads = module.geometry.kvHeads;
  size_t length = 0;
  for (size_t i = 0; i < call.count; ++i) {
    size_t blocks = blocksOf(EntryView(module, call, i).total);
    for (uint32_t h = 0; h < kvHeads; ++h) {
      HeadPlan &head = heads[i * kvHeads + h];
      head.table = length;
      length += (blocks + 1) / 2 * 2;
      if (head.state->pages.size() < blocks)
        head.state->pages.resize(blocks, kNoPage);
    }
  }
  places.resize(length);
  for (size_t i = 0; i < call.count; ++i) {
    EntryView view(module, call, i);
    for (uint32_t h = 0; h < kvHeads; ++h)
      placeHead(view, pool, heads[i * kvHeads + h], h,
                !(decodeAppends && view.decodes()));
  }
}

void Plan::commit(PagePool &pool, const AttendCall &call) noexcept {
  const size_t kvHeads = heads.size() / call.count;
  for (size_t i = 0; i < call.count; ++i) {
    LayerState &state = call.sequence(i).layers[call.layer];
    state.seen += call.entries[i].tokens;
    state.dirtyTail = false;
    ++call.sequence(i).revision;
    for (size_t h = 0; h < kvHeads; ++h) {
      const HeadPlan &plan = heads[i * kvHeads + h];
      plan.change.apply(*plan.state, pool, newPages.data() + plan.firstNew,
                        state.seen);
    }
  }
}

} // namespace moa::rt
