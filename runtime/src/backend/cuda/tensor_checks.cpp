//===- tensor_checks.cpp --------------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of tensor_checks.h.
//
//===----------------------------------------------------------------------===//

#include "backend/cuda/tensor_checks.h"

namespace moa::rt::cuda {

/// Allocations that are remembered, as calls use few.
constexpr size_t kKnownRanges = 64;

Status checkScale(float scale) {
  if (scale > 0)
    return ok();
  return error(MOA_UNSUPPORTED, "scale is ", scale,
               ", expected above 0 on a CUDA device, where kernels scale "
               "behind the maximum; negate q, or use the CPU device");
}

/// Host addresses and those of other devices are found here rather than by a
/// kernel's fault.
Status TensorChecks::checkOnDevice(size_t entry, const char *name,
                                   const void *pointer) {
  auto address = reinterpret_cast<uintptr_t>(pointer);
  for (const Range &range : known)
    if (address >= range.begin && address < range.end)
      return ok();
  const Driver &driver = *gpu.driver;
  unsigned type = 0;
  int ordinal = -1;
  CUdeviceptr start = 0;
  size_t size = 0;
  // Of a plain host address the driver knows nothing, which it calls invalid.
  CUresult result =
      driver.cuPointerGetAttribute(&type, kPointerMemoryType, address);
  if (result != kErrorInvalidValue)
    MOA_RT_TRY(driver.check(result, "cuPointerGetAttribute", "entry ", entry,
                            ": asking where ", name, " lies"));
  if (result == kSuccess && type == kMemoryDevice)
    MOA_CUDA_TRY(driver, cuPointerGetAttribute,
                 (&ordinal, kPointerDeviceOrdinal, address), "entry ", entry,
                 ": asking where ", name, " lies");
  if (ordinal != gpu.facts.ordinal)
    return error(MOA_INVALID_ARGUMENT, "entry ", entry, ": ", name,
                 " does not lie on device ", gpu.facts.ordinal, " (",
                 ordinal < 0 ? std::string("host memory")
                             : "device " + std::to_string(ordinal),
                 "); move the tensor there");
  const struct {
    void *value;
    int attribute;
  } ranges[] = {{&start, kPointerRangeStart}, {&size, kPointerRangeSize}};
  for (const auto &range : ranges) {
    result =
        driver.cuPointerGetAttribute(range.value, range.attribute, address);
    // Memory of an allocator without ranges is looked up in every call.
    if (result == kErrorInvalidValue || result == kErrorNotSupported)
      return ok();
    MOA_RT_TRY(driver.check(result, "cuPointerGetAttribute", "entry ", entry,
                            ": asking for the allocation of ", name));
  }
  if (known.size() == kKnownRanges)
    known.clear();
  known.push_back({uintptr_t(start), uintptr_t(start + size)});
  return ok();
}

Status TensorChecks::check(size_t entry, const char *name, const void *pointer,
                           int64_t rows, int64_t heads, int64_t rowStride,
                           int64_t headStride) {
  if (reinterpret_cast<uintptr_t>(pointer) % 16)
    return error(MOA_INVALID_ARGUMENT, "entry ", entry, ": ", name,
                 " is not aligned to 16 bytes, as copies on the device need; "
                 "make the tensor contiguous");
  // Tensor maps take strides below 2^40 bytes.
  auto bad = [this](int64_t extent, int64_t stride) {
    return extent > 1 && (stride % piece || stride >= (int64_t(1) << 38));
  };
  if (bad(rows, rowStride) || bad(heads, headStride))
    return error(MOA_INVALID_ARGUMENT, "entry ", entry, ": ", name,
                 " has row stride ", rowStride, " and head stride ", headStride,
                 " in elements, expected multiples of ", piece,
                 " below 2^38; make the tensor contiguous");
  return checkOnDevice(entry, name, pointer);
}

} // namespace moa::rt::cuda
