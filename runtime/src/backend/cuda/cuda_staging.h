//===- cuda_staging.h - Tables of calls on their way to the device *- C++
//-*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A ring of pinned buffers that calls fill in turn, one buffer on the device
// that follows stream order, and private pairs for calls that are captured, as
// a graph reads them again at each replay.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_BACKEND_CUDA_CUDA_STAGING_H
#define MOA_RT_BACKEND_CUDA_CUDA_STAGING_H

#include "backend/cuda/cuda_device.h"

#include <cstring>

namespace moa::rt::cuda {

/// Calls whose tables may wait for the device at a time.
constexpr size_t kStagingSlots = 8;

class Staging {
public:
  /// Adds the nanoseconds that it waits to `waitNs`.
  Staging(Gpu &gpu, uint64_t &waitNs)
      : gpu(gpu), driver(*gpu.driver), waitNs(waitNs) {}
  /// The device has to be done with all calls.
  ~Staging();
  Staging(const Staging &) = delete;
  Staging &operator=(const Staging &) = delete;

  /// A call's place for its tables.
  struct Lease {
    char *host = nullptr;
    CUdeviceptr device = 0;
    CUevent copied = nullptr; ///< Null for a captured call.
  };

  /// Lists laid out one behind the other for a lease; without its host memory
  /// they are only measured.
  struct Layout {
    Lease lease;
    size_t bytes = 0;

    /// Where the list lies on the device.
    template <typename List> CUdeviceptr add(const List &list) {
      const CUdeviceptr place = lease.device + bytes;
      const size_t size = list.size() * sizeof(list[0]);
      if (lease.host && size)
        std::memcpy(lease.host + bytes, list.data(), size);
      bytes += (size + 255) / 256 * 256;
      return place;
    }
  };

  /// Makes room for `bytes`. Waits for the copy of the call kStagingSlots
  /// before; allocates only if no call was as large.
  Status take(size_t bytes, bool capturing, Lease &out);
  /// Enqueues the copy of what was written.
  Status send(const Lease &lease, size_t bytes, CUstream stream);

private:
  struct Pinned {
    void *host = nullptr;
    size_t bytes = 0;
    CUevent copied = nullptr;
    bool used = false; ///< `copied` was recorded.
  };

  Status wait(CUevent copied);
  Status growHost(Pinned &slot, size_t bytes);
  Status growDevice(size_t bytes);
  Status takePrivate(size_t bytes, Lease &out);

  Gpu &gpu;
  const Driver &driver;
  uint64_t &waitNs;
  Pinned slots[kStagingSlots];
  size_t next = 0;
  CUdeviceptr device = 0;
  size_t deviceBytes = 0;
  std::vector<void *> privateHosts;
  std::vector<CUdeviceptr> privateDevices;
};

} // namespace moa::rt::cuda

#endif // MOA_RT_BACKEND_CUDA_CUDA_STAGING_H
