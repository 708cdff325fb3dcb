//===- artifact.h - The .moa file format ----------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The format, little-endian throughout, every section 64-byte aligned, every
// offset counted in bytes from the start of the file:
//
//  1. moa_artifact_header (208 bytes): magic, versions, file size, checksum of
//     the whole file, model geometry, one (offset, size) per section.
//  2. RULES: layers * q_heads moa_span_rule, layer-major.
//  3. LAYERS: layers moa_artifact_layer: which kernel serves each phase.
//  4. KERNELS: moa_artifact_kernel records, one per structure. A prepare kernel
//     serves every layer whose decode kernel has images for GPUs; it reads no
//     elements, and has the model's dtype and head size, group 1, and images
//     for GPUs alone. A rope or quantise kernel has group 1.
//  5. IMAGES: moa_artifact_image records, one per (kernel, target variant),
//     in decreasing order of preference for each kernel. For a GPU, a decode
//     kernel may have another image behind it with more columns, for items of
//     several tokens: of each number of columns the first that runs is used.
//  6. STRINGS: NUL-terminated UTF-8, referred to by offset in this section.
//  7. CODE: the images' bytes. A CPU image is position-independent machine code
//     with its constants, free of relocations: mapping it is loading it. A
//     CUDA image is what a driver loads: a cubin, or PTX text with its NUL.
//  8. KV FORMATS: layers * kv_heads bytes of MOA_KV_*, layer-major; of 8 bits
//     beside 16-bit elements alone, in layers that have a quantise kernel and
//     whose kernels take them.
//
// A reader checks each field before it uses it and names index, found and
// expected values when it refuses. Bytes it does not know (reserved) are zero.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_ABI_ARTIFACT_H
#define MOA_ABI_ARTIFACT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "moa/abi/span.h"

#ifdef __cplusplus
extern "C" {
#endif

/// "MOA" 0x1A, as bytes at offset 0.
#define MOA_ARTIFACT_MAGIC 0x1A414F4Du

/// Alignment of sections and of each image in CODE.
#define MOA_ARTIFACT_ALIGN 64

typedef struct moa_artifact_section {
  uint64_t offset; ///< From the start of the file; multiple of 64.
  uint64_t size;   ///< Bytes.
} moa_artifact_section;

typedef struct moa_artifact_header {
  uint32_t magic;
  uint32_t version;            ///< MOA_ARTIFACT_VERSION of the writer.
  uint64_t file_size;          ///< Whole file, bytes.
  uint64_t checksum;           ///< moa_artifact_checksum of the whole file.
  uint32_t header_size;        ///< sizeof(moa_artifact_header).
  uint32_t kernel_abi_version; ///< MOA_KERNEL_ABI_VERSION of the writer.
  uint32_t layers;
  uint32_t q_heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t dtype;      ///< MOA_DTYPE_*.
  int32_t length_rule; ///< MOA_LENGTH_*; equal in all rules.
  int64_t max_length;  ///< Longest sequence the artifact serves, tokens.
  uint8_t plan_id[32]; ///< SHA-256 of the plan's canonical form.
  float soft_cap;      ///< Of scores, positive; 0 where they have none.
  uint32_t reserved;
  moa_artifact_section rules;
  moa_artifact_section layer_table;
  moa_artifact_section kernels;
  moa_artifact_section images;
  moa_artifact_section strings;
  moa_artifact_section code;
  moa_artifact_section kv_formats;
} moa_artifact_header;

/// Kernel index meaning "this phase was not compiled".
#define MOA_NO_KERNEL 0xFFFFFFFFu

typedef struct moa_artifact_layer {
  uint32_t prefill; ///< Index into KERNELS, or MOA_NO_KERNEL.
  uint32_t decode;
  uint32_t append;
  uint32_t prepare;
  uint32_t rope;
  uint32_t quantise;
} moa_artifact_layer;

typedef struct moa_artifact_kernel {
  uint32_t name;  ///< Offset in STRINGS.
  uint32_t kind;  ///< MOA_KERNEL_*.
  uint32_t dtype; ///< MOA_DTYPE_*.
  uint32_t head_dim;
  uint32_t group;       ///< Decode: query heads a work item holds; else 1.
  uint32_t first_image; ///< Its images are [first_image, first_image + images).
  uint32_t images;
  uint32_t rotation; ///< Rope: moa_artifact_rotation; else 0.
  uint32_t kv8;      ///< Prefill, decode: 1 if it takes blocks of 8 bits; else
                     ///< 0. A layer with such blocks has only these.
} moa_artifact_kernel;

/// The structure of a rope kernel: its MOA_ROPE_* and how many elements of a
/// head it rotates, an even number of 2 to head_dim.
static inline uint32_t moa_artifact_rotation(uint32_t layout,
                                             uint32_t rotary_dim) {
  return layout << 16 | rotary_dim;
}

/// Whether a kernel of this head size, of kind rope or not, can have it.
static inline int moa_artifact_rotation_fits(int is_rope, uint32_t rotation,
                                             uint32_t head_dim) {
  const uint32_t dim = rotation & 0xFFFFu;
  if (!is_rope)
    return rotation == 0;
  return rotation >> 16 <= 1 && dim >= 2 && dim % 2 == 0 && dim <= head_dim;
}

/// Targets an image can be for.
enum {
  MOA_TARGET_CPU_X86_64 = 0,
  MOA_TARGET_CUDA_CUBIN = 1, ///< Machine code of one GPU family.
  MOA_TARGET_CUDA_PTX = 2    ///< Text that the driver compiles at load.
};

/// CPU features an image needs: bits of moa_artifact_image.features.
enum {
  MOA_CPU_X86_64_V3 = 1u << 0, ///< AVX2, FMA, F16C, BMI2.
  MOA_CPU_X86_64_V4 = 1u << 1, ///< AVX-512 F, BW, CD, DQ, VL.
  /// vdpbf16ps at full rate. A runtime sets it where that pays (AMD Zen 4 and
  /// later); on Intel cores f32 FMA is faster.
  MOA_CPU_AVX512_BF16 = 1u << 2
};

/// GPU capability an image needs: moa_artifact_image.features holds 10 * major
/// + minor in these bits (90 for compute capability 9.0).
#define MOA_GPU_CAPABILITY_MASK 0xFFFFu

/// In features: compiled for an architecture-specific chip ("sm_90a"). It runs
/// on exactly that capability, be it cubin or PTX.
#define MOA_GPU_ARCH_SPECIFIC (1u << 16)

/// Most shared memory, static and dynamic, that any GPU we compile for gives a
/// block: 227 KiB of sm_90.
#define MOA_GPU_MAX_SHARED_BYTES 232448

/// Most query rows or keys of one tile.
#define MOA_GPU_MAX_TILE 1024

typedef struct moa_artifact_image {
  uint32_t target;   ///< MOA_TARGET_*.
  uint32_t features; ///< CPU: MOA_CPU_* bits, all of which must be present.
                     ///< GPU: capability, see moa_gpu_image_runs.
  uint32_t chip;     ///< Name, offset in STRINGS ("x86-64-v4", "sm_90a").
  uint32_t threads;  ///< GPU: threads of a block. CPU: 0.
  uint64_t offset;   ///< In CODE; multiple of 64.
  uint64_t size;     ///< Bytes.
  uint64_t entry;    ///< CPU: offset of the kernel's entry in the image.
                     ///< GPU: offset in STRINGS of the function's name.
  uint64_t scratch_bytes; ///< CPU: scratch the kernel needs per thread.
                          ///< GPU: dynamic shared memory of a block.
  uint32_t rows;          ///< GPU prefill: query rows of an item, a multiple of
                          ///< 16; decode: its columns; else any. CPU: 0.
  uint32_t keys;          ///< GPU: keys of a tile, as for rows. CPU: 0.
  uint32_t registers;     ///< GPU: registers of a thread; PTX and CPU: 0.
  uint32_t reserved;
} moa_artifact_image;

/// Whether a GPU of this capability (10 * major + minor) runs an image of this
/// target and these features. A cubin runs on its own major capability from its
/// minor one on, PTX on anything from its capability on.
static inline int moa_gpu_image_runs(uint32_t target, uint32_t features,
                                     uint32_t capability) {
  uint32_t needs = features & MOA_GPU_CAPABILITY_MASK;
  if (features & MOA_GPU_ARCH_SPECIFIC)
    return capability == needs;
  if (target == MOA_TARGET_CUDA_CUBIN)
    return capability / 10 == needs / 10 && capability >= needs;
  return target == MOA_TARGET_CUDA_PTX && capability >= needs;
}

static_assert(sizeof(moa_span_rule) == 32, "artifact format");
static_assert(offsetof(moa_artifact_header, checksum) == 16, "artifact format");
static_assert(offsetof(moa_artifact_header, plan_id) == 64, "artifact format");
static_assert(offsetof(moa_artifact_header, rules) == 104, "artifact format");
static_assert(sizeof(moa_artifact_header) == 216, "artifact format");
static_assert(sizeof(moa_artifact_layer) == 24, "artifact format");
static_assert(sizeof(moa_artifact_kernel) == 36, "artifact format");
static_assert(offsetof(moa_artifact_image, rows) == 48, "artifact format");
static_assert(sizeof(moa_artifact_image) == 64, "artifact format");

/// FNV-1a over the 64-bit little-endian words of a file, the last one
/// zero-padded, the header's checksum field taken as zero. Guards against
/// truncation and flipped bits, not against an adversary.
static inline uint64_t moa_artifact_checksum(const uint8_t *file,
                                             uint64_t size) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (uint64_t i = 0; i < size; i += 8) {
    uint64_t word = 0;
    uint64_t left = size - i < 8 ? size - i : 8;
    if (i != offsetof(moa_artifact_header, checksum))
      for (uint64_t j = 0; j < left; ++j)
        word |= (uint64_t)file[i + j] << (8 * j);
    hash = (hash ^ word) * 0x100000001b3ull;
  }
  return hash;
}

#ifdef __cplusplus
}
#endif

#endif // MOA_ABI_ARTIFACT_H
