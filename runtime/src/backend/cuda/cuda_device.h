//===- cuda_device.h - The CUDA back end ------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One device through the driver alone. The parts of the back end share a Gpu:
// the driver, the device and its primary context.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_BACKEND_CUDA_CUDA_DEVICE_H
#define MOA_RT_BACKEND_CUDA_CUDA_DEVICE_H

#include "backend/cuda/cuda_driver.h"
#include "backend/device.h"

namespace moa::rt {

/// Opens device `ordinal`; `driverPath` may be null for libcuda.so.1.
Status makeCudaDevice(const char *driverPath, int32_t ordinal,
                      std::unique_ptr<Device> &out);

namespace cuda {

/// A device with its primary context, retained while this lives.
struct Gpu {
  Gpu() = default;
  ~Gpu();
  Gpu(const Gpu &) = delete;
  Gpu &operator=(const Gpu &) = delete;

  uint32_t capability() const {
    return uint32_t(facts.capabilityMajor * 10 + facts.capabilityMinor);
  }

  std::shared_ptr<Driver> driver;
  CUdevice device = 0;
  CUcontext context = nullptr;
  DeviceFacts facts;
  int sharedBytes = 0;        ///< Most shared memory of a block.
  bool virtualMemory = false; ///< Can reserve addresses and map memory later.
};

/// Loads an image a kernel; see Device::loadKernels.
Status loadKernels(Gpu &gpu, const Artifact &artifact,
                   const std::string &origin, LoadedKernels &out);

/// Pages in device memory; see moa_cache_options.
Status makePool(Gpu &gpu, const Geometry &geometry, uint64_t maxBytes,
                std::unique_ptr<PagePool> &out);

Status makeExecutor(Gpu &gpu, const Module &module, PagePool &pool,
                    int32_t decodeParts, std::unique_ptr<Executor> &out);

} // namespace cuda
} // namespace moa::rt

#endif // MOA_RT_BACKEND_CUDA_CUDA_DEVICE_H
