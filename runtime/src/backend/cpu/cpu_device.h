//===- cpu_device.h - The CPU back end --------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Kernels as machine code in this process, run by a pool of threads.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_BACKEND_CPU_CPU_DEVICE_H
#define MOA_RT_BACKEND_CPU_CPU_DEVICE_H

#include "backend/cpu/host_memory.h"
#include "backend/device.h"

namespace moa::rt {

class ThreadPool;

/// MOA_CPU_* bits of this machine that are worth using.
uint32_t detectCpuFeatures();

/// `threads` includes the caller; `features` are MOA_CPU_* bits.
std::unique_ptr<Device> makeCpuDevice(int threads, uint32_t features,
                                      const HostMemory &memory);

/// Runs calls on `threads`, which outlive it.
std::unique_ptr<Executor> makeCpuExecutor(const Module &module, PagePool &pool,
                                          ThreadPool &threads);

} // namespace moa::rt

#endif // MOA_RT_BACKEND_CPU_CPU_DEVICE_H
