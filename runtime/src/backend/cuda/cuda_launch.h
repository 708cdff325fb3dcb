//===- cuda_launch.h --------------------------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Launches of kernels, and the memory that decode kernels share.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_BACKEND_CUDA_CUDA_LAUNCH_H
#define MOA_RT_BACKEND_CUDA_CUDA_LAUNCH_H

#include "backend/cuda/cuda_device.h"
#include "moa/abi/gpu_step.h"

#include <vector>

namespace moa::rt::cuda {

/// Decode items that one launch can count.
constexpr size_t kDecodeItems = size_t(1) << 16;

/// What decode launches of one cache share, as they run one after another.
struct alignas(64) DecodeMemory {
  explicit DecodeMemory(int32_t parts) : parts(parts) {}
  /// Makes room for the partial results of `blocks` blocks. What it outgrows
  /// stays until `free`, as captured calls write there.
  Status reserve(const Driver &driver, int64_t blocks);
  /// The device has to be done with all launches.
  void free(const Driver &driver);
  /// Most items of a launch: kernels count bytes of partial results in 32 bits.
  int64_t mostItems() const;

  /// First, as tensor maps lie at multiples of 64 bytes. The pool's part stays,
  /// tensors change.
  moa_gpu_decode_args args = {};
  const int32_t parts; ///< decode_parts of moa_cache_options.
  CUdeviceptr partials = 0, counters = 0;
  int64_t blockBytes = 0; ///< Most partial results of a block.

private:
  int64_t room = 0; ///< Blocks.
  std::vector<CUdeviceptr> outgrown;
};

struct Launch {
  const char *name; ///< For messages.
  const Kernel &kernel;
  size_t grid;
  uint32_t layer; ///< For messages.
  void *stream;
  /// May start while the kernel before it still runs, of which it waits for
  /// what it needs.
  bool early = false;
};

Status launch(const Driver &driver, const Launch &what, void **parameters);

/// Where on the device a decode kernel's items, line, block tables and cuts
/// are.
struct DecodeTables {
  CUdeviceptr items, line, pages, cuts;
};

Status launchDecodeKernel(const Driver &driver, const Launch &what,
                          DecodeMemory &memory, DecodeTables tables,
                          int32_t sink, float scaleLog2);

/// Leaves `out` null where the module has no kernels to prepare and decode.
/// Adds the nanoseconds that the host waits to `waitNs`.
Status makeBatchDevice(Gpu &gpu, const Module &module, DecodeMemory &memory,
                       uint64_t &waitNs, const BatchShape &shape,
                       std::unique_ptr<BatchDevice> &out);

} // namespace moa::rt::cuda

#endif // MOA_RT_BACKEND_CUDA_CUDA_LAUNCH_H
