//===- tensor_map.cpp - Tensor maps of a call -----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of tensor_map.h.
//
//===----------------------------------------------------------------------===//

#include "backend/cuda/tensor_map.h"

namespace moa::rt::cuda {

/// `bytes` of an element of type `type`.
static Status encode(const Driver &driver, const Geometry &geometry,
                     const TensorShape &shape, int type, uint64_t bytes,
                     const std::string &what, moa_gpu_tensor_map &map) {
  const uint64_t sizes[3] = {geometry.headDim, shape.rows, shape.planes};
  // A stride that is never taken may be anything; the driver wants a right one.
  const uint64_t dense = geometry.headDim * bytes;
  const uint64_t strides[2] = {
      shape.rows > 1 ? uint64_t(shape.rowStride) * bytes : dense,
      shape.planes > 1 ? uint64_t(shape.planeStride) * bytes : dense};
  const uint32_t box[3] = {uint32_t(2 * MOA_GPU_PANEL / bytes), MOA_BLOCK_KEYS,
                           1};
  const uint32_t steps[3] = {1, 1, 1};
  CUresult result = driver.cuTensorMapEncodeTiled(
      &map, type, 3, const_cast<void *>(shape.address), sizes, strides, box,
      steps, kTensorNoInterleave, kTensorSwizzle128B, kTensorPromoteL2128B,
      kTensorZeroFill);
  return driver.check(result, "cuTensorMapEncodeTiled", "tensor map of ", what,
                      " {", sizes[0], ", ", sizes[1], ", ", sizes[2],
                      "} with strides of ", strides[0], " and ", strides[1],
                      " bytes");
}

Status encodeTensorMap(const Driver &driver, const Geometry &geometry,
                       const TensorShape &shape, const std::string &what,
                       moa_gpu_tensor_map &map) {
  return encode(driver, geometry, shape,
                geometry.dtype == MOA_DTYPE_F16 ? kTensorF16 : kTensorBF16,
                geometry.elementBytes(), what, map);
}

Status encodeCodesMap(const Driver &driver, const Geometry &geometry,
                      const void *address, uint64_t pages,
                      moa_gpu_tensor_map &map) {
  const int64_t row = geometry.headDim;
  return encode(driver, geometry,
                {address, MOA_BLOCK_KEYS, 4 * pages, row, MOA_BLOCK_KEYS * row},
                kTensorU8, 1, "the pages' codes", map);
}

} // namespace moa::rt::cuda
