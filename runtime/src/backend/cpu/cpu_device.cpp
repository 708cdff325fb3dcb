//===- cpu_device.cpp - The CPU back end ----------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of cpu_device.h: chooses one image a kernel, copies them to
// fresh memory and makes it executable and read-only.
//
//===----------------------------------------------------------------------===//

#include "backend/cpu/cpu_device.h"

#include "sched/merge.h"
#include "sched/thread_pool.h"
#include "sched/work.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

namespace moa::rt {

uint32_t detectCpuFeatures() {
  uint32_t features = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // These builtins also check that the operating system saves the registers.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
    features |= MOA_CPU_X86_64_V3;
  if ((features & MOA_CPU_X86_64_V3) && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    features |= MOA_CPU_X86_64_V4;
  // On Intel cores vdpbf16ps runs at half the rate of f32 FMA (Sapphire Rapids:
  // 73 against 140 GFLOP/s in our prefill), so only AMD's is worth using.
  if ((features & MOA_CPU_X86_64_V4) && __builtin_cpu_is("amd") &&
      __builtin_cpu_supports("avx512bf16"))
    features |= MOA_CPU_AVX512_BF16;
#endif
  return features;
}

namespace {

struct CpuCode : KernelCode {
  ~CpuCode() override {
    if (memory)
      munmap(memory, size);
  }
  void *memory = nullptr;
  size_t size = 0;
};

class CpuExecutor : public Executor {
public:
  CpuExecutor(const Module &module, PagePool &pool, ThreadPool &threads)
      : module(module), pool(pool), threads(threads) {}

  Status check(const AttendCall &) override { return ok(); }
  Status run(const AttendCall &call, const Plan &plan) override;
  Status copyPages(const Kernel &append,
                   const std::vector<moa_append_item> &copies,
                   void *) override {
    runRows(append, copies, 0);
    return ok();
  }

private:
  const Module &module;
  PagePool &pool;
  /// Runs an append, rope or quantise kernel, which needs no scratch, over its
  /// items.
  template <typename Item>
  void runRows(const Kernel &kernel, const std::vector<Item> &items,
               size_t heads);

  ThreadPool &threads;
  Work work; ///< Reused by every call.
};

/// `heads` are the KV heads of all entries.
template <typename Item>
void CpuExecutor::runRows(const Kernel &kernel, const std::vector<Item> &items,
                          size_t heads) {
  auto run = reinterpret_cast<void (*)(const Item *, void *)>(kernel.entry);
  if (heads >= items.size()) {
    // A token a sequence: waking threads would cost more than the copies.
    for (const Item &item : items)
      run(&item, nullptr);
  } else {
    threads.run(items.size(), kernel.scratchBytes,
                [&](size_t i, void *scratch) { run(&items[i], scratch); });
  }
}

Status CpuExecutor::run(const AttendCall &call, const Plan &plan) {
  const LayerKernels &kernels = module.layers[call.layer];
  work.build(module, pool, plan, call);
  const size_t heads = call.count * module.geometry.kvHeads;
  runRows(kernels.append, plan.appends, heads);
  runRows(kernels.rope, plan.ropes, heads);
  // Of the rows that are in pages or rotated by now.
  runRows(kernels.quantise, plan.quantises, 0);
  runRows(kernels.quantise, plan.lateQuantises, 0);
  size_t scratchBytes =
      std::max(kernels.prefill.scratchBytes, kernels.decode.scratchBytes);
  threads.run(work.order.size(), scratchBytes, [&](size_t i, void *scratch) {
    Task &task = work.tasks[work.order[i]];
    task.kernel(&task.item, scratch);
    if (task.merge)
      finishShare(*task.merge, module.geometry);
  });
  counts.items += work.order.size();
  counts.splits += work.splits;
  return ok();
}

class CpuDevice : public Device {
public:
  CpuDevice(int count, uint32_t features, const HostMemory &memory)
      : threads(count), features(features), memory(memory) {
    own.name = "CPU";
    own.processors = count;
    own.memoryBytes =
        uint64_t(sysconf(_SC_PHYS_PAGES)) * uint64_t(sysconf(_SC_PAGESIZE));
  }

  const DeviceFacts &facts() const override { return own; }
  Status loadKernels(const Artifact &artifact, const std::string &origin,
                     LoadedKernels &out) override;
  Status makePool(const Geometry &geometry, uint64_t maxBytes,
                  std::unique_ptr<PagePool> &out) override {
    const size_t bytes = geometry.pageBytes(), scales = geometry.scaleBytes();
    out = std::make_unique<PagePool>(bytes, maxBytes / bytes,
                                     memory.makePages(bytes + scales), scales);
    return ok();
  }
  /// Items are cut by themselves whatever `decodeParts` is.
  Status makeExecutor(const Module &module, PagePool &pool, int32_t,
                      std::unique_ptr<Executor> &out) override {
    out = makeCpuExecutor(module, pool, threads);
    return ok();
  }
  Status allocate(size_t bytes, void **out) override {
    return memory.allocate(bytes, out);
  }
  Status free(void *given) override {
    memory.free(given);
    return ok();
  }
  Status copy(void *to, const void *from, size_t bytes) override {
    std::memcpy(to, from, bytes);
    return ok();
  }
  Status synchronize() override { return ok(); }

private:
  ThreadPool threads;
  uint32_t features;
  const HostMemory memory;
  DeviceFacts own;
};

Status CpuDevice::loadKernels(const Artifact &artifact,
                              const std::string &origin, LoadedKernels &out) {
  std::vector<const ImageRecord *> chosen;
  for (const KernelRecord &kernel : artifact.kernels) {
    const ImageRecord *found = nullptr;
    for (const ImageRecord &image : kernel.images)
      if (!found && image.facts.target == MOA_TARGET_CPU_X86_64 &&
          (image.facts.features & ~features) == 0)
        found = &image;
    if (!found && kernel.facts.kind != MOA_KERNEL_PREPARE) {
      std::string have;
      for (const ImageRecord &image : kernel.images)
        have += (have.empty() ? "" : ", ") + image.chip;
      return error(
          MOA_INCOMPATIBLE, origin, ": kernel ", kernel.name,
          " has no image for this CPU (it has: ", have.empty() ? "none" : have,
          "); compile with --target cpu for a variant this machine "
          "runs");
    }
    chosen.push_back(found); // None of a kernel that only GPUs have.
  }
  size_t size = 0;
  std::vector<size_t> offsets;
  for (const ImageRecord *image : chosen) {
    offsets.push_back(size);
    if (image)
      size += (image->facts.size + 63) / 64 * 64;
  }
  auto owner = std::make_unique<CpuCode>();
  CpuCode &code = *owner;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  code.size = std::max(page, (size + page - 1) / page * page);
  void *memory = mmap(nullptr, code.size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return error(MOA_OUT_OF_MEMORY, "cannot map ", code.size,
                 " bytes for kernels: ", std::strerror(errno));
  code.memory = memory;
  auto *base = static_cast<char *>(memory);
  for (size_t i = 0; i < chosen.size(); ++i)
    if (chosen[i])
      std::memcpy(base + offsets[i], chosen[i]->code, chosen[i]->facts.size);
  if (mprotect(code.memory, code.size, PROT_READ | PROT_EXEC))
    return error(MOA_OUT_OF_MEMORY, "cannot make ", code.size,
                 " bytes of kernels executable: ", std::strerror(errno));

  for (size_t i = 0; i < chosen.size(); ++i) {
    Kernel kernel;
    if (chosen[i]) {
      kernel.entry = base + offsets[i] + chosen[i]->facts.entry;
      kernel.scratchBytes = static_cast<size_t>(chosen[i]->facts.scratch_bytes);
    }
    out.kernels.push_back(kernel);
  }
  // Not every kernel has an image for the most demanding variant.
  uint32_t most = 0;
  for (const ImageRecord *image : chosen)
    if (image && (out.chip.empty() || image->facts.features > most)) {
      most = image->facts.features;
      out.chip = image->chip;
    }
  out.code = std::move(owner);
  return ok();
}

} // namespace

std::unique_ptr<Device> makeCpuDevice(int threads, uint32_t features,
                                      const HostMemory &memory) {
  return std::make_unique<CpuDevice>(threads, features, memory);
}

std::unique_ptr<Executor> makeCpuExecutor(const Module &module, PagePool &pool,
                                          ThreadPool &threads) {
  return std::make_unique<CpuExecutor>(module, pool, threads);
}

} // namespace moa::rt
