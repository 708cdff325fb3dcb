//===- RuntimeCppTest.cpp - The C++ header over the C ABI -----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Compiles a plan, loads it through moa/runtime.hpp, decodes a few tokens and
// meets each kind of failure as a Status.
//
//===----------------------------------------------------------------------===//

#include "moa/abi/kernel_args.h"
#include "moa/runtime.hpp"

#include "gtest/gtest.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace {

/// An artifact of one layer, two query heads over one KV head, f32.
std::string compileSmallPlan() {
  std::string plan = testing::TempDir() + "runtime-cpp-plan.json";
  std::string out = testing::TempDir() + "runtime-cpp.moa";
  std::ofstream(plan) << "{\"alphas\": [[0, 128]], \"betas\": [[1.0, 0.0]]}\n";
  std::string command = std::string(MOA_COMPILE) + " " + plan +
                        " --model layers=1,q_heads=2,kv_heads=1,head_dim=64"
                        " --dtype f32 --max-length 1024 -o " +
                        out;
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  return out;
}

TEST(RuntimeCpp, AverageOfValuesAtScaleZero) {
  moa::Context context;
  ASSERT_TRUE(context.create(2));
  moa::Module module;
  moa::Status loaded = module.load(context, compileSmallPlan());
  ASSERT_TRUE(loaded) << loaded.message();
  moa_module_info info = {};
  ASSERT_TRUE(module.info(info));
  ASSERT_EQ(info.dtype, uint32_t(MOA_DTYPE_F32));
  ASSERT_EQ(info.q_heads, 2u);

  moa::Cache cache;
  ASSERT_TRUE(cache.create(module));
  moa::Sequence sequence;
  ASSERT_TRUE(sequence.create(cache, 100));

  // At scale 0 every visible key weighs the same: row i is the mean of the
  // values 0 to i, which are their positions here.
  constexpr int64_t kTokens = 10, kDim = 64;
  std::vector<float> q(kTokens * 2 * kDim, 1.0f), k(kTokens * kDim, 1.0f),
      v(kTokens * kDim), out(q.size(), -1.0f);
  for (int64_t i = 0; i < kTokens; ++i)
    std::fill_n(v.begin() + i * kDim, kDim, float(i));
  auto entry = [&](int64_t first, int64_t count) {
    moa_attend_entry e = {};
    e.sequence = sequence.get();
    e.tokens = count;
    e.q = q.data() + first * 2 * kDim;
    e.k = k.data() + first * kDim;
    e.v = v.data() + first * kDim;
    e.out = out.data() + first * 2 * kDim;
    e.q_row_stride = e.out_row_stride = 2 * kDim;
    e.k_row_stride = e.v_row_stride = kDim;
    e.q_head_stride = e.k_head_stride = e.v_head_stride = kDim;
    e.out_head_stride = kDim;
    return e;
  };
  ASSERT_TRUE(cache.attend(0, {entry(0, 7)}, 0.0f));
  for (int64_t i = 7; i < kTokens; ++i)
    ASSERT_TRUE(cache.attend(0, {entry(i, 1)}, 0.0f));
  for (int64_t i = 0; i < kTokens; ++i)
    EXPECT_NEAR(out[i * 2 * kDim + 5], i / 2.0, 1e-5) << "row " << i;

  int64_t seen = 0;
  ASSERT_TRUE(sequence.seen(0, seen));
  EXPECT_EQ(seen, kTokens);
  uint64_t held = 0, closed = 0, dense = 0;
  ASSERT_TRUE(sequence.bytes(held));
  ASSERT_TRUE(module.kvBytes(100, kTokens, closed, dense));
  EXPECT_EQ(held, closed);
  moa_cache_stats stats = {};
  ASSERT_TRUE(cache.stats(stats));
  EXPECT_EQ(stats.pages_used * stats.page_bytes, held);

  // Refusals are statuses with a code and a message; nothing has changed.
  moa::Status status = cache.attend(3, {entry(0, 1)});
  EXPECT_FALSE(status);
  EXPECT_EQ(status.code(), MOA_INVALID_ARGUMENT);
  EXPECT_NE(std::string(status.message()).find("layer 3"), std::string::npos);
  status = sequence.setLength(5);
  EXPECT_EQ(status.code(), MOA_INVALID_ARGUMENT);
  ASSERT_TRUE(sequence.setLength(200));
}

TEST(RuntimeCpp, SchedulerFeedsARequest) {
  moa::Context context;
  ASSERT_TRUE(context.create(2));
  moa::Module module;
  ASSERT_TRUE(module.load(context, compileSmallPlan()));
  moa::Cache cache;
  ASSERT_TRUE(cache.create(module));
  moa::Scheduler scheduler;
  ASSERT_TRUE(scheduler.create(cache));
  uint64_t id = 0, other = 0;
  ASSERT_TRUE(scheduler.submit(3, 5, id, 42));
  ASSERT_TRUE(scheduler.submit(3, 5, other));
  ASSERT_TRUE(scheduler.cancel(other));
  EXPECT_EQ(scheduler.submit(1024, 1, other).code(), MOA_OUT_OF_RANGE);
  // Prefixes, which this plan's length rule cannot share.
  EXPECT_EQ(cache.setPrefixReuse().code(), MOA_UNSUPPORTED);
  const std::vector<int64_t> tokens = {1, 2, 3};
  moa_scheduler_request known = {};
  known.prompt_tokens = 3;
  known.max_new_tokens = 5;
  known.tokens = tokens.data();
  EXPECT_EQ(scheduler.submit(known, other).code(), MOA_INVALID_ARGUMENT);
  EXPECT_EQ(scheduler.addTokens(id, tokens).code(), MOA_INVALID_ARGUMENT);
  moa_scheduler_step step;
  ASSERT_TRUE(scheduler.next(step));
  ASSERT_EQ(step.count, 1u);
  EXPECT_EQ(step.entries[0].request, id);
  EXPECT_EQ(step.entries[0].user, 42u);
  EXPECT_EQ(step.entries[0].tokens, 3);
  EXPECT_FALSE(scheduler.commit({1})); // No layer was attended to.
  ASSERT_TRUE(scheduler.abortStep());
  ASSERT_TRUE(scheduler.next(step));
  std::vector<float> rows(3 * 2 * 64, 1.0f), out(rows.size());
  moa_attend_entry entry = {step.entries[0].sequence,
                            3,
                            rows.data(),
                            rows.data(),
                            rows.data(),
                            out.data(),
                            128,
                            64,
                            64,
                            64,
                            64,
                            64,
                            128,
                            64};
  ASSERT_TRUE(cache.attend(0, {entry}));
  ASSERT_TRUE(scheduler.commit({1}));
  moa_scheduler_stats stats = {};
  ASSERT_TRUE(scheduler.stats(stats));
  EXPECT_EQ(stats.finished, 1u);
  EXPECT_EQ(stats.rows, 3u);
}

TEST(RuntimeCpp, SequencesAreForkedStoredAndTakenBack) {
  moa::Context context;
  ASSERT_TRUE(context.create(1));
  moa::Module module;
  ASSERT_TRUE(module.load(context, compileSmallPlan()));
  moa::Cache cache;
  ASSERT_TRUE(cache.create(module, 0, 8));
  moa::Sequence first;
  ASSERT_TRUE(first.create(cache, 100));
  constexpr int64_t kDim = 64;
  const std::vector<float> rows(20 * 2 * kDim, 0.5f);
  std::vector<float> out(rows.size());
  moa_attend_entry e = {};
  e.sequence = first.get();
  e.tokens = 20;
  e.q = e.k = e.v = rows.data();
  e.out = out.data();
  e.q_row_stride = e.out_row_stride = e.k_row_stride = e.v_row_stride =
      2 * kDim;
  e.q_head_stride = e.k_head_stride = e.v_head_stride = e.out_head_stride =
      kDim;
  ASSERT_TRUE(cache.attend(0, {e}));

  moa::Sequence fork, fromFile, fromMemory;
  ASSERT_TRUE(fork.fork(first));
  const std::string path = testing::TempDir() + "runtime-cpp.mos";
  std::vector<char> stored;
  ASSERT_TRUE(first.snapshot(path));
  ASSERT_TRUE(first.snapshot(stored));
  first = moa::Sequence();
  EXPECT_EQ(moa::Sequence().snapshot(stored).code(), MOA_INVALID_ARGUMENT);
  ASSERT_TRUE(fork.truncate(12));
  ASSERT_TRUE(fromFile.restore(cache, path));
  ASSERT_TRUE(fromMemory.restore(cache, stored));
  std::remove(path.c_str());
  EXPECT_EQ(fromFile.restore(cache, path).code(), MOA_IO);
  EXPECT_FALSE(fromFile);

  const uint64_t page = 2 * 64 * kDim * sizeof(float);
  for (const moa::Sequence *sequence : {&fork, &fromMemory}) {
    int64_t seen = -1, least = -1;
    uint64_t bytes = 0;
    ASSERT_TRUE(sequence->seen(0, seen));
    ASSERT_TRUE(sequence->minLength(least));
    ASSERT_TRUE(sequence->bytes(bytes));
    EXPECT_EQ(seen, sequence == &fork ? 12 : 20);
    EXPECT_EQ(least, 0);
    EXPECT_EQ(bytes, page);
  }
  ASSERT_TRUE(fork.setLength(200));
  ASSERT_TRUE(cache.setLimit(2 * page));
  EXPECT_EQ(cache.setLimit(page).code(), MOA_INVALID_ARGUMENT);
  uint64_t bytes = 0, dense = 0;
  ASSERT_TRUE(module.kvBytes(1024, 1024, bytes, dense));
  EXPECT_EQ(dense, 16 * page);
}

TEST(RuntimeCpp, CountersTextAndTrace) {
  moa::Context context;
  ASSERT_TRUE(context.create(1));
  const std::string path = ::testing::TempDir() + "moa-runtime-cpp-trace.json";
  ASSERT_TRUE(context.trace(path));
  moa::Module module;
  ASSERT_TRUE(module.load(context, compileSmallPlan()));
  ASSERT_TRUE(context.endTrace());
  int ranges = 0;
  moa_range_hooks hooks = {};
  hooks.push = [](void *user, const char *) { ++*static_cast<int *>(user); };
  hooks.pop = [](void *) {};
  hooks.user = &ranges;
  ASSERT_TRUE(context.setRangeHooks(hooks));
  EXPECT_FALSE(moa::Module().load(context, "short", 5));
  ASSERT_TRUE(context.endRangeHooks());
  EXPECT_FALSE(moa::Module().load(context, "short", 5));
  EXPECT_EQ(ranges, 1);
  std::ifstream file(path);
  const std::string trace((std::istreambuf_iterator<char>(file)), {});
  EXPECT_NE(trace.find("module_load"), std::string::npos) << trace;
  std::remove(path.c_str());
  moa::Cache cache;
  ASSERT_TRUE(cache.create(module));
  moa::Sequence sequence;
  ASSERT_TRUE(sequence.create(cache, 10));
  moa_counters counters = {};
  ASSERT_TRUE(cache.counters(counters));
  EXPECT_EQ(counters.sequences_created, 1u);
  std::string text;
  ASSERT_TRUE(cache.prometheus(text, "model=\"a\""));
  EXPECT_NE(text.find("\nmoa_cache_sequences_created_total{model=\"a\"} 1\n"),
            std::string::npos)
      << text;
  EXPECT_EQ(text.back(), '\n');
  EXPECT_EQ(cache.prometheus(text, "model").code(), MOA_INVALID_ARGUMENT);
}

TEST(RuntimeCpp, LoadingFailsWithAReason) {
  moa::Context context;
  ASSERT_TRUE(context.create(1));
  moa::Module module;
  moa::Status status = module.load(context, "/nonexistent/plan.moa");
  EXPECT_EQ(status.code(), MOA_IO);
  EXPECT_FALSE(module);
  status = module.load(context, static_cast<const void *>("short"), 5);
  EXPECT_EQ(status.code(), MOA_CORRUPT);
  EXPECT_FALSE(moa::Context().create(-1));
}

} // namespace
