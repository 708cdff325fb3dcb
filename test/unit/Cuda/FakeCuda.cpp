//===- FakeCuda.cpp - A CUDA driver in host memory, for tests -------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of FakeCuda.h. Fresh memory of the device holds 0xFF, which is
// NaN in every type.
//
//===----------------------------------------------------------------------===//

#include "FakeCuda.h"

#include "backend/cuda/cuda_types.h"

#include <cstdlib>
#include <cstring>
#include <sstream>
#include <sys/mman.h>

using namespace moa::fake;
using namespace moa::rt::cuda;

#define EXPORT extern "C" __attribute__((visibility("default")))

static Cuda fake;
Cuda *fakeCuda() { return &fake; }

void Cuda::drain() {
  while (!queue.empty()) {
    queue.front()();
    queue.pop_front();
    ++done;
  }
}

void Cuda::replay() {
  drain(); // What was enqueued before runs before.
  for (const auto &work : graph)
    work();
}

namespace {

constexpr int kInvalid = 1, kCaptureUnsupported = 900;

/// Counts a call; the error that it has to return, or 0.
int enter(const char *name) {
  ++fake.count[name];
  if (++fake.calls != fake.failAt)
    return 0;
  fake.failed = name;
  ++fake.failures[name];
  return fake.failWith;
}

/// The same for calls that streams under capture forbid.
int enterUnsafe(const char *name) {
  if (int result = enter(name))
    return result;
  return fake.capturing && fake.captureMode != kCaptureRelaxed
             ? kCaptureUnsupported
             : 0;
}

void enqueue(std::function<void()> work) {
  if (fake.capturing) {
    fake.graph.push_back(std::move(work));
    return;
  }
  fake.queue.push_back(std::move(work));
  ++fake.enqueued;
}

int64_t find(uintptr_t address) {
  auto next = fake.memory.upper_bound(address);
  if (next == fake.memory.begin())
    return -1;
  --next;
  return address < next->first + next->second.size ? int64_t(next->first) : -1;
}

struct Event {
  uint64_t at = 0; ///< Work enqueued before it.
};
struct Loaded {
  std::string text;
  std::map<std::string, Kernel> functions;
};

} // namespace

#define ENTER(name)                                                            \
  if (int result_ = enter(#name))                                              \
  return result_
#define ENTER_UNSAFE(name)                                                     \
  if (int result_ = enterUnsafe(#name))                                        \
  return result_

EXPORT CUresult cuInit(unsigned) {
  ENTER(cuInit);
  return fake.initResult;
}
EXPORT CUresult cuDriverGetVersion(int *version) {
  ENTER(cuDriverGetVersion);
  *version = fake.version;
  return 0;
}
EXPORT CUresult cuGetErrorName(CUresult result, const char **text) {
  static std::map<int, std::string> names;
  std::string &name = names[result];
  name = result == kErrorOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY"
         : result == kErrorNoBinaryForGpu
             ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
             : "CUDA_ERROR_" + std::to_string(result);
  *text = name.c_str();
  return 0;
}
EXPORT CUresult cuGetErrorString(CUresult, const char **text) {
  *text = "of the fake driver";
  return 0;
}
EXPORT CUresult cuDeviceGetCount(int *count) {
  ENTER(cuDeviceGetCount);
  *count = fake.devices;
  return 0;
}
EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  ENTER(cuDeviceGet);
  *device = ordinal;
  return 0;
}
EXPORT CUresult cuDeviceGetName(char *name, int size, CUdevice) {
  ENTER(cuDeviceGetName);
  std::strncpy(name, "Fake GPU", size);
  return 0;
}
EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice) {
  ENTER(cuDeviceGetAttribute);
  *value = attribute == kAttributeMultiprocessors   ? fake.processors
           : attribute == kAttributeCapabilityMajor ? fake.capabilityMajor
           : attribute == kAttributeCapabilityMinor ? fake.capabilityMinor
           : attribute == kAttributeVirtualMemory   ? fake.virtualMemory
                                                    : 232448;
  return 0;
}
EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice) {
  ENTER(cuDeviceTotalMem);
  *bytes = 2 * fake.freeBytes;
  return 0;
}
EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
  ENTER(cuDevicePrimaryCtxRetain);
  ++fake.contexts;
  *context = reinterpret_cast<CUcontext>(0x1000);
  return 0;
}
EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) {
  --fake.contexts;
  return 0;
}
EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context) {
  ENTER(cuCtxPushCurrent);
  if (context != reinterpret_cast<CUcontext>(0x1000))
    fake.fault("push of no context");
  ++fake.pushed;
  return 0;
}
EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *) {
  --fake.pushed;
  return 0;
}
EXPORT CUresult cuCtxSynchronize() {
  ENTER_UNSAFE(cuCtxSynchronize);
  fake.drain();
  return 0;
}
EXPORT CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
  ENTER(cuMemGetInfo);
  *available = fake.freeBytes;
  *total = 2 * fake.freeBytes;
  return 0;
}
EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes) {
  ENTER_UNSAFE(cuMemAlloc);
  if (bytes > fake.freeBytes)
    return kErrorOutOfMemory;
  void *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(memory, 0xff, bytes);
  *out = reinterpret_cast<CUdeviceptr>(memory);
  fake.memory[*out] = {bytes, true, 0};
  return 0;
}
EXPORT CUresult cuMemFree_v2(CUdeviceptr memory) {
  fake.drain(); // Freeing waits.
  if (!fake.memory.erase(memory))
    fake.fault("free of what was not allocated");
  std::free(reinterpret_cast<void *>(memory));
  return 0;
}
EXPORT CUresult cuMemHostAlloc(void **out, size_t bytes, unsigned) {
  ENTER_UNSAFE(cuMemHostAlloc);
  *out = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*out, 0xff, bytes);
  fake.memory[reinterpret_cast<uintptr_t>(*out)] = {bytes, false, -1};
  return 0;
}
EXPORT CUresult cuMemFreeHost(void *memory) {
  fake.drain();
  if (!fake.memory.erase(reinterpret_cast<uintptr_t>(memory)))
    fake.fault("free of what was not allocated");
  std::free(memory);
  return 0;
}
EXPORT CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  ENTER_UNSAFE(cuMemcpy);
  fake.drain();
  std::memcpy(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from),
              bytes);
  return 0;
}
EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from,
                                     size_t bytes, CUstream) {
  ENTER(cuMemcpyHtoDAsync);
  if (find(reinterpret_cast<uintptr_t>(from)) < 0)
    fake.fault("asynchronous copy from memory that is not pinned");
  enqueue([=] { std::memcpy(reinterpret_cast<void *>(to), from, bytes); });
  return 0;
}
EXPORT CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count,
                                 CUstream) {
  ENTER(cuMemsetD32Async);
  enqueue([=] {
    for (size_t i = 0; i < count; ++i)
      reinterpret_cast<unsigned *>(to)[i] = value;
  });
  return 0;
}
EXPORT CUresult cuPointerGetAttribute(void *data, int attribute,
                                      CUdeviceptr address) {
  ENTER(cuPointerGetAttribute);
  int64_t start = find(address);
  if (start < 0 || (!fake.tellsRanges && attribute >= kPointerRangeStart))
    return kInvalid;
  const Cuda::Range &range = fake.memory[start];
  if (attribute == kPointerMemoryType)
    *static_cast<unsigned *>(data) = range.device ? 2 : 1;
  else if (attribute == kPointerDeviceOrdinal)
    *static_cast<int *>(data) = range.ordinal;
  else if (attribute == kPointerRangeStart)
    *static_cast<CUdeviceptr *>(data) = start;
  else
    *static_cast<size_t *>(data) = range.size;
  return 0;
}
EXPORT CUresult cuEventCreate(CUevent *event, unsigned) {
  ENTER(cuEventCreate);
  *event = reinterpret_cast<CUevent>(new Event());
  ++fake.events;
  return 0;
}
EXPORT CUresult cuEventDestroy_v2(CUevent event) {
  delete reinterpret_cast<Event *>(event);
  --fake.events;
  return 0;
}
EXPORT CUresult cuEventRecord(CUevent event, CUstream) {
  ENTER(cuEventRecord);
  if (fake.capturing)
    fake.fault("event recorded in a captured stream");
  reinterpret_cast<Event *>(event)->at = fake.enqueued;
  return 0;
}
EXPORT CUresult cuEventSynchronize(CUevent event) {
  ENTER_UNSAFE(cuEventSynchronize);
  while (fake.done < reinterpret_cast<Event *>(event)->at) {
    fake.queue.front()();
    fake.queue.pop_front();
    ++fake.done;
  }
  return 0;
}
EXPORT CUresult cuStreamIsCapturing(CUstream, int *status) {
  ENTER(cuStreamIsCapturing);
  *status = fake.capturing;
  return 0;
}
EXPORT CUresult cuThreadExchangeStreamCaptureMode(int *mode) {
  std::swap(*mode, fake.captureMode);
  return 0;
}
EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image,
                                   unsigned count, int *options,
                                   void **values) {
  ENTER(cuModuleLoadDataEx);
  std::string text = static_cast<const char *>(image), chip, kind;
  std::istringstream(text) >> chip >> kind;
  if (kind != "prefill" && kind != "decode" && kind != "append" &&
      kind != "prepare" && kind != "rope" && kind != "quantise")
    return kErrorInvalidImage; // Real ones, say.
  for (const auto &[prefix, result] : fake.refusals)
    if (text.rfind(prefix, 0) == 0) {
      for (unsigned i = 0; i < count; ++i)
        if (options[i] == kJitErrorLog)
          std::strcpy(static_cast<char *>(values[i]), "log of the fake\nmore");
      return result;
    }
  ++fake.modules;
  *module = reinterpret_cast<CUmodule>(new Loaded{text, {}});
  return 0;
}
EXPORT CUresult cuModuleUnload(CUmodule module) {
  delete reinterpret_cast<Loaded *>(module);
  --fake.modules;
  return 0;
}
EXPORT CUresult cuModuleGetFunction(CUfunction *function, CUmodule module,
                                    const char *name) {
  ENTER(cuModuleGetFunction);
  auto *loaded = reinterpret_cast<Loaded *>(module);
  Kernel &kernel = loaded->functions[name];
  std::string chip;
  std::istringstream(loaded->text) >> chip >> kernel.kind >> kernel.maps >>
      kernel.rows >> kernel.keys >> kernel.dim >> kernel.dtype >> kernel.group;
  kernel.name = name;
  *function = reinterpret_cast<CUfunction>(&kernel);
  return 0;
}
EXPORT CUresult cuFuncSetAttribute(CUfunction, int, int) {
  ENTER(cuFuncSetAttribute);
  return 0;
}
EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks,
                                                            CUfunction, int,
                                                            size_t) {
  ENTER(cuOccupancyMaxActiveBlocksPerMultiprocessor);
  *blocks = fake.blocksPerProcessor;
  return 0;
}
EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y,
                               unsigned z, unsigned bx, unsigned by,
                               unsigned bz, unsigned shared, CUstream stream,
                               void **parameters, void **extra) {
  ENTER(cuLaunchKernel);
  if (x == 0 || y != 1 || z != 1 || bx == 0 || by != 1 || bz != 1 || extra)
    fake.fault("launch of an odd shape");
  const Kernel &kernel = *reinterpret_cast<Kernel *>(function);
  fake.launches.push_back({kernel.name, x, bx, shared, stream});
  enqueue(bindKernel(kernel, x, parameters));
  return 0;
}
EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *config,
                                 CUfunction function, void **parameters,
                                 void **extra) {
  ENTER(cuLaunchKernelEx);
  if (config->numAttrs != 1 || config->attrs->id != 6 ||
      config->attrs->value.flag != 1 || extra || config->gridDimX == 0 ||
      config->gridDimY != 1 || config->gridDimZ != 1 ||
      config->blockDimX == 0 || config->blockDimY != 1 ||
      config->blockDimZ != 1)
    fake.fault("an extended launch of an odd shape");
  const Kernel &kernel = *reinterpret_cast<Kernel *>(function);
  fake.launches.push_back({kernel.name, config->gridDimX, config->blockDimX,
                           config->sharedMemBytes, config->hStream, true});
  enqueue(bindKernel(kernel, config->gridDimX, parameters));
  return 0;
}
EXPORT CUresult cuMemAddressReserve(CUdeviceptr *out, size_t bytes, size_t,
                                    CUdeviceptr, unsigned long long) {
  ENTER_UNSAFE(cuMemAddressReserve);
  void *memory = mmap(nullptr, bytes, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  *out = reinterpret_cast<CUdeviceptr>(memory);
  fake.reserved[*out] = bytes;
  return 0;
}
EXPORT CUresult cuMemAddressFree(CUdeviceptr memory, size_t bytes) {
  if (fake.reserved[memory] != bytes)
    fake.fault("addresses freed that were not reserved");
  fake.reserved.erase(memory);
  munmap(reinterpret_cast<void *>(memory), bytes);
  return 0;
}
EXPORT CUresult cuMemCreate(CUmemHandle *handle, size_t bytes,
                            const CUmemAllocationProp *properties,
                            unsigned long long) {
  ENTER_UNSAFE(cuMemCreate);
  if (properties->type != 1 || properties->location.type != 1 || bytes % 4096)
    return kInvalid;
  if (bytes > fake.freeBytes)
    return kErrorOutOfMemory;
  static uint64_t next = 1;
  fake.handles[next] = bytes;
  *handle = next++;
  return 0;
}
EXPORT CUresult cuMemRelease(CUmemHandle handle) {
  if (!fake.handles.erase(handle))
    fake.fault("release of no handle");
  return 0;
}
EXPORT CUresult cuMemMap(CUdeviceptr memory, size_t bytes, size_t,
                         CUmemHandle handle, unsigned long long) {
  ENTER_UNSAFE(cuMemMap);
  if (fake.handles[handle] != bytes)
    return kInvalid;
  fake.mapped[memory] = bytes;
  return 0;
}
EXPORT CUresult cuMemUnmap(CUdeviceptr memory, size_t bytes) {
  if (fake.mapped[memory] != bytes)
    fake.fault("unmapping of what was not mapped at once");
  fake.mapped.erase(memory);
  fake.memory.erase(memory);
  mprotect(reinterpret_cast<void *>(memory), bytes, PROT_NONE);
  return 0;
}
EXPORT CUresult cuMemSetAccess(CUdeviceptr memory, size_t bytes,
                               const CUmemAccessDesc *access, size_t count) {
  ENTER_UNSAFE(cuMemSetAccess);
  if (count != 1 || access->flags != 3 || fake.mapped[memory] != bytes)
    return kInvalid;
  mprotect(reinterpret_cast<void *>(memory), bytes, PROT_READ | PROT_WRITE);
  std::memset(reinterpret_cast<void *>(memory), 0xff, bytes);
  fake.memory[memory] = {bytes, true, 0};
  return 0;
}
EXPORT CUresult cuMemGetAllocationGranularity(size_t *bytes,
                                              const CUmemAllocationProp *,
                                              int) {
  ENTER(cuMemGetAllocationGranularity);
  *bytes = size_t(2) << 20;
  return 0;
}
EXPORT CUresult cuTensorMapEncodeTiled(void *map, int type, uint32_t rank,
                                       void *address, const uint64_t *sizes,
                                       const uint64_t *strides,
                                       const uint32_t *box,
                                       const uint32_t *steps, int interleave,
                                       int swizzle, int, int fill) {
  ENTER(cuTensorMapEncodeTiled);
  bool good =
      reinterpret_cast<uintptr_t>(map) % 64 == 0 && rank == 3 &&
      (type == kTensorF16 || type == kTensorBF16 || type == kTensorU8) &&
      box[0] == (type == kTensorU8 ? 128u : 64u) && box[1] == 64 &&
      box[2] == 1 && interleave == 0 && swizzle == kTensorSwizzle128B &&
      fill == 0 && reinterpret_cast<uintptr_t>(address) % 16 == 0;
  TensorMap tensor = {};
  tensor.address = reinterpret_cast<uint64_t>(address);
  for (int i = 0; i < 3; ++i) {
    good &= sizes[i] >= 1 && sizes[i] <= (uint64_t(1) << 32) && steps[i] == 1;
    tensor.sizes[i] = sizes[i];
  }
  for (int i = 0; i < 2; ++i) {
    good &= strides[i] % 16 == 0 && strides[i] < (uint64_t(1) << 40) &&
            strides[i] > 0;
    tensor.strides[i] = strides[i];
  }
  if (!good)
    return kInvalid;
  tensor.magic = kMapMagic;
  std::memset(map, 0, 128);
  std::memcpy(map, &tensor, sizeof tensor);
  return 0;
}
