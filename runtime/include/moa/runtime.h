//===- runtime.h - C ABI of the MoA runtime -------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Loads compiled modules (.moa) and runs attention with per-head spans over an
// elastic, paged KV cache, on the CPU or on a CUDA device. No LLVM, no Python
// and no CUDA toolkit behind it.
//
// Errors. A function that can fail returns NULL for success or a status that
// the caller owns and frees with moa_status_free. A failed call leaves every
// object as it was before the call. Nothing here aborts or throws.
//
// Structs. Every option and info struct starts with `struct_size`, which the
// caller sets to sizeof of the struct it was compiled against; fields beyond a
// caller's size take their defaults.
//
// Threads. Each function says which threads may call it:
//   any          beside any other call with the same objects, but for one that
//                frees or destroys what is passed
//   the cache's  a cache, its sequences, batches and schedulers belong to one
//                thread at a time; they may go to another between calls
//   the last that uses it
//                no other call with the object, or with what was made from it,
//                is under way or comes later
//
// Ownership. What is created belongs to whoever is named. Nothing that is
// passed in is kept, unless it is said, but the parent: a module borrows its
// context, a cache its module, a sequence its cache. Destroy them in the
// opposite order. Destroy functions accept NULL.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RUNTIME_H
#define MOA_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#include "moa/abi/rope.h"
#include "moa/abi/span.h"
#include "moa/abi/version.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MOA_API __attribute__((visibility("default")))
#else
#define MOA_API
#endif

//===----------------------------------------------------------------------===//
// Version and status
//===----------------------------------------------------------------------===//

/// ABI version of the library that is loaded; either out may be NULL.
/// Threads: any. Since: 1.0
MOA_API void moa_abi_version(int32_t *major, int32_t *minor);

typedef struct moa_status moa_status;

typedef enum moa_status_code {
  MOA_OK = 0,
  MOA_INVALID_ARGUMENT = 1, ///< The call is wrong; the message says how.
  MOA_OUT_OF_PAGES = 2,     ///< Pool too small; message has wanted and free.
  MOA_OUT_OF_MEMORY = 3,    ///< The system or the device refused memory.
  MOA_INCOMPATIBLE = 4,     ///< Artifact of another version or machine.
  MOA_CORRUPT = 5,          ///< Artifact or snapshot damaged.
  MOA_IO = 6,               ///< File cannot be read or written.
  MOA_OUT_OF_RANGE = 7,     ///< Longer than the artifact serves.
  MOA_UNSUPPORTED = 8,      ///< Valid, but not provided by this artifact.
  MOA_NO_DEVICE = 9,        ///< No driver, or no such device. Since: 1.1
  MOA_DEVICE_ERROR = 10,    ///< The driver refused a call. Since: 1.1
  MOA_NOT_RESIDENT = 11     ///< Keys that are needed were given up. Since: 1.3
} moa_status_code;

/// Code of a status; MOA_OK for NULL. Borrows. Threads: any. Since: 1.0
MOA_API moa_status_code moa_status_get_code(const moa_status *status);
/// One line, no newline: what was expected, what was found, where, and the
/// cure. Valid until the status is freed; "ok" for NULL.
/// Threads: any. Since: 1.0
MOA_API const char *moa_status_get_message(const moa_status *status);
/// Frees a status; NULL is allowed. Threads: any. Since: 1.0
MOA_API void moa_status_free(moa_status *status);

//===----------------------------------------------------------------------===//
// Context: where kernels run
//===----------------------------------------------------------------------===//

typedef struct moa_context moa_context;

/// Kinds of devices.
enum { MOA_DEVICE_CPU = 0, MOA_DEVICE_CUDA = 1 };

/// Host memory from the caller in place of the system's: for the pages of all
/// caches of a context on the CPU, and for moa_device_alloc. Statuses, tables,
/// scratch of threads and code of kernels stay with the system. Both functions
/// may be called by any thread that uses the context or what was made with it,
/// by several at a time where it is shared; they must not throw and must not
/// call this library. They are needed until the context is destroyed, and by
/// then every piece of memory was given back. Since: 1.4
typedef struct moa_allocator {
  size_t struct_size;
  /// `bytes` of memory, at least 1, of any content, at a multiple of
  /// `alignment`, a power of two; or NULL: the call that needs it fails with
  /// MOA_OUT_OF_MEMORY and changes nothing.
  void *(*allocate)(void *user, size_t bytes, size_t alignment);
  /// Takes back what `allocate` gave; never called with NULL.
  void (*deallocate)(void *user, void *memory);
  void *user; ///< Passed to both; the caller's.
} moa_allocator;

typedef struct moa_context_options {
  size_t struct_size;
  int32_t threads; ///< Including the calling thread; 0 = one per usable core.
  /// Most CPU features to use: MOA_CPU_* bits of abi/artifact.h; 0 = all that
  /// the machine has. For tests and measurements.
  uint32_t cpu_features;
  int32_t device;  ///< MOA_DEVICE_*. Since: 1.1
  int32_t ordinal; ///< Which CUDA device. Since: 1.1
  /// CUDA driver library; NULL = libcuda.so.1. Since: 1.1
  const char *driver_path;
  /// Copied; NULL = memory of the system. With a CUDA device, whose pages are
  /// the driver's, it is refused (MOA_UNSUPPORTED). Since: 1.4
  const moa_allocator *allocator;
} moa_context_options;

/// Creates a context; `options` may be NULL. Caller owns `*out`. A context on a
/// CUDA device retains the device's primary context, so memory of the CUDA
/// runtime and of frameworks can be passed as it is. Threads: any. Since: 1.0
MOA_API moa_status *moa_context_create(const moa_context_options *options,
                                       moa_context **out);
/// Destroys a context whose modules are gone and whose memory of
/// moa_device_alloc was given back. Ends a trace. NULL is allowed.
/// Threads: the last that uses it. Since: 1.0
MOA_API void moa_context_destroy(moa_context *context);

typedef struct moa_device_info {
  size_t struct_size;
  int32_t device; ///< MOA_DEVICE_*.
  int32_t ordinal;
  const char *name; ///< Lives as the context.
  int32_t capability_major,
      capability_minor;   ///< Compute capability; 0 for CPU.
  int32_t driver_version; ///< 1000 * major + 10 * minor of CUDA; 0 for CPU.
  int32_t processors;     ///< Threads, or multiprocessors.
  uint64_t memory_bytes;  ///< Of the whole device.
} moa_device_info;

/// Fills `*info` up to its struct_size; its strings belong to the context.
/// Threads: any. Since: 1.1
MOA_API moa_status *moa_context_get_device_info(const moa_context *context,
                                                moa_device_info *info);

// Memory of a context's device, for programs that have no other way to it.

/// Allocates at least 64-byte aligned memory of any content. Caller owns `*out`
/// and frees it with moa_device_free, before the context goes.
/// Threads: any. Since: 1.1
MOA_API moa_status *moa_device_alloc(moa_context *context, size_t bytes,
                                     void **out);
/// Waits for the device and frees; NULL is allowed. Threads: any. Since: 1.1
MOA_API moa_status *moa_device_free(moa_context *context, void *memory);
/// Waits for the device, then copies; either side may be the host's.
/// Threads: any. Since: 1.1
MOA_API moa_status *moa_device_copy(moa_context *context, void *to,
                                    const void *from, size_t bytes);
/// Waits until all work on the device is done. Threads: any. Since: 1.1
MOA_API moa_status *moa_device_synchronize(moa_context *context);

//===----------------------------------------------------------------------===//
// Module: a loaded artifact
//===----------------------------------------------------------------------===//

typedef struct moa_module moa_module;

typedef struct moa_module_info {
  size_t struct_size;
  uint32_t artifact_version;
  uint32_t layers;
  uint32_t q_heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t dtype; ///< MOA_DTYPE_* of abi/kernel_args.h.
  int32_t length_rule;
  uint32_t kernels;
  int64_t max_length;
  uint8_t plan_id[32];
  const char *chip; ///< Most demanding variant that runs; lives as the module.
  /// One line on what fell back, such as a driver that compiled PTX; empty if
  /// nothing did. Lives as the module. Since: 1.1
  const char *remark;
  float soft_cap; ///< Of scores; 0 where they have none. Since: 1.7
} moa_module_info;

/// Loads an artifact from a file, which may change afterwards. Caller owns
/// `*out`. Threads: any. Since: 1.0
MOA_API moa_status *moa_module_load_file(moa_context *context, const char *path,
                                         moa_module **out);
/// Loads an artifact from memory; the bytes are copied. Caller owns `*out`.
/// Threads: any. Since: 1.0
MOA_API moa_status *moa_module_load_memory(moa_context *context,
                                           const void *bytes, size_t size,
                                           moa_module **out);
/// Destroys a module whose caches are gone. NULL is allowed.
/// Threads: the last that uses it. Since: 1.0
MOA_API void moa_module_destroy(moa_module *module);
/// Fills `*info` up to its struct_size; its strings belong to the module.
/// Threads: any. Since: 1.0
MOA_API moa_status *moa_module_get_info(const moa_module *module,
                                        moa_module_info *info);
/// Copies the rule of one query head. Threads: any. Since: 1.0
MOA_API moa_status *moa_module_get_rule(const moa_module *module,
                                        uint32_t layer, uint32_t q_head,
                                        moa_span_rule *rule);
/// What a KV head keeps of complete pages: MOA_KV_* of abi/kernel_args.h. One
/// of 8 bits has two blocks of 64 tokens in a page, each with a scale for its
/// keys and one for its values; pages of the sink, and the one of the newest
/// row, keep the model's type. The rows of a call see in 8 bits what was
/// complete before it, and their own tokens as they came: under such a plan
/// results depend on how rows are cut into calls, within the error of 8 bits.
/// A block with a key (value) that is not finite has none that is.
/// Threads: any. Since: 1.4
MOA_API moa_status *moa_module_get_kv_format(const moa_module *module,
                                             uint32_t layer, uint32_t kv_head,
                                             uint32_t *format);
/// KV bytes in closed form: what one sequence of length rule `n` holds over all
/// layers after `seen` tokens, and what a dense cache of whole pages would
/// hold. Threads: any. Since: 1.0
MOA_API moa_status *moa_module_kv_bytes(const moa_module *module, int64_t n,
                                        int64_t seen, uint64_t *bytes,
                                        uint64_t *dense_bytes);
/// The same in a cache with rollback_tokens (see moa_cache_options): exact for
/// a sequence that was not truncated, and never less than it holds after that.
/// Threads: any. Since: 1.3
MOA_API moa_status *moa_module_kv_bytes_rollback(const moa_module *module,
                                                 int64_t n, int64_t seen,
                                                 int64_t rollback_tokens,
                                                 uint64_t *bytes,
                                                 uint64_t *dense_bytes);

//===----------------------------------------------------------------------===//
// Cache: a page pool and the sequences in it
//===----------------------------------------------------------------------===//

typedef struct moa_cache moa_cache;
typedef struct moa_sequence moa_sequence;

typedef struct moa_cache_options {
  size_t struct_size;
  /// Most bytes of pages, rounded down; 0 = no limit on the CPU, 90 % of the
  /// memory that is free now on a CUDA device. There, addresses are reserved at
  /// once and memory is taken as pages are first needed (or all at once, where
  /// the device cannot map memory).
  uint64_t max_bytes;
  /// Pages are kept for so many tokens longer than rows to come need them, so
  /// that moa_sequence_truncate can always take back the newest so many rows of
  /// the longest that a sequence has been: for speculation. Since: 1.3
  int64_t rollback_tokens;
  /// K of 1 to 64: on a CUDA device, too, a row's bits do not depend on what
  /// else is in its call or step, as decode cuts each KV head of a sequence by
  /// its own pages alone, in at most K parts (runtime/README.md: what bits do
  /// depend on, and what it takes). 0: cuts follow the whole call. Since: 1.6
  int64_t decode_parts;
} moa_cache_options;

typedef struct moa_cache_stats {
  size_t struct_size;
  uint64_t page_bytes;
  uint64_t pages_used;
  uint64_t pages_high_water; ///< Largest pages_used so far.
  uint64_t pages_limit;      ///< 0 = no limit.
  uint64_t reserved_bytes;   ///< Taken from the operating system for pages and
                             ///< for the scales of those in 8 bits, 16 bytes
                             ///< beside each page.
  uint64_t sequences;
  uint64_t pages_shared; ///< Used by several sequences. Since: 1.3
  /// Pages in use, each counted once for every sequence that holds it: without
  /// sharing there would be so many. Since: 1.3
  uint64_t pages_referenced;
  /// Fragmentation: of reserved_bytes, what is in no page in use or kept.
  /// Since: 1.3
  uint64_t unused_bytes;
  /// Pages kept for prefixes (moa/prefix.h) that no sequence holds: not in use,
  /// and free as soon as they are wanted. Since: 1.4
  uint64_t pages_kept;
  /// Pages that sequences to come can begin with: pages_kept and, of those in
  /// use, full ones whose tokens are known. Since: 1.4
  uint64_t pages_indexed;
} moa_cache_stats;

/// Creates an empty cache; `options` may be NULL. Caller owns `*out`.
/// Threads: any. Since: 1.0
MOA_API moa_status *moa_cache_create(moa_module *module,
                                     const moa_cache_options *options,
                                     moa_cache **out);
/// Destroys the cache and every sequence and batch in it, after its schedulers;
/// on a CUDA device it waits for all work there. NULL is allowed.
/// Threads: the cache's. Since: 1.0
MOA_API void moa_cache_destroy(moa_cache *cache);
/// Fills `*stats` up to its struct_size. Threads: the cache's. Since: 1.0
MOA_API moa_status *moa_cache_get_stats(const moa_cache *cache,
                                        moa_cache_stats *stats);

/// Changes the most bytes of pages, rounded down; 0 = no limit on the CPU, what
/// the cache was made for on a CUDA device, where it cannot be more. Refused
/// with the numbers where more pages are in use. What was taken for pages stays
/// taken. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_cache_set_limit(moa_cache *cache, uint64_t max_bytes);

/// A rotary embedding. Queries and keys are rotated by their positions times
/// the frequencies of their pairs, at any position an artifact serves with an
/// error of cosine and sine below 1e-7.
typedef struct moa_rope {
  size_t struct_size;
  uint32_t layout; ///< MOA_ROPE_* of abi/rope.h: which elements are a pair.
  uint32_t
      rotary_dim; ///< Elements of a head that are rotated, the first; even,
                  ///< at most the head size. The others pass through.
  /// rotary_dim / 2 values, radians a token (for a plain embedding theta^(-2i /
  /// rotary_dim)); copied.
  const double *frequencies;
  float scale; ///< Multiplies cosine and sine: 1, or YaRN's attention factor.
} moa_rope;

/// In place of a layer: all of them.
#define MOA_ALL_LAYERS UINT32_MAX

/// Gives a layer, or MOA_ALL_LAYERS, a rotation, in place of one it had. From
/// then on q and k of its calls are not rotated yet: moa_attend and
/// moa_batch_attend rotate both where they lie, in the same pass that stores
/// keys and values, and the caller finds them rotated afterwards.
/// A cache with a sequence or a batch is refused. MOA_UNSUPPORTED if the module
/// was not compiled for this layout and rotary_dim (moa-compile --rope). On a
/// CUDA device it waits for all work there. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_cache_set_rope(moa_cache *cache, uint32_t layer,
                                       const moa_rope *rope);

/// Creates an empty sequence whose spans are taken at `length` (prompt tokens +
/// generation budget; ignored by plans with length rule `row`). The cache owns
/// it until moa_sequence_destroy. Threads: the cache's. Since: 1.0
MOA_API moa_status *moa_sequence_create(moa_cache *cache, int64_t length,
                                        moa_sequence **out);
/// Creates a sequence that has seen the same tokens and shares all pages, for
/// beams, parallel sampling and prefixes. Nothing is copied: of the pages, only
/// the newest of each KV head is written again, and only while it is not full;
/// whichever of its holders writes to it first gets a copy in the same call, on
/// the call's stream. A call wants as many pages more as it copies, and fails
/// with MOA_OUT_OF_PAGES and without a trace if they are not there. Refused
/// while the sequence is part of a step. The cache owns the new sequence until
/// moa_sequence_destroy; either may go first. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_sequence_fork(moa_sequence *sequence,
                                      moa_sequence **out);
/// Destroys the sequence and gives its pages back; those that it shares stay
/// with the other sequences. Ends a step of a batch that it is part of. NULL is
/// allowed. Threads: the cache's. Since: 1.0
MOA_API void moa_sequence_destroy(moa_sequence *sequence);
/// Raises the length; a smaller value is refused, and any while the sequence is
/// part of a step. Spans grow from the next row on; keys already gone stay gone
/// (see first_resident). Threads: the cache's. Since: 1.0
MOA_API moa_status *moa_sequence_set_length(moa_sequence *sequence,
                                            int64_t length);
/// Drops the newest rows of all layers, so that the sequence has seen `tokens`
/// tokens: rejected drafts, another turn from an earlier point. The rows that
/// follow give what they would have given had the dropped ones never been. That
/// needs the keys they see: where some were given up since, the call fails with
/// MOA_NOT_RESIDENT, names the first missing and the least length, and changes
/// nothing. Every length from moa_sequence_get_min_length on is possible, and
/// every one within the pages of the sink; where pages are kept in 8 bits (see
/// moa_module_get_kv_format), multiples of 64 below it too, as no row is added
/// to such a page: rows that follow see in 8 bits what they might have seen as
/// it came. N stays as it is. Copies nothing; pages go back at once (on a CUDA
/// device what is enqueued still reads them). Refused while the sequence is
/// part of a step. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_sequence_truncate(moa_sequence *sequence,
                                          int64_t tokens);
/// Least length from which on moa_sequence_truncate takes every length up to
/// what all layers have seen; above that where it takes none of them.
/// Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_sequence_get_min_length(const moa_sequence *sequence,
                                                int64_t *tokens);
/// Length rule's N, and tokens seen by `layer`. Either out may be NULL.
/// Threads: the cache's. Since: 1.0
MOA_API moa_status *moa_sequence_get_length(const moa_sequence *sequence,
                                            uint32_t layer, int64_t *length,
                                            int64_t *seen);
/// First position behind the sink whose key is still held for this KV head: a
/// multiple of 64, or 0 while no page was given up. Rows to come see nothing
/// between the sink and it. Threads: the cache's. Since: 1.0
MOA_API moa_status *
moa_sequence_get_first_resident(const moa_sequence *sequence, uint32_t layer,
                                uint32_t kv_head, int64_t *position);
/// Stores a sequence in a file (see abi/snapshot.h); `path` has its old bytes
/// or the new ones, whatever happens meanwhile; a process that is killed may
/// leave `path`.XXXXXX behind. A new file is for its owner alone, one that is
/// replaced keeps its mode. Pages that it shares are stored in full. Waits for
/// the device. Refused during a step. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_sequence_snapshot_file(const moa_sequence *sequence,
                                               const char *path);
/// The same to memory of the caller: `*size` becomes the snapshot's bytes.
/// With `buffer` NULL nothing is written; with less `capacity` than that the
/// call fails. `size` may be NULL. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_sequence_snapshot_memory(const moa_sequence *sequence,
                                                 void *buffer, size_t capacity,
                                                 size_t *size);
/// Makes a sequence from a snapshot, on whatever device: the cache's module has
/// to have the same plan, geometry and dtype, and the cache the same rotations
/// (moa_cache_set_rope). Others, and bytes that are damaged or made up, are
/// refused (MOA_CORRUPT, MOA_INCOMPATIBLE, MOA_OUT_OF_RANGE), and so are more
/// pages than are free; nothing is changed then. All goes on as if it were the
/// sequence that was stored. Waits for the device. The cache owns it until
/// destroyed. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_sequence_restore_file(moa_cache *cache,
                                              const char *path,
                                              moa_sequence **out);
/// The same from memory. Threads: the cache's. Since: 1.3
MOA_API moa_status *moa_sequence_restore_memory(moa_cache *cache,
                                                const void *bytes, size_t size,
                                                moa_sequence **out);
/// Bytes of pages that the sequence holds now, over all layers. Pages that it
/// shares with others count in full for each. Threads: the cache's. Since: 1.0
MOA_API moa_status *moa_sequence_get_bytes(const moa_sequence *sequence,
                                           uint64_t *bytes);

//===----------------------------------------------------------------------===//
// Attention
//===----------------------------------------------------------------------===//

/// One sequence's part of a call: `tokens` new rows. All pointers refer to row
/// 0, head 0; strides count elements; the D elements of a head are dense. The
/// library only reads q, k, v during the call and only writes `out`; but where
/// the layer has a rotation (moa_cache_set_rope), it overwrites q and k with
/// the rotated ones: they must be writable, and no row of theirs may be part of
/// another entry. Where both q and out are NULL, the rows are appended and
/// nothing attends: rows to come find them as if they had. Since: 1.5
typedef struct moa_attend_entry {
  moa_sequence *sequence;
  int64_t tokens; ///< At least 1.
  const void *q;  ///< [tokens][q_heads][D], rotated likewise; or NULL.
  const void *k;  ///< [tokens][kv_heads][D], rotated by caller or cache.
  const void *v;  ///< [tokens][kv_heads][D].
  void *out;      ///< [tokens][q_heads][D]; or NULL.
  int64_t q_row_stride, q_head_stride;
  int64_t k_row_stride, k_head_stride;
  int64_t v_row_stride, v_head_stride;
  int64_t out_row_stride, out_head_stride;
} moa_attend_entry;

typedef struct moa_attend_options {
  size_t struct_size;
  size_t entry_size; ///< sizeof(moa_attend_entry).
  uint32_t layer;
  uint32_t has_scale; ///< 0: scale is 1 / sqrt(head_dim).
  /// Multiplies q.k; any finite value, above 0 on a CUDA device.
  float scale;
  /// CUDA device: the CUstream to work on; NULL = the legacy default stream.
  /// Since: 1.1
  void *stream;
} moa_attend_options;

/// Appends the new keys and values of one layer, computes attention of the new
/// queries over everything they see, and returns the pages that no later row
/// can see. Where the layer has a rotation, queries and keys are rotated first;
/// should the device refuse a launch behind that, they stay rotated. Entries
/// may mix prompts, chunks and single tokens; a sequence may appear once. Keys
/// that no row to come can see are read from the caller's tensor and never
/// copied: after the call the cache holds its closed form, and during it at
/// most the pages of before and after. On the CPU, results do not depend on the
/// batch, the threads or the machine load.
///
/// On a CUDA device all pointers of entries are device addresses, multiples of
/// 16 bytes, as strides are: of 8 elements, of 4 in f32. The call enqueues a
/// copy of its tables and kernel launches on `stream` and returns. It waits
/// only for the tables of the eighth call before, and allocates only if no call
/// was as large or pages are needed that never were. A cache belongs to the
/// order of one stream: before a call on another stream, make that stream wait
/// for the first. A captured call replays with the lengths and pages of its
/// capture. Equal calls give equal bits; rows decoded beside others may be cut
/// at other pages and differ in rounding, unless the cache has decode_parts. A
/// decode kernel takes entries of one row, and those of several that, times the
/// query heads of a KV head, fit in its columns (16); prefill takes the others,
/// and all where the artifact has no decode kernel for the device. A value that
/// is not finite in a key that is masked for a row may reach that row if their
/// tiles meet. Threads: the cache's. Since: 1.0
MOA_API moa_status *moa_attend(moa_cache *cache,
                               const moa_attend_options *options,
                               const moa_attend_entry *entries, size_t count);

//===----------------------------------------------------------------------===//
// Batches: steps of many sequences, captured once and replayed
//===----------------------------------------------------------------------===//
//
// A step gives each of a batch's sequences the same few rows in every layer:
//
//   moa_batch_begin    takes the pages of all layers, tells the device
//   moa_batch_attend   for each layer, in any order; may be captured in a CUDA
//                      graph, which serves every later step
//   moa_batch_end      the rows count; pages no later row can see go back
//
// On a CUDA device the work of a step is cut there, from lengths and tables
// that lie there: begin costs one small copy and one launch for all layers, and
// the calls of the layers one launch each, which also copies the new keys and
// values to their pages (and one before it that rotates queries and keys, where
// the layer has a rotation). A replay computes the step that began last, with
// the sequences and lengths of that step; rows of tensors behind its sequences
// are left alone, so a graph of a full batch serves smaller ones too. Between
// begin and end (or cancel) the sequences take no other call. All of it belongs
// to one stream, as calls of moa_attend do.

typedef struct moa_batch moa_batch;

/// Most sequences of a batch.
#define MOA_MAX_BATCH 65536

typedef struct moa_batch_options {
  size_t struct_size;
  uint32_t max_sequences;
  /// New rows a sequence in a step: 1 to 16; 0 = 1. On a CUDA device a batch
  /// picks its decode kernel by it, for all its steps: the one that reads pages
  /// least often in steps of so many rows. Ask for no more than come.
  uint32_t max_tokens;
  int64_t max_length; ///< Tokens of a sequence; 0 = the artifact's most.
} moa_batch_options;

/// Makes a batch. On a CUDA device it takes the memory for its tables here, 4
/// bytes for each layer, KV head and 64 tokens of every sequence. The cache
/// owns it until moa_batch_destroy. Threads: the cache's. Since: 1.2
MOA_API moa_status *moa_batch_create(moa_cache *cache,
                                     const moa_batch_options *options,
                                     moa_batch **out);
/// Gives up a step under way and destroys the batch; graphs of its calls must
/// not be replayed any more. NULL is allowed. Threads: the cache's. Since: 1.2
MOA_API void moa_batch_destroy(moa_batch *batch);

typedef struct moa_batch_info {
  size_t struct_size;
  /// Whether captured calls serve later steps. 0 on the CPU, and where the
  /// artifact has no decode kernel for the device: calls then run as those of
  /// moa_attend do.
  uint32_t replays;
  uint32_t open; ///< Whether a step is under way.
} moa_batch_info;

/// Fills `*info` up to its struct_size. Threads: the cache's. Since: 1.2
MOA_API moa_status *moa_batch_get_info(const moa_batch *batch,
                                       moa_batch_info *info);

typedef struct moa_batch_step {
  size_t struct_size;
  moa_sequence *const *sequences; ///< Each at most once; borrowed for the call.
  size_t count;                   ///< 1 to max_sequences.
  int64_t tokens; ///< New rows a sequence, to max_tokens; 0 = 1.
  void *stream;   ///< CUDA device: CUstream, not being captured.
} moa_batch_step;

/// Begins a step. A sequence must have seen as many tokens in every layer.
/// Fails with MOA_OUT_OF_PAGES and without a trace if the pages of the whole
/// step are not there. Threads: the cache's. Since: 1.2
MOA_API moa_status *moa_batch_begin(moa_batch *batch,
                                    const moa_batch_step *step);

/// A tensor [sequences][tokens][heads][D] whose D elements are dense. Strides
/// count elements.
typedef struct moa_batch_tensor {
  void *data; ///< Sequence 0, token 0, head 0.
  int64_t sequence_stride, token_stride, head_stride;
} moa_batch_tensor;

typedef struct moa_batch_attend_options {
  size_t struct_size;
  uint32_t layer;
  uint32_t has_scale; ///< As in moa_attend_options.
  float scale;
  uint32_t reserved;
  void *stream; ///< CUDA device: CUstream; may be being captured.
  moa_batch_tensor q, k, v, out; ///< k and v of kv_heads, else q_heads.
} moa_batch_attend_options;

/// Attends to one layer of the step under way, as moa_attend would with one
/// entry a sequence. Threads: the cache's. Since: 1.2
MOA_API moa_status *moa_batch_attend(moa_batch *batch,
                                     const moa_batch_attend_options *options);

/// Ends the step: its rows count as seen in all layers. Does nothing where no
/// step is under way. On a CUDA device it does not wait; what is enqueued still
/// reads the pages it needs. Threads: the cache's. Since: 1.2
MOA_API void moa_batch_end(moa_batch *batch);
/// Gives the step up: sequences are as before moa_batch_begin. Does nothing
/// where no step is under way. Threads: the cache's. Since: 1.2
MOA_API void moa_batch_cancel(moa_batch *batch);

#ifdef __cplusplus
}
#endif

#endif // MOA_RUNTIME_H
