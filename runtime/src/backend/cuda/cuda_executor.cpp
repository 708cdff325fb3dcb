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
  CudaExecutor(Gpu &gpu, const Module &module, PagePool &pool,
               int32_t decodeParts)
      : gpu(gpu), driver(*gpu.driver), module(module), pool(pool),
        staging(gpu, counts.waitNs), work(decodeParts),
        checks(gpu, module.geometry), decoding(decodeParts) {}
  ~CudaExecutor() override;

  Status open();
  Status check(const AttendCall &call) override;
  bool decodeAppends() const override { return true; }
  Status run(const AttendCall &call, const Plan &plan) override;
  Status copyPages(const Kernel &append,
                   const std::vector<moa_append_item> &copies,
                   void *stream) override;
  Status quantise(const Kernel &kernel,
                  const std::vector<moa_quantise_item> &items,
                  void *stream) override;
  Status makeBatch(const BatchShape &shape,
                   std::unique_ptr<BatchDevice> &out) override {
    return makeBatchDevice(gpu, module, decoding, counts.waitNs, shape, out);
  }

private:
  /// Where the parts of a call's tables lie on the device.
  struct Tables {
    CUdeviceptr appends, ropes, quantises, backs, lateQuantises, prefill,
        decode, lines, cuts, pages, places, starts;
    size_t bytes;
  };

  Status isCapturing(void *stream, bool &capturing);
  Tables fill(const Plan &plan, Staging::Lease lease);
  /// Sends items of an append or quantise kernel, and launches it.
  template <typename Item>
  Status sendAndLaunch(const char *name, const Kernel &kernel,
                       const std::vector<Item> &items, void *stream);
  Status launchItems(const Launch &what, CUdeviceptr items);
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
  decoding.free(driver);
}

Status CudaExecutor::open() {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  const Geometry &g = module.geometry;
  base = reinterpret_cast<CUdeviceptr>(pool.base());
  int64_t blocks = 0;
  bool maps = false;
  for (uint32_t l = 0; l < g.layers; ++l) {
    const LayerKernels &layer = module.layers[l];
    for (uint32_t h = 0; h < g.kvHeads; ++h)
      if (module.kvFormat(l, h) != MOA_KV_MODEL && !layer.quantise.entry)
        return error(MOA_UNSUPPORTED, gpu.facts.name, ": layer ", l,
                     " keeps pages in 8 bits and has no quantise kernel for "
                     "this device; compile the plan again with --target for "
                     "it, or leave kv/format out of the plan");
    for (const Kernel *kernel : {&layer.decode, &layer.wide}) {
      maps |= kernel->maps;
      blocks = std::max<int64_t>(blocks, kernel->grid);
      decoding.blockBytes =
          std::max(decoding.blockBytes,
                   moa_gpu_partial_bytes(1, kernel->rows, g.headDim));
    }
    maps |= layer.prefill.maps;
  }
  if (maps)
    MOA_RT_TRY(
        encodeTensorMap(driver, g,
                        {pool.base(), MOA_BLOCK_KEYS, 2 * pool.addressable(),
                         g.headDim, MOA_BLOCK_KEYS * int64_t(g.headDim)},
                        "the pages", prefillMaps.maps.pool));
  if (maps && g.kv8)
    MOA_RT_TRY(encodeCodesMap(driver, g, pool.base(), pool.limit(),
                              decoding.args.codes));
  if (g.kv8)
    decoding.args.scales = pool.scales(0);
  decoding.args.map = prefillMaps.maps.pool;
  decoding.args.pool = pool.base();
  if (!blocks)
    return ok();
  MOA_RT_TRY(decoding.reserve(driver, blocks));
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
  int64_t decodes = 0;
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
  const int64_t most = decoding.mostItems();
  if (decodes > most)
    return error(MOA_INVALID_ARGUMENT, "the call decodes ", decodes,
                 " KV heads, expected at most ", most, " with decode_parts ",
                 decoding.parts, "; decode fewer sequences in a call");
  return ok();
}

/// Writes the tables to pinned memory.
CudaExecutor::Tables CudaExecutor::fill(const Plan &plan,
                                        Staging::Lease lease) {
  Tables tables = {};
  Staging::Layout layout{lease};
  tables.appends = layout.add(plan.appends);
  tables.ropes = layout.add(plan.ropes);
  tables.quantises = layout.add(plan.quantises);
  tables.backs = layout.add(work.backs);
  tables.lateQuantises = layout.add(plan.lateQuantises);
  tables.prefill = layout.add(work.prefill);
  tables.decode = layout.add(work.decode);
  tables.lines = layout.add(work.lines);
  tables.cuts = layout.add(work.cuts);
  tables.pages = layout.add(work.pages);
  // Single rows have their pages in the line above.
  if (!work.launches.empty())
    tables.places = layout.add(work.places);
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

/// One block an item, of an append or quantise kernel.
Status CudaExecutor::launchItems(const Launch &what, CUdeviceptr items) {
  if (!what.grid)
    return ok();
  auto number = static_cast<int32_t>(what.grid);
  void *parameters[] = {&items, &number};
  return launch(driver, what, parameters);
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

template <typename Item>
Status CudaExecutor::sendAndLaunch(const char *name, const Kernel &kernel,
                                   const std::vector<Item> &list,
                                   void *stream) {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  bool capturing = false;
  MOA_RT_TRY(isCapturing(stream, capturing));
  Staging::Lease lease;
  const size_t bytes = list.size() * sizeof(list[0]);
  MOA_RT_TRY(staging.take(bytes, capturing, lease));
  Staging::Layout layout{lease};
  const CUdeviceptr items = layout.add(list);
  MOA_RT_TRY(staging.send(lease, bytes, static_cast<CUstream>(stream)));
  return launchItems({name, kernel, list.size(), 0, stream}, items);
}

Status CudaExecutor::copyPages(const Kernel &append,
                               const std::vector<moa_append_item> &copies,
                               void *stream) {
  return sendAndLaunch("append", append, copies, stream);
}

Status CudaExecutor::quantise(const Kernel &kernel,
                              const std::vector<moa_quantise_item> &items,
                              void *stream) {
  return sendAndLaunch("quantise", kernel, items, stream);
}

Status CudaExecutor::run(const AttendCall &call, const Plan &plan) {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  const LayerKernels &kernels = module.layers[call.layer];
  auto stream = static_cast<CUstream>(call.stream);
  bool capturing = false;
  MOA_RT_TRY(isCapturing(stream, capturing));
  work.build(module, pool, plan, call, std::max(1u, kernels.prefill.grid));
  if (!work.backs.empty()) {
    PageId first = 0;
    MOA_RT_TRY(pool.spare(work.backs.size(), first));
    work.bringBack(module, pool, first);
  }
  for (const DecodeLaunch &part : work.decodes)
    MOA_RT_TRY(decoding.reserve(driver, part.grid));
  Staging::Lease lease;
  const size_t bytes = fill(plan, lease).bytes;
  MOA_RT_TRY(staging.take(bytes, capturing, lease));
  const Tables tables = fill(plan, lease);
  MOA_RT_TRY(staging.send(lease, bytes, stream));
  auto launchList = [&](const char *name, const Kernel &kernel, size_t count,
                        CUdeviceptr items) {
    return launchItems({name, kernel, count, call.layer, call.stream}, items);
  };
  MOA_RT_TRY(launchList("append", kernels.append, plan.appends.size(),
                        tables.appends));
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
  MOA_RT_TRY(launchList("quantise", kernels.quantise, plan.quantises.size(),
                        tables.quantises));
  MOA_RT_TRY(launchList("quantise", kernels.quantise, work.backs.size(),
                        tables.backs));
  for (const PrefillLaunch &part : work.launches)
    MOA_RT_TRY(launchPrefill(call, part, tables));
  for (const DecodeLaunch &part : work.decodes)
    MOA_RT_TRY(launchDecode(call, part, tables));
  // Of rows that decode kernels may have stored.
  MOA_RT_TRY(launchList("quantise", kernels.quantise, plan.lateQuantises.size(),
                        tables.lateQuantises));
  counts.items += work.prefill.size() + work.decode.size();
  return ok();
}

} // namespace

Status makeExecutor(Gpu &gpu, const Module &module, PagePool &pool,
                    int32_t decodeParts, std::unique_ptr<Executor> &out) {
  auto executor =
      std::make_unique<CudaExecutor>(gpu, module, pool, decodeParts);
  MOA_RT_TRY(executor->open());
  out = std::move(executor);
  return ok();
}

} // namespace moa::rt::cuda
