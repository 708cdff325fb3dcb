//===- cuda_batch.cpp -----------------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Steps on a CUDA device. Block tables of the batch's sequences stay there; a
// step begins with one launch of the prepare kernel, behind a copy of what
// changed if that is much, which makes the items of all layers where later
// launches, captured or not, read them.
//
//===----------------------------------------------------------------------===//

#include "backend/cuda/cuda_launch.h"
#include "backend/cuda/cuda_staging.h"
#include "backend/cuda/tensor_checks.h"

#include <algorithm>

namespace moa::rt::cuda {
namespace {

class CudaBatch : public BatchDevice {
public:
  CudaBatch(Gpu &gpu, const Module &module, DecodeMemory &memory,
            uint64_t &waitNs)
      : gpu(gpu), driver(*gpu.driver), module(module), decoding(memory),
        checks(gpu, module.geometry), staging(gpu, waitNs) {}
  ~CudaBatch() override;

  Status open(const BatchShape &shape);
  Status begin(const StepLists &lists, void *stream) override;
  Status attend(const StepCall &call, size_t sequences, int32_t tokens,
                const Rope &rope) override;

private:
  Status allocate(size_t bytes, const char *what, CUdeviceptr &out);
  /// Launches the rotation of a layer's rows; `items` and `line` are those of
  /// its decode kernel.
  Status launchRope(const StepCall &call, const Rope &rope, CUdeviceptr items,
                    CUdeviceptr line);
  Status checkTensors(const StepCall &call, size_t sequences, int32_t tokens);
  /// Lays the lists out behind `host`, or only measures them where it is null.
  size_t fill(const StepLists &lists, char *host);
  /// Brings the lists to where the prepare kernel finds them.
  Status place(const StepLists &lists, CUstream stream);

  Gpu &gpu;
  const Driver &driver;
  const Module &module;
  DecodeMemory &decoding;
  TensorChecks checks;
  Staging staging;
  std::vector<CUdeviceptr> owned;
  moa_gpu_prepare_args args = {};
  /// Most tokens of a step. They choose the decode kernel, for all steps: a
  /// graph that was captured in one serves the others.
  int32_t mostTokens = 1;
  bool prepared = false; ///< Nothing was launched since the prepare kernel.
};

/// Addresses of the device in structs that kernels read.
template <typename T> T *at(CUdeviceptr address) {
  return reinterpret_cast<T *>(address);
}

CudaBatch::~CudaBatch() {
  Current current(driver, gpu.context);
  for (CUdeviceptr memory : owned)
    driver.cuMemFree(memory); // Waits for the kernels that read it.
}

Status CudaBatch::allocate(size_t bytes, const char *what, CUdeviceptr &out) {
  owned.reserve(owned.size() + 1);
  MOA_CUDA_TRY(driver, cuMemAlloc, (&out, bytes), "allocating ", bytes,
               " bytes for ", what, " of a batch");
  owned.push_back(out);
  return ok();
}

Status CudaBatch::open(const BatchShape &shape) {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  const Geometry &g = module.geometry;
  args.layers = static_cast<int32_t>(g.layers);
  args.q_heads = static_cast<int32_t>(g.qHeads);
  args.kv_heads = static_cast<int32_t>(g.kvHeads);
  args.slots = static_cast<int32_t>(shape.sequences);
  args.blocks = shape.blocks;
  mostTokens = shape.tokens;
  args.columns = static_cast<int32_t>(module.decodeFor(0, mostTokens).rows);
  args.parts = decoding.parts;
  const int64_t words = moa_gpu_step_floor(&args, args.slots, 0, 0);
  const int64_t items =
      int64_t(shape.sequences) * g.kvHeads *
      moa_gpu_step_parts(shape.tokens, args.columns, int32_t(g.group()));
  const int64_t mostItems = decoding.mostItems();
  if (words > INT32_MAX || items > mostItems)
    return error(MOA_INVALID_ARGUMENT, "a batch of ", shape.sequences,
                 " sequences of ", shape.blocks * MOA_BLOCK_KEYS,
                 " tokens needs ", words, " words of tables and ", items,
                 " items a layer, expected at most ", INT32_MAX, " and ",
                 mostItems, " with decode_parts ", args.parts,
                 "; lower max_sequences or max_length");
  args.item_stride = static_cast<int32_t>(items);
  args.line_stride =
      (int64_t(offsetof(moa_gpu_line, first)) + 4 * (items + 1) + 255) / 256 *
      256;
  CUdeviceptr memory = 0;
  const size_t ruleBytes = module.rules.size() * sizeof(moa_span_rule);
  MOA_RT_TRY(allocate(ruleBytes, "rules", memory));
  args.rules = at<const moa_span_rule>(memory);
  MOA_CUDA_TRY(
      driver, cuMemcpy,
      (memory, reinterpret_cast<CUdeviceptr>(module.rules.data()), ruleBytes),
      "copying the rules of a batch");
  MOA_RT_TRY(allocate(size_t(words) * sizeof(int32_t), "tables", memory));
  args.words = at<int32_t>(memory);
  MOA_RT_TRY(allocate(g.layers * size_t(items) * sizeof(moa_gpu_decode_item),
                      "items", memory));
  args.items = at<moa_gpu_decode_item>(memory);
  MOA_RT_TRY(allocate(g.layers * size_t(args.line_stride), "lines", memory));
  args.lines = at<char>(memory);
  // One grid for all layers: blocks for the most items there can be, or as many
  // as each of their kernels fills a device with.
  args.grid = args.parts ? static_cast<int32_t>(items) * args.parts : INT32_MAX;
  for (uint32_t layer = 0; layer < g.layers && !args.parts; ++layer)
    args.grid = std::min(
        args.grid,
        static_cast<int32_t>(module.decodeFor(layer, mostTokens).grid));
  MOA_RT_TRY(decoding.reserve(driver, args.grid));
  MOA_RT_TRY(allocate(g.layers * size_t(args.grid) * sizeof(moa_gpu_cut),
                      "cuts", memory));
  args.cuts = at<moa_gpu_cut>(memory);
  return ok();
}

size_t CudaBatch::fill(const StepLists &lists, char *host) {
  Staging::Layout layout{{host}};
  auto add = [&](const auto &list) {
    return static_cast<int32_t>(layout.add(list));
  };
  args.sequences_at = add(lists.sequences);
  args.runs_at = add(lists.runs);
  args.first_run_at = add(lists.firstRun);
  args.values_at = add(lists.values);
  return layout.bytes;
}

Status CudaBatch::place(const StepLists &lists, CUstream stream) {
  const size_t bytes = fill(lists, nullptr);
  if (bytes <= sizeof(args.inlined)) {
    args.lists = nullptr;
    fill(lists, args.inlined);
    return ok();
  }
  Staging::Lease lease;
  MOA_RT_TRY(staging.take(bytes, false, lease));
  args.lists = at<const char>(lease.device);
  fill(lists, lease.host);
  return staging.send(lease, bytes, stream);
}

Status CudaBatch::begin(const StepLists &lists, void *stream) {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  int capture = kCaptureNone;
  MOA_CUDA_TRY(driver, cuStreamIsCapturing,
               (static_cast<CUstream>(stream), &capture),
               "asking whether the stream is captured");
  if (capture != kCaptureNone)
    return error(MOA_INVALID_ARGUMENT,
                 "a step begins on a stream that is being captured; call "
                 "moa_batch_begin before the capture and before each replay");
  MOA_RT_TRY(place(lists, static_cast<CUstream>(stream)));
  args.sequence_count = static_cast<int32_t>(lists.sequences.size());
  args.tokens = lists.tokens;
  args.zero = lists.zeroTails;
  void *parameters[] = {&args};
  MOA_RT_TRY(launch(
      driver,
      {"prepare", module.layers[0].prepare, module.geometry.layers, 0, stream},
      parameters));
  prepared = true;
  return ok();
}

Status CudaBatch::checkTensors(const StepCall &call, size_t sequences,
                               int32_t tokens) {
  const Geometry &g = module.geometry;
  MOA_RT_TRY(checkScale(call.scale));
  for (const auto &[name, tensor, heads] : call.tensors(g.qHeads, g.kvHeads)) {
    MOA_RT_TRY(checks.check(0, name, tensor.data, tokens, heads,
                            tensor.tokenStride, tensor.headStride));
    MOA_RT_TRY(checks.check(0, name, tensor.data,
                            static_cast<int64_t>(sequences), 1,
                            tensor.sequenceStride, 0));
  }
  return ok();
}

Status CudaBatch::launchRope(const StepCall &call, const Rope &rope,
                             CUdeviceptr items, CUdeviceptr line) {
  const Kernel &kernel = module.layers[call.layer].rope;
  moa_gpu_rope_args rotation = {};
  rotation.line = at<const moa_gpu_line>(line);
  rotation.q = decoding.args.q;
  rotation.k = decoding.args.k;
  rotation.turns = rope.turns;
  rotation.heads = static_cast<int32_t>(module.geometry.group());
  rotation.scale = rope.scale;
  const size_t grid = std::min<size_t>(kernel.grid, args.item_stride);
  void *parameters[] = {&rotation, &items};
  return launch(driver, {"rope", kernel, grid, call.layer, call.stream},
                parameters);
}

Status CudaBatch::attend(const StepCall &call, size_t sequences, int32_t tokens,
                         const Rope &rope) {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  MOA_RT_TRY(checkTensors(call, sequences, tokens));
  auto rows = [](const StepTensor &tensor) -> moa_gpu_rows {
    return {const_cast<void *>(tensor.data), tensor.sequenceStride,
            tensor.tokenStride, tensor.headStride};
  };
  decoding.args.q = rows(call.q);
  decoding.args.k = rows(call.k);
  decoding.args.v = rows(call.v);
  decoding.args.out = rows(call.out);
  const Kernel &kernel = module.decodeFor(call.layer, mostTokens);
  auto place = [](const void *base, int64_t bytes) {
    return reinterpret_cast<CUdeviceptr>(base) +
           static_cast<CUdeviceptr>(bytes);
  };
  const int64_t layer = call.layer;
  const DecodeTables tables = {
      place(args.items,
            layer * args.item_stride * int64_t(sizeof(moa_gpu_decode_item))),
      place(args.lines, layer * args.line_stride),
      reinterpret_cast<CUdeviceptr>(args.words),
      place(args.cuts, layer * args.grid * int64_t(sizeof(moa_gpu_cut)))};
  if (rope) {
    MOA_RT_TRY(launchRope(call, rope, tables.items, tables.line));
    prepared = false;
  }
  // A kernel that waits for the one ahead reads what prepare wrote before it
  // does, so it must not overtake prepare.
  Launch what = {"decode",   kernel,      static_cast<size_t>(args.grid),
                 call.layer, call.stream, kernel.waits && !prepared};
  MOA_RT_TRY(launchDecodeKernel(driver, what, decoding, tables,
                                module.sink(call.layer), call.scaleLog2()));
  prepared = false;
  return ok();
}

} // namespace

Status makeBatchDevice(Gpu &gpu, const Module &module, DecodeMemory &memory,
                       uint64_t &waitNs, const BatchShape &shape,
                       std::unique_ptr<BatchDevice> &out) {
  const LayerKernels &first = module.layers[0];
  for (const LayerKernels &layer : module.layers)
    if (!layer.decode.entry || !layer.prepare.entry ||
        layer.decode.rows != first.decode.rows ||
        layer.wide.rows != first.wide.rows)
      return ok();
  auto batch = std::make_unique<CudaBatch>(gpu, module, memory, waitNs);
  MOA_RT_TRY(batch->open(shape));
  out = std::move(batch);
  return ok();
}

} // namespace moa::rt::cuda
