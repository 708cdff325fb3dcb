//===- snapshot.h - The format of stored sequences ------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The format, little-endian throughout, in a file or in memory:
//
//  1. moa_snapshot_header (128 bytes): magic, version, size, checksum of the
//     whole, and the model that the sequence belongs to.
//  2. LAYERS: layers moa_snapshot_layer.
//  3. HEADS: layers * kv_heads moa_snapshot_head, layer-major.
//  4. Zeros up to a multiple of 64 bytes.
//  5. PAGES: for each head in the order of HEADS its sink pages, then those of
//     its window, by block. A page is K [64][D] and V [64][D] in the model's
//     dtype, on every device; rows behind the last token are zero. Where a plan
//     has KV heads that keep 8 bits, each page has its MOA_KV8_SCALES behind
//     it, zero if they are not in use; blocks [window_begin, kv8_end) of such a
//     head lie two to a page (see abi/kernel_args.h), a half without one is
//     zero.
//
// A reader checks each field before it uses it, compares the model field by
// field, and takes nothing if anything is wrong.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_ABI_SNAPSHOT_H
#define MOA_ABI_SNAPSHOT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/// "MOS" 0x1A, as bytes at offset 0.
#define MOA_SNAPSHOT_MAGIC 0x1A534F4Du

/// Raise it whenever a struct here changes layout or meaning.
#define MOA_SNAPSHOT_VERSION 3

/// Alignment of PAGES.
#define MOA_SNAPSHOT_ALIGN 64

typedef struct moa_snapshot_header {
  uint32_t magic;
  uint32_t version;     ///< MOA_SNAPSHOT_VERSION of the writer.
  uint64_t size;        ///< Of the whole, bytes.
  uint64_t checksum;    ///< moa_snapshot_hash of the whole, itself zero.
  uint32_t header_size; ///< sizeof(moa_snapshot_header).
  uint32_t layers;
  uint32_t q_heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t dtype;       ///< MOA_DTYPE_*.
  int32_t length_rule;  ///< MOA_LENGTH_*.
  uint32_t page_tokens; ///< MOA_BLOCK_KEYS.
  int64_t length;       ///< N of the sequence.
  uint64_t rules_hash;  ///< moa_snapshot_hash of the model's span rules and,
                       ///< as 64-bit words, of its KV formats if any is 8 bits.
  uint8_t plan_id[32];  ///< Of the artifact.
  uint64_t pages;       ///< In PAGES.
  uint64_t reserved[2]; ///< Zero.
} moa_snapshot_header;

typedef struct moa_snapshot_layer {
  int64_t seen;  ///< Tokens.
  uint64_t rope; ///< Of the keys' rotation: moa_snapshot_hash of its layout and
                 ///< rotary_dim, scale and frequencies as 64-bit words (the
                 ///< last two as doubles); 0 where keys came rotated.
} moa_snapshot_layer;

/// The fields of moa_resident, and what was held where N rose last: pages from
/// `floor` on, as it would have been from `since` tokens on.
typedef struct moa_snapshot_head {
  int32_t sink_pages, window_begin, window_end;
  int32_t floor;
  int64_t since;
  int32_t kv8_end;
  uint32_t reserved;
} moa_snapshot_head;

static_assert(offsetof(moa_snapshot_header, checksum) == 16, "format");
static_assert(offsetof(moa_snapshot_header, length) == 56, "format");
static_assert(offsetof(moa_snapshot_header, plan_id) == 72, "format");
static_assert(offsetof(moa_snapshot_header, pages) == 104, "format");
static_assert(sizeof(moa_snapshot_header) == 128, "format");
static_assert(sizeof(moa_snapshot_layer) == 16, "format");
static_assert(offsetof(moa_snapshot_head, since) == 16, "format");
static_assert(sizeof(moa_snapshot_head) == 32, "format");

/// Where hashes start.
#define MOA_SNAPSHOT_HASH_START 0xcbf29ce484222325ull

/// FNV-1a over 64-bit words, continued from `hash`; `size` is a multiple of 8.
/// Guards against truncation and flipped bits, not against an adversary.
static inline uint64_t moa_snapshot_hash(uint64_t hash, const void *bytes,
                                         uint64_t size) {
  for (uint64_t i = 0; i + 8 <= size; i += 8) {
    uint64_t word;
    memcpy(&word, (const char *)bytes + i, 8);
    hash = (hash ^ word) * 0x100000001b3ull;
  }
  return hash;
}

/// Bytes before PAGES.
static inline uint64_t moa_snapshot_pages_offset(uint64_t layers,
                                                 uint64_t kv_heads) {
  const uint64_t end = sizeof(moa_snapshot_header) +
                       layers * sizeof(moa_snapshot_layer) +
                       layers * kv_heads * sizeof(moa_snapshot_head);
  return (end + MOA_SNAPSHOT_ALIGN - 1) / MOA_SNAPSHOT_ALIGN *
         MOA_SNAPSHOT_ALIGN;
}

#ifdef __cplusplus
}
#endif

#endif // MOA_ABI_SNAPSHOT_H
