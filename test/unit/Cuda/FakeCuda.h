//===- FakeCuda.h - A CUDA driver in host memory, for tests -----*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// libcuda-fake.so exports the driver functions that the runtime uses. Work on
// streams is queued and done when somebody waits, kernels are those of
// FakeKernels.cpp, and any call can be made to fail.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_CUDA_FAKECUDA_H
#define MOA_TEST_UNIT_CUDA_FAKECUDA_H

#include "moa/abi/kernel_args.h"

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace moa::fake {

struct Launch {
  std::string kernel; ///< The function's name.
  unsigned grid, threads, shared;
  void *stream;
  bool early = false; ///< Let start before the kernel ahead has ended.
};

/// The one driver of the process.
struct Cuda {
  // What the machine is; set before contexts are made.
  int devices = 1, capabilityMajor = 9, capabilityMinor = 0, processors = 4;
  int version = 12080;
  bool virtualMemory = true;
  bool tellsRanges = true; ///< Of allocations, by pointer attributes.
  uint64_t freeBytes = uint64_t(256) << 20;
  int initResult = 0;
  int blocksPerProcessor = 1;
  /// Images that begin with one of these are refused with the error.
  std::map<std::string, int> refusals;

  // Faults: the failAt-th counted call from now on fails.
  int64_t calls = 0, failAt = 0;
  int failWith = 999;
  std::string failed;                      ///< The function that failed.
  std::map<std::string, int64_t> failures; ///< By function, over all resets.

  // What happened.
  std::vector<Launch> launches;
  std::map<std::string, int64_t> count; ///< By function.
  int64_t zeroedRows = 0;               ///< Of pages, by decode kernels.
  std::vector<std::string> faults;      ///< What no right program does.

  // Streams. While `capturing`, work goes to `graph` instead of the queue.
  bool capturing = false;
  std::deque<std::function<void()>> queue;
  std::vector<std::function<void()>> graph;
  uint64_t enqueued = 0, done = 0;

  // Memory.
  struct Range {
    uint64_t size;
    bool device;
    int ordinal;
  };
  std::map<uintptr_t, Range> memory;
  std::map<uintptr_t, uint64_t> reserved, mapped;
  std::map<uint64_t, uint64_t> handles; ///< Sizes of physical memory.
  int64_t contexts = 0, pushed = 0, modules = 0, events = 0;
  int captureMode = 0;

  /// Back to a fresh machine; nothing may be alive.
  void reset() {
    std::map<std::string, int64_t> kept = std::move(failures);
    *this = Cuda();
    failures = std::move(kept);
  }
  /// Does all queued work.
  void drain();
  /// Runs a captured graph once.
  void replay();
  void fault(const std::string &text) { faults.push_back(text); }
  /// Whether nothing is left of what was made.
  bool clean() const {
    return memory.empty() && reserved.empty() && mapped.empty() &&
           handles.empty() && !contexts && !pushed && !modules && !events;
  }
};

/// What a fake image's text says: "kind maps rows keys dim dtype group".
struct Kernel {
  std::string kind, name;
  bool maps;
  int64_t rows, keys, dim, dtype, group; ///< A MOA_DTYPE_* among them.

  int64_t bytes() const { return dtype == MOA_DTYPE_F32 ? 4 : 2; }
};

/// Copies what a launch was given, and returns the work.
std::function<void()> bindKernel(const Kernel &kernel, unsigned grid,
                                 void **parameters);

/// A tensor map as the fake encodes it.
struct TensorMap {
  uint64_t address, sizes[3], strides[2];
  uint64_t magic;
};
constexpr uint64_t kMapMagic = 0x70616d20656b6166;

} // namespace moa::fake

extern "C" __attribute__((visibility("default"))) moa::fake::Cuda *fakeCuda();

#endif // MOA_TEST_UNIT_CUDA_FAKECUDA_H
