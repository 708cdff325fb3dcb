/*===- loop.c - A serving loop over the scheduler, in C -------------------===*\
|*
|* Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
\*===----------------------------------------------------------------------===*/

/*
 * Serves a few requests on the CPU in a cache that is too small for all of
 * them. Where a model would be, tensors are made up from token and position,
 * and a token is "sampled" from the attention's output.
 */

#include "moa/abi/kernel_args.h"
#include "moa/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_TOKENS 512
#define MOST_ROWS 256
#define REQUESTS 6

/* Tokens of a request: its prompt, then what was sampled. All are kept until it
   ends, because any row may be asked for again. */
typedef struct request {
  int64_t prompt, count;
  int32_t tokens[MOST_TOKENS];
} request;

static void check(moa_status *status, const char *what) {
  if (!status)
    return;
  fprintf(stderr, "error: %s: %s\n", what, moa_status_get_message(status));
  moa_status_free(status);
  exit(1);
}

/* Stands for a layer's projections of a token at a position. */
static void project(float *to, int64_t count, int32_t token, int64_t position,
                    int which) {
  for (int64_t i = 0; i < count; ++i)
    to[i] = (float)((token * 31 + position * 7 + i * 13 + which) % 97) / 97.0f -
            0.5f;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "error: expected loop ARTIFACT\n");
    return 1;
  }
  moa_context *context;
  moa_module *module;
  moa_cache *cache;
  moa_scheduler *scheduler;
  moa_module_info info = {.struct_size = sizeof info};
  check(moa_context_create(NULL, &context), "context");
  check(moa_module_load_file(context, argv[1], &module), "module");
  check(moa_module_get_info(module, &info), "info");
  if (info.dtype != MOA_DTYPE_F32) {
    fprintf(stderr, "error: expected an artifact in f32\n");
    return 1;
  }
  /* Room for two of the longest requests. */
  uint64_t bytes;
  check(moa_module_kv_bytes(module, MOST_TOKENS, MOST_TOKENS, &bytes, NULL),
        "bytes");
  moa_cache_options room = {.struct_size = sizeof room, .max_bytes = 2 * bytes};
  check(moa_cache_create(module, &room, &cache), "cache");
  moa_scheduler_options options = {.struct_size = sizeof options,
                                   .max_sequences = 8,
                                   .max_step_tokens = MOST_ROWS,
                                   .chunk_tokens = 128};
  check(moa_scheduler_create(cache, &options, &scheduler), "scheduler");

  static request requests[REQUESTS];
  for (int r = 0; r < REQUESTS; ++r) {
    requests[r].prompt = requests[r].count = 40 + 50 * r;
    for (int64_t i = 0; i < requests[r].prompt; ++i)
      requests[r].tokens[i] = (int32_t)(i * 17 + r) % 1000;
    moa_scheduler_request submitted = {.struct_size = sizeof submitted,
                                       .prompt_tokens = requests[r].prompt,
                                       .max_new_tokens = 150,
                                       .user = (uint64_t)r};
    uint64_t id;
    check(moa_scheduler_submit(scheduler, &submitted, &id), "submit");
  }

  const int64_t d = info.head_dim, qs = info.q_heads * d, ks = info.kv_heads * d;
  float *q = malloc(sizeof(float) * MOST_ROWS * qs);
  float *k = malloc(sizeof(float) * MOST_ROWS * ks);
  float *v = malloc(sizeof(float) * MOST_ROWS * ks);
  float *out = malloc(sizeof(float) * MOST_ROWS * qs);
  if (!q || !k || !v || !out)
    return 1;
  for (;;) {
    moa_scheduler_step step = {.struct_size = sizeof step,
                               .entry_size = sizeof(moa_scheduler_entry)};
    check(moa_scheduler_next(scheduler, &step), "next");
    if (step.count == 0)
      break;
    moa_attend_entry entries[8];
    int failed = 0;
    for (uint32_t layer = 0; layer < info.layers && !failed; ++layer) {
      int64_t row = 0;
      for (size_t i = 0; i < step.count; ++i) {
        const moa_scheduler_entry *e = &step.entries[i];
        moa_attend_entry rows = {e->sequence, e->tokens,     q + row * qs,
                                 k + row * ks, v + row * ks, out + row * qs,
                                 qs,          d,             ks,
                                 d,           ks,            d,
                                 qs,          d};
        entries[i] = rows;
        for (int64_t t = 0; t < e->tokens; ++t, ++row) {
          const int64_t position = e->first_row + t;
          const int32_t token = requests[e->user].tokens[position];
          project(q + row * qs, qs, token, position, 0);
          project(k + row * ks, ks, token, position, 1);
          project(v + row * ks, ks, token, position, 2);
        }
      }
      moa_attend_options call = {.struct_size = sizeof call,
                                 .entry_size = sizeof(moa_attend_entry),
                                 .layer = layer};
      moa_status *status = moa_attend(cache, &call, entries, step.count);
      failed = status != NULL;
      moa_status_free(status);
    }
    if (failed) { /* Nothing counts; what was half done is fed again. */
      check(moa_scheduler_abort_step(scheduler), "abort");
      continue;
    }
    uint8_t stops[8] = {0};
    int64_t row = 0;
    for (size_t i = 0; i < step.count; ++i) {
      const moa_scheduler_entry *e = &step.entries[i];
      request *own = &requests[e->user];
      row += e->tokens;
      if (!e->samples)
        continue;
      const int32_t token = abs((int32_t)(out[(row - 1) * qs] * 1e4f)) % 1000;
      own->tokens[own->count++] = token;
      stops[i] = token % 100 == 0; /* The token that ends a text. */
    }
    check(moa_scheduler_commit(scheduler, stops, step.count), "commit");
  }

  moa_scheduler_stats stats = {.struct_size = sizeof stats};
  moa_cache_stats pages = {.struct_size = sizeof pages};
  check(moa_scheduler_get_stats(scheduler, &stats), "stats");
  check(moa_cache_get_stats(cache, &pages), "stats");
  printf("%d requests ended in %d steps, %d preemptions; %d pages in use\n",
         (int)stats.finished, (int)stats.steps, (int)stats.preemptions,
         (int)pages.pages_used);
  moa_scheduler_destroy(scheduler);
  moa_cache_destroy(cache);
  moa_module_destroy(module);
  moa_context_destroy(context);
  free(q);
  free(k);
  free(v);
  free(out);
  return 0;
}
