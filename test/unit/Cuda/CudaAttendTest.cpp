//===- CudaAttendTest.cpp - Calls on the CUDA back end --------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Random models against the definition through kernels that follow the ABI to
// the letter; refusals; every call of the driver failing in turn; capture and
// replay; what is allocated and launched.
//
//===----------------------------------------------------------------------===//

#include "CudaTestSupport.h"

#include "gtest/gtest.h"

#include <cmath>
#include <numeric>

using namespace moa;
using namespace moa::test;

namespace {

/// Largest error of an output below 1 in bf16, with room for a tie.
constexpr double kTolerance = 5e-3;
/// The same in f32.
constexpr double kToleranceF32 = 1e-6;

class CudaAttend : public FakeCudaTest {
protected:
  std::mt19937 random{1};
};

uint64_t pagesUsed(const Session &session) {
  moa_cache_stats stats = {};
  EXPECT_TRUE(session.cache.stats(stats));
  return stats.pages_used;
}

int64_t chunkOf(std::mt19937 &random) {
  const int64_t sizes[] = {1, 1, 1, 2, 3, 5, 8, 16, 63, 64, 65, 130, 200};
  return sizes[random() % 13];
}

/// Everything at once: chunks, single tokens and a few, rows that are appended
/// alone, batches, raised lengths, both forms of kernels, wide ones, all types,
/// every tile.
TEST_F(CudaAttend, RandomModelsGiveTheDefinition) {
  for (uint32_t seed = 0; seed < 48 + 16; ++seed) {
    SCOPED_TRACE(seed);
    fakeCuda()->reset();
    random.seed(seed);
    Model model;
    model.layers = 1 + random() % 2;
    model.kvHeads = 1 + random() % 2;
    model.group = 1 + random() % 3;
    model.dtype = seed % 4 == 3 ? MOA_DTYPE_F16 : MOA_DTYPE_BF16;
    model.lengthRule = seed % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
    const int32_t sinks[] = {0, 1, 64, 100, 200};
    model.sink = sinks[random() % 5];
    const uint32_t rows[] = {64, 128, 192}, keys[] = {64, 128};
    model.rows = rows[random() % 3];
    model.keys = keys[random() % 2];
    model.decode = seed % 5 != 4;
    model.wide = seed % 16 < 8 ? MOA_MAX_GROUP : 0;
    if (seed % 8 == 5) { // By address too, and without decode on all chips.
      model.dtype = MOA_DTYPE_F32;
      model.decode = false;
    }
    model.rope = seed % 4 >= 2;
    if (seed % 3 == 1) // By address.
      model.images = {{MOA_TARGET_CUDA_PTX, 80, "sm_80"}};
    fakeCuda()->virtualMemory = seed % 7 != 6;
    // Where keys stay as they are, and prompts have spare pages.
    model.kv8 = seed >= 48 && !model.rope && fakeCuda()->virtualMemory &&
                model.dtype != MOA_DTYPE_F32;
    if (model.kv8)
      model.kvHeads = 3;
    model.randomRules(random);
    Session session;
    ASSERT_TRUE(session.open(model, 8 << 20));
    int64_t n[] = {400, 600}, seen[] = {0, 0};
    std::vector<std::unique_ptr<Tokens>> tokens;
    for (uint32_t i = 0; i < 2 * model.layers; ++i)
      tokens.push_back(std::make_unique<Tokens>(
          session, 1200, random, model.dtype == MOA_DTYPE_F32 ? 4 : 8));
    Sequence sequences[2];
    for (int s = 0; s < 2; ++s)
      ASSERT_TRUE(sequences[s].create(session.cache, n[s]));
    for (int call = 0; call < 6; ++call) {
      int64_t chunk[] = {chunkOf(random), chunkOf(random)};
      if (call == 3)
        for (int s = 0; s < 2; ++s)
          ASSERT_TRUE(sequences[s].setLength(n[s] += 500));
      for (uint32_t layer = 0; layer < model.layers; ++layer) {
        std::vector<moa_attend_entry> entries;
        std::vector<int64_t> bounds[2];
        for (int s = 0; s < 2; ++s) {
          bounds[s] = boundsOf(session, sequences[s], layer);
          entries.push_back(tokens[2 * layer + s]->entry(sequences[s], seen[s],
                                                         seen[s] + chunk[s]));
        }
        const bool attends[] = {true, call != 2};
        if (!attends[1])
          entries[1].q = entries[1].out = nullptr;
        Status status = session.cache.attend(layer, entries);
        ASSERT_TRUE(status) << status.message();
        for (int s = 0; s < 1 + attends[1]; ++s)
          ASSERT_LT(tokens[2 * layer + s]->difference(
                        layer, seen[s], seen[s] + chunk[s], n[s], bounds[s]),
                    model.dtype == MOA_DTYPE_F32 ? kToleranceF32 : kTolerance)
              << "call " << call << " sequence " << s;
        for (int s = 0; s < 1 + attends[1]; ++s)
          ASSERT_LT(
              tokens[2 * layer + s]->rotationError(seen[s], seen[s] + chunk[s]),
              1e-2)
              << "call " << call << " sequence " << s;
      }
      for (int s = 0; s < 2; ++s)
        seen[s] += chunk[s];
    }
    ASSERT_TRUE(fakeCuda()->faults.empty()) << fakeCuda()->faults[0];
  }
}

/// Without addresses to map memory at later there is no room to bring 8 bits
/// back in.
TEST_F(CudaAttend, PromptsOverEightBitsNeedSparePages) {
  fakeCuda()->virtualMemory = false;
  Model model;
  model.kvHeads = 3;
  model.kv8 = true;
  Session session;
  ASSERT_TRUE(session.open(model, 1 << 20));
  Tokens tokens(session, 400, random);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 400));
  ASSERT_TRUE(session.cache.attend(0, {tokens.entry(sequence, 0, 300)}));
  Status status = session.cache.attend(0, {tokens.entry(sequence, 300, 340)});
  EXPECT_EQ(status.code(), MOA_UNSUPPORTED);
  EXPECT_NE(std::string(status.message()).find("feed"), std::string::npos)
      << status.message();
  ASSERT_TRUE(session.cache.attend(0, {tokens.entry(sequence, 300, 301)}));
  EXPECT_LT(tokens.difference(0, 0, 301, 400, {0, 0, 0}), kTolerance);
}

/// Steps whose outputs are looked at once all are enqueued: tables in flight
/// are not overwritten, pages given up are not reused too early.
TEST_F(CudaAttend, ManyCallsInFlight) {
  Model model;
  model.sink = 0;
  model.rules.assign(4, {70, 0, 0, 1, 1, MOA_LENGTH_REQUEST});
  Session session;
  ASSERT_TRUE(session.open(model, 1 << 20));
  Tokens tokens(session, 400, random);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 400));
  int64_t seen = 0;
  for (int64_t chunk : {130, 1, 1, 1, 100, 1, 1, 1, 1, 64, 1, 1, 63, 1, 1, 1}) {
    ASSERT_TRUE(
        session.cache.attend(0, {tokens.entry(sequence, seen, seen + chunk)}));
    seen += chunk;
  }
  EXPECT_GT(fakeCuda()->queue.size(), 16u) << "nothing waited needlessly";
  EXPECT_LT(tokens.difference(0, 0, seen, 400, {0, 0}), kTolerance);
}

TEST_F(CudaAttend, ASteadyLoopNeitherAllocatesNorWaitsForItself) {
  Session session;
  ASSERT_TRUE(session.open(Model(), 1 << 20));
  Tokens tokens(session, 200, random);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 200));
  auto &count = fakeCuda()->count;
  for (int64_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(session.cache.attend(0, {tokens.entry(sequence, i, i + 1)}));
    if (i < 20) // Every slot was used.
      count.clear();
  }
  EXPECT_EQ(count["cuMemAlloc"] + count["cuMemHostAlloc"] +
                count["cuMemCreate"] + count["cuCtxSynchronize"],
            0);
  EXPECT_EQ(count["cuLaunchKernel"], 80) << "decode, which appends";
  EXPECT_EQ(count["cuMemcpyHtoDAsync"], 80) << "one copy a call";
  EXPECT_EQ(count["cuPointerGetAttribute"], 0) << "allocations are known";
  moa_counters counters = {};
  ASSERT_TRUE(session.cache.counters(counters));
  EXPECT_EQ(counters.attend_calls, 100u);
  EXPECT_EQ(counters.decode_rows, 100u);
  EXPECT_EQ(counters.work_items, 100u * session.model.kvHeads);
  EXPECT_EQ(counters.work_splits, 0u);
  EXPECT_GT(counters.staging_wait_ns, 0u) << "for the eighth call before";
}

TEST_F(CudaAttend, AllocationsWithoutRangesAreLookedUpEachTime) {
  fakeCuda()->tellsRanges = false;
  Session session;
  ASSERT_TRUE(session.open(Model(), 1 << 20));
  Tokens tokens(session, 3, random);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 3));
  for (int64_t i = 0; i < 3; ++i)
    ASSERT_TRUE(session.cache.attend(0, {tokens.entry(sequence, i, i + 1)}));
  EXPECT_EQ(fakeCuda()->count["cuPointerGetAttribute"], 3 * 4 * 3);
  EXPECT_LT(tokens.difference(0, 0, 3, 3, {0, 0}), kTolerance);
}

TEST_F(CudaAttend, LaunchesAreOfTheFactsOfTheImage) {
  Model model;
  Session session;
  ASSERT_TRUE(session.open(model));
  Tokens tokens(session, 700, random);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 700));
  moa_attend_options options = {};
  options.stream = reinterpret_cast<void *>(0x77);
  ASSERT_TRUE(session.cache.attend(options, {tokens.entry(sequence, 0, 640)}));
  ASSERT_TRUE(
      session.cache.attend(options, {tokens.entry(sequence, 640, 641)}));
  const auto &launches = fakeCuda()->launches;
  ASSERT_EQ(launches.size(), 3u);
  const fake::Launch expected[] = {
      {"moa_append", 20, 128, 0, options.stream},      // Pages of two KV heads.
      {"moa_prefill", 4, 128, 100000, options.stream}, // Processors.
      {"moa_decode", 4, 128, 100000, options.stream}};
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(launches[i].kernel, expected[i].kernel);
    EXPECT_EQ(launches[i].grid, expected[i].grid) << i;
    EXPECT_EQ(launches[i].threads, expected[i].threads);
    EXPECT_EQ(launches[i].shared, expected[i].shared);
    EXPECT_EQ(launches[i].stream, expected[i].stream);
  }
}

TEST_F(CudaAttend, MoreSequencesThanALaunchHolds) {
  Model model;
  Session session;
  ASSERT_TRUE(session.open(model, 4 << 20));
  std::vector<std::unique_ptr<Tokens>> tokens;
  std::vector<Sequence> sequences(20);
  std::vector<moa_attend_entry> entries;
  for (Sequence &sequence : sequences) {
    tokens.push_back(std::make_unique<Tokens>(session, 70, random));
    ASSERT_TRUE(sequence.create(session.cache, 100));
    entries.push_back(tokens.back()->entry(sequence, 0, 70));
  }
  ASSERT_TRUE(session.cache.attend(0, entries));
  EXPECT_EQ(fakeCuda()->launches.size(), 3u) << "append, 16, 4";
  for (auto &own : tokens)
    EXPECT_LT(own->difference(0, 0, 70, 100, {0, 0}), kTolerance);
}

/// What is not finite behind a sequence's end, or in memory that nobody wrote,
/// stays there.
TEST_F(CudaAttend, NaNPastTheEndDoesNotLeak) {
  Session session;
  ASSERT_TRUE(session.open(Model(), 1 << 20));
  Tokens tokens(session, 300, random);
  for (int64_t token = 150; token < 300; ++token)
    tokens.poison(token, NAN);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 300));
  int64_t seen = 0;
  for (int64_t chunk : {100, 1, 1, 40, 8}) {
    ASSERT_TRUE(
        session.cache.attend(0, {tokens.entry(sequence, seen, seen + chunk)}));
    seen += chunk;
  }
  EXPECT_LT(tokens.difference(0, 0, 150, 300, {0, 0}), kTolerance);
}

struct Refusal {
  const char *name;
  std::function<void(moa_attend_entry &, moa_attend_options &)> change;
  moa_status_code code;
  const char *says;
};

TEST_F(CudaAttend, Refusals) {
  Session session;
  ASSERT_TRUE(session.open(Model(), 1 << 20));
  Tokens tokens(session, 100, random);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 100));
  std::vector<char> host(1 << 16);
  auto move = [](const void *&pointer, int64_t bytes) {
    pointer = static_cast<const char *>(pointer) + bytes;
  };
  using Entry = moa_attend_entry;
  using Options = moa_attend_options;
  const Refusal refusals[] = {
      {"scale 0", [](Entry &, Options &o) { o.has_scale = 1, o.scale = 0; },
       MOA_UNSUPPORTED, "scale is 0, expected above 0"},
      {"scale -1", [](Entry &, Options &o) { o.has_scale = 1, o.scale = -1; },
       MOA_UNSUPPORTED, "scale is -1"},
      {"scale NaN", [](Entry &, Options &o) { o.has_scale = 1, o.scale = NAN; },
       MOA_INVALID_ARGUMENT, "expected a finite number"},
      {"alignment", [&](Entry &e, Options &) { move(e.q, 8); },
       MOA_INVALID_ARGUMENT, "q is not aligned to 16 bytes"},
      {"alignment of out",
       [&](Entry &e, Options &) { e.out = static_cast<char *>(e.out) + 2; },
       MOA_INVALID_ARGUMENT, "out is not aligned to 16 bytes"},
      {"row stride", [](Entry &e, Options &) { e.k_row_stride += 4; },
       MOA_INVALID_ARGUMENT, "k has row stride 36"},
      {"head stride", [](Entry &e, Options &) { e.v_head_stride += 1; },
       MOA_INVALID_ARGUMENT, "multiples of 8"},
      {"huge stride",
       [](Entry &e, Options &) { e.q_row_stride = int64_t(1) << 38; },
       MOA_INVALID_ARGUMENT, "below 2^38"},
      {"host memory",
       [&](Entry &e, Options &) {
         auto at = reinterpret_cast<uintptr_t>(host.data());
         e.v = reinterpret_cast<void *>((at + 15) / 16 * 16);
       },
       MOA_INVALID_ARGUMENT, "v does not lie on device 0 (host memory)"},
      {"another device",
       [&](Entry &e, Options &) {
         fakeCuda()->memory[0x9000000] = {4096, true, 3};
         e.k = reinterpret_cast<void *>(0x9000000);
       },
       MOA_INVALID_ARGUMENT, "k does not lie on device 0 (device 3)"},
      {"no tensor", [](Entry &e, Options &) { e.q = nullptr; },
       MOA_INVALID_ARGUMENT, "q is NULL"}};
  for (const Refusal &refusal : refusals) {
    SCOPED_TRACE(refusal.name);
    moa_attend_entry entry = tokens.entry(sequence, 0, 100);
    moa_attend_options options = {};
    refusal.change(entry, options);
    Status status = session.cache.attend(options, {entry});
    EXPECT_EQ(status.code(), refusal.code);
    EXPECT_NE(std::string(status.message()).find(refusal.says),
              std::string::npos)
        << status.message();
    EXPECT_EQ(pagesUsed(session), 0u);
  }
  fakeCuda()->memory.erase(0x9000000);
  EXPECT_TRUE(fakeCuda()->launches.empty());
  // Strides that are never taken may be anything.
  moa_attend_entry entry = tokens.entry(sequence, 0, 1);
  entry.q_row_stride = entry.k_row_stride = entry.v_row_stride =
      entry.out_row_stride = 3;
  ASSERT_TRUE(session.cache.attend(0, {entry}));
  EXPECT_LT(tokens.difference(0, 0, 1, 100, {0, 0}), kTolerance);
}

TEST_F(CudaAttend, StridesInF32AreMultiplesOfFour) {
  Model model;
  model.dtype = MOA_DTYPE_F32;
  model.decode = false;
  Session session;
  ASSERT_TRUE(session.open(model, 1 << 20));
  for (int64_t padding : {2, 4}) {
    Tokens tokens(session, 10, random, padding);
    Sequence sequence;
    ASSERT_TRUE(sequence.create(session.cache, 10));
    Status status = session.cache.attend(0, {tokens.entry(sequence, 0, 10)});
    EXPECT_EQ(status.code(), padding == 4 ? MOA_OK : MOA_INVALID_ARGUMENT);
    if (padding == 4) {
      EXPECT_LT(tokens.difference(0, 0, 10, 10, {0, 0}), kToleranceF32);
      continue;
    }
    EXPECT_NE(std::string(status.message()).find("expected multiples of 4"),
              std::string::npos)
        << status.message();
  }
}

TEST_F(CudaAttend, PhaseThatWasNotCompiled) {
  Model model;
  model.prefill = false;
  Session session;
  ASSERT_TRUE(session.open(model, 1 << 20));
  Tokens tokens(session, 10, random);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 10));
  Status status = session.cache.attend(0, {tokens.entry(sequence, 0, 2)});
  EXPECT_EQ(status.code(), MOA_UNSUPPORTED);
  EXPECT_NE(std::string(status.message()).find("no prefill kernel"),
            std::string::npos);
  EXPECT_TRUE(session.cache.attend(0, {tokens.entry(sequence, 0, 1)}));
}

TEST_F(CudaAttend, OutOfPagesAndOutOfMemory) {
  Model model;
  Session session;
  const uint64_t page = 2 * 64 * 16 * 2;
  ASSERT_TRUE(session.open(model, 4 * page));
  Tokens tokens(session, 300, random);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 300));
  EXPECT_EQ(session.cache.attend(0, {tokens.entry(sequence, 0, 129)}).code(),
            MOA_OUT_OF_PAGES);
  EXPECT_EQ(pagesUsed(session), 0u);
  // The pool's limit is fine, but the device is full by now.
  uint64_t before = fakeCuda()->freeBytes;
  fakeCuda()->freeBytes = 1000;
  Status status = session.cache.attend(0, {tokens.entry(sequence, 0, 128)});
  EXPECT_EQ(status.code(), MOA_OUT_OF_MEMORY);
  EXPECT_NE(std::string(status.message()).find("lower max_bytes"),
            std::string::npos)
      << status.message();
  EXPECT_EQ(pagesUsed(session), 0u);
  fakeCuda()->freeBytes = before;
  ASSERT_TRUE(session.cache.attend(0, {tokens.entry(sequence, 0, 128)}));
  EXPECT_LT(tokens.difference(0, 0, 128, 300, {0, 0}), kTolerance);
}

/// Whichever call of the driver fails, the cache is as before, and the same
/// call works when it is made again; NaN of the failed one does not come back.
TEST_F(CudaAttend, EveryFailureOfACallChangesNothing) {
  int failures = 0;
  std::set<std::string> functions;
  // The first call fails where everything is new, the second where pages are
  // there and one row is decoded while others arrive.
  auto run = [&](bool byAddress, int failing, int64_t at, bool &failed) {
    fakeCuda()->reset();
    Model model;
    model.rope = byAddress;
    if (byAddress)
      model.images = {{MOA_TARGET_CUDA_PTX, 80, "sm_80"}};
    Session session;
    ASSERT_TRUE(session.open(model, 1 << 20));
    Tokens one(session, 300, random), two(session, 300, random);
    Tokens bad(session, 300, random);
    for (int64_t token = 0; token < 300; ++token)
      bad.poison(token, NAN);
    Sequence first, second;
    ASSERT_TRUE(first.create(session.cache, 300));
    ASSERT_TRUE(second.create(session.cache, 300));
    const int64_t begins[] = {0, 100, 101}, halves[] = {0, 50, 100};
    for (int c = 0; c < 2; ++c) {
      std::vector<moa_attend_entry> entries = {
          one.entry(first, begins[c], begins[c + 1]),
          two.entry(second, halves[c], halves[c + 1])};
      if (c == failing) {
        uint64_t pages = pagesUsed(session);
        fakeCuda()->calls = 0;
        fakeCuda()->failAt = at;
        Status status = session.cache.attend(
            0, {bad.entry(first, begins[c], begins[c + 1]),
                bad.entry(second, halves[c], halves[c + 1])});
        fakeCuda()->failAt = 0;
        failed = !fakeCuda()->failed.empty();
        if (!failed) {
          ASSERT_TRUE(status) << status.message();
          return;
        }
        SCOPED_TRACE(fakeCuda()->failed + " at " + std::to_string(at));
        ++failures;
        functions.insert(fakeCuda()->failed);
        ASSERT_FALSE(status);
        EXPECT_NE(std::string(status.message()).find(fakeCuda()->failed),
                  std::string::npos)
            << status.message();
        EXPECT_EQ(pagesUsed(session), pages);
        moa_counters counters = {};
        ASSERT_TRUE(session.cache.counters(counters));
        EXPECT_EQ(counters.failed_calls, 1u);
        EXPECT_EQ(counters.attend_calls, static_cast<uint64_t>(c));
        int64_t seen = 0;
        ASSERT_TRUE(first.seen(0, seen));
        EXPECT_EQ(seen, begins[c]);
      }
      // Fewer rows than failed, so that the others' are behind the end.
      if (c == 1)
        entries[1] = two.entry(second, 50, 60);
      Status status = session.cache.attend(0, entries);
      ASSERT_TRUE(status) << status.message();
    }
    ASSERT_TRUE(session.cache.attend(0, {two.entry(second, 60, 100)}));
    ASSERT_LT(one.difference(0, 0, 101, 300, {0, 0}), kTolerance);
    ASSERT_LT(two.difference(0, 0, 100, 300, {0, 0}), kTolerance);
  };
  for (bool byAddress : {false, true})
    for (int failing : {0, 1})
      for (int64_t at = 1; !HasFailure(); ++at) {
        bool failed = false;
        run(byAddress, failing, at, failed);
        EXPECT_TRUE(fakeCuda()->clean());
        if (!failed)
          break;
      }
  EXPECT_GT(failures, 60);
  for (const char *name :
       {"cuLaunchKernel", "cuMemcpyHtoDAsync", "cuEventRecord", "cuMemCreate",
        "cuMemHostAlloc", "cuStreamIsCapturing", "cuTensorMapEncodeTiled"})
    EXPECT_TRUE(functions.count(name)) << name << " never failed";
}

/// A captured call is replayed with the tables it was captured with.
TEST_F(CudaAttend, CaptureAndReplay) {
  Session session;
  ASSERT_TRUE(session.open(Model(), 1 << 20));
  Tokens tokens(session, 200, random);
  Sequence sequence;
  ASSERT_TRUE(sequence.create(session.cache, 200));
  ASSERT_TRUE(session.cache.attend(0, {tokens.entry(sequence, 0, 100)}));
  ASSERT_TRUE(Status(moa_device_synchronize(session.context.get())));

  fakeCuda()->capturing = true;
  for (int64_t i : {100, 101, 102})
    ASSERT_TRUE(session.cache.attend(0, {tokens.entry(sequence, i, i + 1)}));
  fakeCuda()->capturing = false;
  EXPECT_TRUE(fakeCuda()->queue.empty()) << "work beside the graph";
  EXPECT_EQ(fakeCuda()->captureMode, 0);
  // Calls in between use buffers of their own.
  for (int64_t i = 103; i < 120; ++i)
    ASSERT_TRUE(session.cache.attend(0, {tokens.entry(sequence, i, i + 1)}));
  ASSERT_TRUE(Status(moa_device_synchronize(session.context.get())));
  tokens.clearOut();
  for (int replay = 0; replay < 2; ++replay) {
    fakeCuda()->replay();
    EXPECT_LT(tokens.difference(0, 100, 103, 200, {0, 0}), kTolerance);
  }
}

} // namespace
