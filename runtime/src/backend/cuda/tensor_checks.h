//===- tensor_checks.h ------------------------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What kernels ask of the caller's tensors: addresses on the device, aligned
// for wide copies, strides that keep rows so.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_BACKEND_CUDA_TENSOR_CHECKS_H
#define MOA_RT_BACKEND_CUDA_TENSOR_CHECKS_H

#include "backend/cuda/cuda_device.h"

#include <vector>

namespace moa::rt::cuda {

/// Kernels scale scores behind their maximum.
Status checkScale(float scale);

class TensorChecks {
public:
  TensorChecks(const Gpu &gpu, const Geometry &geometry)
      : gpu(gpu), piece(16 / int64_t(geometry.elementBytes())) {}

  /// One tensor of an entry. Strides count elements; one is looked at where its
  /// extent is above 1.
  Status check(size_t entry, const char *name, const void *pointer,
               int64_t rows, int64_t heads, int64_t rowStride,
               int64_t headStride);

private:
  Status checkOnDevice(size_t entry, const char *name, const void *pointer);

  struct Range {
    uintptr_t begin, end;
  };
  const Gpu &gpu;
  const int64_t piece;      ///< Elements of 16 bytes.
  std::vector<Range> known; ///< Allocations on the device.
};

} // namespace moa::rt::cuda

#endif // MOA_RT_BACKEND_CUDA_TENSOR_CHECKS_H
