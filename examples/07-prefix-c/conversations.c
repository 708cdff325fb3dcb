/*===- conversations.c - Conversations that begin alike, in C -------------===*\
|*
|* Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
\*===----------------------------------------------------------------------===*/

/*
 * Holds conversations of some turns behind one system prompt, each turn a new
 * sequence that begins with what is there, and each again in a cache that
 * reuses nothing, to compare the rows. Where a model would be, tensors are made
 * up from token and position.
 */

#include "moa/abi/kernel_args.h"
#include "moa/observe.h"
#include "moa/prefix.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONVERSATIONS 4
#define TURNS 5
#define SYSTEM 300
#define QUESTION 40
#define ANSWER 24
#define MOST_TOKENS (SYSTEM + TURNS * (QUESTION + ANSWER))

typedef struct conversation {
  int64_t count;
  int64_t tokens[MOST_TOKENS];
} conversation;

static moa_module_info info = {.struct_size = sizeof info};
static float *q, *k, *v, *out;

static void check(moa_status *status, const char *what) {
  if (!status)
    return;
  fprintf(stderr, "error: %s: %s\n", what, moa_status_get_message(status));
  moa_status_free(status);
  exit(1);
}

/* Stands for a layer's projections of a token at a position. */
static void project(float *to, int64_t count, int64_t token, int64_t position,
                    int which) {
  for (int64_t i = 0; i < count; ++i)
    to[i] = (float)((token * 31 + position * 7 + i * 13 + which) % 97) / 97.0f -
            0.5f;
}

/* Rows [begin, end) of a conversation; their outputs are those of the last
   layer, at the rows' places in `out`. */
static void feed(moa_cache *cache, moa_sequence *sequence,
                 const conversation *of, int64_t begin, int64_t end) {
  const int64_t d = info.head_dim, qs = info.q_heads * d,
                ks = info.kv_heads * d;
  moa_attend_entry rows = {sequence,
                           end - begin,
                           q + begin * qs,
                           k + begin * ks,
                           v + begin * ks,
                           out + begin * qs,
                           qs,
                           d,
                           ks,
                           d,
                           ks,
                           d,
                           qs,
                           d};
  for (int64_t row = begin; row < end; ++row) {
    project(q + row * qs, qs, of->tokens[row], row, 0);
    project(k + row * ks, ks, of->tokens[row], row, 1);
    project(v + row * ks, ks, of->tokens[row], row, 2);
  }
  moa_attend_options call = {.struct_size = sizeof call,
                             .entry_size = sizeof(moa_attend_entry)};
  for (call.layer = 0; call.layer < info.layers; ++call.layer)
    check(moa_attend(cache, &call, &rows, 1), "attend");
}

/* A turn: the prompt in chunks, then the answer, token by token. Returns the
   number of rows that did not have to be computed. */
static int64_t turn(moa_cache *cache, conversation *of, int reuses) {
  const int64_t qs = (int64_t)info.q_heads * info.head_dim;
  int64_t reused = 0, common = 0, end;
  moa_sequence *sequence;
  check(moa_sequence_create(cache, 1, &sequence), "sequence");
  if (reuses)
    check(moa_sequence_reuse(sequence, 0, of->tokens, (size_t)of->count,
                             &reused, &common),
          "reuse");
  for (int64_t row = reused; row < of->count; row = end) {
    /* Where the tokens are no longer those of others, others can begin. */
    end = row < common ? common : of->count;
    feed(cache, sequence, of, row, end);
  }
  for (int i = 0; i < ANSWER; ++i) {
    const int64_t token = labs((long)(out[(of->count - 1) * qs] * 1e4f)) % 1000;
    of->tokens[of->count++] = token;
    if (reuses)
      check(moa_sequence_add_tokens(sequence, &token, 1), "tokens");
    feed(cache, sequence, of, of->count - 1, of->count);
  }
  moa_sequence_destroy(sequence);
  return reused;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "error: expected conversations ARTIFACT\n");
    return 1;
  }
  moa_context *context;
  moa_module *module;
  moa_cache *cache, *plain;
  check(moa_context_create(NULL, &context), "context");
  check(moa_module_load_file(context, argv[1], &module), "module");
  check(moa_module_get_info(module, &info), "info");
  if (info.dtype != MOA_DTYPE_F32) {
    fprintf(stderr, "error: expected an artifact in f32\n");
    return 1;
  }
  check(moa_cache_create(module, NULL, &cache), "cache");
  check(moa_cache_create(module, NULL, &plain), "cache");
  moa_prefix_options keep = {.struct_size = sizeof keep, .max_bytes = 64 << 20};
  check(moa_cache_set_prefix_reuse(cache, &keep), "prefix reuse");

  const size_t qb = sizeof(float) * MOST_TOKENS * info.q_heads * info.head_dim;
  const size_t kb = sizeof(float) * MOST_TOKENS * info.kv_heads * info.head_dim;
  float *want = malloc(qb);
  q = malloc(qb), k = malloc(kb), v = malloc(kb), out = malloc(qb);
  if (!q || !k || !v || !out || !want)
    return 1;
  static conversation all[CONVERSATIONS];
  for (int c = 0; c < CONVERSATIONS; ++c)
    for (; all[c].count < SYSTEM; ++all[c].count)
      all[c].tokens[all[c].count] = all[c].count * 17 % 1000;
  for (int t = 0; t < TURNS; ++t)
    for (int c = 0; c < CONVERSATIONS; ++c) {
      for (int i = 0; i < QUESTION; ++i)
        all[c].tokens[all[c].count++] = (t * 91 + c * 37 + i * 5) % 1000;
      conversation again = all[c];
      turn(plain, &again, 0);
      memcpy(want, out, qb);
      const int64_t reused = turn(cache, &all[c], 1);
      const int64_t row = (int64_t)info.q_heads * info.head_dim;
      if (memcmp(out + reused * row, want + reused * row,
                 sizeof(float) * (size_t)((all[c].count - reused) * row))) {
        fprintf(stderr, "error: rows behind %" PRId64 " differ\n", reused);
        return 1;
      }
    }

  moa_counters counters = {.struct_size = sizeof counters};
  moa_cache_stats stats = {.struct_size = sizeof stats};
  check(moa_cache_get_counters(cache, &counters), "counters");
  check(moa_cache_get_stats(cache, &stats), "stats");
  printf("%d turns: %" PRIu64 " of %" PRIu64
         " prompt tokens reused (%.2f), %" PRIu64
         " KiB of pages saved, %" PRIu64 " KiB kept; rows equal from scratch\n",
         CONVERSATIONS * TURNS, counters.prefix_tokens_reused,
         counters.prefix_tokens_asked,
         (double)counters.prefix_tokens_reused /
             (double)counters.prefix_tokens_asked,
         counters.prefix_bytes_saved >> 10, counters.prefix_bytes >> 10);
  free(q), free(k), free(v), free(out), free(want);
  moa_cache_destroy(plain);
  moa_cache_destroy(cache);
  moa_module_destroy(module);
  moa_context_destroy(context);
  return stats.pages_used != 0;
}
