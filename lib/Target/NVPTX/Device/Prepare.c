//===- Prepare.c - The prepare kernel -------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The threads of abi/gpu_step.h as a kernel: one block a layer. Compiled to
// LLVM IR when the compiler is built, and to machine code like other kernels.
//
//===----------------------------------------------------------------------===//

#include "moa/abi/gpu_step.h"

__attribute__((device_kernel)) void
moa_prepare(const moa_gpu_prepare_args args) {
  static __attribute__((
      address_space(3))) int32_t sums[2][MOA_GPU_PREPARE_THREADS];
  static __attribute__((address_space(3))) moa_gpu_prepare_shared near;
  moa_gpu_prepare_shared *shared = (moa_gpu_prepare_shared *)&near;
  const int32_t threads = MOA_GPU_PREPARE_THREADS;
  const int32_t thread = __nvvm_read_ptx_sreg_tid_x();
  const int32_t layer = __nvvm_read_ptx_sreg_ctaid_x();
  moa_gpu_prepare_apply(&args, layer, thread, threads, shared);
  __nvvm_bar_sync(0);
  int32_t begin, end;
  const int32_t items =
      moa_gpu_prepare_share(&args, thread, threads, &begin, &end);
  const int32_t own =
      moa_gpu_prepare_items(&args, layer, thread, threads, shared);
  // Sums of 1, 2, 4, ... threads up to each; those behind the last item's have
  // nothing to add.
  const int32_t busy = items < threads ? items : threads;
  int32_t sum = own, side = 0;
  for (int32_t reach = 1; reach < busy; reach *= 2, side ^= 1) {
    sums[side][thread] = sum;
    __nvvm_bar_sync(0);
    if (thread >= reach)
      sum += sums[side][thread - reach];
  }
  moa_gpu_prepare_line(&args, layer, thread, threads, sum - own, own, shared);
  __nvvm_bar_sync(0);
  moa_gpu_prepare_apart(&args, layer, thread, threads, shared);
  __nvvm_bar_sync(0);
  moa_gpu_prepare_cuts(&args, layer, thread, threads, shared);
}
