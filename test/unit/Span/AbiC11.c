//===- AbiC11.c - The ABI headers as C11 ----------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Includes every header of the ABI and the runtime's public one in a C file;
// the C++ tests compare what it computes with what they compute.
//
//===----------------------------------------------------------------------===//

#include "moa/abi/artifact.h"
#include "moa/abi/gpu_args.h"
#include "moa/abi/gpu_step.h"
#include "moa/abi/kernel_args.h"
#include "moa/abi/span.h"
#include "moa/abi/version.h"
#include "moa/observe.h"
#include "moa/prefix.h"
#include "moa/runtime.h"
#include "moa/scheduler.h"

int64_t abi_c11_window_start(const moa_span_rule *rule, int64_t i, int64_t n);
uint64_t abi_c11_layout(void);

int64_t abi_c11_window_start(const moa_span_rule *rule, int64_t i, int64_t n) {
  return moa_window_start(rule, i, n);
}

/* Sizes of all structs that cross a border, mixed into one number. */
uint64_t abi_c11_layout(void) {
  const uint64_t sizes[] = {sizeof(moa_span_rule),
                            sizeof(moa_block_ranges),
                            sizeof(moa_resident),
                            sizeof(moa_key_block),
                            sizeof(moa_work_item),
                            sizeof(moa_append_item),
                            sizeof(moa_rope_item),
                            sizeof(moa_quantise_item),
                            sizeof(moa_gpu_prefill_maps),
                            sizeof(moa_gpu_prefill_entries),
                            sizeof(moa_gpu_prefill_item),
                            sizeof(moa_gpu_decode_args),
                            sizeof(moa_gpu_decode_item),
                            sizeof(moa_gpu_line),
                            sizeof(moa_gpu_rope_args),
                            sizeof(moa_gpu_prepare_args),
                            sizeof(moa_artifact_header),
                            sizeof(moa_artifact_layer),
                            sizeof(moa_artifact_kernel),
                            sizeof(moa_artifact_image),
                            sizeof(moa_allocator),
                            sizeof(moa_context_options),
                            sizeof(moa_device_info),
                            sizeof(moa_module_info),
                            sizeof(moa_cache_options),
                            sizeof(moa_cache_stats),
                            sizeof(moa_rope),
                            sizeof(moa_attend_entry),
                            sizeof(moa_attend_options),
                            sizeof(moa_scheduler_entry),
                            sizeof(moa_scheduler_step),
                            sizeof(moa_counters),
                            sizeof(moa_prefix_options),
                            sizeof(moa_scheduler_request),
                            sizeof(moa_range_hooks),
                            offsetof(moa_work_item, ranges),
                            offsetof(moa_attend_entry, out)};
  return moa_artifact_checksum((const uint8_t *)sizes, sizeof sizes);
}
