//===- prefix.h - C ABI of prefix reuse -----------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Sequences that begin with the same tokens compute them once: system prompts,
// turns of a conversation, requests that were preempted. Only under the length
// rule `row`, where keys and values depend on the tokens alone; under `request`
// they depend on each request's length too.
//
// The caller says which tokens a sequence has. A page that is full, and whose
// tokens are known, goes to an index by its tokens and all before them, for one
// KV head of one layer; it stays there when the window passes it and when the
// sequence goes, until others want its memory. A sequence begins with the
// longest prefix, a multiple of 64 tokens, for which every KV head finds all
// that it would hold there (rollback_tokens included): its sink, and its own
// window. Pages that no later row sees are not needed, so heads with short
// windows need few.
//
// Where that can be. Rows are stored in pages only where a row behind the call
// may see them, so the windows of all heads are there at the ends of calls, to
// the multiple of 64 below, and at every multiple of 64 that decoding passes.
// From there to where its tokens differ a sequence computes again, because the
// keys of a layer need all layers below it; what of that the index has already
// is not held twice. moa_sequence_reuse also says how long a prefix the
// sequence has in common with others: a call that ends there, as a scheduler's
// do, makes the next sequence begin there.
//
// A match is one of tokens, never of hashes alone. Pages that no sequence holds
// are not in use: they count as free, in moa_cache_stats as in what a scheduler
// admits by, and those let go first are given up first, also where the call
// that wanted them fails later.
//
// Errors, structs and threads as in runtime.h. Counters are in moa/observe.h,
// prefix_tokens_reused / prefix_tokens_asked is the hit rate.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_PREFIX_H
#define MOA_PREFIX_H

#include "moa/runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct moa_prefix_options {
  size_t struct_size;
  /// Most bytes of pages that are kept beyond those that sequences hold,
  /// rounded down; 0 = the cache's limit at this moment, which has to be one.
  uint64_t max_bytes;
} moa_prefix_options;

/// Turns prefix reuse on, for the cache's life, or changes how much is kept;
/// `options` may be NULL. From then on a sequence gives pages back when its
/// newest block is full, not row by row, so that it can be begun with there:
/// after `seen` tokens it holds what moa_module_kv_bytes_rollback says for the
/// larger of rollback_tokens and seen % 64. Fails with MOA_UNSUPPORTED under
/// the length rule `request` and where a KV head keeps 8 bits, and with
/// MOA_INVALID_ARGUMENT where it is off and the cache has a sequence or a batch.
/// Rotations that are set later empty it. Threads: the cache's. Since: 1.4
MOA_API moa_status *
moa_cache_set_prefix_reuse(moa_cache *cache, const moa_prefix_options *options);

/// Begins a new sequence with the longest prefix of its tokens that is there:
/// `*reused` tokens, a multiple of 64 and less than `count`, which it then has
/// seen in all layers. The rows from there on are to be fed. Nothing is copied
/// and no page is taken from the pool. All `count` tokens are known from then
/// on: pages of theirs go to the index as they fill. `*common`, not less than
/// `*reused` and as limited, is how many of the first tokens others have or had
/// as well: to end a call there pays. Both may be NULL.
///
/// A token is any number that says all about its row of the model's input: an
/// id, or for an image a hash of its piece. `salt` says all else that keys and
/// values depend on (weights, adapters) or that must not be shared (tenants):
/// sequences of different salts share nothing. Refused for a sequence that has
/// seen or knows tokens, in a cache without prefix reuse, and with
/// MOA_OUT_OF_RANGE for more tokens than the artifact's max length. Threads:
/// the cache's. Since: 1.4
MOA_API moa_status *moa_sequence_reuse(moa_sequence *sequence, uint64_t salt,
                                       const int64_t *tokens, size_t count,
                                       int64_t *reused, int64_t *common);

/// Says which tokens follow those that are known, before or after their rows
/// are fed: generated ones, another turn, all of a sequence that was restored
/// (its salt is that of moa_sequence_reuse, 0 without). Forks know the same
/// tokens; moa_sequence_truncate forgets those behind. Tokens that are not
/// those of the rows make others compute nonsense. Refused as
/// moa_sequence_reuse is, and while the sequence is part of a step. Threads:
/// the cache's. Since: 1.4
MOA_API moa_status *moa_sequence_add_tokens(moa_sequence *sequence,
                                            const int64_t *tokens,
                                            size_t count);

#ifdef __cplusplus
}
#endif

#endif // MOA_PREFIX_H
