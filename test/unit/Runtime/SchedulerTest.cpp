//===- SchedulerTest.cpp - Steps of the scheduler -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rows computed in the steps of a scheduler are those of each request alone;
// the order of a few requests, spelt out; what is refused, and that it changes
// nothing.
//
//===----------------------------------------------------------------------===//

#include "SchedulerTestSupport.h"

#include <chrono>
#include <cstdio>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

moa_scheduler_options optionsOf(uint32_t sequences, int64_t tokens,
                                int64_t chunk, uint32_t admission = 0,
                                uint64_t maxBytes = 0) {
  return {sizeof(moa_scheduler_options),
          sequences,
          admission,
          tokens,
          chunk,
          maxBytes};
}

/// A server whose rules are dense, so that each 64 rows hold a page of each of
/// its KV heads.
struct DenseServer : Server {
  explicit DenseServer(std::mt19937 random, uint64_t blocks, Shape shape = {})
      : Server(shape, random, shape.kvHeads * blocks, false) {
    for (moa_span_rule &rule : module.rules)
      rule.alpha = 0, rule.beta = 1;
  }

  moa_status *next() {
    moa_scheduler_step begun = {};
    begun.struct_size = sizeof(begun);
    begun.entry_size = sizeof(moa_scheduler_entry);
    moa_status *failed = moa_scheduler_next(scheduler, &begun);
    if (!failed)
      step = begun;
    return failed;
  }
  /// "request:first_row+tokens" of every entry, "*" where it samples.
  std::string nextText() {
    moa_status *failed = next();
    EXPECT_FALSE(failed) << moa_status_get_message(failed);
    std::string text;
    for (size_t i = 0; i < step.count; ++i) {
      const moa_scheduler_entry &entry = step.entries[i];
      text += (i ? " " : "") + std::to_string(entry.request) + ":" +
              std::to_string(entry.first_row) + "+" +
              std::to_string(entry.tokens) + (entry.samples ? "*" : "");
    }
    return text;
  }
  /// Attends to the step at hand.
  void attend() {
    Status failed = tryAttend();
    ASSERT_FALSE(failed) << failed->message;
  }
  Status tryAttend() {
    static float nowhere[kDim];
    moa_attend_entry entry = {};
    entry.q = entry.k = entry.v = entry.out = nowhere;
    entry.q_row_stride = entry.k_row_stride = entry.v_row_stride =
        entry.out_row_stride = kDim;
    entry.q_head_stride = entry.k_head_stride = entry.v_head_stride =
        entry.out_head_stride = kDim;
    std::vector<moa_attend_entry> entries(step.count, entry);
    for (size_t i = 0; i < step.count; ++i) {
      entries[i].sequence = step.entries[i].sequence;
      entries[i].tokens = step.entries[i].tokens;
    }
    return cache.cache->attend({0, 1, nullptr, entries.data(), entries.size()});
  }
  moa_status *commit() { return moa_scheduler_commit(scheduler, nullptr, 0); }
  /// A whole step; its text.
  std::string serve() {
    std::string text = nextText();
    attend();
    EXPECT_EQ(codeOf(commit()), MOA_OK);
    return text;
  }
  /// Steps of which nothing is looked at.
  void steps(int count) {
    while (count--)
      serve();
  }

  moa_scheduler_step step = {};
};

/// A request with the tensors of all its rows, and what it was fed.
struct Fed {
  int64_t prompt = 0, mostNew = 0, generated = 0;
  std::vector<Tokens> tokens; ///< Of each layer.
  struct Chunk {
    int64_t first, tokens;
    std::vector<std::vector<float>> out; ///< Of each layer.
  };
  std::vector<Chunk> chunks;
};

/// What a chunk computed in each layer.
std::vector<std::vector<float>> outputs(const Geometry &g, Fed &fed,
                                        int64_t first, int64_t tokens) {
  const int64_t row = int64_t(g.qHeads) * kDim;
  std::vector<std::vector<float>> all;
  for (const Tokens &own : fed.tokens)
    all.emplace_back(own.out.begin() + first * row,
                     own.out.begin() + (first + tokens) * row);
  return all;
}

/// Feeds the step at hand, by a batch where it can be one.
void feed(Server &server, moa_batch *batch, std::map<uint64_t, Fed> &all,
          const moa_scheduler_step &step) {
  const Geometry &g = server.module.geometry;
  const bool asBatch =
      step.tokens == int64_t(step.count) && step.entries[0].generated % 2 == 0;
  std::vector<moa_sequence *> sequences;
  for (size_t i = 0; i < step.count; ++i)
    sequences.push_back(step.entries[i].sequence);
  if (asBatch) {
    moa_batch_step begun = {sizeof(begun), sequences.data(), step.count, 1,
                            nullptr};
    ASSERT_EQ(codeOf(moa_batch_begin(batch, &begun)), MOA_OK);
    // Neither committed nor given up under a batch's step.
    expectRefused(moa_scheduler_commit(server.scheduler, nullptr, 0),
                  MOA_INVALID_ARGUMENT, "call moa_batch_end first");
    expectRefused(moa_scheduler_abort_step(server.scheduler),
                  MOA_INVALID_ARGUMENT, "call moa_batch_cancel first");
  }
  for (uint32_t l = 0; l < g.layers; ++l) {
    std::vector<moa_attend_entry> entries;
    std::vector<float> rows[4];
    for (size_t i = 0; i < step.count; ++i) {
      const moa_scheduler_entry &e = step.entries[i];
      entries.push_back(all[e.request].tokens[l].entry(
          g, *reinterpret_cast<Sequence *>(e.sequence), e.first_row,
          e.first_row + e.tokens));
    }
    if (!asBatch) {
      moa_attend_options options = {};
      options.struct_size = sizeof(options);
      options.entry_size = sizeof(moa_attend_entry);
      options.layer = l;
      ASSERT_EQ(codeOf(moa_attend(&server.cache, &options, entries.data(),
                                  entries.size())),
                MOA_OK);
      continue;
    }
    const int64_t q = int64_t(g.qHeads) * kDim, kv = int64_t(g.kvHeads) * kDim;
    for (const moa_attend_entry &e : entries) {
      auto add = [&](int which, const void *from, int64_t count) {
        const float *data = static_cast<const float *>(from);
        rows[which].insert(rows[which].end(), data, data + count);
      };
      add(0, e.q, q);
      add(1, e.k, kv);
      add(2, e.v, kv);
    }
    rows[3].resize(rows[0].size());
    auto tensor = [&](int which, int64_t row) -> moa_batch_tensor {
      return {rows[which].data(), row, row, kDim};
    };
    moa_batch_attend_options options = {};
    options.struct_size = sizeof(options);
    options.layer = l;
    options.q = tensor(0, q);
    options.k = tensor(1, kv);
    options.v = tensor(2, kv);
    options.out = tensor(3, q);
    ASSERT_EQ(codeOf(moa_batch_attend(batch, &options)), MOA_OK);
    for (size_t i = 0; i < step.count; ++i)
      std::copy_n(rows[3].begin() + i * q, q,
                  static_cast<float *>(entries[i].out));
  }
  moa_batch_end(batch);
  for (size_t i = 0; i < step.count; ++i) {
    const moa_scheduler_entry &e = step.entries[i];
    Fed &fed = all[e.request];
    fed.chunks.push_back(
        {e.first_row, e.tokens, outputs(g, fed, e.first_row, e.tokens)});
    fed.generated += e.samples;
  }
}

/// Feeds the same chunks to a sequence alone: the same bits come out, and the
/// last ones are those of the definition.
void expectAlone(const Module &module, ThreadPool &threads, Fed &fed) {
  const Geometry &g = module.geometry;
  CpuCache cache(module, threads, 0);
  std::unique_ptr<Sequence> sequence;
  for (const Fed::Chunk &chunk : fed.chunks) {
    if (chunk.first == 0)
      sequence = std::make_unique<Sequence>(cache, module, cache.pool,
                                            fed.prompt + fed.mostNew);
    ASSERT_EQ(sequence->layers[0].seen, chunk.first);
    for (uint32_t l = 0; l < g.layers; ++l) {
      moa_attend_entry entry = fed.tokens[l].entry(g, *sequence, chunk.first,
                                                   chunk.first + chunk.tokens);
      ASSERT_FALSE(cache.attend(l, 1.0f / std::sqrt(static_cast<float>(kDim)),
                                &entry, 1));
    }
    EXPECT_EQ(outputs(g, fed, chunk.first, chunk.tokens), chunk.out);
  }
  for (uint32_t l = 0; l < g.layers; ++l) {
    // The definition has scale 1.
    Tokens scaled = fed.tokens[l];
    for (float &value : scaled.q)
      value /= std::sqrt(static_cast<float>(kDim));
    EXPECT_LT(difference(module, l, scaled, 0, sequence->layers[l].seen,
                         fed.prompt + fed.mostNew,
                         std::vector<int64_t>(g.kvHeads, 0)),
              1e-5);
  }
}

TEST(Scheduler, RowsAreThoseOfEachRequestAlone) {
  uint64_t preemptions = 0;
  for (uint32_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    Shape shape;
    shape.layers = 2;
    shape.group = 2;
    shape.lengthRule = seed % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
    Server server(shape, random, 4 * 9, true);
    server.open(optionsOf(6, 6 + 63 + 40, 64, seed % 3 == 2));
    moa_batch_options batchOptions = {sizeof(batchOptions), 6, 1, 1024};
    moa_batch *batch = nullptr;
    ASSERT_EQ(codeOf(moa_batch_create(&server.cache, &batchOptions, &batch)),
              MOA_OK);
    std::map<uint64_t, Fed> all;
    for (int r = 0; r < 10; ++r) {
      Fed fed;
      fed.prompt = 1 + random() % 150;
      fed.mostNew = 1 + random() % 100;
      fed.tokens.resize(shape.layers);
      for (Tokens &tokens : fed.tokens)
        tokens.add(server.module.geometry, fed.prompt + fed.mostNew, random);
      const uint64_t id = server.submit(fed.prompt, fed.mostNew);
      all[id] = std::move(fed);
    }
    for (int steps = 0;; ++steps) {
      ASSERT_LT(steps, 2000);
      moa_scheduler_step step = {};
      step.struct_size = sizeof(step);
      step.entry_size = sizeof(moa_scheduler_entry);
      ASSERT_EQ(codeOf(moa_scheduler_next(server.scheduler, &step)), MOA_OK);
      if (step.count == 0)
        break;
      feed(server, batch, all, step);
      ASSERT_EQ(codeOf(moa_scheduler_commit(server.scheduler, nullptr, 0)),
                MOA_OK);
      if (HasFailure())
        return;
    }
    preemptions += server.stats().preemptions;
    for (auto &[id, fed] : all) {
      EXPECT_EQ(fed.generated, fed.mostNew);
      expectAlone(server.module, server.threads, fed);
    }
  }
  EXPECT_GT(preemptions, 10u);
}

TEST(Scheduler, ShortRequestsUseTheRestOfAStep) {
  DenseServer server(std::mt19937(1), 0);
  server.open(optionsOf(3, 200, 128));
  server.submit(300, 3);
  server.submit(40, 2);
  server.submit(500, 1);
  server.submit(1, 1);
  EXPECT_EQ(server.nextText(), "1:0+128 2:0+40*"); // 32 rows are too few.
  server.attend();
  ASSERT_EQ(codeOf(server.commit()), MOA_OK);
  EXPECT_EQ(server.nextText(), "2:40+1* 1:128+128 3:0+64");
  EXPECT_EQ(server.step.decodes, 1u);
  EXPECT_EQ(server.step.entries[0].last, 1u);
  server.attend();
  ASSERT_EQ(codeOf(server.commit()), MOA_OK);
  EXPECT_EQ(server.nextText(), "1:256+44* 3:64+128 4:0+1*");
  server.attend();
  ASSERT_EQ(codeOf(server.commit()), MOA_OK);
  EXPECT_EQ(server.nextText(), "1:300+1* 3:192+128");
}

TEST(Scheduler, TheYoungestIsPreemptedAndItsComebackIsGuarded) {
  DenseServer server(std::mt19937(1), 4);
  server.open(optionsOf(4, 200, 64));
  server.submit(120, 90); // 4 blocks in the end.
  server.submit(50, 100); // 3.
  server.submit(1, 1);
  EXPECT_EQ(server.nextText(), "1:0+64 2:0+50* 3:0+1*");
  server.attend();
  ASSERT_EQ(codeOf(server.commit()), MOA_OK);
  server.steps(8);
  EXPECT_EQ(server.stats().preemptions, 0u);
  for (int i = 0; i < 200 && !server.stats().preemptions; ++i)
    server.steps(1);
  ASSERT_EQ(server.stats().preemptions, 1u);
  // Two blocks would be there for the second, but not for 64 tokens more.
  while (server.stats().finished == 1)
    server.steps(1);
  // Its generated tokens are fed with the prompt.
  EXPECT_EQ(server.nextText().substr(0, 6), "2:0+64");
  server.attend();
  ASSERT_EQ(codeOf(server.commit()), MOA_OK);
  for (int i = 0; i < 200 && server.stats().finished < 3; ++i)
    server.steps(1);
  EXPECT_EQ(server.stats().preemptions, 1u);
  EXPECT_EQ(server.stats().rows_again, 64u);
  EXPECT_EQ(server.pool().used(), 0u);
}

TEST(Scheduler, ReservedWaitsForTheWholeLife) {
  DenseServer server(std::mt19937(1), 4);
  server.open(optionsOf(4, 200, 64, MOA_ADMIT_RESERVED));
  server.submit(64, 65); // 2 blocks: the last token is not fed.
  server.submit(65, 65); // 3.
  server.submit(1, 1);   // 1, but behind.
  EXPECT_EQ(server.nextText(), "1:0+64*");
  EXPECT_EQ(server.stats().most_bytes, 4 * server.pool().pageBytes());
  server.attend();
  ASSERT_EQ(codeOf(server.commit()), MOA_OK);
  server.steps(64);
  EXPECT_EQ(server.nextText(), "2:0+64 3:0+1*");
}

/// Microseconds of next and commit with `count` running requests: the median
/// of steps that feed a row of each.
double microsecondsOfStep(uint32_t count) {
  DenseServer server(std::mt19937(1), 1 << 20);
  server.open(optionsOf(count, 2 * count + 64, 64));
  for (uint32_t i = 0; i < count; ++i)
    server.submit(1 + i % 2, 100);
  server.steps(4); // All have started.
  std::vector<double> all;
  for (int i = 0; i < 81; ++i) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point begin = Clock::now();
    EXPECT_EQ(codeOf(server.next()), MOA_OK);
    const Clock::time_point between = Clock::now();
    EXPECT_EQ(server.step.decodes, count);
    server.attend();
    const Clock::time_point after = Clock::now();
    EXPECT_EQ(codeOf(server.commit()), MOA_OK);
    const std::chrono::duration<double, std::micro> both =
        (between - begin) + (Clock::now() - after);
    all.push_back(both.count());
  }
  std::sort(all.begin(), all.end());
  return all[all.size() / 2];
}

TEST(Scheduler, AStepCostsTimeInTheNumberOfRequests) {
  const double few = microsecondsOfStep(256), many = microsecondsOfStep(2048);
  std::printf("next and commit: %.1f us with 256 requests, %.1f with 2048\n",
              few, many);
  // Pairs of requests would cost 64 times as much, and caches play a part.
  EXPECT_LT(many, 32 * few);
}

/// Pages of 8 bits are taken behind a margin, so not where a block begins.
TEST(Scheduler, PagesOf8BitsComeBehindTheMargin) {
  for (int64_t rollback : {0, 1, 8, 63, 70})
    for (uint32_t requests = 1; requests < 6; ++requests)
      for (uint64_t pages = 6; pages < 30; ++pages) {
        SCOPED_TRACE(testing::Message()
                     << "rollback " << rollback << ", " << requests
                     << " requests, " << pages << " pages");
        std::mt19937 random(1);
        Shape shape = {1, 1, 1, MOA_LENGTH_ROW, true};
        Server server(shape, random, pages, false, rollback);
        server.module.rules[0] = {0, 1, 0, 1, 1, MOA_LENGTH_ROW};
        const moa_scheduler_options options = optionsOf(8, 512, 128);
        server.open(options);
        Caller caller(server, options, 1);
        for (uint32_t i = 0; i < requests; ++i)
          caller.submit(1, 300);
        for (int steps = 0; caller.step(false); ++steps) {
          ASSERT_LT(steps, 3000);
          if (HasFailure())
            return;
        }
      }
}

TEST(Scheduler, CancelledInAStep) {
  DenseServer server(std::mt19937(1), 0);
  server.open(optionsOf(4, 200, 64));
  server.submit(10, 5);
  server.submit(10, 5);
  server.submit(10, 5);
  server.nextText();
  EXPECT_EQ(codeOf(moa_scheduler_cancel(server.scheduler, 1)), MOA_OK);
  expectRefused(moa_scheduler_cancel(server.scheduler, 1), MOA_INVALID_ARGUMENT,
                "there is no request 1;");
  server.attend(); // Its sequence is there until the step is over.
  ASSERT_EQ(codeOf(server.commit()), MOA_OK);
  EXPECT_EQ(codeOf(moa_scheduler_cancel(server.scheduler, 2)), MOA_OK);
  EXPECT_EQ(server.nextText(), "3:10+1*");
  EXPECT_EQ(codeOf(moa_scheduler_cancel(server.scheduler, 3)), MOA_OK);
  EXPECT_EQ(codeOf(moa_scheduler_abort_step(server.scheduler)), MOA_OK);
  EXPECT_EQ(server.nextText(), "");
  EXPECT_EQ(server.stats().cancelled, 3u);
  EXPECT_EQ(server.pool().used(), 0u);
}

TEST(Scheduler, PagesHeldByOthers) {
  DenseServer server(std::mt19937(1), 3);
  server.open(optionsOf(4, 200, 64));
  Cache &cache = *server.cache.cache;
  Sequence other(cache, server.module, cache.pool, 1000);
  Tokens tokens;
  std::mt19937 random(1);
  tokens.add(server.module.geometry, 129, random);
  moa_attend_entry entry = tokens.entry(server.module.geometry, other, 0, 128);
  ASSERT_FALSE(cache.attend({0, 1, nullptr, &entry, 1}));
  server.submit(65, 1);
  for (int i = 0; i < 2; ++i) // Again the same: nothing has changed.
    expectRefused(server.next(), MOA_OUT_OF_PAGES,
                  "request 1, the oldest, needs 4 pages of 4096 bytes; 4 of 6 "
                  "are held by sequences outside of the scheduler; free these, "
                  "raise the limit or cancel the request");
  EXPECT_EQ(cache.sequences.size(), 0u);
  ASSERT_EQ(codeOf(moa_scheduler_cancel(server.scheduler, 1)), MOA_OK);
  server.submit(64, 9);
  EXPECT_EQ(server.nextText(), "2:0+64*");
  server.attend();
  ASSERT_EQ(codeOf(server.commit()), MOA_OK);
  for (int i = 0; i < 2; ++i)
    expectRefused(server.next(), MOA_OUT_OF_PAGES,
                  "request 2, the oldest, needs 2 pages of 4096 bytes beside "
                  "its 2; 4 of 6 are held by sequences outside");
  EXPECT_EQ(server.stats().preemptions, 0u);
  EXPECT_EQ(server.stats().running, 1u);
}

/// A limit that moves holds from the next step on: what has no room any more
/// goes, and comes back when there is.
TEST(Scheduler, FollowsTheCachesLimit) {
  DenseServer server(std::mt19937(1), 6);
  server.open(optionsOf(4, 400, 256));
  auto setLimit = [&](uint64_t pages) {
    EXPECT_EQ(codeOf(moa_cache_set_limit(&server.cache, pages * 4096)), MOA_OK);
    EXPECT_EQ(server.stats().limit_bytes, pages * 4096);
  };
  for (int i = 0; i < 3; ++i)
    server.submit(64, 60);
  server.steps(1);
  setLimit(8);
  EXPECT_EQ(server.serve(), "1:64+1* 2:64+1*"); // A block of each begins.
  EXPECT_EQ(server.stats().preemptions, 1u);
  EXPECT_EQ(server.serve(), "1:65+1* 2:65+1*");
  setLimit(0);
  EXPECT_EQ(server.serve(), "1:66+1* 2:66+1* 3:0+65*");

  // Lowered within a step, whose rows then fail: the next one has fewer.
  for (uint64_t id : {2, 3})
    ASSERT_EQ(codeOf(moa_scheduler_cancel(server.scheduler, id)), MOA_OK);
  server.submit(128, 1);
  EXPECT_EQ(server.nextText(), "1:67+1* 4:0+128*");
  setLimit(6);
  Status failed = server.tryAttend();
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->code, MOA_OUT_OF_PAGES);
  ASSERT_EQ(codeOf(moa_scheduler_abort_step(server.scheduler)), MOA_OK);
  EXPECT_EQ(server.serve(), "1:67+1* 4:0+64");

  // One that has no room any more says so, until it has.
  ASSERT_EQ(codeOf(moa_scheduler_cancel(server.scheduler, 1)), MOA_OK);
  setLimit(3);
  expectRefused(server.next(), MOA_OUT_OF_PAGES,
                "request 4, the oldest, needs 2 pages of 4096 bytes beside its "
                "2; 0 of 3 are held by sequences outside of the scheduler; "
                "free these, raise the limit or cancel the request");
  setLimit(4);
  EXPECT_EQ(server.serve(), "4:64+64*");
  EXPECT_EQ(server.stats().finished, 1u);
}

/// A page of two blocks in 8 bits that a fork of the caller's holds too does
/// not come back with its request: another goes as well when all begin a block.
TEST(Scheduler, PagesOf8BitsHeldByOthers) {
  DenseServer server(std::mt19937(1), 10, {1, 1, 1, MOA_LENGTH_ROW, true});
  server.module.rules[0] = {0, 1, 0, 1, 1, MOA_LENGTH_ROW};
  server.open(optionsOf(4, 400, 256));
  for (int64_t prompt : {1, 1, 1, 130})
    server.submit(prompt, 100);
  server.steps(1);
  Cache &cache = *server.cache.cache;
  Sequence *fork = nullptr;
  ASSERT_FALSE(cache.fork(*cache.sequences.back(), fork));
  server.steps(63);
  EXPECT_EQ(server.stats().preemptions, 0u);
  EXPECT_EQ(server.nextText(), "1:64+1* 2:64+1*");
  EXPECT_EQ(server.stats().preemptions, 2u);
  server.attend();
}

TEST(Scheduler, Refusals) {
  DenseServer server(std::mt19937(1), 3);
  moa_scheduler *out = nullptr;
  auto create = [&](moa_scheduler_options options) {
    return moa_scheduler_create(&server.cache, &options, &out);
  };
  const auto invalid = MOA_INVALID_ARGUMENT;
  expectRefused(moa_scheduler_create(nullptr, nullptr, &out), invalid,
                "cache is NULL");
  expectRefused(moa_scheduler_create(&server.cache, nullptr, nullptr), invalid,
                "out is NULL");
  expectRefused(create(optionsOf(65537, 0, 0)), invalid, "at most 65536");
  expectRefused(create(optionsOf(8, 70, 64)), invalid,
                "max_step_tokens is 70, expected max_sequences + 63 = 71");
  expectRefused(create(optionsOf(8, -1, 64)), invalid, "max_step_tokens is -1");
  expectRefused(create(optionsOf(8, 100, 63)), invalid,
                "chunk_tokens is 63, expected 64 to max_step_tokens 100");
  expectRefused(create(optionsOf(8, 100, 101)), invalid, "chunk_tokens is 101");
  expectRefused(create(optionsOf(8, 100, 64, 2)), invalid, "admission is 2");
  expectRefused(create(optionsOf(8, 100, 64, 0, 4095)), invalid,
                "less than one page of 4096");
  moa_scheduler_options none = {};
  expectRefused(create(none), invalid, "struct_size is 0");
  EXPECT_EQ(out, nullptr);
  // All defaults, and many sequences with none for the tokens.
  ASSERT_EQ(codeOf(moa_scheduler_create(&server.cache, nullptr, &out)), MOA_OK);
  moa_scheduler_destroy(out);
  ASSERT_EQ(codeOf(create(optionsOf(4096, 0, 0))), MOA_OK);
  moa_scheduler_destroy(out);
  moa_scheduler_destroy(nullptr);

  server.open(optionsOf(4, 100, 64, 0, 1 << 30));
  EXPECT_EQ(server.stats().limit_bytes, 6 * 4096u); // The cache's.
  uint64_t id = 99;
  auto submit = [&](int64_t prompt, int64_t mostNew) {
    moa_scheduler_request request = {sizeof(request), prompt, mostNew, 0,
                                     nullptr,         0};
    return moa_scheduler_submit(server.scheduler, &request, &id);
  };
  expectRefused(submit(0, 1), invalid, "expected at least 1 of each");
  expectRefused(submit(1, 0), invalid, "expected at least 1 of each");
  expectRefused(submit(1, 1 << 20), MOA_OUT_OF_RANGE,
                "exceed the artifact's max length 1048576");
  expectRefused(submit(INT64_MAX, INT64_MAX), MOA_OUT_OF_RANGE, "exceed");
  expectRefused(submit(190, 4), MOA_OUT_OF_PAGES,
                "190 prompt tokens and 4 new ones hold up to 32768 bytes (8 "
                "pages) at once, the limit is 24576 (6 pages); ask for fewer "
                "or raise max_bytes");
  EXPECT_EQ(id, 99u);
  EXPECT_EQ(server.stats().submitted, 0u);
  ASSERT_EQ(codeOf(submit(190, 3)), MOA_OK); // Row 192 is never fed.
  EXPECT_EQ(id, 1u);
  expectRefused(moa_scheduler_submit(server.scheduler, nullptr, &id), invalid,
                "request is NULL");
  expectRefused(moa_scheduler_cancel(server.scheduler, 7), invalid,
                "there is no request 7");

  expectRefused(server.commit(), invalid, "no step under way");
  expectRefused(moa_scheduler_abort_step(server.scheduler), invalid,
                "no step under way");
  moa_scheduler_step step = {};
  step.struct_size = sizeof(step);
  expectRefused(moa_scheduler_next(server.scheduler, &step), invalid,
                "entry_size is 0");
  EXPECT_EQ(server.nextText(), "1:0+64");
  expectRefused(server.next(), invalid, "has a step under way");
  expectRefused(server.commit(), invalid,
                "layer 0 has seen 0 rows, expected 64");
  server.attend();
  uint8_t stops[2] = {1, 0};
  expectRefused(moa_scheduler_commit(server.scheduler, stops, 2), invalid,
                "stops has 2 values, expected one for each of the step's 1");
  expectRefused(moa_scheduler_commit(server.scheduler, stops, 1), invalid,
                "entry 0 stops, but samples no token");
  ASSERT_EQ(codeOf(server.commit()), MOA_OK);
  EXPECT_EQ(server.stats().rows, 64u);

  // A scheduler goes with a step under way.
  EXPECT_EQ(server.nextText(), "1:64+64");
  server.attend();
  moa_scheduler_destroy(server.scheduler);
  server.scheduler = nullptr;
  EXPECT_EQ(server.pool().used(), 0u);
  EXPECT_TRUE(server.cache.cache->sequences.empty());
}

} // namespace
