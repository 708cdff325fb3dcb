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

struct Work::Head {
  const EntryView &view;
  uint32_t kvHead;
  const moa_key_block *blocks;
  int64_t bound; ///< First resident position.
  float scaleLog2;
};

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

/// Says where every block of a KV head lies during the call.
const moa_key_block *Work::layBlocks(const EntryView &view,
                                     const PagePool &pool,
                                     const int32_t *places,
                                     const HeadPlan &plan, uint32_t kvHead) {
  int64_t count = (view.total + kBlock - 1) / kBlock;
  moa_key_block *table = blockTable.data() + blocksUsed;
  blocksUsed += count;
  const Geometry &g = view.module.geometry;
  const int64_t dim = g.headDim;
  for (int64_t block = 0; block < count; ++block) {
    int64_t token = block * kBlock - view.past;
    moa_key_block &place = table[block];
    place = {}; // As it stays where it was given up; no range has it.
    if (places[block] != MOA_GPU_FROM_CALL) {
      const auto page = static_cast<PageId>(places[block]);
      const char *data = pool.data(page);
      place.k_stride = place.v_stride = dim;
      if (plan.change.seesKv8(*plan.state, block)) {
        const int64_t half = block % 2;
        place.k = data + half * 2 * g.codeBytes();
        place.v = data + (half * 2 + 1) * g.codeBytes();
        place.scales = pool.scales(page) + half * (MOA_KV8_SCALES / 2);
        place.format = view.module.kvFormat(view.layer, kvHead);
      } else {
        place.k = data;
        place.v = data + g.pageBytes() / 2;
      }
    } else if (token > -kBlock) {
      place.k = view.key(token, kvHead);
      place.v = view.value(token, kvHead);
      place.k_stride = view.entry.k_row_stride;
      place.v_stride = view.entry.v_row_stride;
    }
  }
  return table;
}

void Work::addPrefill(const Head &head) {
  const EntryView &call = head.view;
  const uint32_t kvHead = head.kvHead;
  const Module &module = call.module;
  const int64_t n = call.length;
  const int64_t bound = head.bound;
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
      item.sink = module.sink(call.layer);
      item.scale_log2 = head.scaleLog2;
      item.ranges =
          moa_block_ranges_of(row, end - 1, starts[0], starts[end - 1 - row],
                              module.sink(call.layer));
      task.cost = (int64_t(item.ranges.sink_end) + item.ranges.end -
                   item.ranges.edge_begin) *
                  MOA_PREFILL_ROWS;
      tasks.push_back(task);
    }
    row = end;
  }
}

void Work::addDecode(const Head &head) {
  const EntryView &call = head.view;
  const uint32_t kvHead = head.kvHead;
  const Module &module = call.module;
  const int64_t n = call.length;
  const int64_t bound = head.bound;
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
  moa_block_ranges all = moa_block_ranges_of(call.past, call.past, low, high,
                                             module.sink(call.layer));

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
  splits += shares - 1;

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
    item.sink = module.sink(call.layer);
    item.scale_log2 = head.scaleLog2;
    item.ranges = {share == 0 ? all.sink_end : 0, low, clamp(all.full_begin),
                   clamp(all.diag_begin), high};
    task.cost = (int64_t(item.ranges.sink_end) + high - low) * group;
    task.merge = &merge;
    tasks.push_back(task);
  }
}

void Work::build(const Module &module, const PagePool &pool, const Plan &plan,
                 const AttendCall &call) {
  const Geometry &g = module.geometry;
  tasks.clear();
  order.clear();
  blocksUsed = startSlab = startUsed = mergesUsed = partialsUsed = 0;
  splits = 0;
  size_t blocks = 0, floats = 0, decodes = 0;
  for (size_t i = 0; i < call.count; ++i) {
    int64_t perHead = (EntryView(module, call, i).total + kBlock - 1) / kBlock;
    blocks += perHead * g.kvHeads;
    decodes += g.kvHeads;
    floats +=
        (perHead / kDecodeShare + 2) * g.kvHeads * g.group() * (g.headDim + 2);
  }
  blockTable.resize(std::max(blockTable.size(), blocks));
  partials.resize(std::max(partials.size(), floats));
  while (merges.size() < decodes)
    merges.emplace_back();

  for (size_t i = 0; i < call.count; ++i) {
    EntryView view(module, call, i);
    for (uint32_t h = 0; view.attends() && h < g.kvHeads; ++h) {
      const HeadPlan &planned = plan.head(g, i, h);
      Head head{
          view, h,
          layBlocks(view, pool, plan.places.data() + planned.table, planned, h),
          planned.state->firstResident(), call.scaleLog2()};
      if (view.decodes())
        addDecode(head);
      else
        addPrefill(head);
    }
  }
  order.resize(tasks.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return tasks[a].cost != tasks[b].cost ? tasks[a].cost > tasks[b].cost
                                          : a < b;
  });
}

} // namespace moa::rt
