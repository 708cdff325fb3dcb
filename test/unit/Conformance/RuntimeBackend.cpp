//===- RuntimeBackend.cpp - The runtime's C ABI as a back end -------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Uses nothing but moa/runtime.h. On a CUDA device each call works on copies of
// its tensors with all that is around them.
//
//===----------------------------------------------------------------------===//

#include "Backend.h"

#include "moa/runtime.h"

#include "moa/abi/kernel_args.h"

#include <algorithm>

using namespace moa::conformance;

namespace {

/// Takes a status; empty for success, else "CODE: message".
std::string take(moa_status *status) {
  static const char *const names[] = {
      "OK",           "INVALID_ARGUMENT", "OUT_OF_PAGES", "OUT_OF_MEMORY",
      "INCOMPATIBLE", "CORRUPT",          "IO",           "OUT_OF_RANGE",
      "UNSUPPORTED",  "NO_DEVICE",        "DEVICE_ERROR"};
  if (!status)
    return "";
  std::string text = names[moa_status_get_code(status)];
  text += std::string(": ") + moa_status_get_message(status);
  moa_status_free(status);
  return text;
}

class RuntimeBackend : public Backend {
public:
  ~RuntimeBackend() override {
    moa_cache_destroy(cache);
    moa_module_destroy(module);
    moa_context_destroy(context);
  }

  std::string open(const std::string &artifact, const OpenOptions &options) {
    moa_context_options contextOptions = {};
    contextOptions.struct_size = sizeof contextOptions;
    contextOptions.threads = options.threads;
    contextOptions.cpu_features = options.features;
    contextOptions.device = options.cuda ? MOA_DEVICE_CUDA : MOA_DEVICE_CPU;
    cuda = options.cuda;
    std::string error = take(moa_context_create(&contextOptions, &context));
    if (error.empty())
      error = take(moa_module_load_file(context, artifact.c_str(), &module));
    moa_cache_options cacheOptions = {};
    cacheOptions.struct_size = sizeof cacheOptions;
    cacheOptions.max_bytes = options.maxBytes;
    cacheOptions.decode_parts = options.decodeParts;
    if (error.empty())
      error = take(moa_cache_create(module, &cacheOptions, &cache));
    info.struct_size = sizeof info;
    if (error.empty())
      error = take(moa_module_get_info(module, &info));
    if (error.empty() && options.rope)
      error = setRope(*options.rope);
    moa_batch_options batchOptions = {sizeof batchOptions, kSequences, kTokens,
                                      0};
    if (error.empty() && options.batches)
      error = take(moa_batch_create(cache, &batchOptions, &batch));
    return error;
  }

  int createSequence(int64_t length) override {
    moa_sequence *sequence = nullptr;
    if (!take(moa_sequence_create(cache, length, &sequence)).empty())
      return -1;
    sequences.push_back(sequence);
    return int(sequences.size()) - 1;
  }

  void destroySequence(int sequence) override {
    moa_sequence_destroy(sequences[sequence]);
    sequences[sequence] = nullptr;
  }

  std::string setLength(int sequence, int64_t length) override {
    return take(moa_sequence_set_length(sequences[sequence], length));
  }

  std::string attend(uint32_t layer, const float *scale,
                     const std::vector<Entry> &entries) override {
    if (batch && isStep(entries))
      return step(layer, scale, entries);
    std::vector<moa_attend_entry> list;
    for (const Entry &e : entries)
      list.push_back({sequences[e.sequence], e.tokens, e.q, e.k, e.v, e.out,
                      e.qStrides.row, e.qStrides.head, e.kvStrides.row,
                      e.kvStrides.head, e.kvStrides.row, e.kvStrides.head,
                      e.qStrides.row, e.qStrides.head});
    moa_attend_options options = {};
    options.struct_size = sizeof options;
    options.entry_size = sizeof(moa_attend_entry);
    options.layer = layer;
    options.has_scale = scale != nullptr;
    options.scale = scale ? *scale : 0.0f;
    std::vector<Mirror> mirrors;
    std::string error;
    for (size_t i = 0; cuda && error.empty() && i < entries.size(); ++i)
      error = mirror(entries[i], list[i], mirrors);
    if (error.empty())
      error = take(moa_attend(cache, &options, list.data(), list.size()));
    for (const Mirror &m : mirrors) {
      if (error.empty() && m.isOutput)
        error =
            take(moa_device_copy(context, m.host.data, m.device, m.host.bytes));
      take(moa_device_free(context, m.device));
    }
    return error;
  }

  /// On a GPU those that have no room in a decode kernel: 16 rows of all heads
  /// of a group, 8 of large heads.
  bool roundsCodes(int64_t tokens) override {
    return cuda && tokens * info.q_heads / info.kv_heads >
                       (info.head_dim > 128 ? 8 : 16);
  }

  int64_t firstResident(int sequence, uint32_t layer,
                        uint32_t kvHead) override {
    int64_t position = -1;
    take(moa_sequence_get_first_resident(sequences[sequence], layer, kvHead,
                                         &position));
    return position;
  }

  int64_t tokensSeen(int sequence, uint32_t layer) override {
    int64_t seen = -1;
    take(moa_sequence_get_length(sequences[sequence], layer, nullptr, &seen));
    return seen;
  }

  uint64_t bytesHeld(int sequence) override {
    uint64_t bytes = ~uint64_t(0);
    take(moa_sequence_get_bytes(sequences[sequence], &bytes));
    return bytes;
  }

  uint64_t bytesExpected(int64_t length, int64_t seen) override {
    uint64_t bytes = 0, dense;
    take(moa_module_kv_bytes(module, length, seen, &bytes, &dense));
    return bytes;
  }

  uint64_t pagesUsed() override {
    moa_cache_stats stats = {};
    stats.struct_size = sizeof stats;
    stats.pages_used = ~uint64_t(0);
    take(moa_cache_get_stats(cache, &stats));
    return stats.pages_used;
  }

  std::string variant() override { return info.chip ? info.chip : ""; }

private:
  static constexpr uint32_t kSequences = 8, kTokens = 16; ///< Of a step.

  std::string setRope(const Rotation &rotation) {
    std::vector<double> frequencies;
    for (int64_t i = 0; i < rotation.dim / 2; ++i)
      frequencies.push_back(frequencyOf(rotation, i));
    moa_rope rope = {
        sizeof rope,
        uint32_t(rotation.interleaved ? MOA_ROPE_INTERLEAVED : MOA_ROPE_HALF),
        uint32_t(rotation.dim), frequencies.data(), rotation.scale};
    return take(moa_cache_set_rope(cache, MOA_ALL_LAYERS, &rope));
  }

  static bool isStep(const std::vector<Entry> &entries) {
    return entries.size() <= kSequences &&
           entries.front().tokens <= int64_t(kTokens) &&
           std::all_of(entries.begin(), entries.end(), [&](const Entry &e) {
             return e.tokens == entries.front().tokens;
           });
  }

  /// One layer of a step; layers come in order. Tensors of all sequences go to
  /// one, their surroundings with them, so that all lie equally far apart.
  std::string step(uint32_t layer, const float *scale,
                   const std::vector<Entry> &entries) {
    std::string error;
    if (layer == 0) {
      std::vector<moa_sequence *> members;
      for (const Entry &e : entries)
        members.push_back(sequences[e.sequence]);
      moa_batch_step begin = {sizeof begin, members.data(), members.size(),
                              entries.front().tokens, nullptr};
      error = take(moa_batch_begin(batch, &begin));
    }
    const int64_t element = info.dtype == MOA_DTYPE_F32 ? 4 : 2;
    moa_batch_attend_options options = {};
    options.struct_size = sizeof options;
    options.layer = layer;
    options.has_scale = scale != nullptr;
    options.scale = scale ? *scale : 0.0f;
    moa_batch_tensor *tensors[] = {&options.q, &options.k, &options.v,
                                   &options.out};
    void *memory[4] = {};
    size_t apart[4] = {};
    for (int i = 0; i < 4 && error.empty(); ++i) {
      const Entry &first = entries.front();
      apart[i] = (first.around[i].bytes + 15) / 16 * 16;
      error = take(
          moa_device_alloc(context, apart[i] * entries.size(), &memory[i]));
      for (size_t e = 0; e < entries.size() && error.empty(); ++e)
        error = take(moa_device_copy(
            context, static_cast<char *>(memory[i]) + e * apart[i],
            entries[e].around[i].data, entries[e].around[i].bytes));
      const void *places[] = {first.q, first.k, first.v, first.out};
      const Strides &strides =
          i == 0 || i == 3 ? first.qStrides : first.kvStrides;
      *tensors[i] = {
          static_cast<char *>(memory[i]) +
              (static_cast<const char *>(places[i]) - first.around[i].data),
          int64_t(apart[i]) / element, strides.row, strides.head};
    }
    if (error.empty())
      error = take(moa_batch_attend(batch, &options));
    for (int i : {0, 1, 3}) // q and k may come back rotated.
      for (size_t e = 0; e < entries.size() && error.empty(); ++e)
        error =
            take(moa_device_copy(context, entries[e].around[i].data,
                                 static_cast<char *>(memory[i]) + e * apart[i],
                                 entries[e].around[i].bytes));
    for (void *tensor : memory)
      take(moa_device_free(context, tensor));
    if (!error.empty())
      moa_batch_cancel(batch);
    else if (layer + 1 == info.layers)
      moa_batch_end(batch);
    return error;
  }

  /// A tensor's copy on the device.
  struct Mirror {
    Buffer host;
    void *device;
    bool isOutput; ///< `out`, and q and k, which may come back rotated.
  };

  /// Copies an entry's tensors to the device and makes `raw` name the copies.
  std::string mirror(const Entry &entry, moa_attend_entry &raw,
                     std::vector<Mirror> &mirrors) {
    const void *tensors[] = {entry.q, entry.k, entry.v, entry.out};
    void *places[4];
    for (int i = 0; i < 4; ++i) {
      const Buffer &host = entry.around[i];
      void *device = nullptr;
      std::string error = take(moa_device_alloc(context, host.bytes, &device));
      if (!error.empty())
        return error;
      mirrors.push_back({host, device, i != 2});
      error = take(moa_device_copy(context, device, host.data, host.bytes));
      if (!error.empty())
        return error;
      places[i] = static_cast<char *>(device) +
                  (static_cast<const char *>(tensors[i]) - host.data);
    }
    raw.q = places[0];
    raw.k = places[1];
    raw.v = places[2];
    raw.out = places[3];
    return "";
  }

  bool cuda = false;
  moa_context *context = nullptr;
  moa_module *module = nullptr;
  moa_module_info info = {};
  moa_cache *cache = nullptr;
  moa_batch *batch = nullptr;            ///< Owned by the cache.
  std::vector<moa_sequence *> sequences; ///< Owned by the cache.
};

} // namespace

std::unique_ptr<Backend>
moa::conformance::openBackend(const std::string &artifact,
                              const OpenOptions &options, std::string &error) {
  auto backend = std::make_unique<RuntimeBackend>();
  error = backend->open(artifact, options);
  if (!error.empty())
    return nullptr;
  return backend;
}

std::string moa::conformance::reasonAgainstCuda() {
  /// Lives as long as the process: the driver makes the device's context anew
  /// when nothing else holds it, which takes longer than most tests.
  static const struct Kept {
    Kept() {
      moa_context_options options = {};
      options.struct_size = sizeof options;
      options.device = MOA_DEVICE_CUDA;
      reason = take(moa_context_create(&options, &context));
    }
    ~Kept() { moa_context_destroy(context); }
    moa_context *context = nullptr;
    std::string reason;
  } kept;
  return kept.reason;
}
