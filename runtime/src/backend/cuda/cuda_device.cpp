//===- cuda_device.cpp - The CUDA back end --------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Opens a device, and forwards what contexts ask of it.
//
//===----------------------------------------------------------------------===//

#include "backend/cuda/cuda_device.h"

namespace moa::rt {
namespace cuda {

Gpu::~Gpu() {
  if (context)
    driver->cuDevicePrimaryCtxRelease(device);
}

namespace {

class CudaDevice : public Device {
public:
  Status open(const char *driverPath, int32_t ordinal);

  const DeviceFacts &facts() const override { return gpu.facts; }
  Status loadKernels(const Artifact &artifact, const std::string &origin,
                     LoadedKernels &out) override {
    return cuda::loadKernels(gpu, artifact, origin, out);
  }
  Status makePool(const Geometry &geometry, uint64_t maxBytes,
                  std::unique_ptr<PagePool> &out) override {
    return cuda::makePool(gpu, geometry, maxBytes, out);
  }
  Status makeExecutor(const Module &module, PagePool &pool, int32_t decodeParts,
                      std::unique_ptr<Executor> &out) override {
    return cuda::makeExecutor(gpu, module, pool, decodeParts, out);
  }

  Status allocate(size_t bytes, void **out) override {
    Current current(*gpu.driver, gpu.context);
    MOA_RT_TRY(std::move(current.status));
    CUdeviceptr memory = 0;
    MOA_CUDA_TRY(*gpu.driver, cuMemAlloc, (&memory, bytes), "allocating ",
                 bytes, " bytes on ", gpu.facts.name);
    *out = reinterpret_cast<void *>(memory);
    return ok();
  }
  Status free(void *memory) override {
    Current current(*gpu.driver, gpu.context);
    MOA_RT_TRY(std::move(current.status));
    MOA_CUDA_TRY(*gpu.driver, cuCtxSynchronize, (), "waiting for the device");
    MOA_CUDA_TRY(*gpu.driver, cuMemFree,
                 (reinterpret_cast<CUdeviceptr>(memory)),
                 "freeing device memory");
    return ok();
  }
  Status copy(void *to, const void *from, size_t bytes) override {
    Current current(*gpu.driver, gpu.context);
    MOA_RT_TRY(std::move(current.status));
    MOA_CUDA_TRY(*gpu.driver, cuCtxSynchronize, (), "waiting for the device");
    MOA_CUDA_TRY(*gpu.driver, cuMemcpy,
                 (reinterpret_cast<CUdeviceptr>(to),
                  reinterpret_cast<CUdeviceptr>(from), bytes),
                 "copying ", bytes, " bytes");
    return ok();
  }
  Status synchronize() override {
    Current current(*gpu.driver, gpu.context);
    MOA_RT_TRY(std::move(current.status));
    MOA_CUDA_TRY(*gpu.driver, cuCtxSynchronize, (), "waiting for the device");
    return ok();
  }

private:
  Gpu gpu;
};

Status CudaDevice::open(const char *driverPath, int32_t ordinal) {
  MOA_RT_TRY(Driver::load(driverPath, gpu.driver));
  const Driver &driver = *gpu.driver;
  int count = 0;
  MOA_CUDA_TRY(driver, cuDeviceGetCount, (&count), "counting devices");
  if (ordinal < 0 || ordinal >= count)
    return error(MOA_NO_DEVICE, "device ", ordinal, ", the driver has ", count,
                 count == 1 ? " device" : " devices",
                 ", numbered from 0; check nvidia-smi and "
                 "CUDA_VISIBLE_DEVICES");
  MOA_CUDA_TRY(driver, cuDeviceGet, (&gpu.device, ordinal), "opening device ",
               ordinal);
  char name[256] = {};
  MOA_CUDA_TRY(driver, cuDeviceGetName, (name, sizeof name - 1, gpu.device),
               "asking for the name of device ", ordinal);
  DeviceFacts &facts = gpu.facts;
  facts.kind = MOA_DEVICE_CUDA;
  facts.ordinal = ordinal;
  facts.name = name;
  facts.driverVersion = driver.version;
  int virtualMemory = 0;
  const struct {
    int attribute;
    int *value;
  } attributes[] = {{kAttributeCapabilityMajor, &facts.capabilityMajor},
                    {kAttributeCapabilityMinor, &facts.capabilityMinor},
                    {kAttributeMultiprocessors, &facts.processors},
                    {kAttributeSharedBytesOptin, &gpu.sharedBytes},
                    {kAttributeVirtualMemory, &virtualMemory}};
  for (const auto &a : attributes)
    MOA_CUDA_TRY(driver, cuDeviceGetAttribute,
                 (a.value, a.attribute, gpu.device), "asking for attribute ",
                 a.attribute, " of device ", ordinal);
  gpu.virtualMemory = virtualMemory != 0;
  size_t bytes = 0;
  MOA_CUDA_TRY(driver, cuDeviceTotalMem, (&bytes, gpu.device),
               "asking for the memory of device ", ordinal);
  facts.memoryBytes = bytes;
  CUcontext context = nullptr;
  MOA_CUDA_TRY(driver, cuDevicePrimaryCtxRetain, (&context, gpu.device),
               "opening the context of device ", ordinal);
  gpu.context = context;
  return ok();
}

} // namespace
} // namespace cuda

Status makeCudaDevice(const char *driverPath, int32_t ordinal,
                      std::unique_ptr<Device> &out) {
  auto device = std::make_unique<cuda::CudaDevice>();
  MOA_RT_TRY(device->open(driverPath, ordinal));
  out = std::move(device);
  return ok();
}

} // namespace moa::rt
