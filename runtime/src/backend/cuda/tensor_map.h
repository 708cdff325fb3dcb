//===- tensor_map.h - Tensor maps of a call ---------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Descriptors by which copy engines of sm_90 read tensors and pages; see
// abi/gpu_args.h.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_BACKEND_CUDA_TENSOR_MAP_H
#define MOA_RT_BACKEND_CUDA_TENSOR_MAP_H

#include "backend/cuda/cuda_device.h"

namespace moa::rt::cuda {

/// A tensor {D, rows, planes}; strides in elements.
struct TensorShape {
  const void *address = nullptr;
  uint64_t rows = 0, planes = 0;
  int64_t rowStride = 0, planeStride = 0;
};

/// Fills `map`, which is 64-byte aligned. `what` names the tensor in messages.
Status encodeTensorMap(const Driver &driver, const Geometry &geometry,
                       const TensorShape &shape, const std::string &what,
                       moa_gpu_tensor_map &map);

/// The same for the 8-bit codes of `pages` pages from `address` on.
Status encodeCodesMap(const Driver &driver, const Geometry &geometry,
                      const void *address, uint64_t pages,
                      moa_gpu_tensor_map &map);

} // namespace moa::rt::cuda

#endif // MOA_RT_BACKEND_CUDA_TENSOR_MAP_H
