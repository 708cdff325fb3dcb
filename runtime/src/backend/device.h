//===- device.h - What a back end is ----------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A device loads kernels, makes room for pages and runs planned calls; contexts
// hold one. Everything before that, from checks to block tables, is shared.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_BACKEND_DEVICE_H
#define MOA_RT_BACKEND_DEVICE_H

#include "artifact/reader.h"
#include "cache/page_pool.h"
#include "module.h"
#include "sched/plan.h"
#include "sched/step.h"

#include <memory>
#include <string>

namespace moa::rt {

/// Steps of one batch, prepared by the device itself.
class BatchDevice {
public:
  virtual ~BatchDevice() = default;
  /// Enqueues what tells the device of a step.
  virtual Status begin(const StepLists &lists, void *stream) = 0;
  /// Enqueues one layer of the step at hand. A captured call replays with
  /// whatever step is at hand then.
  virtual Status attend(const StepCall &call, size_t sequences, int32_t tokens,
                        const Rope &rope) = 0;
};

/// What an executor knows of moa_counters.
struct ExecutorCounts {
  uint64_t items = 0, splits = 0;
  uint64_t waitNs = 0; ///< Of the host, for staging buffers.
};

/// Runs the calls of one cache.
class Executor {
public:
  virtual ~Executor() = default;
  /// What this back end asks of a call beside what Cache checks.
  virtual Status check(const AttendCall &call) = 0;
  /// Whether its decode kernels copy new rows to pages themselves.
  virtual bool decodeAppends() const { return false; }
  /// Runs a placed plan, or enqueues it on the stream of the call. A call that
  /// fails may have written rows behind the end of sequences, nothing else.
  virtual Status run(const AttendCall &call, const Plan &plan) = 0;
  /// Copies rows to pages by an append kernel, on `stream`.
  virtual Status copyPages(const Kernel &append,
                           const std::vector<moa_append_item> &copies,
                           void *stream) = 0;
  /// Brings blocks to 8 bits by a quantise kernel, on `stream`. Where steps run
  /// as calls do, calls do so themselves.
  virtual Status quantise(const Kernel &,
                          const std::vector<moa_quantise_item> &, void *) {
    return ok();
  }
  /// Leaves `out` null where steps run as calls do.
  virtual Status makeBatch(const BatchShape &, std::unique_ptr<BatchDevice> &) {
    return ok();
  }

  ExecutorCounts counts;
};

/// Facts for moa_device_info.
struct DeviceFacts {
  int32_t kind = MOA_DEVICE_CPU, ordinal = 0;
  std::string name;
  int32_t capabilityMajor = 0, capabilityMinor = 0;
  int32_t driverVersion = 0;
  int32_t processors = 0;
  uint64_t memoryBytes = 0;
};

class Device {
public:
  virtual ~Device() = default;
  virtual const DeviceFacts &facts() const = 0;
  /// Chooses an image a kernel and makes them callable, in the order of the
  /// artifact's kernels.
  virtual Status loadKernels(const Artifact &artifact,
                             const std::string &origin, LoadedKernels &out) = 0;
  /// `maxBytes` as in moa_cache_options.
  virtual Status makePool(const Geometry &geometry, uint64_t maxBytes,
                          std::unique_ptr<PagePool> &out) = 0;
  /// `decodeParts` as in moa_cache_options.
  virtual Status makeExecutor(const Module &module, PagePool &pool,
                              int32_t decodeParts,
                              std::unique_ptr<Executor> &out) = 0;

  virtual Status allocate(size_t bytes, void **out) = 0;
  virtual Status free(void *memory) = 0;
  virtual Status copy(void *to, const void *from, size_t bytes) = 0;
  virtual Status synchronize() = 0;
};

} // namespace moa::rt

#endif // MOA_RT_BACKEND_DEVICE_H
