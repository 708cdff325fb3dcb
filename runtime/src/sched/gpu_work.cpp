//===- gpu_work.cpp - The work of one call on a GPU -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of gpu_work.h. Window arithmetic is that of abi/span.h; this
// file only turns ranges of 64-key blocks to tiles.
//
//===----------------------------------------------------------------------===//

#include "sched/gpu_work.h"

#include <algorithm>
#include <cstring>
#include <tuple>

namespace moa::rt {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

/// Longest window an item states; no sequence is longer.
constexpr int64_t kMostLocal = int64_t(1) << 30;

int32_t GpuWork::startsOf(const EntryView &view, const moa_span_rule &rule,
                          int64_t floor, int64_t first, int64_t rows) {
  if (moa_length_rule_of(&rule) == MOA_LENGTH_REQUEST)
    return -1;
  auto place = static_cast<int32_t>(starts.size());
  for (int64_t r = 0; r < rows; ++r) {
    int64_t position = std::min(first + r, view.total - 1);
    starts.push_back(static_cast<int32_t>(
        std::max(floor, moa_window_start(&rule, position, view.length))));
  }
  return place;
}

void GpuWork::addPrefill(const EntryView &view, const HeadPlan &head,
                         uint32_t kvHead, int32_t entry) {
  const Module &module = view.module;
  const Kernel &kernel = module.layers[view.layer].prefill;
  const int64_t rows = kernel.rows, keys = kernel.keys;
  const int64_t blocksPerTile = keys / kBlock;
  const int64_t floor = head.state->firstResident(),
                sink = module.sink(view.layer);
  const uint32_t group = module.geometry.group();
  // From row 0 of the call, wherever that lies: a bulk copy out must not start
  // before its tensor.
  for (int64_t first = view.past; first < view.total; first += rows) {
    const int64_t high = std::min(first + rows, view.total) - 1;
    const moa_span_rule *shared = nullptr;
    int32_t place = -1;
    for (uint32_t g = 0; g < group; ++g) {
      const uint32_t qHead = kvHead * group + g;
      const moa_span_rule &rule = module.rule(view.layer, qHead);
      // Equal rules of a group share their starts.
      if (!shared || std::memcmp(shared, &rule, sizeof(rule)) != 0) {
        shared = &rule;
        place = startsOf(view, rule, floor, first, rows);
      }
      int64_t start =
          std::max(floor, moa_window_start(&rule, first, view.length));
      int64_t startMax =
          std::max(floor, moa_window_start(&rule, high, view.length));
      moa_block_ranges ranges =
          moa_block_ranges_of(first, high, start, startMax, sink);
      const int64_t top = high / keys,
                    bottom = ranges.edge_begin / blocksPerTile;
      // Sink blocks inside the lowest window tile are that tile's.
      const int64_t sinks =
          std::min<int64_t>(ranges.sink_end, bottom * blocksPerTile);
      Tile tile = {};
      moa_gpu_prefill_item &item = tile.item;
      item.entry = entry;
      item.head = static_cast<int32_t>(qHead);
      item.kv_head = static_cast<int32_t>(kvHead);
      item.row = static_cast<int32_t>(first - view.past);
      item.position = static_cast<int32_t>(first);
      item.table = static_cast<int32_t>(head.table);
      item.local = static_cast<int32_t>(
          std::min(kMostLocal, moa_span_local(&rule, view.length)));
      item.floor = static_cast<int32_t>(floor);
      item.starts = place;
      item.top = static_cast<int32_t>(top);
      item.window_tiles = static_cast<int32_t>(top - bottom + 1);
      item.sink_tiles = static_cast<int32_t>(sinks / blocksPerTile);
      item.sink_block = static_cast<int32_t>(sinks % blocksPerTile);
      tile.cost = (top - bottom + 1) * blocksPerTile + sinks + kTileCost;
      tiles.push_back(tile);
    }
  }
}

void GpuWork::takeBack(const EntryView &view, const PagePool &pool,
                       const HeadPlan &head, uint32_t kvHead) {
  const int32_t format = view.module.kvFormat(view.layer, kvHead);
  if (format == MOA_KV_MODEL)
    return;
  const int64_t seen = std::max(
      head.state->firstResident(),
      view.module.groupStart(view.layer, kvHead, view.past, view.length));
  for (int64_t block = 0; block < blocksOf(view.past); ++block) {
    if (!head.change.seesKv8(*head.state, block))
      continue;
    int32_t &place = places[head.table + block];
    // What no row sees reads as zeros; a tile may have such a block.
    const auto page = static_cast<PageId>(place);
    place = MOA_GPU_FROM_CALL;
    if ((block + 1) * kBlock <= seen)
      continue;
    backAt.push_back(head.table + block);
    backs.push_back(quantiseTo(pool, page, block, format, kNoPage));
    backs.back().back = 1;
  }
}

void GpuWork::bringBack(const Module &module, const PagePool &pool,
                        PageId first) {
  const Geometry &g = module.geometry;
  for (size_t i = 0; i < backs.size(); ++i) {
    places[backAt[i]] = static_cast<int32_t>(first + i);
    const char *data = pool.base() + (first + i) * g.pageBytes();
    backs[i].k = data;
    backs[i].v = data + g.pageBytes() / 2;
    backs[i].k_stride = backs[i].v_stride = g.headDim;
  }
}

/// A tensor of which `row` and `head` say how far rows and heads lie apart;
/// where an item lies is counted in elements from `base`.
static moa_gpu_rows rowsOf(const void *base, int64_t row, int64_t head) {
  return {const_cast<void *>(base), 1, row, head};
}

/// Elements from the tensor's base to `place`, which are as far from each other
/// as 16-byte aligned addresses are.
static int64_t placeIn(const moa_gpu_rows &rows, const void *place,
                       size_t elementBytes) {
  return static_cast<int64_t>(reinterpret_cast<intptr_t>(place) -
                              reinterpret_cast<intptr_t>(rows.base)) /
         static_cast<int64_t>(elementBytes);
}

void GpuWork::addPlaces(const EntryView &view, const Plan &plan,
                        const HeadPlan &head, uint32_t kvHead, int64_t begin,
                        int64_t end) {
  const int32_t format = view.module.kvFormat(view.layer, kvHead);
  const int32_t *table = plan.places.data() + head.table;
  if (format == MOA_KV_MODEL) {
    pages.insert(pages.end(), table + begin, table + end);
    return;
  }
  for (int64_t block = begin; block < end; ++block)
    pages.push_back(head.change.seesKv8(*head.state, block)
                        ? moa_gpu_codes_place(table[block], block % 2, format)
                        : table[block]);
}

void GpuWork::addDecodeItem(const EntryView &view, const Plan &plan,
                            const HeadPlan &head, uint32_t kvHead) {
  const Module &module = view.module;
  const uint32_t group = module.geometry.group();
  const size_t bytes = module.geometry.elementBytes();
  const DecodeLaunch &launch = decodes.back();
  moa_gpu_decode_item item = {};
  const int32_t count = moa_gpu_decode_window(
      &item, &module.rule(view.layer, kvHead * group),
      static_cast<int32_t>(group), view.length,
      static_cast<int32_t>(head.state->firstResident()),
      static_cast<int32_t>(view.total), static_cast<int32_t>(view.entry.tokens),
      module.sink(view.layer));
  item.q = placeIn(launch.q, view.entry.q, bytes);
  item.k = placeIn(launch.k, view.entry.k, bytes);
  item.v = placeIn(launch.v, view.entry.v, bytes);
  item.out = placeIn(launch.out, view.entry.out, bytes);
  item.fresh = static_cast<int32_t>(view.entry.tokens);
  item.kv_head = static_cast<int32_t>(kvHead);
  item.zero = view.dirtyTail;
  item.table = item.window_table = static_cast<int32_t>(pages.size());
  addPlaces(view, plan, head, kvHead, 0, item.sink_pages);
  addPlaces(view, plan, head, kvHead, item.window_begin,
            item.window_begin + count - item.sink_pages);
  decode.push_back(item);
  lines.push_back(lines.back() + count);
}

void GpuWork::endLine(const Module &module, uint32_t layer) {
  if (decodes.empty())
    return;
  DecodeLaunch &launch = decodes.back();
  const auto count = static_cast<int32_t>(decode.size() - launch.firstItem);
  const int32_t linePages = lines.back();
  launch.items = decode.size() - launch.firstItem;
  lines[launch.line] = count;
  lines[launch.line + 1] = linePages;
  launch.firstCut = cuts.size();
  const int32_t *first =
      lines.data() + launch.line + offsetof(moa_gpu_line, first) / 4;
  const auto most =
      decodeParts
          ? count * decodeParts
          : static_cast<int32_t>(module.decodeFor(layer, launch.tokens).grid);
  moa_gpu_tried tried;
  for (int32_t share = 0; share < MOA_GPU_CUT_APART; ++share)
    moa_gpu_try(&tried, first, count, most, decodeParts, share);
  const moa_gpu_shares shares =
      moa_gpu_shares_of(count, linePages, most, decodeParts, &tried);
  for (launch.grid = 0; launch.grid < most; ++launch.grid) {
    moa_gpu_cut cut = moa_gpu_cut_of(
        first, count, decode.data() + launch.firstItem, launch.grid, shares);
    if (cut.begin == cut.end && !decodeParts)
      break;
    for (int32_t lane = 0; lane < MOA_GPU_CUT_IDS; ++lane)
      cut.ids[lane] = moa_gpu_cut_id(&cut, pages.data(), lane);
    cuts.push_back(cut);
  }
}

void GpuWork::addDecode(const EntryView &view, const Plan &plan, size_t entry) {
  const moa_attend_entry &e = view.entry;
  // The stride of rows matters to entries that have several.
  auto fits = [&](const moa_gpu_rows &rows, int64_t row, int64_t head) {
    return rows.head_stride == head &&
           (e.tokens == 1 || rows.token_stride == row);
  };
  const DecodeLaunch *last = decodes.empty() ? nullptr : &decodes.back();
  // Which kernel takes an entry may say how its sums are ordered.
  auto sameKernel = [&] {
    return &view.module.decodeFor(view.layer, e.tokens) ==
           &view.module.decodeFor(view.layer, last->tokens);
  };
  if (!last || (decodeParts && !sameKernel()) ||
      !fits(last->q, e.q_row_stride, e.q_head_stride) ||
      !fits(last->k, e.k_row_stride, e.k_head_stride) ||
      !fits(last->v, e.v_row_stride, e.v_head_stride) ||
      !fits(last->out, e.out_row_stride, e.out_head_stride)) {
    endLine(view.module, view.layer);
    DecodeLaunch launch;
    launch.firstItem = decode.size();
    // Lines are read by 16 bytes.
    lines.resize((lines.size() + 3) / 4 * 4);
    launch.line = lines.size();
    lines.resize(lines.size() + offsetof(moa_gpu_line, first) / 4 + 1);
    launch.q = rowsOf(e.q, e.q_row_stride, e.q_head_stride);
    launch.k = rowsOf(e.k, e.k_row_stride, e.k_head_stride);
    launch.v = rowsOf(e.v, e.v_row_stride, e.v_head_stride);
    launch.out = rowsOf(e.out, e.out_row_stride, e.out_head_stride);
    decodes.push_back(launch);
  }
  decodes.back().tokens = std::max(decodes.back().tokens, e.tokens);
  const Geometry &g = view.module.geometry;
  for (uint32_t h = 0; h < g.kvHeads; ++h)
    addDecodeItem(view, plan, plan.head(g, entry, h), h);
}

/// Most costly first. Among equals, rows of a KV head stay together, and the
/// heads of a group: what is in flight at a time shares keys in the L2 cache.
void GpuWork::sortTiles() {
  auto place = [](const Tile &tile) {
    const moa_gpu_prefill_item &item = tile.item;
    return std::make_tuple(-tile.cost, item.entry, item.kv_head, item.position,
                           item.head);
  };
  std::sort(tiles.begin(), tiles.end(),
            [&](const Tile &a, const Tile &b) { return place(a) < place(b); });
}

/// Deals the tiles in rounds: the more costly one of a round is, the less the
/// block that gets it had to do so far. So no two blocks ever lie further apart
/// than by the most costly tile. The last round may be short: blocks are
/// numbered by it, and it is those of the first numbers that have a tile more.
void GpuWork::deal(PrefillLaunch &launch, uint32_t grid) {
  sortTiles();
  launch.firstItem = prefill.size();
  launch.items = tiles.size();
  loads.resize(grid);
  for (uint32_t block = 0; block < grid; ++block)
    loads[block] = {0, block};
  for (size_t first = 0; first < tiles.size(); first += grid) {
    std::sort(loads.begin(), loads.end(), [](const Load &a, const Load &b) {
      return std::tie(a.cost, a.block) < std::tie(b.cost, b.block);
    });
    const size_t count = std::min<size_t>(grid, tiles.size() - first);
    for (size_t i = 0; i < count; ++i) {
      tiles[first + i].block = loads[i].block;
      loads[i].cost += tiles[first + i].cost;
    }
  }
  names.resize(grid);
  for (uint32_t i = 0; i < grid; ++i)
    names[loads[i].block] = i;
  prefill.resize(launch.firstItem + launch.items);
  for (size_t i = 0; i < tiles.size(); ++i)
    prefill[launch.firstItem + i - i % grid + names[tiles[i].block]] =
        tiles[i].item;
  tiles.clear();
}

void GpuWork::build(const Module &module, const PagePool &pool,
                    const Plan &plan, const AttendCall &call, uint32_t grid) {
  const Geometry &g = module.geometry;
  prefill.clear();
  launches.clear();
  decode.clear();
  decodes.clear();
  lines.clear();
  cuts.clear();
  pages.clear();
  starts.clear();
  backs.clear();
  backAt.clear();
  places = plan.places;
  for (size_t i = 0; i < call.count; ++i) {
    EntryView view(module, call, i);
    if (!view.attends())
      continue;
    if (view.decodes()) {
      addDecode(view, plan, i);
      continue;
    }
    if (launches.empty() ||
        launches.back().entries.size() == MOA_GPU_PREFILL_ENTRIES) {
      if (!launches.empty())
        deal(launches.back(), grid);
      launches.emplace_back();
    }
    auto entry = static_cast<int32_t>(launches.back().entries.size());
    launches.back().entries.push_back(i);
    for (uint32_t h = 0; h < g.kvHeads; ++h) {
      addPrefill(view, plan.head(g, i, h), h, entry);
      takeBack(view, pool, plan.head(g, i, h), h);
    }
  }
  if (!launches.empty())
    deal(launches.back(), grid);
  endLine(module, call.layer);
}

} // namespace moa::rt
