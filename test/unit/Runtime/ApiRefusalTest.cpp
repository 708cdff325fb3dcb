//===- ApiRefusalTest.cpp - What the C ABI does not take ------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every call with each pointer NULL, structs of no size and values out of
// range: a status that names the argument and the numbers, and a cache that is
// as it was. Batches and schedulers have theirs in their own tests.
//
//===----------------------------------------------------------------------===//

#include "Reference.h"

#include "api_support.h"
#include "moa/observe.h"
#include "moa/scheduler.h"

#include "gtest/gtest.h"

#include <cmath>
#include <fstream>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

constexpr auto kInvalid = MOA_INVALID_ARGUMENT;
constexpr int64_t kSeen = 70, kLength = 500;

/// A cache with one sequence of 70 tokens.
class ApiRefusal : public testing::Test {
protected:
  void SetUp() override {
    moa_context_options options = {};
    options.struct_size = sizeof(options);
    options.threads = 1;
    ASSERT_EQ(moa_context_create(&options, &context), nullptr);
    model.context = context;
    Shape shape;
    shape.layers = 2;
    fill(module(), shape, random);
    ASSERT_EQ(moa_cache_create(&model, nullptr, &cache), nullptr);
    ASSERT_EQ(moa_sequence_create(cache, kLength, &sequence), nullptr);
    tokens.add(geometry(), kSeen + 10, random);
    entry = tokens.entry(geometry(), *unwrap(sequence), 0, kSeen);
    for (uint32_t layer = 0; layer < 2; ++layer)
      ASSERT_EQ(attend({entry}, layer), nullptr);
    entry = tokens.entry(geometry(), *unwrap(sequence), kSeen, kSeen + 2);
    before = cache->cache->pool.used();
  }
  /// Whatever was refused changed nothing.
  void TearDown() override {
    EXPECT_EQ(cache->cache->pool.used(), before);
    EXPECT_EQ(cache->cache->sequences.size(), 1u);
    for (const LayerState &layer : unwrap(sequence)->layers)
      EXPECT_EQ(layer.seen, kSeen);
    EXPECT_EQ(unwrap(sequence)->length, kLength);
    moa_cache_destroy(cache);
    moa_context_destroy(context);
  }

  Module &module() { return *model.module; }
  const Geometry &geometry() { return model.module->geometry; }
  moa_status *attend(std::vector<moa_attend_entry> entries,
                     uint32_t layer = 0) {
    moa_attend_options options = {};
    options.struct_size = sizeof(options);
    options.entry_size = sizeof(moa_attend_entry);
    options.layer = layer;
    return moa_attend(cache, &options, entries.data(), entries.size());
  }
  /// `entry` with a change.
  template <typename Change> moa_status *attendChanged(Change change) {
    moa_attend_entry changed = entry;
    change(changed);
    return attend({changed});
  }
  void refused(moa_status *status, moa_status_code code, const char *text) {
    ASSERT_NE(status, nullptr) << text;
    EXPECT_EQ(moa_status_get_code(status), code) << text;
    EXPECT_NE(std::string(moa_status_get_message(status)).find(text),
              std::string::npos)
        << "expected '" << text << "', found '"
        << moa_status_get_message(status) << "'";
    moa_status_free(status);
  }

  std::mt19937 random{1};
  moa_context *context = nullptr;
  moa_module model = {nullptr, std::make_unique<Module>()};
  moa_cache *cache = nullptr;
  moa_sequence *sequence = nullptr;
  Tokens tokens;
  moa_attend_entry entry = {};
  uint64_t before = 0;
};

TEST_F(ApiRefusal, NullOfContextsAndModules) {
  moa_context *made = nullptr;
  moa_module *loaded = nullptr;
  void *memory = nullptr;
  char byte = 0;
  moa_span_rule rule = {};
  uint64_t bytes = 0;
  refused(moa_context_create(nullptr, nullptr), kInvalid, "out is NULL");
  refused(moa_context_get_device_info(nullptr, nullptr), kInvalid, "context");
  refused(moa_context_get_device_info(context, nullptr), kInvalid,
          "moa_device_info is NULL");
  refused(moa_context_set_trace(nullptr, nullptr), kInvalid, "context is NULL");
  refused(moa_device_alloc(nullptr, 1, &memory), kInvalid, "context is NULL");
  refused(moa_device_alloc(context, 1, nullptr), kInvalid, "out is NULL");
  refused(moa_device_free(nullptr, &byte), kInvalid, "context is NULL");
  EXPECT_EQ(moa_device_free(context, nullptr), nullptr);
  refused(moa_device_copy(nullptr, &byte, &byte, 1), kInvalid, "context");
  refused(moa_device_copy(context, nullptr, &byte, 1), kInvalid, "to is NULL");
  refused(moa_device_copy(context, &byte, nullptr, 1), kInvalid, "from");
  refused(moa_device_synchronize(nullptr), kInvalid, "context is NULL");
  refused(moa_module_load_file(nullptr, "a", &loaded), kInvalid, "context");
  refused(moa_module_load_file(context, nullptr, &loaded), kInvalid, "path");
  refused(moa_module_load_file(context, "a", nullptr), kInvalid, "out");
  refused(moa_module_load_memory(nullptr, "a", 1, &loaded), kInvalid,
          "context");
  refused(moa_module_load_memory(context, nullptr, 1, &loaded), kInvalid,
          "bytes is NULL");
  refused(moa_module_load_memory(context, "a", 1, nullptr), kInvalid, "out");
  refused(moa_module_get_info(nullptr, nullptr), kInvalid, "module is NULL");
  refused(moa_module_get_rule(nullptr, 0, 0, &rule), kInvalid, "module");
  refused(moa_module_get_rule(&model, 0, 0, nullptr), kInvalid, "rule is NULL");
  refused(moa_module_kv_bytes(nullptr, 1, 1, &bytes, &bytes), kInvalid,
          "module is NULL");
  EXPECT_EQ(made, nullptr);
  EXPECT_EQ(loaded, nullptr);
  EXPECT_EQ(memory, nullptr);
  moa_context_destroy(nullptr);
  moa_module_destroy(nullptr);
  moa_status_free(nullptr);
}

TEST_F(ApiRefusal, NullOfCachesAndSequences) {
  moa_cache *made = nullptr;
  moa_sequence *out = nullptr;
  moa_rope rope = {};
  moa_attend_options options = {};
  int64_t number = -1;
  uint64_t bytes = 77;
  size_t size = 78;
  refused(moa_cache_create(nullptr, nullptr, &made), kInvalid, "module");
  refused(moa_cache_create(&model, nullptr, nullptr), kInvalid, "out is NULL");
  refused(moa_cache_get_stats(nullptr, nullptr), kInvalid, "cache is NULL");
  refused(moa_cache_get_stats(cache, nullptr), kInvalid, "stats is NULL");
  refused(moa_cache_get_counters(nullptr, nullptr), kInvalid, "cache is NULL");
  refused(moa_cache_set_limit(nullptr, 0), kInvalid, "cache is NULL");
  refused(moa_cache_set_rope(nullptr, 0, &rope), kInvalid, "cache is NULL");
  refused(moa_cache_set_rope(cache, 0, nullptr), kInvalid, "rope is NULL");
  refused(moa_attend(nullptr, &options, &entry, 1), kInvalid, "cache");
  refused(moa_attend(cache, nullptr, &entry, 1), kInvalid, "options is NULL");
  refused(moa_sequence_create(nullptr, 1, &out), kInvalid, "cache is NULL");
  refused(moa_sequence_create(cache, 1, nullptr), kInvalid, "out is NULL");
  refused(moa_sequence_fork(nullptr, &out), kInvalid, "sequence is NULL");
  refused(moa_sequence_fork(sequence, nullptr), kInvalid, "out is NULL");
  refused(moa_sequence_set_length(nullptr, 1), kInvalid, "sequence is NULL");
  refused(moa_sequence_truncate(nullptr, 1), kInvalid, "sequence is NULL");
  refused(moa_sequence_get_min_length(nullptr, &number), kInvalid, "sequence");
  refused(moa_sequence_get_min_length(sequence, nullptr), kInvalid, "tokens");
  refused(moa_sequence_get_length(nullptr, 0, &number, &number), kInvalid,
          "sequence is NULL");
  refused(moa_sequence_get_first_resident(nullptr, 0, 0, &number), kInvalid,
          "sequence is NULL");
  refused(moa_sequence_get_first_resident(sequence, 0, 0, nullptr), kInvalid,
          "position is NULL");
  refused(moa_sequence_get_bytes(nullptr, &bytes), kInvalid, "sequence");
  refused(moa_sequence_get_bytes(sequence, nullptr), kInvalid, "bytes");
  refused(moa_sequence_snapshot_file(nullptr, "a"), kInvalid, "sequence");
  refused(moa_sequence_snapshot_file(sequence, nullptr), kInvalid, "path");
  refused(moa_sequence_snapshot_memory(nullptr, nullptr, 0, &size), kInvalid,
          "sequence is NULL");
  refused(moa_sequence_restore_file(nullptr, "a", &out), kInvalid, "cache");
  refused(moa_sequence_restore_file(cache, nullptr, &out), kInvalid, "path");
  refused(moa_sequence_restore_file(cache, "a", nullptr), kInvalid, "out");
  refused(moa_sequence_restore_memory(nullptr, "a", 1, &out), kInvalid,
          "cache is NULL");
  refused(moa_sequence_restore_memory(cache, nullptr, 1, &out), kInvalid,
          "bytes is NULL");
  refused(moa_sequence_restore_memory(cache, "a", 1, nullptr), kInvalid,
          "out is NULL");
  EXPECT_EQ(made, nullptr);
  EXPECT_EQ(out, nullptr);
  EXPECT_EQ(number, -1);
  EXPECT_EQ(bytes, 77u);
  EXPECT_EQ(size, 78u);
  moa_cache_destroy(nullptr);
  moa_sequence_destroy(nullptr);
}

TEST_F(ApiRefusal, NullOfBatchesAndSchedulers) {
  moa_batch *batch = nullptr;
  moa_scheduler *scheduler = nullptr;
  moa_batch_options options = {};
  moa_batch_step step = {};
  moa_batch_attend_options call = {};
  moa_scheduler_step next = {};
  moa_scheduler_stats stats = {};
  refused(moa_batch_create(nullptr, &options, &batch), kInvalid, "cache");
  refused(moa_batch_create(cache, nullptr, &batch), kInvalid, "options");
  refused(moa_batch_create(cache, &options, nullptr), kInvalid, "out");
  refused(moa_batch_get_info(nullptr, nullptr), kInvalid, "batch is NULL");
  refused(moa_batch_begin(nullptr, &step), kInvalid, "batch is NULL");
  refused(moa_batch_attend(nullptr, &call), kInvalid, "batch is NULL");
  moa_batch_end(nullptr);
  moa_batch_cancel(nullptr);
  moa_batch_destroy(nullptr);
  refused(moa_scheduler_next(nullptr, &next), kInvalid, "scheduler is NULL");
  refused(moa_scheduler_commit(nullptr, nullptr, 0), kInvalid, "scheduler");
  refused(moa_scheduler_cancel(nullptr, 1), kInvalid, "scheduler is NULL");
  refused(moa_scheduler_abort_step(nullptr), kInvalid, "scheduler is NULL");
  refused(moa_scheduler_get_stats(nullptr, &stats), kInvalid, "scheduler");
  ASSERT_EQ(moa_scheduler_create(cache, nullptr, &scheduler), nullptr);
  refused(moa_scheduler_next(scheduler, nullptr), kInvalid, "step is NULL");
  moa_scheduler_destroy(scheduler);
  options = {sizeof(options), 1, 1, 256};
  ASSERT_EQ(moa_batch_create(cache, &options, &batch), nullptr);
  refused(moa_batch_begin(batch, nullptr), kInvalid, "step is NULL");
  refused(moa_batch_attend(batch, nullptr), kInvalid, "options is NULL");
  // A length is of all rows of a step.
  const moa_batch_step one = {sizeof(one), &sequence, 1, 1, nullptr};
  ASSERT_EQ(moa_batch_begin(batch, &one), nullptr);
  refused(moa_sequence_set_length(sequence, kLength + 1), kInvalid,
          "the sequence is part of a step under way");
  moa_batch_cancel(batch);
  EXPECT_EQ(moa_sequence_set_length(sequence, kLength), nullptr);
  moa_batch_destroy(batch);
}

TEST_F(ApiRefusal, StructsOfNoSize) {
  moa_context *made = nullptr;
  moa_cache *second = nullptr;
  moa_context_options contextOptions = {};
  moa_device_info deviceInfo = {};
  moa_module_info moduleInfo = {};
  moa_cache_options cacheOptions = {};
  moa_cache_stats stats = {};
  moa_counters counters = {};
  moa_rope rope = {};
  moa_attend_options options = {};
  refused(moa_context_create(&contextOptions, &made), kInvalid,
          "moa_context_options.struct_size is 0; set it to sizeof");
  refused(moa_context_get_device_info(context, &deviceInfo), kInvalid,
          "moa_device_info.struct_size is 0; set it to sizeof");
  refused(moa_module_get_info(&model, &moduleInfo), kInvalid,
          "moa_module_info.struct_size is 0");
  refused(moa_cache_create(&model, &cacheOptions, &second), kInvalid,
          "moa_cache_options.struct_size is 0");
  refused(moa_cache_get_stats(cache, &stats), kInvalid,
          "moa_cache_stats.struct_size is 0");
  refused(moa_cache_get_counters(cache, &counters), kInvalid,
          "moa_counters.struct_size is 0");
  refused(moa_cache_set_rope(cache, 0, &rope), kInvalid,
          "moa_rope.struct_size is 0");
  refused(moa_attend(cache, &options, &entry, 1), kInvalid,
          "moa_attend_options.struct_size is 0");
  options.struct_size = sizeof(options);
  options.entry_size = 8;
  refused(moa_attend(cache, &options, &entry, 1), kInvalid,
          "entry_size is 8, this library takes 112");
  EXPECT_EQ(made, nullptr);
  EXPECT_EQ(second, nullptr);
}

TEST_F(ApiRefusal, ValuesOutOfRange) {
  moa_context *made = nullptr;
  moa_context_options contextOptions = {};
  contextOptions.struct_size = sizeof(contextOptions);
  for (int32_t threads : {-1, 1025}) {
    contextOptions.threads = threads;
    refused(moa_context_create(&contextOptions, &made), kInvalid,
            "expected 0 (all cores) to 1024");
  }
  contextOptions.threads = 0;
  contextOptions.device = 2;
  refused(moa_context_create(&contextOptions, &made), kInvalid,
          "device is 2, expected MOA_DEVICE_CPU (0) or MOA_DEVICE_CUDA (1)");
  EXPECT_EQ(made, nullptr);

  moa_span_rule rule = {};
  refused(moa_module_get_rule(&model, 2, 0, &rule), kInvalid, "layer");
  refused(moa_module_get_rule(&model, 0, 6, &rule), kInvalid,
          "query head 6, expected below 6");
  uint64_t bytes = 0;
  refused(moa_module_kv_bytes(&model, 0, 1, &bytes, nullptr), kInvalid,
          "length 0, expected prompt tokens plus generation budget");
  refused(moa_module_kv_bytes(&model, (1 << 20) + 1, 1, &bytes, nullptr),
          MOA_OUT_OF_RANGE, "exceeds the artifact's max length 1048576");
  for (int64_t seen : {-1, (1 << 20) + 1})
    refused(moa_module_kv_bytes(&model, 1, seen, &bytes, nullptr),
            MOA_OUT_OF_RANGE, "expected 0 to 1048576");
  refused(moa_module_kv_bytes_rollback(&model, 1, 1, -1, &bytes, nullptr),
          kInvalid, "rollback_tokens is -1");

  moa_cache *second = nullptr;
  const size_t page = geometry().pageBytes();
  moa_cache_options options = {sizeof(options), page - 1, 0, 0};
  refused(moa_cache_create(&model, &options, &second), kInvalid,
          "max_bytes is 4095, less than one page of 4096 bytes: allow more");
  options = {sizeof(options), 0, (1 << 20) + 1, 0};
  refused(moa_cache_create(&model, &options, &second), kInvalid,
          "rollback_tokens is 1048577, expected 0 to");
  options = {sizeof(options), 0, 0, -1};
  refused(
      moa_cache_create(&model, &options, &second), kInvalid,
      "decode_parts is -1, expected 1 to 64, or 0 where bits may depend on");
  options = {sizeof(options), 0, 0, 65};
  refused(moa_cache_create(&model, &options, &second), kInvalid,
          "decode_parts is 65, expected 1 to 64");
  EXPECT_EQ(second, nullptr);
  refused(moa_cache_set_limit(cache, 1), kInvalid, "less than one page");
  refused(moa_cache_set_limit(cache, page), kInvalid, "free sequences first");

  moa_sequence *out = nullptr;
  refused(moa_sequence_create(cache, 0, &out), kInvalid, "length 0");
  refused(moa_sequence_create(cache, 1 << 21, &out), MOA_OUT_OF_RANGE,
          "compile with a larger --max-length");
  EXPECT_EQ(out, nullptr);
  refused(moa_sequence_set_length(sequence, kLength - 1), kInvalid,
          "length 499 is below the sequence's 500; a length may only rise");
  for (int64_t count : {int64_t(-1), kSeen + 1})
    refused(moa_sequence_truncate(sequence, count), kInvalid,
            "layer 0 has seen 70; expected 0 to what every layer has seen");
  int64_t position = 0;
  refused(moa_sequence_get_length(sequence, 2, &position, nullptr), kInvalid,
          "layer 2");
  refused(moa_sequence_get_first_resident(sequence, 0, 2, &position), kInvalid,
          "KV head 2, expected below 2");
  char small[8];
  size_t size = 0;
  refused(moa_sequence_snapshot_memory(sequence, small, sizeof small, &size),
          kInvalid, "the buffer has 8 bytes, the snapshot needs ");
  EXPECT_EQ(size, 0u);
}

TEST_F(ApiRefusal, FilesThatAreNotThere) {
  moa_module *loaded = nullptr;
  moa_sequence *out = nullptr;
  const std::string folder = testing::TempDir();
  const std::string none = folder + "no-such-folder/a";
  refused(moa_module_load_file(context, none.c_str(), &loaded), MOA_IO,
          "cannot be opened: No such file");
  refused(moa_module_load_file(context, folder.c_str(), &loaded), MOA_IO,
          "cannot be read");
  refused(moa_sequence_restore_file(cache, none.c_str(), &out), MOA_IO,
          "No such file");
  refused(moa_sequence_snapshot_file(sequence, none.c_str()), MOA_IO,
          "cannot be made: No such file");
  // Neither takes the place of a folder, nor leaves anything in it.
  refused(moa_sequence_snapshot_file(sequence, (folder + ".").c_str()), MOA_IO,
          "cannot be written");
}

TEST_F(ApiRefusal, EntriesOfACall) {
  using E = moa_attend_entry;
  refused(attend({}), kInvalid, "no entries; pass at least one sequence");
  refused(attend({entry}, 2), kInvalid, "layer 2");
  refused(attendChanged([](E &e) { e.sequence = nullptr; }), kInvalid,
          "entry 0: the sequence is NULL or of another cache");
  refused(attend({entry, entry}), kInvalid,
          "entries 0 and 1 name the same sequence");
  for (int64_t count : {0, -1})
    refused(attendChanged([&](E &e) { e.tokens = count; }), kInvalid,
            "expected at least 1");
  refused(attendChanged([](E &e) { e.tokens = 1 << 20; }), MOA_OUT_OF_RANGE,
          "70 tokens seen and 1048576 new exceed");
  for (const void *E::*tensor : {&E::q, &E::k, &E::v}) {
    refused(attendChanged([&](E &e) { e.*tensor = nullptr; }), kInvalid,
            "is NULL; pass the address of row 0, head 0");
    refused(attendChanged([&](E &e) {
              e.*tensor = static_cast<const char *>(e.*tensor) + 1;
            }),
            kInvalid, "is not aligned to its 4-byte elements");
  }
  refused(attendChanged([](E &e) { e.out = nullptr; }), kInvalid,
          "out is NULL");
  for (int64_t E::*stride :
       {&E::q_row_stride, &E::q_head_stride, &E::k_row_stride,
        &E::k_head_stride, &E::v_row_stride, &E::v_head_stride,
        &E::out_row_stride, &E::out_head_stride})
    refused(attendChanged([&](E &e) { e.*stride = kDim - 1; }), kInvalid,
            "expected at least the head size 8 in elements");
  moa_attend_options options = {};
  options.struct_size = sizeof(options);
  options.entry_size = sizeof(E);
  options.has_scale = 1;
  options.scale = NAN;
  refused(moa_attend(cache, &options, &entry, 1), kInvalid, "scale");
}

TEST_F(ApiRefusal, KernelsThatAreMissing) {
  LayerKernels &kernels = module().layers[0];
  const Kernel append = kernels.append, prefill = kernels.prefill;
  kernels.append = {};
  refused(attend({entry}), MOA_UNSUPPORTED, "layer 0 has no append kernel");
  // Steps of a batch copy pages of all layers by that kernel.
  moa_sequence *fork = nullptr;
  ASSERT_EQ(moa_sequence_fork(sequence, &fork), nullptr);
  moa_batch *batch = nullptr;
  const moa_batch_options options = {sizeof(options), 1, 1, 256};
  ASSERT_EQ(moa_batch_create(cache, &options, &batch), nullptr);
  const moa_batch_step step = {sizeof(step), &fork, 1, 1, nullptr};
  refused(moa_batch_begin(batch, &step), MOA_UNSUPPORTED,
          "layer 0 has no append kernel, which copies the pages of forks");
  moa_batch_destroy(batch);
  moa_sequence_destroy(fork);
  kernels.append = append;
  kernels.prefill = {};
  refused(attend({entry}), MOA_UNSUPPORTED, "layer 0 has no prefill kernel");
  kernels.decode = {};
  refused(attendChanged([](moa_attend_entry &e) { e.tokens = 1; }),
          MOA_UNSUPPORTED, "layer 0 has no decode or prefill kernel");
  kernels.prefill = prefill;
}

TEST_F(ApiRefusal, Rotations) {
  // Rotations are set before the first sequence: a cache of its own.
  refused(moa_cache_set_rope(cache, 0, nullptr), kInvalid, "rope is NULL");
  moa_cache *empty = nullptr;
  ASSERT_EQ(moa_cache_create(&model, nullptr, &empty), nullptr);
  const double frequencies[] = {1, 0.5, 0.25, 0.125}, wild[] = {1, INFINITY};
  const moa_rope good = {sizeof(moa_rope), MOA_ROPE_HALF, 8, frequencies, 1};
  auto set = [&](auto change, uint32_t layer = 0) {
    moa_rope rope = good;
    change(rope);
    return moa_cache_set_rope(empty, layer, &rope);
  };
  auto same = [](moa_rope &) {};
  refused(moa_cache_set_rope(cache, 0, &good), kInvalid,
          "the cache has 1 sequences and 0 batches");
  refused(set(same, 2), kInvalid, "layer 2");
  refused(set([](moa_rope &r) { r.layout = 2; }), kInvalid, "layout is 2");
  for (uint32_t dim : {0u, 1u, 3u, 10u})
    refused(set([&](moa_rope &r) { r.rotary_dim = dim; }), kInvalid,
            "expected an even number from 2 to the head size 8");
  refused(set([](moa_rope &r) { r.frequencies = nullptr; }), kInvalid,
          "frequencies is NULL; pass 4 of them");
  refused(set([&](moa_rope &r) {
            r.rotary_dim = 4;
            r.frequencies = wild;
          }),
          kInvalid, "frequency 1 is inf");
  for (float scale : {0.0f, -1.0f, NAN, INFINITY})
    refused(set([&](moa_rope &r) { r.scale = scale; }), kInvalid,
            "expected a finite value above 0");
  refused(set(same), MOA_UNSUPPORTED,
          "layer 0 has no rope kernel; compile with --rope half:8");
  module().layers[0].rope = module().layers[0].append;
  module().layers[0].rotation = moa_artifact_rotation(MOA_ROPE_INTERLEAVED, 4);
  refused(set(same), MOA_UNSUPPORTED,
          "layer 0 has a rope kernel for interleaved:4, asked for half:8");
  module().layers[0].rotation = moa_artifact_rotation(MOA_ROPE_HALF, 8);
  refused(set(same, MOA_ALL_LAYERS), MOA_UNSUPPORTED, "layer 1 has no rope");
  EXPECT_EQ(set(same), nullptr);
  moa_cache_destroy(empty);
}

/// Keys lie rotated: a cache that rotates the rows to come otherwise would give
/// wrong results.
TEST_F(ApiRefusal, SnapshotsOfOtherRotations) {
  for (LayerKernels &layer : module().layers) {
    layer.rope = layer.append;
    layer.rotation = moa_artifact_rotation(MOA_ROPE_HALF, 8);
  }
  const double own[] = {1, 0.5, 0.25, 0.125}, other[] = {1, 0.5, 0.25, 0.124};
  const moa_rope rope = {sizeof(moa_rope), MOA_ROPE_HALF, 8, own, 1};
  struct Rotated {
    Rotated(moa_module &model, std::vector<const moa_rope *> ropes) {
      EXPECT_EQ(moa_cache_create(&model, nullptr, &cache), nullptr);
      for (uint32_t layer = 0; layer < ropes.size(); ++layer)
        if (ropes[layer])
          EXPECT_EQ(moa_cache_set_rope(cache, layer, ropes[layer]), nullptr);
    }
    ~Rotated() { moa_cache_destroy(cache); }
    std::vector<char> store() {
      moa_sequence *made = nullptr;
      EXPECT_EQ(moa_sequence_create(cache, kLength, &made), nullptr);
      size_t size = 0;
      EXPECT_EQ(moa_sequence_snapshot_memory(made, nullptr, 0, &size), nullptr);
      std::vector<char> bytes(size);
      EXPECT_EQ(moa_sequence_snapshot_memory(made, bytes.data(), size, &size),
                nullptr);
      moa_sequence_destroy(made);
      return bytes;
    }
    moa_status *restore(const std::vector<char> &bytes) {
      moa_sequence *made = nullptr;
      return moa_sequence_restore_memory(cache, bytes.data(), bytes.size(),
                                         &made);
    }
    moa_cache *cache = nullptr;
  };
  moa_rope frequencies = rope, scale = rope;
  frequencies.frequencies = other;
  scale.scale = 1.25f;
  Rotated both(model, {&rope, &rope}), same(model, {&rope, &rope}),
      first(model, {&rope}), none(model, {}),
      faster(model, {&rope, &frequencies}), scaled(model, {&scale, &rope});
  const std::vector<char> rotated = both.store(), plain = none.store();
  EXPECT_EQ(same.restore(rotated), nullptr);
  EXPECT_EQ(none.restore(plain), nullptr);
  refused(none.restore(rotated), MOA_INCOMPATIBLE,
          "layer 0 was stored with a rotation, the cache has none; give "
          "moa_cache_set_rope");
  refused(first.restore(rotated), MOA_INCOMPATIBLE,
          "layer 1 was stored with a rotation, the cache has none");
  refused(first.restore(plain), MOA_INCOMPATIBLE,
          "layer 0 was stored without a rotation, the cache has one");
  refused(faster.restore(rotated), MOA_INCOMPATIBLE,
          "layer 1 was stored with another rotation than the cache has");
  refused(scaled.restore(rotated), MOA_INCOMPATIBLE,
          "layer 0 was stored with another rotation");
}

TEST(Api, VersionAndStatuses) {
  int32_t major = -1, minor = -1;
  moa_abi_version(&major, &minor);
  moa_abi_version(nullptr, nullptr);
  EXPECT_EQ(major, MOA_ABI_VERSION_MAJOR);
  EXPECT_EQ(minor, MOA_ABI_VERSION_MINOR);
  EXPECT_EQ(moa_status_get_code(nullptr), MOA_OK);
  EXPECT_STREQ(moa_status_get_message(nullptr), "ok");
}

/// Threads and features as a caller may leave them.
TEST(Api, DefaultsOfAContext) {
  moa_context_options options = {};
  options.struct_size = sizeof(options);
  options.cpu_features = MOA_CPU_X86_64_V3;
  moa_context *context = nullptr;
  ASSERT_EQ(moa_context_create(&options, &context), nullptr);
  moa_device_info info = {};
  info.struct_size = sizeof(info);
  ASSERT_EQ(moa_context_get_device_info(context, &info), nullptr);
  EXPECT_GE(info.processors, 1);
  EXPECT_STREQ(info.name, "CPU");
  moa_context_destroy(context);
}

} // namespace
