//===- gpu_small.cpp - Every kernel once, for compute-sanitizer -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Runs prompts, chunks, single rows, and steps of a batch that are captured in
// a CUDA graph and replayed, on an artifact of bf16 and few tokens. Small
// enough for the tools of compute-sanitizer; outputs of replays must equal
// those of eager calls bit for bit.
//
//   moa-gpu-small ARTIFACT [cuda|cpu]
//
//===----------------------------------------------------------------------===//

#include "moa/abi/kernel_args.h"
#include "moa/runtime.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace moa;

[[noreturn]] void fail(const std::string &message) {
  std::fprintf(stderr, "error: %s\n", message.c_str());
  std::exit(1);
}

void check(const Status &status, const char *what) {
  if (!status)
    fail(std::string(what) + ": " + status.message());
}

/// The driver's functions for streams and graphs; none on the CPU.
struct Driver {
  explicit Driver(bool cuda) {
    if (!cuda)
      return;
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library)
      fail("expected the driver libcuda.so.1, found none");
    auto find = [&](auto &function, const char *name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(
          dlsym(library, name));
      if (!function)
        fail(std::string("expected the driver to have ") + name);
    };
    find(cuInit, "cuInit");
    find(cuDeviceGet, "cuDeviceGet");
    find(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
    find(cuCtxSetCurrent, "cuCtxSetCurrent");
    find(cuStreamCreate, "cuStreamCreate");
    find(cuStreamBeginCapture, "cuStreamBeginCapture_v2");
    find(cuStreamEndCapture, "cuStreamEndCapture");
    find(cuGraphInstantiate, "cuGraphInstantiateWithFlags");
    find(cuGraphLaunch, "cuGraphLaunch");
    int device = 0;
    void *context = nullptr;
    need(cuInit(0), "cuInit");
    need(cuDeviceGet(&device, 0), "cuDeviceGet");
    need(cuDevicePrimaryCtxRetain(&context, device),
         "cuDevicePrimaryCtxRetain");
    need(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    need(cuStreamCreate(&stream, /*CU_STREAM_NON_BLOCKING=*/1),
         "cuStreamCreate");
  }

  static void need(int result, const char *what) {
    if (result != 0)
      fail(std::string(what) + " gave error " + std::to_string(result));
  }

  int (*cuInit)(unsigned) = nullptr;
  int (*cuDeviceGet)(int *, int) = nullptr;
  int (*cuDevicePrimaryCtxRetain)(void **, int) = nullptr;
  int (*cuCtxSetCurrent)(void *) = nullptr;
  int (*cuStreamCreate)(void **, unsigned) = nullptr;
  int (*cuStreamBeginCapture)(void *, int) = nullptr;
  int (*cuStreamEndCapture)(void *, void **) = nullptr;
  int (*cuGraphInstantiate)(void **, void *, unsigned long long) = nullptr;
  int (*cuGraphLaunch)(void *, void *) = nullptr;
  void *stream = nullptr;
};

/// Device memory of bf16 values.
class Tensor {
public:
  Tensor(const Context &context, size_t values)
      : context(context.get()), host(values) {
    check(Status(moa_device_alloc(this->context, 2 * values, &data)),
          "allocating a tensor");
  }
  Tensor(const Tensor &) = delete;
  Tensor &operator=(const Tensor &) = delete;
  ~Tensor() { check(Status(moa_device_free(context, data)), "freeing"); }

  /// Values between -1 and 1.
  void randomise(std::mt19937 &random) {
    for (uint16_t &value : host) {
      const float x = float(random() % 2001) / 1000 - 1;
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      value = uint16_t(bits >> 16);
    }
    copy(data, host.data());
  }
  void fill(uint16_t bits) {
    host.assign(host.size(), bits);
    copy(data, host.data());
  }
  const std::vector<uint16_t> &read() {
    copy(host.data(), data);
    return host;
  }

  void *data = nullptr;

private:
  void copy(void *to, const void *from) {
    check(Status(moa_device_copy(context, to, from, 2 * host.size())),
          "copying");
  }
  moa_context *context;
  std::vector<uint16_t> host;
};

constexpr uint32_t kSequences = 3;
constexpr uint16_t kPoison = 0x7fc0; ///< NaN in bf16.

/// One cache, its sequences, and their steps.
class Side {
public:
  Side(const Context &context, const Module &module,
       const moa_module_info &info)
      : info(info) {
    check(cache.create(module, 64 << 20), "making a cache");
    for (Sequence &sequence : sequences)
      check(sequence.create(cache, 420), "making a sequence");
    moa_batch_options options = {};
    options.max_sequences = kSequences;
    options.max_length = 1024;
    check(batch.create(cache, options), "making a batch");
    for (uint32_t layer = 0; layer < info.layers; ++layer)
      outs.push_back(std::make_unique<Tensor>(
          context, size_t(kSequences) * info.q_heads * info.head_dim));
  }

  /// `tokens` rows of every sequence by moa_attend, in one call a layer.
  void attend(Tensor &q, Tensor &k, Tensor &v, Tensor &out, int64_t tokens,
              void *stream) {
    const int64_t d = info.head_dim, qRow = d * info.q_heads,
                  kRow = d * info.kv_heads;
    for (uint32_t layer = 0; layer < info.layers; ++layer) {
      std::vector<moa_attend_entry> entries;
      for (uint32_t s = 0; s < kSequences; ++s) {
        // Ragged: sequence s takes a token less than the one before it.
        const int64_t own = tokens > kSequences ? tokens - s : tokens;
        auto at = [&](const Tensor &tensor, int64_t row) {
          return static_cast<uint16_t *>(tensor.data) + s * tokens * row;
        };
        entries.push_back({sequences[s].get(), own, at(q, qRow), at(k, kRow),
                           at(v, kRow), at(out, qRow), qRow, d, kRow, d, kRow,
                           d, qRow, d});
      }
      check(cache.attend(layer, entries, stream), "attending");
    }
  }

  void begin(uint32_t count, void *stream) {
    std::vector<moa_sequence *> members;
    for (uint32_t s = 0; s < count; ++s)
      members.push_back(sequences[s].get());
    check(batch.begin(members, 1, stream), "beginning a step");
  }
  void layers(Tensor &q, Tensor &k, Tensor &v, void *stream) {
    const int64_t d = info.head_dim, qRow = d * info.q_heads,
                  kRow = d * info.kv_heads;
    for (uint32_t layer = 0; layer < info.layers; ++layer) {
      moa_batch_attend_options options = {};
      options.layer = layer;
      options.stream = stream;
      options.q = {q.data, qRow, qRow, d};
      options.k = {k.data, kRow, kRow, d};
      options.v = {v.data, kRow, kRow, d};
      options.out = {outs[layer]->data, qRow, qRow, d};
      check(batch.attend(options), "attending in a step");
    }
  }

  Cache cache;
  Sequence sequences[kSequences];
  Batch batch;
  std::vector<std::unique_ptr<Tensor>> outs;

private:
  const moa_module_info &info;
};

void run(const std::string &path, bool cuda) {
  Context context;
  check(cuda ? context.createCuda() : context.create(2), "making a context");
  Driver driver(cuda);
  void *stream = driver.stream;
  Module module;
  check(module.load(context, path), "loading the artifact");
  moa_module_info info = {};
  check(module.info(info), "asking about the artifact");
  if (info.dtype != MOA_DTYPE_BF16)
    fail("expected an artifact of bf16");
  Side sides[] = {{context, module, info}, {context, module, info}};
  moa_batch_info facts = {};
  check(sides[0].batch.info(facts), "asking about the batch");
  if (cuda && !facts.replays)
    fail("expected an artifact with a decode kernel for this device");

  std::mt19937 random(1);
  constexpr int64_t kPrompt = 200;
  auto make = [&](uint32_t heads, int64_t rows) {
    return std::make_unique<Tensor>(context, size_t(kSequences) * rows * heads *
                                                 info.head_dim);
  };
  // A prompt, a chunk onto it and a row.
  for (int64_t rows : {kPrompt, int64_t(70), int64_t(1)}) {
    auto q = make(info.q_heads, rows), k = make(info.kv_heads, rows),
         v = make(info.kv_heads, rows), out = make(info.q_heads, rows),
         other = make(info.q_heads, rows);
    for (Tensor *tensor : {q.get(), k.get(), v.get()})
      tensor->randomise(random);
    out->fill(0);
    other->fill(0);
    sides[0].attend(*q, *k, *v, *out, rows, stream);
    sides[1].attend(*q, *k, *v, *other, rows, stream);
    if (out->read() != other->read())
      fail("two caches differ in calls of " + std::to_string(rows) + " rows");
  }

  auto q = make(info.q_heads, 1), k = make(info.kv_heads, 1),
       v = make(info.kv_heads, 1);
  void *graph = nullptr, *executable = nullptr;
  constexpr int kSteps = 8;
  for (int step = 0; step < kSteps; ++step) {
    for (Tensor *tensor : {q.get(), k.get(), v.get()})
      tensor->randomise(random);
    // A graph of the full batch serves smaller ones too.
    const uint32_t count = kSequences - step % 2;
    for (Side &side : sides) {
      for (auto &out : side.outs)
        out->fill(kPoison);
      side.begin(count, stream);
    }
    if (cuda && step == 0) {
      Driver::need(driver.cuStreamBeginCapture(stream, /*relaxed=*/2),
                   "cuStreamBeginCapture");
      sides[0].layers(*q, *k, *v, stream);
      Driver::need(driver.cuStreamEndCapture(stream, &graph),
                   "cuStreamEndCapture");
      Driver::need(driver.cuGraphInstantiate(&executable, graph, 0),
                   "cuGraphInstantiateWithFlags");
    }
    if (cuda)
      Driver::need(driver.cuGraphLaunch(executable, stream), "cuGraphLaunch");
    else
      sides[0].layers(*q, *k, *v, stream);
    sides[1].layers(*q, *k, *v, stream);
    for (Side &side : sides)
      side.batch.end();
    for (uint32_t layer = 0; layer < info.layers; ++layer) {
      const auto &mine = sides[0].outs[layer]->read();
      if (mine != sides[1].outs[layer]->read())
        fail("step " + std::to_string(step) + ", layer " +
             std::to_string(layer) + ": replay and eager calls differ");
      const size_t row = size_t(info.q_heads) * info.head_dim;
      for (size_t i = 0; i < mine.size(); ++i)
        if ((mine[i] == kPoison) != (i / row >= count))
          fail("step " + std::to_string(step) + ", layer " +
               std::to_string(layer) + ": value " + std::to_string(i) +
               (i / row < count ? " was not written"
                                : " behind the batch was written"));
    }
  }
  std::printf("%s: prompts, chunks, rows and %d steps of %u layers; replay and "
              "eager calls are equal\n",
              info.chip, kSteps, info.layers);
}

} // namespace

int main(int argc, char **argv) {
  const std::string device = argc > 2 ? argv[2] : "cuda";
  if (argc < 2 || argc > 3 || (device != "cuda" && device != "cpu"))
    fail("expected moa-gpu-small ARTIFACT [cuda|cpu]");
  run(argv[1], device == "cuda");
  return 0;
}
