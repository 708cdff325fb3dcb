//===- kernel_args.h - What a compiled kernel receives --------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The structs that the runtime fills and compiled kernels read. The lowering
// takes field offsets from these definitions with offsetof, so a field moved
// here moves in the generated code; bump MOA_KERNEL_ABI_VERSION when it does.
//
// A CPU kernel is `void kernel(const moa_work_item *item, void *scratch)` or,
// for append and rope, `void kernel(const moa_append_item *item, void
// *scratch)` and `void kernel(const moa_rope_item *item, void *scratch)`.
// `scratch` is private to the calling thread, 64-byte aligned, and has the size
// stated with the kernel. Kernels neither allocate, nor call out, nor fail.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_ABI_KERNEL_ARGS_H
#define MOA_ABI_KERNEL_ARGS_H

#include <stddef.h>
#include <stdint.h>

#if __STDC_HOSTED__
#include <assert.h>
#elif !defined(static_assert)
#define static_assert _Static_assert // As <assert.h> has it in C11.
#endif

#include "moa/abi/span.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Element types of queries, keys, values and outputs.
enum { MOA_DTYPE_F32 = 0, MOA_DTYPE_F16 = 1, MOA_DTYPE_BF16 = 2 };

/// What a KV head keeps of complete pages: elements of the model's type, or
/// 8-bit codes. A code stands for its value times a scale, one for the keys and
/// one for the values of a block: E4M3 is that of OCP (largest 448), INT8 the
/// value plus 128 (largest 127).
enum { MOA_KV_MODEL = 0, MOA_KV_E4M3 = 1, MOA_KV_INT8 = 2 };

/// Scales beside each page, f32: of the keys and of the values of the block in
/// its first half, then of those in its second. Half h of a page is the place
/// of blocks with that parity: codes of keys [64][D], then of values [64][D].
#define MOA_KV8_SCALES 4

/// What a kernel does. Prepare makes the items of decode kernels on a GPU, for
/// all layers at once; a CPU has none. Rope rotates queries and keys before it
/// appends. Quantise brings complete blocks to 8 bits.
enum {
  MOA_KERNEL_PREFILL = 0,
  MOA_KERNEL_DECODE = 1,
  MOA_KERNEL_APPEND = 2,
  MOA_KERNEL_PREPARE = 3,
  MOA_KERNEL_ROPE = 4,
  MOA_KERNEL_QUANTISE = 5
};

/// Query rows of one prefill work item. Row blocks lie at aligned positions, so
/// that a block of rows meets the diagonal in exactly one block of keys.
#define MOA_PREFILL_ROWS 64

/// Most query heads in one group that a decode kernel accepts.
#define MOA_MAX_GROUP 16

/// Where the 64 keys and values of one block lie: in a page, or in the tensor
/// that the caller passed (then only if all 64 rows are there). Only kernels
/// for 8 bits read `scales` and `format`.
typedef struct moa_key_block {
  const void *k;       ///< Key row 0 of the block, [64][D] at k_stride.
  const void *v;       ///< Value row 0 of the block, [64][D] at v_stride.
  int64_t k_stride;    ///< Elements between rows; a row's D elements are dense.
  int64_t v_stride;    ///< An 8-bit code is one element.
  const float *scales; ///< Of keys and values; NULL for the model's type.
  int32_t format;      ///< MOA_KV_*.
  int32_t reserved;
} moa_key_block;

/// One piece of attention work.
/// Prefill: up to 64 consecutive query rows of one query head, over its whole
/// window. Decode: one query row of every head of a group, over part of the key
/// blocks; its unnormalised result goes to `partial` and is merged later.
typedef struct moa_work_item {
  const void *q;  ///< Row (prefill) or head (decode) 0; D dense.
  void *out;      ///< Prefill: output row 0. Decode: unused.
  float *partial; ///< Decode: [heads][D + 2] = O[D], m, l per head,
                  ///< m in units of log2. Prefill: unused.
  const moa_key_block *blocks; ///< Indexed by absolute block number.
  const int32_t *starts;       ///< First key of each row's window; prefill: 64
                               ///< entries, decode: one per head. Always
                               ///< readable up to 64 entries.
  int64_t q_stride;            ///< Elements between rows (prefill) or heads.
  int64_t out_stride;          ///< Elements between output rows.
  int32_t rows;                ///< Valid rows (prefill) or heads (decode).
  int32_t position;            ///< Absolute position of row 0.
  int32_t sink;                ///< Tokens.
  float scale_log2;            ///< Score scale times log2(e).
  moa_block_ranges ranges;     ///< Key blocks to visit; for decode, this item's
                               ///< share of them.
  int32_t reserved;
} moa_work_item;

/// Copies `rows` key and value rows into a page and zeroes what follows them.
typedef struct moa_append_item {
  const void *k; ///< Source row 0; D dense.
  const void *v;
  void *page_k; ///< Destination row 0 of the copy inside the page, [.][D].
  void *page_v;
  int64_t k_stride; ///< Elements between source rows.
  int64_t v_stride;
  int32_t rows; ///< Rows to copy, at least 1.
  int32_t zero; ///< Rows to zero behind them (0 unless the page is fresh).
} moa_append_item;

/// Rotates key rows and the query rows of their group where they lie; then
/// appends as `append` says, whose page may be NULL: then its values are not
/// read and `zero` is 0.
typedef struct moa_rope_item {
  moa_append_item append; ///< Its keys are rotated in place.
  void *q;                ///< Row 0 of the group's first head; D dense.
  int64_t q_row_stride;   ///< Elements between rows.
  int64_t q_head_stride;  ///< Elements between heads.
  const uint64_t *turns;  ///< One a pair; see moa/abi/rope.h.
  int32_t heads;          ///< Query heads of the group.
  int32_t position;       ///< Absolute position of row 0.
  float scale;            ///< Multiplies cosine and sine.
  int32_t reserved;
} moa_rope_item;

/// Brings a complete block, 64 rows of keys and of values, to 8 bits in half of
/// a page.
typedef struct moa_quantise_item {
  const void *k; ///< Source row 0; D dense.
  const void *v;
  int64_t k_stride; ///< Elements between source rows.
  int64_t v_stride;
  void *page;    ///< Row 0 of the page's first half.
  float *scales; ///< The page's MOA_KV8_SCALES.
  /// The page whose other half is copied to this one's, and its scales; or
  /// NULL.
  const void *kept;
  const float *kept_scales;
  int32_t half;   ///< 0 or 1.
  int32_t format; ///< MOA_KV_E4M3 or MOA_KV_INT8.
  /// On GPUs 1 for the way back: `k` and `v` get what the codes stand for, in
  /// the model's type. Else 0.
  int32_t back;
  int32_t reserved;
} moa_quantise_item;

static_assert(offsetof(moa_key_block, scales) == 32, "kernel ABI");
static_assert(sizeof(moa_key_block) == 48, "kernel ABI");
static_assert(offsetof(moa_work_item, q_stride) == 40, "kernel ABI");
static_assert(offsetof(moa_work_item, rows) == 56, "kernel ABI");
static_assert(offsetof(moa_work_item, ranges) == 72, "kernel ABI");
static_assert(sizeof(moa_work_item) == 96, "kernel ABI");
static_assert(sizeof(moa_append_item) == 56, "kernel ABI");
static_assert(offsetof(moa_rope_item, q) == 56, "kernel ABI");
static_assert(offsetof(moa_rope_item, heads) == 88, "kernel ABI");
static_assert(sizeof(moa_rope_item) == 104, "kernel ABI");
static_assert(offsetof(moa_quantise_item, half) == 64, "kernel ABI");
static_assert(sizeof(moa_quantise_item) == 80, "kernel ABI");

/// Entry point types of CPU kernels.
typedef void (*moa_attention_kernel)(const moa_work_item *item, void *scratch);
typedef void (*moa_append_kernel)(const moa_append_item *item, void *scratch);
typedef void (*moa_rope_kernel)(const moa_rope_item *item, void *scratch);
typedef void (*moa_quantise_kernel)(const moa_quantise_item *item,
                                    void *scratch);

#ifdef __cplusplus
}
#endif

#endif // MOA_ABI_KERNEL_ARGS_H
