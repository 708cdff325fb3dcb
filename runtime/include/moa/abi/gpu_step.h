//===- gpu_step.h - One decode step, prepared on the device ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// From lengths and page tables that lie on the device to the items of decode
// kernels, for all layers at once. C11 that both the host and the prepare
// kernel compile: the kernel calls, with one block a layer,
//
//   moa_gpu_prepare_apply;  all threads meet;  moa_gpu_prepare_items;
//   a sum over the threads before;  moa_gpu_prepare_line;  all threads meet;
//   moa_gpu_prepare_apart;  all threads meet;  moa_gpu_prepare_cuts
//
// and a host that calls them for each thread in turn gets the same. What
// threads of a block hand to each other is in a moa_gpu_prepare_shared, since a
// kernel that reads one word after another from afar waits for each.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_ABI_GPU_STEP_H
#define MOA_ABI_GPU_STEP_H

#include "moa/abi/gpu_args.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Threads of a block of the prepare kernel.
#define MOA_GPU_PREPARE_THREADS 512

/// Most tokens that a sequence gets in one step.
#define MOA_GPU_STEP_TOKENS 16

/// A sequence of the step. Its row of the call's tensors is its number.
typedef struct moa_gpu_step_sequence {
  int64_t n;      ///< Length rule's N.
  int32_t slot;   ///< Where its tables and floors lie.
  int32_t length; ///< Keys after the step.
} moa_gpu_step_sequence;

/// `count` words that go from values[from] on to words[to] on.
typedef struct moa_gpu_run {
  int64_t to;
  int32_t from, count;
} moa_gpu_run;

/// Bytes of lists that a step can have in the kernel's parameters, which hold
/// 4096: no copy is then on the way to the first layer.
#define MOA_GPU_PREPARE_INLINE 3840

/// All a prepare kernel gets, by value.
typedef struct moa_gpu_prepare_args {
  const moa_span_rule *rules; ///< [layers][q_heads].
  /// The step's lists, each so many bytes behind this; null where they are in
  /// `inlined`.
  const char *lists;
  int32_t sequences_at; ///< moa_gpu_step_sequence [sequence_count].
  int32_t runs_at;      ///< moa_gpu_run [first_run[layers]].
  int32_t first_run_at; ///< int32_t [layers + 1]: runs of each layer.
  int32_t values_at;    ///< int32_t: of the runs.
  /// Block tables [slots][layers][kv_heads][blocks], then floors
  /// [slots][layers][kv_heads]: no window starts before them.
  int32_t *words;
  moa_gpu_decode_item *items; ///< [layers][item_stride].
  char *lines;                ///< [layers] of line_stride bytes: moa_gpu_line.
  moa_gpu_cut *cuts;          ///< [layers][grid].
  int64_t line_stride;
  int32_t item_stride;
  int32_t layers, q_heads, kv_heads;
  int32_t slots, blocks; ///< Sequences there is room for; blocks of a table.
  int32_t sequence_count;
  int32_t tokens;  ///< New rows of every sequence.
  int32_t columns; ///< Of the decode kernel; at least the group.
  int32_t parts;   ///< Most of an item by itself, as in moa_gpu_shares; or 0.
  int32_t zero;    ///< 0 or 1, as in moa_gpu_decode_item.
  int32_t grid;    ///< Blocks of the decode kernel.
  /// 8-byte aligned.
  char inlined[MOA_GPU_PREPARE_INLINE];
} moa_gpu_prepare_args;

/// Most items that blocks share one by one, and least pages of such a block,
/// or of a part of an item by itself, where an item has as many.
#define MOA_GPU_CUT_APART 64
#define MOA_GPU_CUT_LEAST 8
/// Most parts of an item by itself.
#define MOA_GPU_CUT_PARTS 64
/// Sizes of a part that are tried where items may be shared one by one.
#define MOA_GPU_CUT_TRIES 8
/// Pages that take a block as long as an item's end.
#define MOA_GPU_CUT_END 2

/// What was found for a line of few items.
typedef struct moa_gpu_tried {
  /// Shared one by one, by each size: blocks before an item, and of all.
  int32_t blocks[MOA_GPU_CUT_TRIES][MOA_GPU_CUT_APART + 1];
  /// In equal parts: what takes the block in which an item begins, in pages.
  int32_t line[MOA_GPU_CUT_APART];
} moa_gpu_tried;

/// Rules and items of a layer that threads of a block have near.
#define MOA_GPU_PREPARE_RULES 128
#define MOA_GPU_PREPARE_ITEMS 1024

typedef struct moa_gpu_prepare_shared {
  moa_span_rule rules[MOA_GPU_PREPARE_RULES];
  int32_t first[MOA_GPU_PREPARE_ITEMS + 1]; ///< As in the line.
  moa_gpu_tried tried;
} moa_gpu_prepare_shared;

static_assert(sizeof(moa_gpu_step_sequence) == 16, "kernel ABI");
static_assert(sizeof(moa_gpu_run) == 16, "kernel ABI");
static_assert(offsetof(moa_gpu_prepare_args, item_stride) == 72, "kernel ABI");
static_assert(offsetof(moa_gpu_prepare_args, inlined) % 8 == 0, "kernel ABI");
static_assert(sizeof(moa_gpu_prepare_args) == 3960, "kernel ABI");

/// Where the lists of the step start.
static inline const char *moa_gpu_step_lists(const moa_gpu_prepare_args *a) {
  return a->lists ? a->lists : a->inlined;
}

/// Words before the table of a KV head.
static inline int64_t moa_gpu_step_table(const moa_gpu_prepare_args *a,
                                         int64_t slot, int64_t layer,
                                         int64_t kv_head) {
  return ((slot * a->layers + layer) * a->kv_heads + kv_head) * a->blocks;
}

/// Words before its floor.
static inline int64_t moa_gpu_step_floor(const moa_gpu_prepare_args *a,
                                         int64_t slot, int64_t layer,
                                         int64_t kv_head) {
  return moa_gpu_step_table(a, a->slots, 0, 0) +
         (slot * a->layers + layer) * a->kv_heads + kv_head;
}

/// Fills what an item's window says: starts and pages of the rows from
/// `length - tokens` on, under the rules of its group. Returns its pages.
static inline int32_t moa_gpu_decode_window(moa_gpu_decode_item *item,
                                            const moa_span_rule *rules,
                                            int32_t group, int64_t n,
                                            int32_t floor, int32_t length,
                                            int32_t tokens, int32_t sink) {
  const int32_t first = length - tokens, columns = tokens * group;
  int32_t low = INT32_MAX, high = 0, start = 0;
  for (int32_t c = 0; c < MOA_MAX_GROUP; ++c) {
    if (c < columns) {
      start =
          (int32_t)moa_window_start(&rules[c % group], first + c / group, n);
      start = start < floor ? floor : start;
      low = start < low ? start : low;
      high = start > high ? start : high;
    }
    item->starts[c] = start;
  }
  moa_block_ranges ranges =
      moa_block_ranges_of(first, length - 1, low, high, sink);
  item->length = length;
  item->tokens = tokens;
  item->start_max = high;
  item->sink_pages = ranges.sink_end;
  item->window_begin = ranges.edge_begin;
  return ranges.sink_end + ranges.end - ranges.edge_begin;
}

/// Where the ids of item `number` are, for a block whose pages end at `end`.
static inline moa_gpu_page_ids
moa_gpu_page_ids_of(const int32_t *first, const moa_gpu_decode_item *items,
                    int32_t number, int32_t end) {
  const moa_gpu_decode_item *item = items + number;
  const int32_t behind = first[number + 1];
  const moa_gpu_page_ids ids = {
      behind < end ? behind : end, first[number] + item->sink_pages,
      item->table - first[number], item->window_table - first[number]};
  return ids;
}

/// A run of pages in equal parts: `longer` of them have a page more than
/// `even`, and come first.
typedef struct moa_gpu_even {
  int32_t even, longer;
} moa_gpu_even;

static inline moa_gpu_even moa_gpu_even_of(int32_t pages, int32_t parts) {
  const moa_gpu_even even = {pages / parts, pages % parts};
  return even;
}

/// Page at which part `part` starts.
static inline int32_t moa_gpu_even_begin(moa_gpu_even even, int32_t part) {
  return part * even.even + (part < even.longer ? part : even.longer);
}

/// The part that has page `page`.
static inline int32_t moa_gpu_even_part(moa_gpu_even even, int32_t page) {
  const int32_t longer = even.longer * (even.even + 1);
  return page < longer ? page / (even.even + 1)
                       : even.longer + (page - longer) / even.even;
}

/// Pages of the parts that are tried where items may be shared one by one:
/// `least` or more. `fits` will do in any case, or is 0. Both are 0 where items
/// are never shared so.
typedef struct moa_gpu_tries {
  int32_t least, fits;
} moa_gpu_tries;

/// What is tried for a line of `count` items and `pages` pages.
///
/// The rule: few items are shared one by one, each by blocks of its own, by the
/// smallest parts for which the grid has blocks, if the longest block then
/// takes no longer than the longest of the line in equal parts. A block takes
/// as long as its pages and, for each item that it has pages of, an end; equal
/// parts may have pages of several items. Parts of `own` pages are taken, if no
/// smaller ones, where they are longer than equal ones by no more than an end
/// and what other blocks leave of the memory's rate: there are always blocks
/// for them, as an item takes less than one block more than its pages make.
/// Where each page has a block of its own, no block has pages of two items.
static inline moa_gpu_tries moa_gpu_tries_of(int32_t count, int32_t pages,
                                             int32_t grid, int32_t parts) {
  moa_gpu_tries tries = {0, 0};
  if (parts || count > MOA_GPU_CUT_APART || count >= grid || grid >= pages)
    return tries;
  const int32_t even = (pages + grid - 1) / grid;
  const int32_t own = (pages + grid - count - 1) / (grid - count);
  tries.least = even > MOA_GPU_CUT_LEAST ? even : MOA_GPU_CUT_LEAST;
  if (own <= MOA_GPU_CUT_LEAST)
    tries.fits = MOA_GPU_CUT_LEAST;
  else if (own <= even + MOA_GPU_CUT_END + even / 16)
    tries.fits = own;
  return tries;
}

/// Pages of part `number` of those: a page more than of the one before, but of
/// the last no fewer than will do.
static inline int32_t moa_gpu_try_pages(moa_gpu_tries tries, int32_t number) {
  const int32_t pages = tries.least + number;
  if (number + 1 == MOA_GPU_CUT_TRIES && pages < tries.fits)
    return tries.fits;
  return pages;
}

/// One of MOA_GPU_CUT_APART shares of what is tried. Item i of `count` has line
/// pages [first[i], first[i + 1]).
static inline void moa_gpu_try(moa_gpu_tried *tried, const int32_t *first,
                               int32_t count, int32_t grid, int32_t parts,
                               int32_t share) {
  const int32_t all = count ? first[count] : 0;
  const moa_gpu_tries tries = moa_gpu_tries_of(count, all, grid, parts);
  if (!tries.least)
    return;
  if (share < count) {
    const moa_gpu_even line = moa_gpu_even_of(all, grid);
    const int32_t block = moa_gpu_even_part(line, first[share]);
    const int32_t begin = moa_gpu_even_begin(line, block);
    const int32_t end = moa_gpu_even_begin(line, block + 1);
    int32_t ends = first[share] == begin ? 1 : 2;
    for (int32_t i = share + 1; i < count && first[i] < end; ++i)
      ++ends;
    tried->line[share] = end - begin + MOA_GPU_CUT_END * ends;
  }
  if (share < MOA_GPU_CUT_TRIES) {
    const int32_t pages = moa_gpu_try_pages(tries, share);
    int32_t blocks = 0;
    for (int32_t i = 0; i < count; ++i) {
      tried->blocks[share][i] = blocks;
      blocks += (first[i + 1] - first[i] + pages - 1) / pages;
    }
    tried->blocks[share][count] = blocks;
  }
}

/// How blocks share a line: each item by itself, by `parts` blocks of which
/// those behind its last part have no pages; or, where that is 0, one item
/// after the other, each by blocks of its own with at most `apart` pages, item
/// i from `blocks[i]` on; or, where that is 0 too, the line in equal parts.
typedef struct moa_gpu_shares {
  int32_t parts;
  int32_t apart;
  const int32_t *blocks;
  moa_gpu_even line;
} moa_gpu_shares;

/// How the blocks of a grid share a line of `count` items and `pages` pages, of
/// which all shares were tried; `tried` must outlive it. With `parts` above 0
/// the grid has so many blocks for each item, and how an item is cut depends on
/// nothing but its own pages.
static inline moa_gpu_shares moa_gpu_shares_of(int32_t count, int32_t pages,
                                               int32_t grid, int32_t parts,
                                               const moa_gpu_tried *tried) {
  moa_gpu_shares shares = {parts, 0, 0, {0, 0}};
  if (parts)
    return shares;
  const moa_gpu_tries tries = moa_gpu_tries_of(count, pages, grid, parts);
  int32_t number = tries.least ? 0 : MOA_GPU_CUT_TRIES;
  while (number < MOA_GPU_CUT_TRIES && tried->blocks[number][count] > grid)
    ++number;
  if (number < MOA_GPU_CUT_TRIES) {
    const int32_t apart = moa_gpu_try_pages(tries, number);
    int32_t most = tries.fits;
    for (int32_t i = 0; apart > tries.fits && i < count; ++i)
      if (most < tried->line[i] - MOA_GPU_CUT_END)
        most = tried->line[i] - MOA_GPU_CUT_END;
    if (apart <= most) {
      shares.apart = apart;
      shares.blocks = tried->blocks[number];
      return shares;
    }
  }
  const int32_t blocks = grid < pages ? grid : pages;
  if (blocks)
    shares.line = moa_gpu_even_of(pages, blocks);
  return shares;
}

/// Parts of an item of `pages` pages by itself: at most `parts`.
static inline int32_t moa_gpu_shares_parts(moa_gpu_shares shares,
                                           int32_t pages) {
  const int32_t most = (pages + MOA_GPU_CUT_LEAST - 1) / MOA_GPU_CUT_LEAST;
  return most < shares.parts ? most : shares.parts;
}

/// The last of `count` items that begins at line page `page` or before; or at
/// block `page`, where `first` counts blocks.
static inline int32_t moa_gpu_item_of(const int32_t *first, int32_t count,
                                      int32_t page) {
  int32_t low = 0, high = count;
  while (high - low > 1) {
    const int32_t middle = low + (high - low) / 2;
    if (first[middle] <= page)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/// Blocks that have pages of an item, where the line is in equal parts.
static inline moa_gpu_parts moa_gpu_parts_of(const int32_t *first, int32_t item,
                                             moa_gpu_even line) {
  const int32_t block = moa_gpu_even_part(line, first[item]);
  const moa_gpu_parts parts = {
      block, moa_gpu_even_part(line, first[item + 1] - 1) - block + 1};
  return parts;
}

/// Gives `block` part `part` of the `parts` of an item: one of as many blocks
/// that follow each other.
static inline void moa_gpu_cut_part(moa_gpu_cut *cut, const int32_t *first,
                                    int32_t item, int32_t block, int32_t part,
                                    int32_t parts) {
  const moa_gpu_even own =
      moa_gpu_even_of(first[item + 1] - first[item], parts);
  cut->begin = first[item] + moa_gpu_even_begin(own, part);
  cut->end = first[item] + moa_gpu_even_begin(own, part + 1);
  cut->item = item;
  cut->front.block = cut->back.block = block - part;
  cut->front.count = cut->back.count = parts;
}

/// The cut of block `block`, without its ids. Item i of `count` has line pages
/// [first[i], first[i + 1]), at least one. The parts of an item are those of
/// consecutive blocks. Blocks without pages come last, of an item by itself
/// behind its own.
static inline moa_gpu_cut moa_gpu_cut_of(const int32_t *first, int32_t count,
                                         const moa_gpu_decode_item *items,
                                         int32_t block, moa_gpu_shares shares) {
  const int32_t pages = count ? first[count] : 0;
  moa_gpu_cut cut = {pages,        pages,        0,  count, {0, 0}, {0, 0},
                     {0, 0, 0, 0}, {0, 0, 0, 0}, {0}};
  if (shares.parts) {
    const int32_t item = block / shares.parts, part = block % shares.parts;
    if (item >= count)
      return cut;
    const int32_t parts =
        moa_gpu_shares_parts(shares, first[item + 1] - first[item]);
    if (part >= parts) {
      cut.begin = cut.end = first[item + 1];
      return cut;
    }
    moa_gpu_cut_part(&cut, first, item, block, part, parts);
  } else if (shares.apart) {
    const int32_t *blocks = shares.blocks;
    if (block >= blocks[count])
      return cut;
    const int32_t item = moa_gpu_item_of(blocks, count, block);
    moa_gpu_cut_part(&cut, first, item, block, block - blocks[item],
                     blocks[item + 1] - blocks[item]);
  } else {
    if (block >= pages)
      return cut;
    cut.begin = moa_gpu_even_begin(shares.line, block);
    cut.end = moa_gpu_even_begin(shares.line, block + 1);
    cut.item = moa_gpu_item_of(first, count, cut.begin);
    cut.front = moa_gpu_parts_of(first, cut.item, shares.line);
    cut.back = moa_gpu_parts_of(
        first, moa_gpu_item_of(first, count, cut.end - 1), shares.line);
  }
  cut.own = moa_gpu_page_ids_of(first, items, cut.item, cut.end);
  cut.next = moa_gpu_page_ids_of(
      first, items, cut.item + 1 < count ? cut.item + 1 : cut.item, cut.end);
  return cut;
}

/// Id `lane` of those of a cut; 0 if it has no pages.
static inline int32_t moa_gpu_cut_id(const moa_gpu_cut *cut,
                                     const int32_t *tables, int32_t lane) {
  if (cut->begin >= cut->end)
    return 0;
  const moa_gpu_page_ids *own = &cut->own;
  int32_t page = cut->begin + lane;
  page = page < own->to ? page : own->to - 1;
  return tables[(page < own->sink_end ? own->sink_table : own->window_table) +
                page];
}

/// Items of one KV head of a sequence, each of at most columns / group tokens.
static inline int32_t moa_gpu_step_parts(int32_t tokens, int32_t columns,
                                         int32_t group) {
  const int32_t most = columns / group;
  return (tokens + most - 1) / most;
}

/// Rules of a layer: near if there is room.
static inline const moa_span_rule *
moa_gpu_prepare_rules(const moa_gpu_prepare_args *a, int32_t layer,
                      const moa_gpu_prepare_shared *shared) {
  return a->q_heads <= MOA_GPU_PREPARE_RULES
             ? shared->rules
             : a->rules + (int64_t)layer * a->q_heads;
}

static inline moa_gpu_line *
moa_gpu_prepare_line_of(const moa_gpu_prepare_args *a, int32_t layer) {
  return (moa_gpu_line *)(a->lines + layer * a->line_stride);
}

/// Pages before each of a layer's `items`: near if there is room, else in the
/// line.
static inline int32_t *moa_gpu_prepare_first(const moa_gpu_prepare_args *a,
                                             int32_t layer, int32_t items,
                                             moa_gpu_prepare_shared *shared) {
  return items <= MOA_GPU_PREPARE_ITEMS
             ? shared->first
             : moa_gpu_prepare_line_of(a, layer)->first;
}

/// Brings this thread's part of the changed words to their places, and of the
/// rules near.
static inline void moa_gpu_prepare_apply(const moa_gpu_prepare_args *a,
                                         int32_t layer, int32_t thread,
                                         int32_t threads,
                                         moa_gpu_prepare_shared *shared) {
  if (a->q_heads <= MOA_GPU_PREPARE_RULES)
    for (int32_t i = thread; i < a->q_heads; i += threads)
      shared->rules[i] = a->rules[(int64_t)layer * a->q_heads + i];
  const char *lists = moa_gpu_step_lists(a);
  const int32_t *first_run = (const int32_t *)(lists + a->first_run_at) + layer;
  const moa_gpu_run *runs = (const moa_gpu_run *)(lists + a->runs_at);
  const int32_t *values = (const int32_t *)(lists + a->values_at);
  // A warp's width of threads a run: most have one word, a few a whole table.
  const int32_t width = threads < 32 ? threads : 32;
  for (int32_t r = first_run[0] + thread / width; r < first_run[1];
       r += threads / width) {
    const moa_gpu_run run = runs[r];
    for (int32_t i = thread % width; i < run.count; i += width)
      a->words[run.to + i] = values[run.from + i];
  }
}

/// Items that one thread makes: [*begin, *end) of a layer's. Returns how many
/// the layer has.
static inline int32_t moa_gpu_prepare_share(const moa_gpu_prepare_args *a,
                                            int32_t thread, int32_t threads,
                                            int32_t *begin, int32_t *end) {
  const int32_t items =
      a->sequence_count * a->kv_heads *
      moa_gpu_step_parts(a->tokens, a->columns, a->q_heads / a->kv_heads);
  const int32_t share = (items + threads - 1) / threads;
  *begin = share * thread < items ? share * thread : items;
  *end = *begin + share < items ? *begin + share : items;
  return items;
}

/// Makes item `number` of a layer; returns its pages.
static inline int32_t moa_gpu_prepare_item(const moa_gpu_prepare_args *a,
                                           int32_t layer, int32_t number,
                                           const moa_span_rule *rules) {
  const int32_t group = a->q_heads / a->kv_heads, most = a->columns / group;
  const int32_t parts = moa_gpu_step_parts(a->tokens, a->columns, group);
  const int32_t part = number % parts, kv_head = number / parts % a->kv_heads;
  const int32_t row = number / parts / a->kv_heads;
  const moa_gpu_step_sequence sequence =
      ((const moa_gpu_step_sequence *)(moa_gpu_step_lists(a) +
                                       a->sequences_at))[row];
  // The last part has fewer tokens where they do not come out even.
  const int32_t first = part * most;
  const int32_t tokens = a->tokens - first < most ? a->tokens - first : most;
  const int64_t table = moa_gpu_step_table(a, sequence.slot, layer, kv_head);
  moa_gpu_decode_item *item =
      a->items + (int64_t)layer * a->item_stride + number;
  const int32_t pages = moa_gpu_decode_window(
      item, rules + kv_head * group, group, sequence.n,
      a->words[moa_gpu_step_floor(a, sequence.slot, layer, kv_head)],
      sequence.length - a->tokens + first + tokens, tokens, rules[0].sink);
  item->q = item->out = item->k = item->v = row;
  item->token = first;
  item->table = (int32_t)table;
  item->window_table = (int32_t)(table + item->window_begin - item->sink_pages);
  item->fresh = first + tokens;
  item->kv_head = kv_head;
  item->zero = part + 1 == parts ? a->zero : -1;
  item->reserved = 0;
  return pages;
}

/// Makes this thread's items and keeps the pages before each, of the thread's
/// own; returns the pages of all of them.
static inline int32_t moa_gpu_prepare_items(const moa_gpu_prepare_args *a,
                                            int32_t layer, int32_t thread,
                                            int32_t threads,
                                            moa_gpu_prepare_shared *shared) {
  const moa_span_rule *rules = moa_gpu_prepare_rules(a, layer, shared);
  int32_t begin, end, pages = 0;
  const int32_t items = moa_gpu_prepare_share(a, thread, threads, &begin, &end);
  int32_t *first = moa_gpu_prepare_first(a, layer, items, shared);
  for (int32_t i = begin; i < end; ++i) {
    first[i] = pages;
    pages += moa_gpu_prepare_item(a, layer, i, rules);
  }
  return pages;
}

/// Adds the pages of the threads before this one and writes this thread's part
/// of the line; that of the last item, for which `before + own` are all pages,
/// ends it.
static inline void moa_gpu_prepare_line(const moa_gpu_prepare_args *a,
                                        int32_t layer, int32_t thread,
                                        int32_t threads, int32_t before,
                                        int32_t own,
                                        moa_gpu_prepare_shared *shared) {
  moa_gpu_line *line = moa_gpu_prepare_line_of(a, layer);
  int32_t begin, end;
  const int32_t items = moa_gpu_prepare_share(a, thread, threads, &begin, &end);
  int32_t *first = moa_gpu_prepare_first(a, layer, items, shared);
  for (int32_t i = begin; i < end; ++i)
    line->first[i] = first[i] = first[i] + before;
  if (begin < end && end == items) {
    line->items = items;
    line->pages = line->first[items] = first[items] = before + own;
  }
}

/// This thread's shares of what is tried for the line of a layer, which is
/// made.
static inline void moa_gpu_prepare_apart(const moa_gpu_prepare_args *a,
                                         int32_t layer, int32_t thread,
                                         int32_t threads,
                                         moa_gpu_prepare_shared *shared) {
  int32_t begin, end;
  const int32_t items = moa_gpu_prepare_share(a, thread, threads, &begin, &end);
  const int32_t *first = moa_gpu_prepare_first(a, layer, items, shared);
  for (int32_t share = thread; share < MOA_GPU_CUT_APART; share += threads)
    moa_gpu_try(&shared->tried, first, items, a->grid, a->parts, share);
}

/// Makes this thread's cuts of the layer.
static inline void moa_gpu_prepare_cuts(const moa_gpu_prepare_args *a,
                                        int32_t layer, int32_t thread,
                                        int32_t threads,
                                        moa_gpu_prepare_shared *shared) {
  int32_t begin, end;
  const int32_t items = moa_gpu_prepare_share(a, thread, threads, &begin, &end);
  const int32_t *first = moa_gpu_prepare_first(a, layer, items, shared);
  const moa_gpu_shares shares = moa_gpu_shares_of(
      items, items ? first[items] : 0, a->grid, a->parts, &shared->tried);
  for (int32_t block = thread; block < a->grid; block += threads) {
    // All ids are asked for before any is kept: one wait, not eight.
    moa_gpu_cut cut =
        moa_gpu_cut_of(first, items, a->items + (int64_t)layer * a->item_stride,
                       block, shares);
    for (int32_t lane = 0; lane < MOA_GPU_CUT_IDS; ++lane)
      cut.ids[lane] = moa_gpu_cut_id(&cut, a->words, lane);
    a->cuts[(int64_t)layer * a->grid + block] = cut;
  }
}

#ifdef __cplusplus
}
#endif

#endif // MOA_ABI_GPU_STEP_H
