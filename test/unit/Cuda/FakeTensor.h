//===- FakeTensor.h - Elements and tensors of fake kernels ------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What fake kernels read and write: numbers of a kernel's type, and rows of a
// tensor, be it told of by a tensor map or by an address.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_CUDA_FAKETENSOR_H
#define MOA_TEST_UNIT_CUDA_FAKETENSOR_H

#include "FakeCuda.h"

#include "moa/abi/gpu_args.h"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace moa::fake {

/// Values as the element type stores them.
inline double loadElement(const void *from, uint32_t dtype) {
  if (dtype == MOA_DTYPE_F32) {
    float value;
    std::memcpy(&value, from, 4);
    return double(value);
  }
  uint16_t bits;
  std::memcpy(&bits, from, 2);
  if (dtype == MOA_DTYPE_F16) {
    _Float16 half;
    std::memcpy(&half, &bits, 2);
    return double(half);
  }
  uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

inline void storeElement(double value, uint32_t dtype, void *to) {
  if (dtype == MOA_DTYPE_F16) {
    _Float16 half = _Float16(value);
    std::memcpy(to, &half, 2);
    return;
  }
  float single = float(value);
  if (dtype == MOA_DTYPE_F32) {
    std::memcpy(to, &single, 4);
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &single, 4);
  if (!std::isnan(value))
    bits += 0x7fff + ((bits >> 16) & 1);
  uint16_t high = uint16_t(bits >> 16);
  std::memcpy(to, &high, 2);
}

/// A tensor {D, rows, planes}, however a kernel was told of it.
struct Tensor {
  char *address;
  int64_t rows, planes, rowBytes, planeBytes;

  char *at(int64_t row, int64_t plane) const {
    if (plane < 0 || plane >= planes)
      fakeCuda()->fault("plane outside a tensor");
    if (row < 0 || row >= rows)
      return nullptr;
    return address + row * rowBytes + plane * planeBytes;
  }
};

inline Tensor fromMap(const moa_gpu_tensor_map &map) {
  TensorMap tensor;
  std::memcpy(&tensor, &map, sizeof tensor);
  if (tensor.magic != kMapMagic)
    fakeCuda()->fault("use of a tensor map that nobody encoded");
  return {reinterpret_cast<char *>(tensor.address), int64_t(tensor.sizes[1]),
          int64_t(tensor.sizes[2]), int64_t(tensor.strides[0]),
          int64_t(tensor.strides[1])};
}

inline Tensor poolAt(uint64_t address, const Kernel &kernel) {
  const int64_t row = kernel.dim * kernel.bytes();
  return {reinterpret_cast<char *>(address), 64, INT64_MAX, row, 64 * row};
}

} // namespace moa::fake

#endif // MOA_TEST_UNIT_CUDA_FAKETENSOR_H
