/*===- embed.c - Attention from C, on a GPU or the CPU --------------------===*\
|*
|* Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
\*===----------------------------------------------------------------------===*/

/*
 * A prompt and a few generated tokens through layer 0 of an artifact: on CUDA
 * device 0 if there is a driver, else on the CPU. Tensors lie in memory of the
 * context's device, so the same calls serve both.
 */

#include "moa/abi/kernel_args.h"
#include "moa/runtime.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define PROMPT 100
#define TOKENS 110 /* With those that are generated. */

static void check(moa_status *status, const char *what) {
  if (!status)
    return;
  fprintf(stderr, "error: %s: %s\n", what, moa_status_get_message(status));
  moa_status_free(status);
  exit(1);
}

/* The GPU, or the CPU and why. */
static moa_context *create_context(void) {
  moa_context *context = NULL;
  moa_context_options options = {.struct_size = sizeof options,
                                 .device = MOA_DEVICE_CUDA};
  moa_status *status = moa_context_create(&options, &context);
  if (status) {
    printf("no GPU (%s); running on the CPU\n", moa_status_get_message(status));
    moa_status_free(status);
    options.device = MOA_DEVICE_CPU;
    check(moa_context_create(&options, &context), "context");
  }
  return context;
}

/* A tensor of `rows` rows on the device, whose values are those of `from`. */
static float *tensor(moa_context *context, const float *from, int64_t count) {
  void *memory = NULL;
  check(moa_device_alloc(context, sizeof(float) * (size_t)count, &memory),
        "memory");
  check(moa_device_copy(context, memory, from, sizeof(float) * (size_t)count),
        "copy");
  return memory;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "error: expected embed ARTIFACT\n");
    return 1;
  }
  moa_context *context = create_context();
  moa_device_info device = {.struct_size = sizeof device};
  check(moa_context_get_device_info(context, &device), "device");
  moa_module *module;
  moa_module_info info = {.struct_size = sizeof info};
  check(moa_module_load_file(context, argv[1], &module), "module");
  check(moa_module_get_info(module, &info), "info");
  if (info.dtype != MOA_DTYPE_F32) {
    fprintf(stderr, "error: expected an artifact in f32\n");
    return 1;
  }
  moa_cache *cache;
  moa_sequence *sequence;
  check(moa_cache_create(module, NULL, &cache), "cache");
  check(moa_sequence_create(cache, TOKENS, &sequence), "sequence");

  /* Keys of 0 weigh equally, and the value of token i is i: so row i of a head
     that sees everything is the mean of 0 to i. */
  const int64_t d = info.head_dim, qs = info.q_heads * d,
                ks = info.kv_heads * d;
  float *rows = calloc((size_t)(TOKENS * qs), sizeof(float));
  if (!rows)
    return 1;
  float *q = tensor(context, rows, TOKENS * qs);
  float *k = tensor(context, rows, TOKENS * ks);
  float *out = tensor(context, rows, TOKENS * qs);
  for (int64_t i = 0; i < TOKENS * ks; ++i)
    rows[i] = (float)(i / ks);
  float *v = tensor(context, rows, TOKENS * ks);

  moa_attend_options options = {.struct_size = sizeof options,
                                .entry_size = sizeof(moa_attend_entry),
                                .layer = 0};
  for (int64_t seen = 0; seen < TOKENS;) {
    const int64_t now = seen ? 1 : PROMPT; /* The prompt, then one by one. */
    moa_attend_entry entry = {.sequence = sequence,
                              .tokens = now,
                              .q = q + seen * qs,
                              .k = k + seen * ks,
                              .v = v + seen * ks,
                              .out = out + seen * qs,
                              .q_row_stride = qs,
                              .q_head_stride = d,
                              .k_row_stride = ks,
                              .k_head_stride = d,
                              .v_row_stride = ks,
                              .v_head_stride = d,
                              .out_row_stride = qs,
                              .out_head_stride = d};
    check(moa_attend(cache, &options, &entry, 1), "attend");
    seen += now;
  }
  check(moa_device_copy(context, rows, out,
                        sizeof(float) * (size_t)(TOKENS * qs)),
        "copy");
  double worst = 0; /* Head 0 of the artifact sees everything. */
  for (int64_t i = 0; i < TOKENS; ++i)
    worst = fmax(worst, fabs(rows[i * qs] - (double)i / 2));

  uint64_t bytes = 0, dense = 0;
  check(moa_sequence_get_bytes(sequence, &bytes), "bytes");
  check(moa_module_kv_bytes(module, TOKENS, TOKENS, NULL, &dense), "bytes");
  printf(
      "%d tokens on %s: largest error %.1g, %d of %d bytes of a dense cache\n",
      TOKENS, device.name, worst, (int)bytes, (int)dense);

  float *tensors[] = {q, k, v, out};
  for (int i = 0; i < 4; ++i)
    check(moa_device_free(context, tensors[i]), "free");
  moa_cache_destroy(cache); /* And its sequence. */
  moa_module_destroy(module);
  moa_context_destroy(context);
  free(rows);
  return worst < 1e-3 ? 0 : 1;
}
