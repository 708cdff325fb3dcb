//===- SharedTest.cpp - What threads may share ----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One context and one module, used by several threads at a time: each with a
// cache of its own, or loading modules. Of worth above all under TSan.
//
//===----------------------------------------------------------------------===//

#include "Reference.h"
#include "SmallArtifact.h"

#include "api_support.h"

#include "gtest/gtest.h"

#include <cmath>
#include <thread>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

constexpr int kRounds = 20;

struct Shared {
  Shared() {
    moa_context_options options = {};
    options.struct_size = sizeof(options);
    options.threads = 3;
    EXPECT_EQ(moa_context_create(&options, &context), nullptr);
    std::mt19937 random(7);
    Shape shape;
    shape.layers = 2;
    model.context = context;
    fill(*model.module, shape, random);
  }
  ~Shared() {
    model.module.reset();
    moa_context_destroy(context);
  }

  moa_context *context = nullptr;
  moa_module model = {nullptr, std::make_unique<Module>()};
};

/// All outputs of a prompt and steps of a cache of its own; empty if a call
/// fails.
std::vector<float> converse(Shared &shared, uint32_t seed) {
  const Geometry &g = shared.model.module->geometry;
  std::mt19937 random(seed);
  moa_cache *cache = nullptr;
  moa_sequence *sequence = nullptr;
  moa_status *failed = moa_cache_create(&shared.model, nullptr, &cache);
  if (!failed)
    failed = moa_sequence_create(cache, 400, &sequence);
  std::vector<float> all;
  for (int round = 0; round < kRounds && !failed; ++round)
    for (uint32_t layer = 0; layer < g.layers && !failed; ++layer) {
      Tokens tokens;
      const int64_t count = round % 5 ? 1 : 70;
      tokens.add(g, count, random);
      moa_attend_entry entry = tokens.entry(g, *unwrap(sequence), 0, count);
      moa_attend_options options = {};
      options.struct_size = sizeof(options);
      options.entry_size = sizeof(entry);
      options.layer = layer;
      failed = moa_attend(cache, &options, &entry, 1);
      all.insert(all.end(), tokens.out.begin(), tokens.out.end());
    }
  moa_cache_destroy(cache);
  if (failed)
    all.clear();
  moa_status_free(failed);
  return all;
}

TEST(Shared, CachesInThreadsGiveTheBitsOfOne) {
  Shared shared;
  constexpr size_t kThreads = 4;
  std::vector<float> alone[kThreads], together[kThreads];
  for (uint32_t i = 0; i < kThreads; ++i)
    alone[i] = converse(shared, i);
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kThreads; ++i)
    threads.emplace_back([&, i] { together[i] = converse(shared, i); });
  for (std::thread &thread : threads)
    thread.join();
  for (size_t i = 0; i < kThreads; ++i) {
    ASSERT_FALSE(alone[i].empty());
    ASSERT_EQ(alone[i].size(), together[i].size());
    EXPECT_EQ(std::memcmp(alone[i].data(), together[i].data(),
                          alone[i].size() * sizeof(float)),
              0)
        << "thread " << i;
  }
}

TEST(Shared, ModulesComeAndGoBesideCalls) {
  Shared shared;
  const Bytes good = SmallArtifact().build();
  Bytes bad = good;
  bad[100] ^= 1;
  std::atomic<int> wrong{0};
  auto loader = [&] {
    for (int round = 0; round < kRounds; ++round) {
      moa_module *module = nullptr;
      moa_status *status = moa_module_load_memory(shared.context, good.data(),
                                                  good.size(), &module);
      uint64_t bytes = 0;
      wrong += status != nullptr;
      wrong +=
          moa_module_kv_bytes(module, 500, 300, &bytes, nullptr) != nullptr;
      moa_module_destroy(module);
      status = moa_module_load_memory(shared.context, bad.data(), bad.size(),
                                      &module);
      wrong += moa_status_get_code(status) != MOA_CORRUPT;
      moa_status_free(status);
      moa_device_info info = {};
      info.struct_size = sizeof(info);
      wrong += moa_context_get_device_info(shared.context, &info) != nullptr;
    }
  };
  std::thread one(loader), two(loader);
  std::thread caller([&] { wrong += converse(shared, 1).empty(); });
  wrong += converse(shared, 2).empty();
  one.join();
  two.join();
  caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Shared, ContextsComeAndGoInThreads) {
  std::atomic<int> wrong{0};
  auto user = [&](uint32_t seed) {
    for (int round = 0; round < 3; ++round) {
      Shared own;
      wrong += converse(own, seed).empty();
    }
  };
  std::thread one(user, 1), two(user, 2);
  one.join();
  two.join();
  EXPECT_EQ(wrong, 0);
}

} // namespace
