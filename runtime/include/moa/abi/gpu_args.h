//===- gpu_args.h - What a compiled GPU kernel receives -------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The structs that the runtime fills and compiled GPU kernels read. The
// lowering takes field offsets from these definitions with offsetof; bump
// MOA_KERNEL_ABI_VERSION when a field moves.
//
// Kernels take these parameters, in this order:
//
//  prefill, sm_90a: moa_gpu_prefill_maps (by value), items, tables, starts,
//                   int32 items, int32 sink, float scale_log2
//  prefill, sm_80,  moa_gpu_prefill_entries (by value), pool, items, tables,
//  and f32 on all:  starts, int32 items, int32 sink, float scale_log2
//  decode:          moa_gpu_decode_args (by value), items, line, tables,
//                   cuts, partials, counters, int32 sink, float scale_log2
//  append:          moa_append_item *items, int32 items
//  quantise:        moa_quantise_item *items, int32 items
//  rope:            moa_gpu_rope_args (by value), items
//  prepare:         moa_gpu_prepare_args (by value; see abi/gpu_step.h)
//
// where `items` points to that kernel's items, `tables` to int32 block tables,
// `starts` to int32 window starts, `line` to a moa_gpu_line, `cuts` to a
// moa_gpu_cut a block of the grid, `partials` to moa_gpu_partial_bytes of
// memory, and `counters` to one zeroed int32 an item, left zeroed.
//
// A block table belongs to one KV head of one sequence; entry b says where keys
// and values of block b lie: a page of the pool, half of one in 8 bits (see
// moa_gpu_codes_place; in tables of decode kernels alone), or MOA_GPU_FROM_CALL
// for the tensors of the call.
//
// The grid of prefill and rope may be of any size: blocks take items in turn.
// That of decode is the one its cuts were made for. Append and quantise have
// one block an item.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_ABI_GPU_ARGS_H
#define MOA_ABI_GPU_ARGS_H

#include "moa/abi/kernel_args.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Most sequences of one prefill launch: kernel parameters hold their maps.
#define MOA_GPU_PREFILL_ENTRIES 16

/// Columns of one box of every tensor map, and of one panel of a tile in shared
/// memory: 64 elements of 16 bits, the reach of the 128-byte swizzle.
#define MOA_GPU_PANEL 64

/// In a block table: the block lies in the call's own key and value tensors,
/// its row 0 at row 64 * block - first position of the call. Rows outside the
/// tensor read as zero.
#define MOA_GPU_FROM_CALL (-1)

/// An entry of a block table for a block in 8 bits, below this many pages: its
/// codes of MOA_KV_* `format` lie in half `half` of a page.
#define MOA_GPU_CODES_PAGES (1 << 28)
#define MOA_GPU_CODES_SHIFT 29 ///< The format is above these bits.
static inline int32_t moa_gpu_codes_place(int32_t page, int32_t half,
                                          int32_t format) {
  return (format << MOA_GPU_CODES_SHIFT) | (page << 1) | half;
}

/// A CUtensorMap: three dimensions {D, rows, heads or page halves}, box {64,
/// 64, 1}, 128-byte swizzle, zero fill. In a map of the pool, half 2 * page has
/// the keys of a page and 2 * page + 1 its values. The map of its codes is of
/// bytes, {D, rows, quarters of pages} with box {128, 64, 1}: the codes of half
/// h are quarters 4 * page + 2 * h, its keys, and the one behind.
typedef struct moa_gpu_tensor_map {
  uint64_t opaque[16]; ///< 64-byte aligned where the device reads it.
} moa_gpu_tensor_map;

/// Maps of one sequence's tensors: {D, tokens, heads}.
typedef struct moa_gpu_entry_maps {
  moa_gpu_tensor_map q, k, v, out;
} moa_gpu_entry_maps;

typedef struct moa_gpu_prefill_maps {
  moa_gpu_tensor_map pool;
  moa_gpu_entry_maps entries[MOA_GPU_PREFILL_ENTRIES];
} moa_gpu_prefill_maps;

/// Tensors of one sequence for kernels that read by address. Strides count
/// elements; addresses and strides are multiples of 16 bytes.
typedef struct moa_gpu_entry {
  const void *q, *k, *v;
  void *out;
  int64_t q_row_stride, q_head_stride;
  int64_t k_row_stride, k_head_stride;
  int64_t v_row_stride, v_head_stride;
  int64_t out_row_stride, out_head_stride;
  int32_t tokens; ///< Rows of the tensors.
  int32_t reserved;
} moa_gpu_entry;

typedef struct moa_gpu_prefill_entries {
  moa_gpu_entry entries[MOA_GPU_PREFILL_ENTRIES];
} moa_gpu_prefill_entries;

/// A tile of query rows of one query head, over its whole window. Tiles start
/// at rows of the call that are multiples of the kernel's rows, key tiles at
/// positions that are multiples of its keys (both are launch facts of the
/// image). A kernel visits, in this
/// order: key tiles top, top - 1, ... (window_tiles of them), then sink_tiles -
/// 1, ..., 0, then, if sink_block, the 64 keys behind those tiles.
typedef struct moa_gpu_prefill_item {
  int32_t entry;     ///< Which sequence of the launch.
  int32_t head;      ///< Query head.
  int32_t kv_head;   ///< Its KV head.
  int32_t row;       ///< First row in the call's tensors; rows behind their
                     ///< end are neither read nor written.
  int32_t position;  ///< Absolute position of that row.
  int32_t table;     ///< Element of `tables` where the KV head's table starts.
                     ///< Readable for every block of the tiles above.
  int32_t local;     ///< Keys in the window, the row's own included.
  int32_t floor;     ///< No window starts before this position.
  int32_t starts;    ///< Element of `starts` with row 0's window start, one a
                     ///< row; or -1: max(position + 1 - local, floor).
  int32_t reserved0; ///< 0.
  int32_t top;       ///< Number of the highest key tile.
  int32_t window_tiles; ///< At least 1.
  int32_t sink_tiles;
  int32_t sink_block; ///< 0 or 1.
  int32_t reserved[2];
} moa_gpu_prefill_item;

/// A tensor of a decode call. Element d of head h and token t of the row that
/// an item calls `place` lies `place * unit + t * token_stride + h *
/// head_stride
/// + d` elements behind `base`.
typedef struct moa_gpu_rows {
  void *base;
  int64_t unit, token_stride, head_stride;
} moa_gpu_rows;

/// What a decode kernel gets by value.
typedef struct moa_gpu_decode_args {
  moa_gpu_tensor_map map; ///< Of the pool; read on sm_90a alone.
  moa_gpu_rows q, k, v, out;
  void *pool;          ///< Page 0.
  const float *scales; ///< MOA_KV8_SCALES a page; NULL without 8 bits.
  uint64_t reserved[6];
  moa_gpu_tensor_map codes; ///< As `map`; with 8 bits.
} moa_gpu_decode_args;

/// Where items lie in the line of all pages: item i has pages [first[i],
/// first[i + 1]) of it.
typedef struct moa_gpu_line {
  int32_t items;
  int32_t pages; ///< first[items].
  int32_t reserved[2];
  int32_t first[4]; ///< In fact items + 1 of them.
} moa_gpu_line;

/// Where the ids of an item's pages are: that of line page p, before `to`, is
/// element (p < sink_end ? sink_table : window_table) + p of `tables`.
typedef struct moa_gpu_page_ids {
  int32_t to; ///< The block's line page behind the item's last.
  int32_t sink_end;
  int32_t sink_table, window_table;
} moa_gpu_page_ids;

/// Ids that a cut has with it.
#define MOA_GPU_CUT_IDS 8

/// Blocks that have pages of an item: `count` of them, from `block` on.
typedef struct moa_gpu_parts {
  int32_t block, count;
} moa_gpu_parts;

/// What a block of a decode launch reads first, so that no more than this read
/// is between the launch and its first pages: line pages [begin, end) are the
/// block's. A block without pages has zeros from `item` on but for `items`.
typedef struct moa_gpu_cut {
  int32_t begin, end;
  int32_t item;          ///< That has page `begin`.
  int32_t items;         ///< Of the line.
  moa_gpu_parts front;   ///< Of `item`,
  moa_gpu_parts back;    ///< and of the item that has page `end - 1`.
  moa_gpu_page_ids own;  ///< Of `item`,
  moa_gpu_page_ids next; ///< and of the item behind it or the last one.
  /// Of line pages begin, begin + 1, ...; those behind own.to repeat the last.
  int32_t ids[MOA_GPU_CUT_IDS];
} moa_gpu_cut;

/// Columns of a decode kernel that has `rows` at least: they come by eight.
static inline int64_t moa_gpu_decode_columns(int64_t rows) {
  return (rows + 7) / 8 * 8;
}

/// The last `tokens` query rows of every head of a group, at least one: column
/// token * group + head of the item is row length - tokens + token of that head
/// and sees keys up to that position. There are at most as many columns as the
/// kernel has, a fact of its image. The pages that any of them sees form a
/// line: sink_pages pages from block 0, then those from window_begin to the
/// block of the last key. The id of page p of the item is element (p <
/// sink_pages ? table : window_table) + p of `tables`. Blocks of a launch share
/// the line of all items, as their cuts say.
///
/// Keys [length - fresh, length) are not in their pages yet: the kernel reads
/// those in pages of the line from the call's tensors (the first of them is
/// token 0 of k and v), attends to them and stores them; in a page with fresh
/// rows it takes those behind `length` as zero. A page of which no row of the
/// item sees a key gets its fresh ones from the item of their own rows. Rows
/// behind the last of them are zeroed in the pages whose first row is fresh; in
/// all with fresh rows if `zero` is 1, in none if it is -1, where another item
/// of the launch does it.
typedef struct moa_gpu_decode_item {
  int64_t q, out, k, v; ///< Places in those tensors.
  int32_t table, window_table;
  int32_t length; ///< Keys: the position of the last row + 1.
  int32_t fresh;
  int32_t sink_pages;
  int32_t window_begin; ///< Block; at least sink_pages.
  int32_t start_max;    ///< Largest of `starts`.
  int32_t kv_head;
  int32_t zero;
  int32_t tokens;
  int32_t token; ///< Which token of the call's row the first of them is.
  int32_t reserved;
  /// Window start of column token * group + head; those behind the last repeat
  /// it.
  int32_t starts[MOA_MAX_GROUP];
} moa_gpu_decode_item;

/// What a rope kernel gets by value. Without a line its items are `count`
/// moa_rope_items. With one they are the line's moa_gpu_decode_items: tokens
/// [token, token + tokens) of queries and of keys are rotated, each at its own
/// position. Items of a KV head have no token in common, so that each of the
/// fresh keys is rotated once; they go to no page: decode stores them.
typedef struct moa_gpu_rope_args {
  const moa_gpu_line *line;
  moa_gpu_rows q, k;     ///< With a line alone.
  const uint64_t *turns; ///< As in moa_rope_item; with a line alone.
  int32_t heads;         ///< Query heads of a group; with a line alone.
  int32_t count;         ///< Without a line alone.
  float scale;           ///< With a line alone.
  int32_t reserved;
} moa_gpu_rope_args;

/// Bytes of `partials` for a grid of `blocks` blocks of a decode kernel: two
/// parts of items a block, each [columns rounded up to 8][D + 8] floats.
static inline int64_t moa_gpu_partial_bytes(int64_t blocks, int64_t columns,
                                            int64_t head_dim) {
  return blocks * 2 * moa_gpu_decode_columns(columns) * (head_dim + 8) * 4;
}

static_assert(sizeof(moa_gpu_tensor_map) == 128, "kernel ABI");
static_assert(sizeof(moa_gpu_prefill_maps) == 8320, "kernel ABI");
static_assert(sizeof(moa_gpu_entry) == 104, "kernel ABI");
static_assert(sizeof(moa_gpu_prefill_item) == 64, "kernel ABI");
static_assert(sizeof(moa_gpu_rows) == 32, "kernel ABI");
static_assert(offsetof(moa_gpu_decode_args, q) == 128, "kernel ABI");
static_assert(offsetof(moa_gpu_decode_args, pool) == 256, "kernel ABI");
static_assert(offsetof(moa_gpu_decode_args, codes) == 320, "kernel ABI");
static_assert(sizeof(moa_gpu_decode_args) == 448, "kernel ABI");
static_assert(offsetof(moa_gpu_line, first) == 16, "kernel ABI");
static_assert(offsetof(moa_gpu_cut, own) == 32, "kernel ABI");
static_assert(offsetof(moa_gpu_cut, ids) == 64, "kernel ABI");
static_assert(sizeof(moa_gpu_cut) == 96, "kernel ABI");
static_assert(offsetof(moa_gpu_decode_item, table) == 32, "kernel ABI");
static_assert(offsetof(moa_gpu_decode_item, starts) == 80, "kernel ABI");
static_assert(sizeof(moa_gpu_decode_item) == 144, "kernel ABI");
static_assert(offsetof(moa_gpu_rope_args, turns) == 72, "kernel ABI");
static_assert(sizeof(moa_gpu_rope_args) == 96, "kernel ABI");

#ifdef __cplusplus
}
#endif

#endif // MOA_ABI_GPU_ARGS_H
