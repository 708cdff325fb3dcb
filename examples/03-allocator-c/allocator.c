/*===- allocator.c - Pages in memory of the program's own -----------------===*\
|*
|* Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
\*===----------------------------------------------------------------------===*/

/*
 * A context whose pages come from an arena that the program took at its start.
 * When the arena is used up, the call that needs more fails and changes
 * nothing; when a sequence is destroyed, its pages serve the next.
 */

#include "moa/abi/kernel_args.h"
#include "moa/runtime.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* An arena that is given out from its start and taken back as a whole. One
   thread uses it here; if several did, it would need a lock. */
typedef struct arena {
  char *memory;
  size_t size, used;
  int given; /* Pieces that are out. */
} arena;

static void *arena_allocate(void *user, size_t bytes, size_t alignment) {
  arena *own = user;
  const uintptr_t at = (uintptr_t)own->memory + own->used;
  const size_t gap = (size_t)(-at & (alignment - 1));
  if (bytes > own->size - own->used || gap > own->size - own->used - bytes)
    return NULL;
  own->used += gap + bytes;
  ++own->given;
  return (void *)(at + gap);
}

static void arena_deallocate(void *user, void *memory) {
  arena *own = user;
  (void)memory;
  if (--own->given == 0)
    own->used = 0;
}

static void check(moa_status *status, const char *what) {
  if (!status)
    return;
  fprintf(stderr, "error: %s: %s\n", what, moa_status_get_message(status));
  moa_status_free(status);
  exit(1);
}

#define CHUNK 512

/* Feeds one more chunk of made-up rows to layer 0. */
static moa_status *feed(moa_cache *cache, moa_sequence *sequence,
                        const moa_module_info *info, const float *rows,
                        float *out) {
  const int64_t d = info->head_dim, qs = info->q_heads * d,
                ks = info->kv_heads * d;
  moa_attend_options options = {.struct_size = sizeof options,
                                .entry_size = sizeof(moa_attend_entry)};
  moa_attend_entry entry = {sequence, CHUNK, rows, rows, rows, out, qs,
                            d,        ks,    d,    ks,   d,    qs,  d};
  return moa_attend(cache, &options, &entry, 1);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "error: expected allocator ARTIFACT\n");
    return 1;
  }
  arena own = {.size = (size_t)3 << 20};
  own.memory = malloc(own.size);
  moa_allocator allocator = {.struct_size = sizeof allocator,
                             .allocate = arena_allocate,
                             .deallocate = arena_deallocate,
                             .user = &own};
  moa_context_options options = {.struct_size = sizeof options,
                                 .allocator = &allocator};
  moa_context *context;
  moa_module *module;
  moa_cache *cache;
  moa_sequence *sequence;
  moa_module_info info = {.struct_size = sizeof info};
  check(moa_context_create(&options, &context), "context");
  check(moa_module_load_file(context, argv[1], &module), "module");
  check(moa_module_get_info(module, &info), "info");
  check(moa_cache_create(module, NULL, &cache), "cache");
  if (info.dtype != MOA_DTYPE_F32) {
    fprintf(stderr, "error: expected an artifact in f32\n");
    return 1;
  }
  const size_t row = (size_t)info.q_heads * info.head_dim;
  float *rows = calloc(CHUNK * row, sizeof(float));
  float *out = calloc(CHUNK * row, sizeof(float));
  if (!own.memory || !rows || !out)
    return 1;

  int fed[2] = {0, 0};
  for (int turn = 0; turn < 2; ++turn) {
    check(moa_sequence_create(cache, info.max_length, &sequence), "sequence");
    moa_status *status = NULL;
    while (!(status = feed(cache, sequence, &info, rows, out)))
      ++fed[turn];
    if (moa_status_get_code(status) != MOA_OUT_OF_MEMORY)
      check(status, "attend");
    if (turn == 0)
      printf("after %d chunks: %s\n", fed[0], moa_status_get_message(status));
    moa_status_free(status);
    int64_t seen = 0;
    check(moa_sequence_get_length(sequence, 0, NULL, &seen), "length");
    if (seen != (int64_t)fed[turn] * CHUNK)
      return 1; /* A chunk that failed counts for nothing. */
    moa_sequence_destroy(sequence);
  }
  printf("the next sequence has room for %d chunks\n", fed[1]);
  moa_cache_destroy(cache);
  moa_module_destroy(module);
  moa_context_destroy(context);
  printf("%d pieces of the arena are out\n", own.given);
  free(rows);
  free(out);
  free(own.memory);
  return own.given != 0;
}
