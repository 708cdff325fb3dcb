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

#include "backend/cuda/cuda_launch.h"
#include "backend/cuda/cuda_staging.h"
#include "backend/cuda/tensor_checks.h"
#include "backend/cuda/tensor_map.h"
#include "sched/gpu_work.h"

#include <algorithm>

namespace moa::rt::cuda {
namespace {

class CudaExecutor : public Executor {
public:
  CudaExecutor(Gpu &gpu, const Module &module, PagePool &pool)
      : gpu(gpu), driver(*gpu.driver), module(module), pool(pool),
        staging(gpu, counts.waitNs), checks(gpu, module.geometry) {}
  ~CudaExecutor() override;

  Status open();
  Status check(const AttendCall &call) override;
  bool decodeAppends() const override { return true; }
  Status run(const AttendCall &call, const Plan &plan) override;
  Status copyPages(const Kernel &append,
                   const std::vector<moa_append_item> &copies,
                   void *stream) override;
  Status makeBatch(const BatchShape &shape,
                   std::unique_ptr<BatchDevice> &out) override {
    return makeBatchDevice(gpu, module, decoding, counts.waitNs, shape, out);
  }

private:
  /// Where the parts of a call's tables lie on the device.
  struct Tables {
    CUdeviceptr appends, ropes, prefill, decode, lines, cuts, pages, places,
        starts;
    size_t bytes;
  };

  Status isCapturing(void *stream, bool &capturing);
  Tables fill(const Plan &plan, Staging::Lease lease);
  Status launchAppend(const Kernel &kernel, uint32_t layer, CUdeviceptr items,
                      size_t count, void *stream);
  Status launchPrefill(const AttendCall &call, const PrefillLaunch &launch,
                       const Tables &tables);
  Status launchDecode(const AttendCall &call, const DecodeLaunch &part,
                      const Tables &tables);
  Status encodeEntry(const AttendCall &call, size_t index,
                     moa_gpu_entry_maps &maps);
  moa_gpu_entry describeEntry(const AttendCall &call, size_t index);

  Gpu &gpu;
  const Driver &driver;
  const Module &module;
  PagePool &pool;
  Staging staging;
  GpuWork work;         ///< Reused by every call.
  CUdeviceptr base = 0; ///< Of the pool.
  TensorChecks checks;
  DecodeMemory decoding; ///< The pool's map, partial results, counters.
  struct alignas(64) Maps {
    moa_gpu_prefill_maps maps;
  };
  Maps prefillMaps = {}; ///< The pool's stays, those of entries change.
  moa_gpu_prefill_entries prefillEntries = {};
};

CudaExecutor::~CudaExecutor() {
  Current current(driver, gpu.context);
  // Kernels under way read the tables, and the pages that go next.
  driver.cuCtxSynchronize();
  if (decoding.partials)
    driver.cuMemFree(decoding.partials);
  if (decoding.counters)
    driver.cuMemFree(decoding.counters);
}

Status CudaExecutor::open() {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  const Geometry &g = module.geometry;
  base = reinterpret_cast<CUdeviceptr>(pool.base());
  int64_t bytes = 0;
  bool maps = false;
  for (const LayerKernels &layer : module.layers) {
    for (const Kernel *kernel : {&layer.decode, &layer.wide}) {
      maps |= kernel->maps;
      bytes = std::max(
          bytes, moa_gpu_partial_bytes(kernel->grid, kernel->rows, g.headDim));
    }
    maps |= layer.prefill.maps;
  }
  if (maps)
    MOA_RT_TRY(encodeTensorMap(driver, g,
                               {pool.base(), MOA_BLOCK_KEYS, 2 * pool.limit(),
                                g.headDim, MOA_BLOCK_KEYS * int64_t(g.headDim)},
                               "the pages", prefillMaps.maps.pool));
  decoding.args.map = prefillMaps.maps.pool;
  decoding.args.pool = pool.base();
  if (!bytes)
    return ok();
  MOA_CUDA_TRY(driver, cuMemAlloc,
               (&decoding.partials, static_cast<size_t>(bytes)), "allocating ",
               bytes, " bytes for partial results");
  MOA_CUDA_TRY(driver, cuMemAlloc,
               (&decoding.counters, kDecodeItems * sizeof(int32_t)),
               "allocating counters");
  MOA_CUDA_TRY(driver, cuMemsetD32Async,
               (decoding.counters, 0, kDecodeItems, nullptr),
               "zeroing counters");
  MOA_CUDA_TRY(driver, cuCtxSynchronize, (), "zeroing counters");
  return ok();
}

Status CudaExecutor::check(const AttendCall &call) {
  const Geometry &g = module.geometry;
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  MOA_RT_TRY(checkScale(call.scale));
  size_t decodes = 0;
  for (size_t i = 0; i < call.count; ++i) {
    const moa_attend_entry &e = call.entries[i];
    const EntryView view(module, call, i);
    decodes += view.decodes() ? g.kvHeads : 0;
    if (view.attends())
      MOA_RT_TRY(checks.check(i, "q", e.q, e.tokens, g.qHeads, e.q_row_stride,
                              e.q_head_stride));
    MOA_RT_TRY(checks.check(i, "k", e.k, e.tokens, g.kvHeads, e.k_row_stride,
                            e.k_head_stride));
    MOA_RT_TRY(checks.check(i, "v", e.v, e.tokens, g.kvHeads, e.v_row_stride,
                            e.v_head_stride));
    if (view.attends())
      MOA_RT_TRY(checks.check(i, "out", e.out, e.tokens, g.qHeads,
                              e.out_row_stride, e.out_head_stride));
  }
  if (decodes > kDecodeItems)
    return error(MOA_INVALID_ARGUMENT, "the call decodes ", decodes,
                 " KV heads, expected at most ", kDecodeItems,
                 "; decode fewer sequences in a call");
  return ok();
}

/// Writes the tables to pinned memory.
CudaExecutor::Tables CudaExecutor::fill(const Plan &plan,
                                        Staging::Lease lease) {
  Tables tables = {};
  Staging::Layout layout{lease};
  tables.appends = layout.add(plan.appends);
  tables.ropes = layout.add(plan.ropes);
  tables.prefill = layout.add(work.prefill);
  tables.decode = layout.add(work.decode);
  tables.lines = layout.add(work.lines);
  tables.cuts = layout.add(work.cuts);
  tables.pages = layout.add(work.pages);
  // Single rows have their pages in the line above.
  if (!work.launches.empty())
    tables.places = layout.add(plan.places);
  tables.starts = layout.add(work.starts);
  tables.bytes = layout.bytes;
  return tables;
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
  // A stride that is never taken may be anything; kernels take multiples of 16
  // bytes.
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

Status CudaExecutor::launchAppend(const Kernel &kernel, uint32_t layer,
                                  CUdeviceptr items, size_t count,
                                  void *stream) {
  auto number = static_cast<int32_t>(count);
  void *parameters[] = {&items, &number};
  return launch(driver, {"append", kernel, count, layer, stream}, parameters);
}

Status CudaExecutor::launchPrefill(const AttendCall &call,
                                   const PrefillLaunch &part,
                                   const Tables &tables) {
  const Kernel &kernel = module.layers[call.layer].prefill;
  CUdeviceptr items =
      tables.prefill + part.firstItem * sizeof(moa_gpu_prefill_item);
  CUdeviceptr places = tables.places, starts = tables.starts;
  auto count = static_cast<int32_t>(part.items);
  int32_t sink = module.sink(call.layer);
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
  return launch(driver, {"prefill", kernel, grid, call.layer, call.stream},
                kernel.maps ? byMaps : byAddress);
}

Status CudaExecutor::launchDecode(const AttendCall &call,
                                  const DecodeLaunch &part,
                                  const Tables &tables) {
  const Kernel &kernel = module.decodeFor(call.layer, part.tokens);
  const DecodeTables lists = {
      tables.decode + part.firstItem * sizeof(moa_gpu_decode_item),
      tables.lines + part.line * sizeof(int32_t), tables.pages,
      tables.cuts + part.firstCut * sizeof(moa_gpu_cut)};
  moa_gpu_decode_args &args = decoding.args;
  args.q = part.q;
  args.k = part.k;
  args.v = part.v;
  args.out = part.out;
  return launchDecodeKernel(driver,
                            {"decode", kernel, static_cast<size_t>(part.grid),
                             call.layer, call.stream},
                            decoding, lists, module.sink(call.layer),
                            call.scaleLog2());
}

Status CudaExecutor::isCapturing(void *stream, bool &capturing) {
  int capture = kCaptureNone;
  MOA_CUDA_TRY(driver, cuStreamIsCapturing,
               (static_cast<CUstream>(stream), &capture),
               "asking whether the stream is captured");
  capturing = capture != kCaptureNone;
  return ok();
}

Status CudaExecutor::copyPages(const Kernel &append,
                               const std::vector<moa_append_item> &copies,
                               void *stream) {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  bool capturing = false;
  MOA_RT_TRY(isCapturing(stream, capturing));
  Staging::Lease lease;
  const size_t bytes = copies.size() * sizeof(copies[0]);
  MOA_RT_TRY(staging.take(bytes, capturing, lease));
  Staging::Layout layout{lease};
  const CUdeviceptr items = layout.add(copies);
  MOA_RT_TRY(staging.send(lease, bytes, static_cast<CUstream>(stream)));
  return launchAppend(append, 0, items, copies.size(), stream);
}

Status CudaExecutor::run(const AttendCall &call, const Plan &plan) {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  const LayerKernels &kernels = module.layers[call.layer];
  auto stream = static_cast<CUstream>(call.stream);
  bool capturing = false;
  MOA_RT_TRY(isCapturing(stream, capturing));
  work.build(module, plan, call, std::max(1u, kernels.prefill.grid));
  Staging::Lease lease;
  const size_t bytes = fill(plan, lease).bytes;
  MOA_RT_TRY(staging.take(bytes, capturing, lease));
  const Tables tables = fill(plan, lease);
  MOA_RT_TRY(staging.send(lease, bytes, stream));
  if (!plan.appends.empty())
    MOA_RT_TRY(launchAppend(kernels.append, call.layer, tables.appends,
                            plan.appends.size(), call.stream));
  if (!plan.ropes.empty()) {
    CUdeviceptr items = tables.ropes;
    moa_gpu_rope_args args = {};
    args.count = static_cast<int32_t>(plan.ropes.size());
    void *parameters[] = {&args, &items};
    const size_t grid = std::min<size_t>(kernels.rope.grid, plan.ropes.size());
    MOA_RT_TRY(launch(driver,
                      {"rope", kernels.rope, grid, call.layer, call.stream},
                      parameters));
  }
  for (const PrefillLaunch &part : work.launches)
    MOA_RT_TRY(launchPrefill(call, part, tables));
  for (const DecodeLaunch &part : work.decodes)
    MOA_RT_TRY(launchDecode(call, part, tables));
  counts.items += work.prefill.size() + work.decode.size();
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
