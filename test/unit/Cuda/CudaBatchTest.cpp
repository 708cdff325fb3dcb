//===- CudaBatchTest.cpp - Steps of batches on the fake driver ------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Steps prepared from tables on the device, by calls and by a graph that was
// captured once: right rows whatever joins, leaves, grows or fails in between.
//
//===----------------------------------------------------------------------===//

#include "CudaTestSupport.h"
#include "FakeCuda.h"

#include <gtest/gtest.h>

#include <set>

using namespace moa;
using namespace moa::test;

namespace {

constexpr double kTolerance = 5e-3;

class CudaBatch : public FakeCudaTest {
protected:
  std::mt19937 random{1};
};

/// Sequences of a session with all their tokens, and the tensors of a batch.
class Rows {
public:
  Rows(Session &session, uint32_t sequences, int64_t n, std::mt19937 &random)
      : session(session), n(sequences, n), seen(sequences, 0), own(sequences) {
    const Model &m = session.model;
    for (uint32_t s = 0; s < sequences; ++s) {
      EXPECT_TRUE(own[s].create(session.cache, n));
      for (uint32_t l = 0; l < m.layers; ++l)
        tokens.push_back(std::make_unique<Tokens>(session, 900, random, 8));
    }
    for (void *&tensor : tensors)
      EXPECT_TRUE(Status(moa_device_alloc(
          session.context.get(),
          m.layers * sequences * kTokens * m.qHeads() * m.dim * 2, &tensor)));
  }
  ~Rows() {
    for (void *tensor : tensors)
      EXPECT_TRUE(Status(moa_device_free(session.context.get(), tensor)));
  }

  moa_sequence *get(uint32_t s) { return own[s].get(); }
  Tokens &of(uint32_t s, uint32_t layer) {
    return *tokens[s * session.model.layers + layer];
  }
  /// A chunk by moa_attend.
  Status call(uint32_t s, int64_t chunk) {
    for (uint32_t l = 0; l < session.model.layers; ++l)
      if (Status status = session.cache.attend(
              l, {of(s, l).entry(own[s], seen[s], seen[s] + chunk)});
          !status)
        return status;
    seen[s] += chunk;
    return Status();
  }
  /// Brings the rows of a step to the batch's tensors.
  void load(const std::vector<uint32_t> &members, int64_t count) {
    move(members, count, false);
  }
  /// The batch's outputs to the sequences', and queries and keys, which may
  /// have been rotated.
  void unload(const std::vector<uint32_t> &members, int64_t count) {
    move(members, count, true);
  }
  moa_batch_attend_options options(uint32_t layer) {
    const Model &m = session.model;
    auto tensor = [&](int i, uint32_t heads) -> moa_batch_tensor {
      const int64_t row = int64_t(heads) * m.dim;
      return {at(i, layer, 0, 0), kTokens * qRow(),
              i == 0 || i == 3 ? qRow() : row, int64_t(m.dim)};
    };
    moa_batch_attend_options o = {};
    o.layer = layer;
    o.q = tensor(0, m.qHeads());
    o.k = tensor(1, m.kvHeads);
    o.v = tensor(2, m.kvHeads);
    o.out = tensor(3, m.qHeads());
    return o;
  }

  Session &session;
  std::vector<int64_t> n, seen;
  static constexpr int64_t kTokens = 4; ///< Most of a step.

private:
  int64_t qRow() const {
    return int64_t(session.model.qHeads()) * session.model.dim;
  }
  /// Row `token` of sequence `place` in tensor i: q, k, v, out.
  char *at(int i, uint32_t layer, size_t place, int64_t token) {
    const Model &m = session.model;
    const int64_t row = i == 0 || i == 3 ? qRow() : int64_t(m.kvHeads) * m.dim;
    return static_cast<char *>(tensors[i]) +
           2 * ((int64_t(layer) * int64_t(own.size()) + int64_t(place)) *
                    kTokens * qRow() +
                token * row);
  }
  void move(const std::vector<uint32_t> &members, int64_t count, bool back) {
    const Model &m = session.model;
    moa_context *context = session.context.get();
    for (uint32_t l = 0; l < m.layers; ++l)
      for (size_t i = 0; i < members.size(); ++i)
        for (int64_t t = 0; t < count; ++t) {
          const uint32_t s = members[i];
          moa_attend_entry e =
              of(s, l).entry(own[s], seen[s] + t, seen[s] + t + 1);
          auto copy = [&](int tensor, const void *from, size_t bytes) {
            ASSERT_TRUE(Status(
                moa_device_copy(context, at(tensor, l, i, t), from, bytes)));
          };
          if (back) {
            ASSERT_TRUE(Status(
                moa_device_copy(context, e.out, at(3, l, i, t), qRow() * 2)));
            ASSERT_TRUE(Status(moa_device_copy(context, const_cast<void *>(e.q),
                                               at(0, l, i, t), qRow() * 2)));
            ASSERT_TRUE(
                Status(moa_device_copy(context, const_cast<void *>(e.k),
                                       at(1, l, i, t), m.kvHeads * m.dim * 2)));
            continue;
          }
          copy(0, e.q, qRow() * 2);
          copy(1, e.k, m.kvHeads * m.dim * 2);
          copy(2, e.v, m.kvHeads * m.dim * 2);
        }
  }

  std::vector<Sequence> own;
  std::vector<std::unique_ptr<Tokens>> tokens;
  void *tensors[4] = {};
};

/// Seeds from this one on have KV heads that keep 8 bits.
constexpr uint32_t kFirstKv8 = 24;

Model randomModel(std::mt19937 &random, uint32_t seed) {
  Model model;
  model.layers = 1 + random() % 3;
  model.kvHeads = 1 + random() % 2;
  model.group = 1 + random() % 3;
  model.lengthRule = seed % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
  const int32_t sinks[] = {0, 1, 64, 100};
  model.sink = sinks[random() % 4];
  model.columns = model.group * (1 + random() % 3);
  model.wide = seed % 4 < 2 ? MOA_MAX_GROUP : 0;
  model.rope = seed % 8 >= 4;
  // Those whose keys stay as they are.
  model.kv8 = seed >= kFirstKv8 && !model.rope;
  if (model.kv8)
    model.kvHeads = 3;
  if (seed % 3 == 1) // Pages by address.
    model.images = {{MOA_TARGET_CUDA_PTX, 80, "sm_80"}};
  model.randomRules(random);
  return model;
}

/// Steps, chunks and longer lengths in random order; the steps' layers are
/// called, or captured in the first and replayed in the others.
void runRandomly(uint32_t seed, bool capture) {
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  Session session;
  ASSERT_TRUE(
      session.open(randomModel(random, seed), 16 << 20, seed % 5 == 2 ? 3 : 0));
  const uint32_t layers = session.model.layers;
  Rows rows(session, 3, 300, random);
  Batch batch;
  moa_batch_options options = {};
  options.max_sequences = 3;
  options.max_tokens = Rows::kTokens;
  options.max_length = 900;
  ASSERT_TRUE(batch.create(session.cache, options));
  moa_batch_info info = {};
  ASSERT_TRUE(batch.info(info));
  ASSERT_TRUE(info.replays);
  for (uint32_t s = 0; s < 3; ++s)
    ASSERT_TRUE(rows.call(s, 1 + random() % 140));
  for (int step = 0; step < 60; ++step) {
    SCOPED_TRACE(step);
    std::vector<uint32_t> members;
    for (uint32_t s : {2, 0, 1})
      if (random() % 4 || (capture && step == 0))
        members.push_back(s);
    if (members.empty() || rows.seen[0] > 800 || rows.seen[1] > 800 ||
        rows.seen[2] > 800)
      continue;
    if (step % 13 == 12)
      ASSERT_TRUE(rows.call(members[0], 1 + random() % 70));
    if (step % 17 == 16) {
      Status raised(moa_sequence_set_length(rows.get(members[0]),
                                            rows.n[members[0]] += 99));
      ASSERT_TRUE(raised);
    }
    // A graph serves steps of as many tokens as its tensors have.
    const int64_t count = capture ? 1 : 1 + random() % Rows::kTokens;
    std::vector<moa_sequence *> handles;
    std::vector<std::vector<std::vector<int64_t>>> bounds;
    for (uint32_t s : members) {
      handles.push_back(rows.get(s));
      bounds.emplace_back();
      for (uint32_t l = 0; l < layers; ++l) {
        bounds.back().emplace_back();
        for (uint32_t h = 0; h < session.model.kvHeads; ++h) {
          int64_t position = 0;
          ASSERT_TRUE(Status(
              moa_sequence_get_first_resident(rows.get(s), l, h, &position)));
          bounds.back().back().push_back(position);
        }
      }
    }
    rows.load(members, count);
    Status begun = batch.begin(handles, count);
    ASSERT_TRUE(begun) << begun.message();
    if (!capture || step == 0) {
      fakeCuda()->capturing = capture;
      for (uint32_t l = 0; l < layers; ++l) {
        Status status = batch.attend(rows.options(l));
        ASSERT_TRUE(status) << status.message();
      }
      fakeCuda()->capturing = false;
    }
    if (capture)
      fakeCuda()->replay();
    if (step % 9 == 8) {
      batch.cancel();
      continue;
    }
    batch.end();
    rows.unload(members, count);
    for (size_t i = 0; i < members.size(); ++i) {
      const uint32_t s = members[i];
      for (uint32_t l = 0; l < layers; ++l)
        ASSERT_LT(rows.of(s, l).difference(l, rows.seen[s],
                                           rows.seen[s] + count, rows.n[s],
                                           bounds[i][l]),
                  kTolerance)
            << "sequence " << s << " layer " << l;
      for (uint32_t l = 0; l < layers; ++l)
        ASSERT_LT(
            rows.of(s, l).rotationError(rows.seen[s], rows.seen[s] + count),
            1e-2)
            << "sequence " << s << " layer " << l;
      rows.seen[s] += count;
    }
    ASSERT_TRUE(fakeCuda()->faults.empty()) << fakeCuda()->faults[0];
  }
}

TEST_F(CudaBatch, StepsOfRandomModelsGiveTheDefinition) {
  for (uint32_t seed = 0; seed < kFirstKv8 + 8; ++seed) {
    fakeCuda()->reset();
    runRandomly(seed, false);
    if (HasFatalFailure())
      return;
  }
}

TEST_F(CudaBatch, OneGraphServesEveryStep) {
  for (uint32_t seed = 0; seed < kFirstKv8 + 8; ++seed) {
    fakeCuda()->reset();
    runRandomly(seed, true);
    if (HasFatalFailure())
      return;
  }
}

/// 100 steps of three layers, with nothing new in them.
void runSteps(Model model, std::mt19937 &random) {
  model.layers = 3;
  Session session;
  ASSERT_TRUE(session.open(model, 8 << 20));
  Rows rows(session, 2, 900, random);
  Batch batch;
  moa_batch_options options = {};
  options.max_sequences = 2;
  ASSERT_TRUE(batch.create(session.cache, options));
  auto &count = fakeCuda()->count;
  for (int64_t step = 0; step < 120; ++step) {
    ASSERT_TRUE(batch.begin({rows.get(0), rows.get(1)}));
    for (uint32_t l = 0; l < 3; ++l)
      ASSERT_TRUE(batch.attend(rows.options(l)));
    batch.end();
    if (step < 20)
      count.clear();
  }
  ASSERT_TRUE(Status(moa_device_synchronize(session.context.get())));
  EXPECT_EQ(count["cuMemAlloc"] + count["cuMemHostAlloc"], 0);
  EXPECT_EQ(count["cuMemcpyHtoDAsync"], 0);
  EXPECT_EQ(fakeCuda()->launches.back().kernel, "moa_decode");
}

TEST_F(CudaBatch, AStepCostsALaunchMoreThanItsLayers) {
  runSteps(Model(), random);
  // Prepare and the first layer, which must not overtake it, start in order.
  EXPECT_EQ(fakeCuda()->count["cuLaunchKernel"], 200);
  EXPECT_EQ(fakeCuda()->count["cuLaunchKernelEx"], 200);
  EXPECT_TRUE(fakeCuda()->launches.back().early);
}

/// Kernels that do not wait by themselves for what is ahead start behind it.
TEST_F(CudaBatch, NothingStartsEarlyOfKernelsThatDoNotWait) {
  Model model;
  model.images = {{MOA_TARGET_CUDA_PTX, 80, "sm_80"}};
  runSteps(model, random);
  EXPECT_EQ(fakeCuda()->count["cuLaunchKernel"], 400);
  EXPECT_EQ(fakeCuda()->count["cuLaunchKernelEx"], 0);
  EXPECT_FALSE(fakeCuda()->launches.back().early);
}

/// Each counted call of the driver fails once in a step that begins, one with
/// more lists than the parameters of a launch hold.
TEST_F(CudaBatch, EveryFailureOfAStepChangesNothing) {
  std::set<std::string> functions;
  Model model;
  model.kvHeads = 48;
  for (int64_t at = 1;; ++at) {
    fakeCuda()->reset();
    Session session;
    ASSERT_TRUE(session.open(model, 8 << 20));
    Rows rows(session, 2, 300, random);
    ASSERT_TRUE(rows.call(0, 64));
    ASSERT_TRUE(rows.call(1, 70));
    Batch batch;
    moa_batch_options options = {};
    options.max_sequences = 2;
    auto step = [&]() -> Status {
      if (!batch)
        if (Status status = batch.create(session.cache, options); !status)
          return status;
      if (Status status = batch.begin({rows.get(0), rows.get(1)}); !status)
        return status;
      return batch.attend(rows.options(0));
    };
    rows.load({0, 1}, 1);
    moa_cache_stats before = {}, after = {};
    ASSERT_TRUE(session.cache.stats(before));
    fakeCuda()->calls = 0;
    fakeCuda()->failAt = at;
    Status status = step();
    fakeCuda()->failAt = 0;
    const std::string failed = fakeCuda()->failed;
    SCOPED_TRACE(failed + " at " + std::to_string(at));
    if (failed.empty()) {
      ASSERT_TRUE(status) << status.message();
    } else {
      functions.insert(failed);
      ASSERT_FALSE(status);
      EXPECT_NE(std::string(status.message()).find(failed), std::string::npos)
          << status.message();
      batch.cancel(); // Where it failed in a layer.
      ASSERT_TRUE(session.cache.stats(after));
      EXPECT_EQ(after.pages_used, before.pages_used);
      Status again = step();
      ASSERT_TRUE(again) << again.message();
    }
    batch.end();
    rows.unload({0, 1}, 1);
    for (uint32_t s : {0, 1})
      ASSERT_LT(rows.of(s, 0).difference(0, rows.seen[s], rows.seen[s] + 1, 300,
                                         std::vector<int64_t>(model.kvHeads)),
                kTolerance);
    if (failed.empty())
      break;
  }
  for (const char *name : {"cuLaunchKernel", "cuMemcpyHtoDAsync", "cuMemAlloc",
                           "cuMemHostAlloc", "cuStreamIsCapturing"})
    EXPECT_TRUE(functions.count(name)) << name << " never failed";
}

/// What a step that was given up left behind is zeroed once.
TEST_F(CudaBatch, OneStepBehindACancelledOneZeroesRows) {
  Session session;
  ASSERT_TRUE(session.open(Model(), 8 << 20));
  Rows rows(session, 2, 300, random);
  for (uint32_t s : {0, 1})
    ASSERT_TRUE(rows.call(s, 70));
  Batch batch;
  moa_batch_options options = {};
  options.max_sequences = 2;
  ASSERT_TRUE(batch.create(session.cache, options));
  auto zeroed = [&](bool end) {
    const int64_t before = fakeCuda()->zeroedRows;
    EXPECT_TRUE(batch.begin({rows.get(0), rows.get(1)}));
    EXPECT_TRUE(batch.attend(rows.options(0)));
    EXPECT_TRUE(Status(moa_device_synchronize(session.context.get())));
    end ? batch.end() : batch.cancel();
    return fakeCuda()->zeroedRows - before;
  };
  EXPECT_EQ(zeroed(true), 0);
  EXPECT_EQ(zeroed(false), 0);
  EXPECT_GT(zeroed(true), 0);
  EXPECT_EQ(zeroed(true), 0);
}

TEST_F(CudaBatch, Refusals) {
  Session session;
  ASSERT_TRUE(session.open(Model(), 8 << 20));
  Rows rows(session, 2, 300, random);
  Batch batch;
  moa_batch_options options = {};
  options.max_sequences = 60000;
  Status status = batch.create(session.cache, options);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.code(), MOA_INVALID_ARGUMENT);
  EXPECT_NE(std::string(status.message()).find("lower max_sequences"),
            std::string::npos)
      << status.message();
  options.max_sequences = 0;
  EXPECT_EQ(batch.create(session.cache, options).code(), MOA_INVALID_ARGUMENT);
  options.max_sequences = 2;
  options.max_tokens = 17;
  EXPECT_EQ(batch.create(session.cache, options).code(), MOA_INVALID_ARGUMENT);
  options.max_tokens = 1;
  options.max_length = 1 << 20;
  EXPECT_EQ(batch.create(session.cache, options).code(), MOA_OUT_OF_RANGE);
  options.max_length = 0;
  ASSERT_TRUE(batch.create(session.cache, options));
  fakeCuda()->capturing = true;
  status = batch.begin({rows.get(0)});
  fakeCuda()->capturing = false;
  ASSERT_FALSE(status);
  EXPECT_NE(std::string(status.message()).find("being captured"),
            std::string::npos);
  ASSERT_TRUE(batch.begin({rows.get(0)}));
  moa_batch_attend_options o = rows.options(0);
  o.layer = 1;
  EXPECT_EQ(batch.attend(o).code(), MOA_INVALID_ARGUMENT);
  o = rows.options(0);
  o.has_scale = 1;
  o.scale = -1;
  EXPECT_EQ(batch.attend(o).code(), MOA_UNSUPPORTED);
  o = rows.options(0);
  o.k.data = static_cast<char *>(o.k.data) + 2;
  EXPECT_EQ(batch.attend(o).code(), MOA_INVALID_ARGUMENT);
  o = rows.options(0);
  std::vector<char> host(1 << 16);
  o.out.data = reinterpret_cast<void *>(
      (reinterpret_cast<uintptr_t>(host.data()) + 63) / 64 * 64);
  EXPECT_EQ(batch.attend(o).code(), MOA_INVALID_ARGUMENT);
  o = rows.options(0);
  o.q.data = nullptr;
  EXPECT_EQ(batch.attend(o).code(), MOA_INVALID_ARGUMENT);
  EXPECT_TRUE(batch.attend(rows.options(0)));
  batch.cancel();
}

} // namespace
