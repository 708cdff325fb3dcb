//===- cuda_executor.cpp - Calls on a CUDA device -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Checks what kernels ask of tensors, fills the tables of a call, copies them
// at once and launches append, prefill and decode on the caller's stream.
//
//===----------------------------------------------------------------------===//

#include "backend/cuda/cuda_staging.h"
#include "backend/cuda/tensor_map.h"
#include "sched/gpu_work.h"

#include <algorithm>
#include <cstring>

namespace moa::rt::cuda {
namespace {

/// Decode items that one launch can count.
constexpr size_t kCounters = size_t(1) << 16;

/// Allocations known to lie on the device, as calls use few.
constexpr size_t kKnownRanges = 64;

class CudaExecutor : public Executor {
public:
  CudaExecutor(Gpu &gpu, const Module &module, PagePool &pool)
      : gpu(gpu), driver(*gpu.driver), module(module), pool(pool),
        staging(gpu) {}
  ~CudaExecutor() override;

  Status open();
  Status check(const AttendCall &call) override;
  Status run(const AttendCall &call, const Plan &plan) override;

private:
  /// Where the parts of a call's tables lie on the device.
  struct Tables {
    CUdeviceptr appends, prefill, decode, lines, places, starts;
    size_t bytes;
  };

  Status checkTensor(size_t entry, const char *name, const void *pointer,
                     int64_t rows, int64_t heads, int64_t rowStride,
                     int64_t headStride);
  Status checkOnDevice(size_t entry, const char *name, const void *pointer);
  Tables fill(const Plan &plan, Staging::Lease lease);
  Status launchPrefill(const AttendCall &call, const PrefillLaunch &launch,
                       const Tables &tables);
  Status launchDecode(const AttendCall &call, const Tables &tables);
  Status encodeEntry(const AttendCall &call, size_t index,
                     moa_gpu_entry_maps &maps);
  moa_gpu_entry describeEntry(const AttendCall &call, size_t index);
  Status launch(const char *name, const Kernel &kernel, size_t grid,
                const AttendCall &call, void **parameters);

  Gpu &gpu;
  const Driver &driver;
  const Module &module;
  PagePool &pool;
  Staging staging;
  GpuWork work;         ///< Reused by every call.
  CUdeviceptr base = 0; ///< Of the pool.
  CUdeviceptr partials = 0, counters = 0;
  struct alignas(64) Maps {
    moa_gpu_prefill_maps maps;
  };
  Maps prefillMaps = {}; ///< The pool's stays, those of entries change.
  moa_gpu_prefill_entries prefillEntries = {};
  struct Range {
    uintptr_t begin, end;
  };
  std::vector<Range> known;
};

CudaExecutor::~CudaExecutor() {
  Current current(driver, gpu.context);
  // Kernels under way read the tables, and the pages that go next.
  driver.cuCtxSynchronize();
  if (partials)
    driver.cuMemFree(partials);
  if (counters)
    driver.cuMemFree(counters);
}

Status CudaExecutor::open() {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  const Geometry &g = module.geometry;
  base = reinterpret_cast<CUdeviceptr>(pool.base());
  uint32_t grid = 0;
  bool maps = false;
  for (const LayerKernels &layer : module.layers) {
    grid = std::max(grid, layer.decode.grid);
    maps |= layer.prefill.maps || layer.decode.maps;
  }
  if (maps)
    MOA_RT_TRY(encodeTensorMap(driver, g,
                               {pool.base(), MOA_BLOCK_KEYS, 2 * pool.limit(),
                                g.headDim, MOA_BLOCK_KEYS * int64_t(g.headDim)},
                               "the pages", prefillMaps.maps.pool));
  if (!grid)
    return ok();
  size_t bytes = moa_gpu_partial_bytes(grid, g.group(), g.headDim);
  MOA_CUDA_TRY(driver, cuMemAlloc, (&partials, bytes), "allocating ", bytes,
               " bytes for partial results");
  MOA_CUDA_TRY(driver, cuMemAlloc, (&counters, kCounters * sizeof(int32_t)),
               "allocating counters");
  MOA_CUDA_TRY(driver, cuMemsetD32Async, (counters, 0, kCounters, nullptr),
               "zeroing counters");
  MOA_CUDA_TRY(driver, cuCtxSynchronize, (), "zeroing counters");
  return ok();
}

/// Host addresses and those of other devices are found here rather than by a
/// kernel's fault.
Status CudaExecutor::checkOnDevice(size_t entry, const char *name,
                                   const void *pointer) {
  auto address = reinterpret_cast<uintptr_t>(pointer);
  for (const Range &range : known)
    if (address >= range.begin && address < range.end)
      return ok();
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

Status CudaExecutor::checkTensor(size_t entry, const char *name,
                                 const void *pointer, int64_t rows,
                                 int64_t heads, int64_t rowStride,
                                 int64_t headStride) {
  if (reinterpret_cast<uintptr_t>(pointer) % 16)
    return error(MOA_INVALID_ARGUMENT, "entry ", entry, ": ", name,
                 " is not aligned to 16 bytes, as copies on the device need; "
                 "make the tensor contiguous");
  // Tensor maps take strides below 2^40 bytes.
  auto bad = [](int64_t extent, int64_t stride) {
    return extent > 1 && (stride % 8 || stride >= (int64_t(1) << 38));
  };
  if (bad(rows, rowStride) || bad(heads, headStride))
    return error(MOA_INVALID_ARGUMENT, "entry ", entry, ": ", name,
                 " has row stride ", rowStride, " and head stride ", headStride,
                 " in elements, expected multiples of 8 below 2^38; make the "
                 "tensor contiguous");
  return checkOnDevice(entry, name, pointer);
}

Status CudaExecutor::check(const AttendCall &call) {
  const Geometry &g = module.geometry;
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  if (!(call.scale > 0))
    return error(MOA_UNSUPPORTED, "scale is ", call.scale,
                 ", expected above 0 on a CUDA device, where kernels scale "
                 "behind the maximum; negate q, or use the CPU device");
  size_t decodes = 0;
  for (size_t i = 0; i < call.count; ++i) {
    const moa_attend_entry &e = call.entries[i];
    decodes += EntryView(module, call, i).decodes() ? g.kvHeads : 0;
    MOA_RT_TRY(checkTensor(i, "q", e.q, e.tokens, g.qHeads, e.q_row_stride,
                           e.q_head_stride));
    MOA_RT_TRY(checkTensor(i, "k", e.k, e.tokens, g.kvHeads, e.k_row_stride,
                           e.k_head_stride));
    MOA_RT_TRY(checkTensor(i, "v", e.v, e.tokens, g.kvHeads, e.v_row_stride,
                           e.v_head_stride));
    MOA_RT_TRY(checkTensor(i, "out", e.out, e.tokens, g.qHeads,
                           e.out_row_stride, e.out_head_stride));
  }
  if (decodes > kCounters)
    return error(MOA_INVALID_ARGUMENT, "the call decodes ", decodes,
                 " KV heads, expected at most ", kCounters,
                 "; decode fewer sequences in a call");
  return ok();
}

/// Writes the tables to pinned memory.
CudaExecutor::Tables CudaExecutor::fill(const Plan &plan,
                                        Staging::Lease lease) {
  Tables tables = {};
  auto add = [&](const auto &list) {
    CUdeviceptr place = lease.device + tables.bytes;
    size_t bytes = list.size() * sizeof(list[0]);
    if (lease.host && bytes)
      std::memcpy(lease.host + tables.bytes, list.data(), bytes);
    tables.bytes += (bytes + 255) / 256 * 256;
    return place;
  };
  tables.appends = add(plan.appends);
  tables.prefill = add(work.prefill);
  tables.decode = add(work.decode);
  tables.lines = add(work.lines);
  tables.places = add(plan.places);
  tables.starts = add(work.starts);
  return tables;
}

Status CudaExecutor::launch(const char *name, const Kernel &kernel, size_t grid,
                            const AttendCall &call, void **parameters) {
  MOA_CUDA_TRY(driver, cuLaunchKernel,
               (static_cast<CUfunction>(kernel.entry),
                static_cast<unsigned>(grid), 1, 1, kernel.threads, 1, 1,
                static_cast<unsigned>(kernel.scratchBytes),
                static_cast<CUstream>(call.stream), parameters, nullptr),
               "layer ", call.layer, ": launching the ", name, " kernel with ",
               grid, " blocks of ", kernel.threads, " threads");
  return ok();
}

Status CudaExecutor::encodeEntry(const AttendCall &call, size_t index,
                                 moa_gpu_entry_maps &maps) {
  const Geometry &g = module.geometry;
  const moa_attend_entry &e = call.entries[index];
  const uint64_t tokens = uint64_t(e.tokens);
  const struct {
    const char *name;
    TensorShape shape;
    moa_gpu_tensor_map &map;
  } tensors[] = {
      {"q", {e.q, tokens, g.qHeads, e.q_row_stride, e.q_head_stride}, maps.q},
      {"k", {e.k, tokens, g.kvHeads, e.k_row_stride, e.k_head_stride}, maps.k},
      {"v", {e.v, tokens, g.kvHeads, e.v_row_stride, e.v_head_stride}, maps.v},
      {"out",
       {e.out, tokens, g.qHeads, e.out_row_stride, e.out_head_stride},
       maps.out}};
  for (const auto &tensor : tensors)
    MOA_RT_TRY(encodeTensorMap(
        driver, g, tensor.shape,
        tensor.name + (" of entry " + std::to_string(index)), tensor.map));
  return ok();
}

moa_gpu_entry CudaExecutor::describeEntry(const AttendCall &call,
                                          size_t index) {
  const Geometry &g = module.geometry;
  const moa_attend_entry &e = call.entries[index];
  // A stride that is never taken may be anything; kernels take multiples of 8.
  auto row = [&](int64_t stride) { return e.tokens > 1 ? stride : g.headDim; };
  auto head = [&](uint32_t heads, int64_t stride) {
    return heads > 1 ? stride : g.headDim;
  };
  return {e.q,
          e.k,
          e.v,
          e.out,
          row(e.q_row_stride),
          head(g.qHeads, e.q_head_stride),
          row(e.k_row_stride),
          head(g.kvHeads, e.k_head_stride),
          row(e.v_row_stride),
          head(g.kvHeads, e.v_head_stride),
          row(e.out_row_stride),
          head(g.qHeads, e.out_head_stride),
          static_cast<int32_t>(e.tokens),
          0};
}

Status CudaExecutor::launchPrefill(const AttendCall &call,
                                   const PrefillLaunch &part,
                                   const Tables &tables) {
  const Kernel &kernel = module.layers[call.layer].prefill;
  CUdeviceptr items =
      tables.prefill + part.firstItem * sizeof(moa_gpu_prefill_item);
  CUdeviceptr places = tables.places, starts = tables.starts;
  auto count = static_cast<int32_t>(part.items);
  int32_t sink = module.sink();
  float scale = call.scaleLog2();
  size_t grid = std::min<size_t>(kernel.grid, part.items);
  for (size_t i = 0; i < part.entries.size(); ++i) {
    if (kernel.maps)
      MOA_RT_TRY(
          encodeEntry(call, part.entries[i], prefillMaps.maps.entries[i]));
    else
      prefillEntries.entries[i] = describeEntry(call, part.entries[i]);
  }
  void *byMaps[] = {
      &prefillMaps.maps, &items, &places, &starts, &count, &sink, &scale};
  void *byAddress[] = {&prefillEntries, &base,  &items, &places,
                       &starts,         &count, &sink,  &scale};
  return launch("prefill", kernel, grid, call,
                kernel.maps ? byMaps : byAddress);
}

Status CudaExecutor::launchDecode(const AttendCall &call,
                                  const Tables &tables) {
  const Kernel &kernel = module.layers[call.layer].decode;
  CUdeviceptr items = tables.decode, lines = tables.lines,
              places = tables.places;
  auto count = static_cast<int32_t>(work.decode.size());
  int32_t sink = module.sink();
  float scale = call.scaleLog2();
  // Never a block without a page.
  size_t grid = std::min<size_t>(kernel.grid, work.lines.back());
  void *pages = kernel.maps ? static_cast<void *>(&prefillMaps.maps.pool)
                            : static_cast<void *>(&base);
  void *parameters[] = {pages,     &items, &lines, &places, &partials,
                        &counters, &count, &sink,  &scale};
  return launch("decode", kernel, grid, call, parameters);
}

Status CudaExecutor::run(const AttendCall &call, const Plan &plan) {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  const LayerKernels &kernels = module.layers[call.layer];
  auto stream = static_cast<CUstream>(call.stream);
  int capture = kCaptureNone;
  MOA_CUDA_TRY(driver, cuStreamIsCapturing, (stream, &capture),
               "asking whether the stream is captured");
  work.build(module, plan, call, std::max(1u, kernels.prefill.grid));
  Staging::Lease lease;
  const size_t bytes = fill(plan, lease).bytes;
  MOA_RT_TRY(staging.take(bytes, capture != kCaptureNone, lease));
  const Tables tables = fill(plan, lease);
  MOA_RT_TRY(staging.send(lease, bytes, stream));
  if (!plan.appends.empty()) {
    CUdeviceptr items = tables.appends;
    auto count = static_cast<int32_t>(plan.appends.size());
    void *parameters[] = {&items, &count};
    MOA_RT_TRY(launch("append", kernels.append, plan.appends.size(), call,
                      parameters));
  }
  for (const PrefillLaunch &part : work.launches)
    MOA_RT_TRY(launchPrefill(call, part, tables));
  if (!work.decode.empty())
    MOA_RT_TRY(launchDecode(call, tables));
  return ok();
}

} // namespace

Status makeExecutor(Gpu &gpu, const Module &module, PagePool &pool,
                    std::unique_ptr<Executor> &out) {
  auto executor = std::make_unique<CudaExecutor>(gpu, module, pool);
  MOA_RT_TRY(executor->open());
  out = std::move(executor);
  return ok();
}

} // namespace moa::rt::cuda
