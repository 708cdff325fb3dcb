//===- cuda_staging.cpp - Tables of calls on their way to the device ------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of cuda_staging.h.
//
//===----------------------------------------------------------------------===//

#include "backend/cuda/cuda_staging.h"

#include <algorithm>
#include <chrono>

namespace moa::rt::cuda {

/// The smallest buffer; larger ones double, so that growth is rare.
constexpr size_t kLeastBytes = size_t(1) << 16;

static size_t sizeFor(size_t bytes) {
  size_t size = kLeastBytes;
  while (size < bytes)
    size *= 2;
  return size;
}

Staging::~Staging() {
  Current current(driver, gpu.context);
  for (Pinned &slot : slots) {
    if (slot.host)
      driver.cuMemFreeHost(slot.host);
    if (slot.copied)
      driver.cuEventDestroy(slot.copied);
  }
  if (device)
    driver.cuMemFree(device);
  for (void *host : privateHosts)
    driver.cuMemFreeHost(host);
  for (CUdeviceptr memory : privateDevices)
    driver.cuMemFree(memory);
}

Status Staging::growHost(Pinned &slot, size_t bytes) {
  if (!slot.copied)
    MOA_CUDA_TRY(driver, cuEventCreate, (&slot.copied, kEventDisableTiming),
                 "making an event");
  if (slot.bytes >= bytes)
    return ok();
  void *host = nullptr;
  size_t size = sizeFor(bytes);
  MOA_CUDA_TRY(driver, cuMemHostAlloc, (&host, size, 0), "allocating ", size,
               " bytes of pinned memory for tables");
  if (slot.host)
    driver.cuMemFreeHost(slot.host);
  slot.host = host;
  slot.bytes = size;
  return ok();
}

Status Staging::growDevice(size_t bytes) {
  if (deviceBytes >= bytes)
    return ok();
  CUdeviceptr memory = 0;
  size_t size = sizeFor(bytes);
  MOA_CUDA_TRY(driver, cuMemAlloc, (&memory, size), "allocating ", size,
               " bytes for tables");
  if (device)
    driver.cuMemFree(device); // Waits for the calls that read it.
  device = memory;
  deviceBytes = size;
  return ok();
}

Status Staging::takePrivate(size_t bytes, Lease &out) {
  RelaxedCapture relaxed(driver);
  privateHosts.reserve(privateHosts.size() + 1);
  privateDevices.reserve(privateDevices.size() + 1);
  void *host = nullptr;
  MOA_CUDA_TRY(driver, cuMemHostAlloc, (&host, bytes, 0), "allocating ", bytes,
               " bytes of pinned memory for the tables of a captured call");
  privateHosts.push_back(host);
  CUdeviceptr memory = 0;
  MOA_CUDA_TRY(driver, cuMemAlloc, (&memory, bytes), "allocating ", bytes,
               " bytes for the tables of a captured call");
  privateDevices.push_back(memory);
  out = {static_cast<char *>(host), memory, nullptr};
  return ok();
}

Status Staging::wait(CUevent copied) {
  const auto began = std::chrono::steady_clock::now();
  MOA_CUDA_TRY(driver, cuEventSynchronize, (copied),
               "waiting for the tables of an earlier call");
  waitNs += std::chrono::duration_cast<std::chrono::nanoseconds>(
                std::chrono::steady_clock::now() - began)
                .count();
  return ok();
}

Status Staging::take(size_t bytes, bool capturing, Lease &out) {
  if (capturing)
    return takePrivate(bytes, out);
  Pinned &slot = slots[next];
  if (slot.used)
    MOA_RT_TRY(wait(slot.copied));
  slot.used = false;
  MOA_RT_TRY(growHost(slot, bytes));
  MOA_RT_TRY(growDevice(bytes));
  out = {static_cast<char *>(slot.host), device, slot.copied};
  return ok();
}

Status Staging::send(const Lease &lease, size_t bytes, CUstream stream) {
  MOA_CUDA_TRY(driver, cuMemcpyHtoDAsync,
               (lease.device, lease.host, bytes, stream), "copying ", bytes,
               " bytes of tables");
  if (!lease.copied)
    return ok();
  // From here on the copy may be under way, so the buffer is left alone until
  // the event says otherwise.
  Pinned &slot = slots[next];
  next = (next + 1) % kStagingSlots;
  CUresult result = driver.cuEventRecord(lease.copied, stream);
  slot.used = result == kSuccess;
  if (result != kSuccess)
    driver.cuCtxSynchronize();
  return driver.check(result, "cuEventRecord", "marking the copy of tables");
}

} // namespace moa::rt::cuda
