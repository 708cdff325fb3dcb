//===- work.cpp - The work of one call ------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of work.h. Window arithmetic is that of abi/span.h; this file
// only decides which rows and blocks go together.
//
//===----------------------------------------------------------------------===//

#include "sched/work.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace moa::rt {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

/// Entries of one slab of window starts.
constexpr size_t kStartSlab = size_t(1) << 16;

struct Work::Call {
  const Module &module;
  PagePool &pool;
  uint32_t layer;
  float scaleLog2;
  const moa_attend_entry &entry;
  int64_t past;  ///< Tokens before the call.
  int64_t total; ///< Tokens after it.

  size_t bytes() const { return module.geometry.elementBytes(); }
  size_t pageHalf() const { return module.geometry.pageBytes() / 2; }
  const char *key(int64_t token, uint32_t head) const {
    return static_cast<const char *>(entry.k) +
           (token * entry.k_row_stride + head * entry.k_head_stride) *
               static_cast<int64_t>(bytes());
  }
  const char *value(int64_t token, uint32_t head) const {
    return static_cast<const char *>(entry.v) +
           (token * entry.v_row_stride + head * entry.v_head_stride) *
               static_cast<int64_t>(bytes());
  }
  const char *query(int64_t token, uint32_t head) const {
    return static_cast<const char *>(entry.q) +
           (token * entry.q_row_stride + head * entry.q_head_stride) *
               static_cast<int64_t>(bytes());
  }
  char *output(int64_t token, uint32_t head) const {
    return static_cast<char *>(entry.out) +
           (token * entry.out_row_stride + head * entry.out_head_stride) *
               static_cast<int64_t>(bytes());
  }
};

void Work::clear() {
  newPageCount = 0;
  newPages.clear();
  appends.clear();
  tasks.clear();
  order.clear();
  heads.clear();
  blocksUsed = startSlab = startUsed = mergesUsed = partialsUsed = 0;
}

void Work::planEntry(const moa_attend_entry &entry, uint32_t layer) {
  auto &sequence = *reinterpret_cast<Sequence *>(entry.sequence);
  LayerState &state = sequence.layers[layer];
  for (uint32_t h = 0; h < state.heads.size(); ++h) {
    HeadWork work;
    work.state = &state.heads[h];
    work.next = sequence.after(layer, h, entry.tokens);
    work.firstNew = newPageCount;
    auto count = [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block)
        if (work.state->page(block) == kNoPage)
          ++work.newPages;
    };
    count(0, work.next.sink_pages);
    count(work.next.window_begin, work.next.window_end);
    newPageCount += work.newPages;
    heads.push_back(work);
  }
}

int32_t *Work::takeStarts(size_t count) {
  if (startSlab == startSlabs.size() || startUsed + count > kStartSlab) {
    if (startSlab < startSlabs.size())
      ++startSlab;
    if (startSlab == startSlabs.size())
      startSlabs.emplace_back(kStartSlab);
    startUsed = 0;
  }
  int32_t *starts = startSlabs[startSlab].data() + startUsed;
  startUsed += count;
  return starts;
}

/// Copies the chunk's part of one block into its page.
void Work::appendBlock(const Call &call, uint32_t kvHead, int64_t block,
                       char *page, bool fresh) {
  int64_t begin = std::max(block * kBlock, call.past);
  int64_t end = std::min((block + 1) * kBlock, call.total);
  size_t row = call.module.geometry.headDim * call.bytes();
  size_t place = (begin - block * kBlock) * row;
  moa_append_item item = {};
  item.k = call.key(begin - call.past, kvHead);
  item.v = call.value(begin - call.past, kvHead);
  item.page_k = page + place;
  item.page_v = page + call.pageHalf() + place;
  item.k_stride = call.entry.k_row_stride;
  item.v_stride = call.entry.v_row_stride;
  item.rows = static_cast<int32_t>(end - begin);
  item.zero = fresh ? static_cast<int32_t>((block + 1) * kBlock - end) : 0;
  appends.push_back(item);
}

/// Says where every block of a KV head lies during the call, and what has to
/// be copied into pages first.
void Work::placeBlocks(const Call &call, HeadWork &head, uint32_t kvHead) {
  int64_t count = (call.total + kBlock - 1) / kBlock;
  moa_key_block *table = blockTable.data() + blocksUsed;
  blocksUsed += count;
  head.blocks = table;
  HeadPages next;
  next.resident = head.next;
  const int64_t dim = call.module.geometry.headDim;
  size_t fresh = head.firstNew;
  for (int64_t block = 0; block < count; ++block) {
    PageId page = head.state->page(block);
    bool isNew = page == kNoPage && next.keeps(block);
    if (isNew)
      page = newPages[fresh++];
    bool grows = (block + 1) * kBlock > call.past;
    if (page != kNoPage) {
      char *data = call.pool.data(page);
      table[block] = {data, data + call.pageHalf(), dim, dim};
      if (grows)
        appendBlock(call, kvHead, block, data, isNew);
    } else if (grows) {
      // A whole block that no later row sees: read where the caller has it.
      int64_t token = block * kBlock - call.past;
      table[block] = {call.key(token, kvHead), call.value(token, kvHead),
                      call.entry.k_row_stride, call.entry.v_row_stride};
    } else {
      table[block] = {nullptr, nullptr, 0, 0}; // Given up; no range has it.
    }
  }
}

void Work::addPrefill(const Call &call, const HeadWork &head, uint32_t kvHead) {
  const Module &module = call.module;
  const int64_t n = reinterpret_cast<Sequence *>(call.entry.sequence)->length;
  const int64_t bound = head.state->firstResident();
  const uint32_t group = module.geometry.group();
  for (int64_t row = call.past; row < call.total;) {
    int64_t end = std::min(call.total, (row / kBlock + 1) * kBlock);
    const moa_span_rule *rule = nullptr;
    int32_t *starts = nullptr;
    for (uint32_t g = 0; g < group; ++g) {
      uint32_t qHead = kvHead * group + g;
      const moa_span_rule &own = module.rule(call.layer, qHead);
      // Equal rules of a group share their starts.
      if (!rule || std::memcmp(rule, &own, sizeof(own)) != 0) {
        rule = &own;
        starts = takeStarts(MOA_PREFILL_ROWS);
        for (int64_t i = 0; i < MOA_PREFILL_ROWS; ++i) {
          int64_t position = std::min(row + i, end - 1);
          starts[i] = static_cast<int32_t>(
              std::max(bound, moa_window_start(rule, position, n)));
        }
      }
      Task task;
      task.kernel = reinterpret_cast<moa_attention_kernel>(
          module.layers[call.layer].prefill.entry);
      moa_work_item &item = task.item;
      item = {};
      item.q = call.query(row - call.past, qHead);
      item.out = call.output(row - call.past, qHead);
      item.blocks = head.blocks;
      item.starts = starts;
      item.q_stride = call.entry.q_row_stride;
      item.out_stride = call.entry.out_row_stride;
      item.rows = static_cast<int32_t>(end - row);
      item.position = static_cast<int32_t>(row);
      item.sink = module.sink();
      item.scale_log2 = call.scaleLog2;
      item.ranges = moa_block_ranges_of(row, end - 1, starts[0],
                                        starts[end - 1 - row], module.sink());
      task.cost = (int64_t(item.ranges.sink_end) + item.ranges.end -
                   item.ranges.edge_begin) *
                  MOA_PREFILL_ROWS;
      tasks.push_back(task);
    }
    row = end;
  }
}

void Work::addDecode(const Call &call, const HeadWork &head, uint32_t kvHead) {
  const Module &module = call.module;
  const int64_t n = reinterpret_cast<Sequence *>(call.entry.sequence)->length;
  const int64_t bound = head.state->firstResident();
  const uint32_t group = module.geometry.group();
  int32_t *starts = takeStarts(MOA_PREFILL_ROWS);
  int32_t low = INT32_MAX, high = 0;
  for (uint32_t g = 0; g < group; ++g) {
    const moa_span_rule &rule = module.rule(call.layer, kvHead * group + g);
    starts[g] = static_cast<int32_t>(
        std::max(bound, moa_window_start(&rule, call.past, n)));
    low = std::min(low, starts[g]);
    high = std::max(high, starts[g]);
  }
  std::fill(starts + group, starts + MOA_PREFILL_ROWS, starts[group - 1]);
  moa_block_ranges all =
      moa_block_ranges_of(call.past, call.past, low, high, module.sink());

  // The first share has every sink block; the rest is cut evenly.
  int64_t first = std::min<int64_t>(
      all.end,
      all.edge_begin + std::max<int64_t>(0, kDecodeShare - all.sink_end));
  int64_t shares = 1 + (all.end - first + kDecodeShare - 1) / kDecodeShare;
  size_t floats = size_t(group) * (module.geometry.headDim + 2);
  Merge &merge = merges[mergesUsed++];
  merge.partials = partials.data() + partialsUsed;
  merge.shares = static_cast<uint32_t>(shares);
  merge.out = call.output(0, kvHead * group);
  merge.headStride = call.entry.out_head_stride;
  merge.left.store(merge.shares, std::memory_order_relaxed);
  partialsUsed += shares * floats;

  for (int64_t share = 0; share < shares; ++share) {
    auto low = static_cast<int32_t>(
        share == 0 ? all.edge_begin : first + (share - 1) * kDecodeShare);
    auto high = static_cast<int32_t>(
        std::min<int64_t>(all.end, first + share * kDecodeShare));
    auto clamp = [&](int32_t block) { return std::clamp(block, low, high); };
    Task task;
    task.kernel = reinterpret_cast<moa_attention_kernel>(
        module.layers[call.layer].decode.entry);
    moa_work_item &item = task.item;
    item = {};
    item.q = call.query(0, kvHead * group);
    item.partial = merge.partials + share * floats;
    item.blocks = head.blocks;
    item.starts = starts;
    item.q_stride = call.entry.q_head_stride;
    item.rows = static_cast<int32_t>(group);
    item.position = static_cast<int32_t>(call.past);
    item.sink = module.sink();
    item.scale_log2 = call.scaleLog2;
    item.ranges = {share == 0 ? all.sink_end : 0, low, clamp(all.full_begin),
                   clamp(all.diag_begin), high};
    task.cost = (int64_t(item.ranges.sink_end) + high - low) * group;
    task.merge = &merge;
    tasks.push_back(task);
  }
}

void Work::build(const Module &module, PagePool &pool, uint32_t layer,
                 float scale, const moa_attend_entry *entries, size_t count) {
  const Geometry &g = module.geometry;
  const float scaleLog2 = scale * 1.4426950408889634f;
  size_t blocks = 0, floats = 0, decodes = 0;
  for (size_t i = 0; i < count; ++i) {
    auto &sequence = *reinterpret_cast<Sequence *>(entries[i].sequence);
    int64_t total = sequence.layers[layer].seen + entries[i].tokens;
    int64_t perHead = (total + kBlock - 1) / kBlock;
    blocks += perHead * g.kvHeads;
    decodes += g.kvHeads;
    floats +=
        (perHead / kDecodeShare + 2) * g.kvHeads * g.group() * (g.headDim + 2);
    for (HeadPages &head : sequence.layers[layer].heads)
      if (head.pages.size() < size_t(perHead))
        head.pages.resize(perHead, kNoPage);
  }
  blockTable.resize(std::max(blockTable.size(), blocks));
  partials.resize(std::max(partials.size(), floats));
  while (merges.size() < decodes)
    merges.emplace_back();

  for (size_t i = 0; i < count; ++i) {
    auto &sequence = *reinterpret_cast<Sequence *>(entries[i].sequence);
    int64_t past = sequence.layers[layer].seen;
    Call call{module,
              pool,
              layer,
              scaleLog2,
              entries[i],
              past,
              past + entries[i].tokens};
    bool decode =
        entries[i].tokens == 1 && module.layers[layer].decode.entry != nullptr;
    for (uint32_t h = 0; h < g.kvHeads; ++h) {
      HeadWork &head = heads[i * g.kvHeads + h];
      placeBlocks(call, head, h);
      if (decode)
        addDecode(call, head, h);
      else
        addPrefill(call, head, h);
    }
  }
  order.resize(tasks.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return tasks[a].cost != tasks[b].cost ? tasks[a].cost > tasks[b].cost
                                          : a < b;
  });
}

void Work::commit(PagePool &pool, uint32_t layer,
                  const moa_attend_entry *entries, size_t count) noexcept {
  for (HeadWork &work : heads) {
    HeadPages &head = *work.state;
    head.resident = work.next;
    size_t fresh = work.firstNew;
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
  for (size_t i = 0; i < count; ++i)
    reinterpret_cast<Sequence *>(entries[i].sequence)->layers[layer].seen +=
        entries[i].tokens;
}

} // namespace moa::rt
