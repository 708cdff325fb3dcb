//===- SchedulerPrefixTest.cpp - Requests that begin alike ----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Requests whose tokens the scheduler knows: the rows it asks for have the bits
// of each request alone, in pools that are too small; what is admitted and
// where chunks end, spelt out; counters and traces; what is refused.
//
//===----------------------------------------------------------------------===//

#include "ObserveTestSupport.h"
#include "ToyModel.h"
#include "moa/prefix.h"

#include <cstdio>
#include <cstring>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

/// A request beside what the scheduler knows of it.
struct Asked {
  Ids ids; ///< Prompt, then what was sampled.
  size_t prompt = 0;
  bool known = true;       ///< The scheduler has its tokens.
  std::vector<float> rows; ///< What was computed; NaN where nothing was.
};

struct ToyServer {
  ToyServer(const Shape &shape, std::mt19937 &random, uint64_t pages)
      : model(shape, random, false) {
    auto own = std::make_unique<CpuCache>(
        model.module, model.threads, pages * model.module.geometry.pageBytes());
    EXPECT_FALSE(own->setPrefixReuse(0));
    cache.cache = std::move(own);
  }
  ~ToyServer() { moa_scheduler_destroy(scheduler); }

  void open(moa_scheduler_options options) {
    options.struct_size = sizeof(options);
    ASSERT_EQ(moa_scheduler_create(&cache, &options, &scheduler), nullptr);
  }
  uint64_t submit(const Ids &prompt, int64_t mostNew, bool known = true) {
    moa_scheduler_request request = {};
    request.struct_size = sizeof(request);
    request.prompt_tokens = static_cast<int64_t>(prompt.size());
    request.max_new_tokens = mostNew;
    request.tokens = known ? prompt.data() : nullptr;
    uint64_t id = 0;
    const moa_status_code code =
        codeOf(moa_scheduler_submit(scheduler, &request, &id));
    EXPECT_TRUE(code == MOA_OK || code == MOA_OUT_OF_PAGES);
    if (code == MOA_OK)
      asked[id] = {prompt, prompt.size(), known, {}};
    return id;
  }
  moa_scheduler_step next() {
    moa_scheduler_step step = {};
    step.struct_size = sizeof(step);
    step.entry_size = sizeof(moa_scheduler_entry);
    moa_status *failed = moa_scheduler_next(scheduler, &step);
    EXPECT_EQ(failed, nullptr) << moa_status_get_message(failed);
    moa_status_free(failed);
    return step;
  }
  bool step();
  /// Steps until all has ended; "first_row+tokens" of each entry on the way.
  std::string finish();
  moa_counters counters() const { return cache.cache->countersNow(); }
  moa_scheduler_stats stats() const {
    moa_scheduler_stats stats = {};
    stats.struct_size = sizeof(stats);
    EXPECT_EQ(moa_scheduler_get_stats(scheduler, &stats), nullptr);
    return stats;
  }

  ToyModel model;
  moa_cache cache;
  moa_scheduler *scheduler = nullptr;
  std::map<uint64_t, Asked> asked; ///< That have not ended.
  std::string fed; ///< Of all steps so far: "request:first_row+tokens ".

private:
  void end(const Asked &request) const;
};

/// Compares a request's last computation of each row with one from scratch.
void ToyServer::end(const Asked &request) const {
  Ids ids = request.ids;
  ids.pop_back(); // The last is not fed.
  const std::vector<float> want = model.fromScratch(ids, 100);
  const std::vector<float> &got = request.rows;
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i)
    if (!std::isnan(got[i])) {
      ASSERT_EQ(got[i], want[i]) << "row " << i / model.width();
    }
}

bool ToyServer::step() {
  const moa_scheduler_step step = next();
  if (!step.count)
    return false;
  const int64_t width = model.width();
  std::vector<ToyRows> rows;
  for (size_t i = 0; i < step.count; ++i) {
    const moa_scheduler_entry &entry = step.entries[i];
    fed += std::to_string(entry.request) + ":" +
           std::to_string(entry.first_row) + "+" +
           std::to_string(entry.tokens) + " ";
    rows.push_back({unwrap(entry.sequence), &asked[entry.request].ids,
                    entry.first_row, entry.first_row + entry.tokens});
  }
  std::vector<float> hidden;
  uint32_t layer = 0;
  Status failed = model.feed(*cache.cache, rows, hidden, layer);
  EXPECT_FALSE(failed) << failed->message;
  const float *at = hidden.data();
  std::vector<std::pair<uint64_t, int64_t>> sampled;
  for (size_t i = 0; i < step.count; ++i) {
    const moa_scheduler_entry &entry = step.entries[i];
    Asked &request = asked[entry.request];
    request.rows.resize(width * (entry.first_row + entry.tokens), NAN);
    std::copy_n(at, entry.tokens * width,
                &request.rows[entry.first_row * width]);
    at += entry.tokens * width;
    if (!entry.samples)
      continue;
    request.ids.push_back(model.sample(at - width));
    if (!entry.last)
      sampled.push_back({entry.request, request.ids.back()});
    else
      end(request), asked.erase(entry.request);
  }
  EXPECT_EQ(moa_scheduler_commit(scheduler, nullptr, 0), nullptr);
  for (auto [id, token] : sampled)
    if (asked[id].known)
      EXPECT_EQ(moa_scheduler_add_tokens(scheduler, id, &token, 1), nullptr);
  const PagePool &pool = cache.cache->pool;
  EXPECT_LE(pool.used() + pool.idle(), pool.limit());
  return true;
}

std::string ToyServer::finish() {
  const size_t begin = fed.size();
  while (!testing::Test::HasFailure() && step())
    ;
  return fed.substr(begin);
}

moa_scheduler_options optionsOf(uint32_t sequences, int64_t tokens,
                                int64_t chunk, uint32_t admission = 0) {
  return {
      sizeof(moa_scheduler_options), sequences, admission, tokens, chunk, 0};
}

TEST(SchedulerPrefix, RandomRequestsEqualEachAloneBitForBit) {
  moa_counters sum = {};
  uint64_t preemptions = 0;
  for (uint32_t seed = 0; seed < 24 && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    Shape shape;
    shape.layers = 1 + random() % 2;
    shape.kvHeads = 1 + random() % 2;
    shape.group = 1 + random() % 2;
    const uint64_t heads = shape.layers * shape.kvHeads;
    ToyServer server(shape, random, heads * (8 + random() % 20));
    server.open(optionsOf(1 + random() % 6, 200, 64 + random() % 100,
                          random() % 4 == 0));
    std::vector<Ids> systems;
    for (int i = 0; i < 3; ++i)
      systems.push_back(randomIds(random, 64 + random() % 150));
    for (int turn = 0; turn < 120 && !HasFailure(); ++turn) {
      if (random() % 6 == 0) {
        Ids prompt = systems[random() % 3];
        const Ids own = randomIds(random, 1 + random() % 100);
        prompt.insert(prompt.end(), own.begin(), own.end());
        server.submit(prompt, 1 + random() % 100, random() % 5);
      }
      server.step();
    }
    server.finish();
    const moa_scheduler_stats stats = server.stats();
    EXPECT_EQ(stats.finished, stats.submitted);
    EXPECT_EQ(server.cache.cache->pool.used(), 0u);
    preemptions += stats.preemptions;
    const moa_counters now = server.counters();
    sum.prefix_tokens_asked += now.prefix_tokens_asked;
    sum.prefix_tokens_reused += now.prefix_tokens_reused;
    sum.prefix_pages_evicted += now.prefix_pages_evicted;
  }
  std::printf("%llu of %llu tokens reused, %llu preemptions\n",
              static_cast<unsigned long long>(sum.prefix_tokens_reused),
              static_cast<unsigned long long>(sum.prefix_tokens_asked),
              static_cast<unsigned long long>(preemptions));
  EXPECT_GT(sum.prefix_tokens_reused, sum.prefix_tokens_asked / 4);
  EXPECT_GT(sum.prefix_pages_evicted, 100u);
  EXPECT_GT(preemptions, 5u);
}

/// A server of one head that sees everything: a block is a page.
struct OneHead : ToyServer {
  explicit OneHead(uint64_t pages)
      : ToyServer({1, 1, 1, MOA_LENGTH_ROW}, random, pages) {
    model.module.rules[0] = {0, 1, 64, 128, 64, MOA_LENGTH_ROW};
  }
  std::mt19937 random{5};
};

Ids with(Ids ids, int64_t id, size_t count) {
  ids.insert(ids.end(), count, id);
  return ids;
}

TEST(SchedulerPrefix, PagesThatAreThereNeedNoRoom) {
  OneHead server(20);
  server.open(optionsOf(8, 2048, 2048));
  const Ids prompt = randomIds(server.random, 640);
  server.submit(with(prompt, 1, 10), 30);
  server.step();
  // Three more of 11 pages each in the 9 that are left.
  for (int64_t id : {2, 3, 4})
    server.submit(with(prompt, id, 20), 30);
  server.step();
  EXPECT_EQ(server.stats().running, 4u);
  EXPECT_EQ(server.cache.cache->pool.used(), 10u + 4);
  server.finish();
  EXPECT_EQ(server.stats().preemptions, 0u);
  EXPECT_EQ(server.counters().prefix_tokens_reused, 3 * 640u);
  // Without tokens one waits for the other.
  for (int i = 0; i < 2; ++i)
    server.submit(with(prompt, 5, 20), 30, false);
  server.step();
  EXPECT_EQ(server.stats().running, 1u);
  server.finish();
}

/// One that goes gives back what it does not share, a page of eleven.
TEST(SchedulerPrefix, PagesThatOthersHoldDoNotComeBack) {
  OneHead server(15);
  server.open(optionsOf(8, 2048, 2048));
  const Ids prompt = randomIds(server.random, 640);
  server.submit(with(prompt, 1, 20), 60);
  server.step();
  for (int64_t id : {2, 3, 4})
    server.submit(with(prompt, id, 20), 60);
  server.step();
  EXPECT_EQ(server.stats().running, 4u);
  // Three begin a block at the same time, and there is room for one.
  server.finish();
  EXPECT_EQ(server.stats().preemptions, 2u);
  EXPECT_EQ(server.stats().finished, 4u);
}

TEST(SchedulerPrefix, PreemptedRequestsFindTheirPages) {
  OneHead server(13);
  server.open(optionsOf(2, 300, 300));
  server.submit(randomIds(server.random, 256), 300);
  server.submit(randomIds(server.random, 200), 200);
  server.finish();
  EXPECT_GT(server.stats().preemptions, 0u);
  EXPECT_GE(server.counters().prefix_tokens_reused, 128u);
  // Each loses a block at most, and what was given up.
  EXPECT_LE(server.stats().rows_again,
            64 * (server.stats().preemptions +
                  server.counters().prefix_pages_evicted));
}

TEST(SchedulerPrefix, ChunksEndWhereTokensPart) {
  OneHead server(100);
  // A short window beside, so that not every block can be begun with.
  server.model.module.rules[0].beta = 0;
  server.model.module.rules[0].alpha = 192;
  server.open(optionsOf(4, 1024, 1024));
  const Ids system = randomIds(server.random, 400);
  server.submit(with(system, 1, 300), 1);
  EXPECT_EQ(server.finish(), "1:0+700 ");
  server.submit(with(system, 2, 300), 1);
  EXPECT_EQ(server.finish(), "2:64+320 2:384+316 ");
  server.submit(with(system, 3, 300), 1);
  EXPECT_EQ(server.finish(), "3:384+316 ");
  server.submit(with(system, 3, 300), 1, false);
  EXPECT_EQ(server.finish(), "4:0+700 ");
}

TEST(SchedulerPrefix, Refusals) {
  OneHead server(100);
  server.open(optionsOf(4, 300, 300));
  Ids some = randomIds(server.random, 100);
  const uint64_t known = server.submit(some, 5);
  const uint64_t unknown = server.submit(some, 5, false);
  auto add = [&](uint64_t id, size_t count) {
    return moa_scheduler_add_tokens(server.scheduler, id, some.data(), count);
  };
  const auto invalid = MOA_INVALID_ARGUMENT;
  expectRefused(add(9, 1), invalid, "there is no request 9");
  expectRefused(add(unknown, 1), invalid, "without its prompt's tokens");
  expectRefused(add(known, 1), invalid,
                "got 1 tokens behind 100 known ones, expected 1 to the 0");
  expectRefused(add(known, 0), invalid, "got 0 tokens");
  expectRefused(moa_scheduler_add_tokens(server.scheduler, known, nullptr, 1),
                invalid, "tokens is NULL");
  expectRefused(moa_scheduler_add_tokens(nullptr, known, some.data(), 1),
                invalid, "scheduler is NULL");
  server.finish();

  std::mt19937 random(1);
  Server plain(Shape(), random, 0, false);
  plain.open(optionsOf(4, 300, 300));
  moa_scheduler_request request = {sizeof(request), 100, 1, 0, some.data(), 0};
  uint64_t id = 7;
  expectRefused(moa_scheduler_submit(plain.scheduler, &request, &id), invalid,
                "does not reuse prefixes");
  EXPECT_EQ(id, 7u);
}

/// The C ABI of prefixes, its counters, their text and traces.
TEST(PrefixApi, CountersAndTraces) {
  TemporaryFile file;
  moa_context *context = nullptr;
  ASSERT_EQ(moa_context_create(nullptr, &context), nullptr);
  std::mt19937 random(5);
  ToyModel model({1, 1, 1, MOA_LENGTH_ROW}, random, false);
  moa_module module;
  module.context = context;
  module.module = std::make_unique<Module>();
  fill(*module.module, {1, 1, 1, MOA_LENGTH_ROW}, random);
  module.module->rules[0] = {0, 1, 64, 128, 64, MOA_LENGTH_ROW};
  moa_cache *cache = nullptr;
  ASSERT_EQ(moa_cache_create(&module, nullptr, &cache), nullptr);
  const uint64_t page = module.module->geometry.pageBytes();
  expectRefused(moa_cache_set_prefix_reuse(nullptr, nullptr),
                MOA_INVALID_ARGUMENT, "cache is NULL");
  expectRefused(moa_cache_set_prefix_reuse(cache, nullptr),
                MOA_INVALID_ARGUMENT, "max_bytes is 0");
  moa_prefix_options options = {4, 10 * page};
  expectRefused(moa_cache_set_prefix_reuse(cache, &options),
                MOA_INVALID_ARGUMENT, "struct_size is 4");
  options.struct_size = sizeof(options);
  ASSERT_EQ(moa_cache_set_prefix_reuse(cache, &options), nullptr);
  ASSERT_EQ(moa_context_set_trace(context, file.path()), nullptr);

  const Ids ids = randomIds(random, 300);
  int64_t reused = -1, common = -1;
  for (int64_t expected : {0, 256}) {
    moa_sequence *sequence = nullptr;
    ASSERT_EQ(moa_sequence_create(cache, 1, &sequence), nullptr);
    expectRefused(moa_sequence_add_tokens(nullptr, ids.data(), 1),
                  MOA_INVALID_ARGUMENT, "sequence is NULL");
    ASSERT_EQ(
        moa_sequence_reuse(sequence, 0, ids.data(), 290, &reused, &common),
        nullptr);
    EXPECT_EQ(reused, expected);
    EXPECT_EQ(common, expected);
    ASSERT_EQ(moa_sequence_add_tokens(sequence, ids.data() + 290, 10), nullptr);
    expectRefused(
        moa_sequence_reuse(sequence, 0, ids.data(), 290, &reused, &common),
        MOA_INVALID_ARGUMENT, "on a new sequence");
    model.feed(*cache->cache, *unwrap(sequence), ids, reused, 300);
    moa_sequence_destroy(sequence);
  }
  expectRefused(
      moa_sequence_reuse(nullptr, 0, ids.data(), 290, nullptr, nullptr),
      MOA_INVALID_ARGUMENT, "sequence is NULL");

  moa_counters counters = {};
  counters.struct_size = sizeof(counters);
  ASSERT_EQ(moa_cache_get_counters(cache, &counters), nullptr);
  EXPECT_EQ(counters.prefix_tokens_asked, 580u);
  EXPECT_EQ(counters.prefix_tokens_reused, 256u);
  EXPECT_EQ(counters.prefix_pages_reused, 4u);
  EXPECT_EQ(counters.prefix_pages_merged, 0u);
  EXPECT_EQ(counters.prefix_pages_evicted, 0u);
  EXPECT_EQ(counters.prefix_bytes_saved, 4 * page);
  EXPECT_EQ(counters.prefix_bytes, 4 * page);
  EXPECT_EQ(counters.page_bytes, 0u);
  EXPECT_EQ(counters.pages_taken, 5u + 4 + 1);
  EXPECT_EQ(counters.pages_returned, counters.pages_taken);
  moa_cache_stats stats = {};
  stats.struct_size = sizeof(stats);
  ASSERT_EQ(moa_cache_get_stats(cache, &stats), nullptr);
  EXPECT_EQ(stats.pages_used, 0u);
  EXPECT_EQ(stats.pages_kept, 4u);
  EXPECT_EQ(stats.pages_indexed, 4u);
  EXPECT_EQ(stats.unused_bytes, stats.reserved_bytes - 4 * page);
  char text[1 << 14];
  size_t needed = 0;
  ASSERT_EQ(moa_cache_format_prometheus(cache, "", text, sizeof(text), &needed),
            nullptr);
  for (const char *line : {"\nmoa_cache_prefix_tokens_asked_total 580\n",
                           "\nmoa_cache_prefix_tokens_reused_total 256\n",
                           "\nmoa_cache_prefix_saved_bytes_total 16384\n",
                           "\n# TYPE moa_cache_prefix_bytes "
                           "gauge\nmoa_cache_prefix_bytes 16384\n"})
    EXPECT_NE(std::strstr(text, line), nullptr) << line;
  moa_cache_destroy(cache);
  ASSERT_EQ(moa_context_set_trace(context, nullptr), nullptr);
  std::vector<std::string> found;
  for (const Event &event : readTrace(file))
    if (event.name == "sequence_reuse")
      found.push_back(event.args);
  EXPECT_EQ(found, (std::vector<std::string>{" tokens=290 reused=0 status=0",
                                             " tokens=290 status=1",
                                             " tokens=290 reused=256 status=0",
                                             " tokens=290 status=1"}));
  module.module.reset();
  moa_context_destroy(context);
}

} // namespace
