/*===- stats.c - What a cache did, as numbers, text and a trace -----------===*\
|*
|* Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
\*===----------------------------------------------------------------------===*/

/*
 * A short conversation, then everything that can be read of it: statistics of
 * the pages, counters, their text for Prometheus, a trace for Perfetto, and
 * which keys a sequence still holds.
 */

#include "moa/abi/kernel_args.h"
#include "moa/observe.h"
#include "moa/runtime.h"

#include <stdio.h>
#include <stdlib.h>

#define TOKENS 700

static void check(moa_status *status, const char *what) {
  if (!status)
    return;
  fprintf(stderr, "error: %s: %s\n", what, moa_status_get_message(status));
  moa_status_free(status);
  exit(1);
}

/* Rows [begin, end) of every layer; zeros stand for a model's tensors. */
static void feed(moa_cache *cache, moa_sequence *sequence,
                 const moa_module_info *info, int64_t begin, int64_t end) {
  static float rows[TOKENS * 1024], out[TOKENS * 1024];
  const int64_t d = info->head_dim, qs = info->q_heads * d,
                ks = info->kv_heads * d;
  for (uint32_t layer = 0; layer < info->layers; ++layer) {
    moa_attend_options options = {.struct_size = sizeof options,
                                  .entry_size = sizeof(moa_attend_entry),
                                  .layer = layer};
    moa_attend_entry entry = {sequence, end - begin, rows, rows, rows, out, qs,
                              d,        ks,          d,    ks,   d,    qs,  d};
    check(moa_attend(cache, &options, &entry, 1), "attend");
  }
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "error: expected stats ARTIFACT TRACE.json\n");
    return 1;
  }
  moa_context *context;
  moa_module *module;
  moa_cache *cache;
  moa_sequence *sequence;
  moa_module_info info = {.struct_size = sizeof info};
  check(moa_context_create(NULL, &context), "context");
  check(moa_context_set_trace(context, argv[2]), "trace");
  check(moa_module_load_file(context, argv[1], &module), "module");
  check(moa_module_get_info(module, &info), "info");
  check(moa_cache_create(module, NULL, &cache), "cache");
  check(moa_sequence_create(cache, TOKENS, &sequence), "sequence");
  if (info.dtype != MOA_DTYPE_F32 || info.q_heads * info.head_dim > 1024) {
    fprintf(stderr, "error: expected an artifact in f32 of rows to 1024\n");
    return 1;
  }
  feed(cache, sequence, &info, 0, TOKENS - 10);
  for (int64_t i = TOKENS - 10; i < TOKENS; ++i)
    feed(cache, sequence, &info, i, i + 1);

  /* Pages, against the closed form and a dense cache. */
  moa_cache_stats stats = {.struct_size = sizeof stats};
  uint64_t closed = 0, dense = 0;
  check(moa_cache_get_stats(cache, &stats), "stats");
  check(moa_module_kv_bytes(module, TOKENS, TOKENS, &closed, &dense), "bytes");
  printf("pages: %d in use of %d bytes, at most %d; a dense cache has %d\n",
         (int)stats.pages_used, (int)stats.page_bytes,
         (int)stats.pages_high_water, (int)(dense / stats.page_bytes));
  if (closed != stats.pages_used * stats.page_bytes)
    return 1;

  /* Which keys each KV head of layer 0 still holds behind the sink. */
  for (uint32_t head = 0; head < info.kv_heads; ++head) {
    int64_t first = 0;
    check(moa_sequence_get_first_resident(sequence, 0, head, &first), "head");
    printf("KV head %d: from %d on\n", (int)head, (int)first);
  }

  moa_counters counters = {.struct_size = sizeof counters};
  check(moa_cache_get_counters(cache, &counters), "counters");
  printf("counters: %d tokens in %d calls, %d rows by decode\n",
         (int)counters.tokens, (int)counters.attend_calls,
         (int)counters.decode_rows);

  /* The same for a /metrics page: first its length, then the text. */
  size_t needed = 0;
  check(
      moa_cache_format_prometheus(cache, "model=\"example\"", NULL, 0, &needed),
      "text");
  char *text = malloc(needed + 1);
  if (!text)
    return 1;
  check(moa_cache_format_prometheus(cache, "model=\"example\"", text,
                                    needed + 1, &needed),
        "text");
  fputs(text, stdout);
  free(text);

  moa_cache_destroy(cache);
  moa_module_destroy(module);
  check(moa_context_set_trace(context, NULL), "end of the trace");
  moa_context_destroy(context);
  return 0;
}
