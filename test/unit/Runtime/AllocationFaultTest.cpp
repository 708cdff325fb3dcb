//===- AllocationFaultTest.cpp - Every allocation fails once --------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Plays a list of calls of the C ABI twice: as it is, and so that every call is
// made with each of its allocations failing, and with all from each one on,
// before it succeeds. A call that fails says MOA_OUT_OF_MEMORY and changes
// nothing; at the end of each call both plays have the same state and outputs.
//
// A new call of the ABI is a line of script().
//
//===----------------------------------------------------------------------===//

#include "Faults.h"
#include "Reference.h"
#include "SmallArtifact.h"

#include "api_support.h"
#include "moa/observe.h"
#include "moa/prefix.h"
#include "moa/scheduler.h"

#include "gtest/gtest.h"

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <unistd.h>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

constexpr uint32_t kLayers = 2;
constexpr size_t kSequences = 3;
constexpr int64_t kMostTokens = 640; ///< Of a sequence.
constexpr int64_t kStepTokens = 4;   ///< Most of a sequence in a step.
constexpr int64_t kLength = 500;     ///< N at first.
constexpr int64_t kRollback = 32;    ///< Rows that can be taken back.
constexpr size_t kRequests = 2;      ///< Of the scheduler.
constexpr int64_t kPrompt = 100;     ///< Of each.

moa_cache_stats statsOf(const moa_cache *cache) {
  moa_cache_stats stats = {};
  stats.struct_size = sizeof(stats);
  EXPECT_EQ(moa_cache_get_stats(cache, &stats), nullptr);
  return stats;
}

/// All objects of one play.
struct World {
  explicit World(uint32_t seed);
  ~World();

  /// What a caller can see, handles as whether they are there.
  std::vector<int64_t> state() const;
  /// Memory taken for pages: a call that fails may leave it to the next one.
  uint64_t reserved() const;

  Bytes artifact = SmallArtifact().build();
  std::string folder;
  std::string file; ///< With the same bytes.
  std::mt19937 random;
  Tokens tokens[kSequences][kLayers];
  Tokens step[kLayers]; ///< Rows of the steps of a batch.
  Tokens served[kRequests][kLayers];
  std::string traced; ///< A file with a trace.
  std::string stored; ///< A file with a snapshot,
  std::vector<char> snapshot = std::vector<char>(1 << 20); ///< and memory.

  moa_context *context = nullptr, *second = nullptr;
  moa_module *loaded = nullptr, *read = nullptr;
  moa_module model = {nullptr, std::make_unique<Module>()};
  moa_cache *cache = nullptr;
  moa_sequence *sequences[kSequences] = {};
  moa_batch *batch = nullptr;
  moa_scheduler *scheduler = nullptr;
  moa_scheduler_step scheduled = {}; ///< Under way.
  void *memory = nullptr;
  const std::vector<int64_t> ids = std::vector<int64_t>(kMostTokens, 5);
  /// Whether its plan lets prefixes be reused.
  bool reuses() const {
    const Geometry &g = model.module->geometry;
    return g.lengthRule == MOA_LENGTH_ROW && !g.kv8;
  }
};

World::World(uint32_t seed) : random(seed) {
  Shape shape;
  shape.layers = kLayers;
  shape.lengthRule = seed % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
  shape.kv8 = seed % 3 == 2;
  fill(*model.module, shape, random);
  for (auto &sequence : tokens)
    for (Tokens &layer : sequence)
      layer.add(model.module->geometry, kMostTokens, random);
  for (Tokens &layer : step)
    layer.add(model.module->geometry, kSequences * kStepTokens, random);
  for (auto &request : served)
    for (Tokens &layer : request)
      layer.add(model.module->geometry, kPrompt + 10, random);
  // Files of its own: what one play stores is not there for the other.
  static int worlds = 0;
  folder = testing::TempDir() + "faults-" + std::to_string(getpid()) + "-" +
           std::to_string(worlds++);
  std::filesystem::create_directory(folder);
  file = folder + "/artifact.moa";
  traced = folder + "/trace.json";
  stored = folder + "/snapshot.mos";
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char *>(artifact.data()), artifact.size());
}

World::~World() {
  moa_status_free(moa_device_free(context, memory));
  moa_scheduler_destroy(scheduler);
  moa_cache_destroy(cache);
  moa_module_destroy(loaded);
  moa_module_destroy(read);
  moa_context_destroy(context);
  moa_context_destroy(second);
  // Calls that failed left nothing beside what was stored.
  unlink(file.c_str());
  unlink(traced.c_str());
  unlink(stored.c_str());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove_all(folder);
}

std::vector<int64_t> World::state() const {
  std::vector<int64_t> all = {
      context != nullptr, second != nullptr, loaded != nullptr, read != nullptr,
      cache != nullptr,   batch != nullptr,  memory != nullptr};
  for (const moa_sequence *sequence : sequences) {
    all.push_back(sequence != nullptr);
    for (uint32_t layer = 0; sequence && layer < kLayers; ++layer) {
      int64_t length = -1, seen = -1;
      moa_sequence_get_length(sequence, layer, &length, &seen);
      all.insert(all.end(), {length, seen});
      for (uint32_t h = 0; h < model.module->geometry.kvHeads; ++h) {
        int64_t first = -1;
        moa_sequence_get_first_resident(sequence, layer, h, &first);
        all.push_back(first);
      }
      uint64_t bytes = 0;
      moa_sequence_get_bytes(sequence, &bytes);
      all.push_back(int64_t(bytes));
    }
  }
  if (cache) {
    const moa_cache_stats stats = statsOf(cache);
    // High water counts what failed calls took for a while.
    all.insert(all.end(),
               {int64_t(stats.pages_used), int64_t(stats.sequences),
                int64_t(stats.pages_shared), int64_t(stats.pages_referenced),
                int64_t(stats.pages_kept), int64_t(stats.pages_indexed)});
  }
  if (batch) {
    moa_batch_info info = {};
    info.struct_size = sizeof(info);
    moa_batch_get_info(batch, &info);
    all.push_back(info.open);
  }
  if (scheduler) {
    moa_scheduler_stats stats = {};
    stats.struct_size = sizeof(stats);
    moa_scheduler_get_stats(scheduler, &stats);
    for (uint64_t value :
         {stats.waiting, stats.running, stats.submitted, stats.finished,
          stats.cancelled, stats.preemptions, stats.steps, stats.aborted_steps,
          stats.rows, stats.rows_again, stats.most_bytes,
          uint64_t(scheduled.count)})
      all.push_back(int64_t(value));
  }
  return all;
}

uint64_t World::reserved() const {
  return cache ? statsOf(cache).reserved_bytes : 0;
}

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

moa_status *createContext(moa_context **out, int32_t threads) {
  moa_context_options options = {};
  options.struct_size = sizeof(options);
  options.threads = threads;
  return moa_context_create(&options, out);
}

/// One layer of a call that gives sequence i `counts[i]` more tokens.
moa_status *attend(World &w, uint32_t layer,
                   const std::array<int64_t, kSequences> &counts) {
  moa_attend_entry entries[kSequences];
  size_t count = 0;
  for (size_t i = 0; i < kSequences; ++i)
    if (counts[i]) {
      Sequence &sequence = *unwrap(w.sequences[i]);
      const int64_t seen = sequence.layers[layer].seen;
      entries[count++] = w.tokens[i][layer].entry(
          w.model.module->geometry, sequence, seen, seen + counts[i]);
    }
  moa_attend_options options = {};
  options.struct_size = sizeof(options);
  options.entry_size = sizeof(moa_attend_entry);
  options.layer = layer;
  return moa_attend(w.cache, &options, entries, count);
}

moa_status *createBatch(World &w) {
  moa_batch_options options = {sizeof(options), kSequences, kStepTokens, 0};
  return moa_batch_create(w.cache, &options, &w.batch);
}

moa_status *begin(World &w, int64_t tokens) {
  moa_batch_step step = {sizeof(step), w.sequences, kSequences, tokens,
                         nullptr};
  return moa_batch_begin(w.batch, &step);
}

/// One layer of a step of `tokens` rows a sequence.
moa_status *attendStep(World &w, uint32_t layer, int64_t tokens) {
  const moa_attend_entry all = w.step[layer].entry(
      w.model.module->geometry, *unwrap(w.sequences[0]), 0, 0);
  auto tensor = [&](const void *data, int64_t row) {
    return moa_batch_tensor{const_cast<void *>(data), tokens * row, row, kDim};
  };
  moa_batch_attend_options options = {};
  options.struct_size = sizeof(options);
  options.layer = layer;
  options.q = tensor(all.q, all.q_row_stride);
  options.k = tensor(all.k, all.k_row_stride);
  options.v = tensor(all.v, all.v_row_stride);
  options.out = tensor(all.out, all.out_row_stride);
  return moa_batch_attend(w.batch, &options);
}

//===----------------------------------------------------------------------===//
// Prefixes: calls of worlds whose plan lets them be reused
//===----------------------------------------------------------------------===//

moa_status *setPrefixReuse(World &w) {
  moa_prefix_options options = {sizeof(options), 1 << 24};
  return w.reuses() ? moa_cache_set_prefix_reuse(w.cache, &options) : nullptr;
}

moa_status *reuse(World &w, size_t i, size_t count) {
  return w.reuses() ? moa_sequence_reuse(w.sequences[i], 0, w.ids.data(), count,
                                         nullptr, nullptr)
                    : nullptr;
}

moa_status *addTokens(World &w, size_t i, size_t count) {
  return w.reuses()
             ? moa_sequence_add_tokens(w.sequences[i], w.ids.data(), count)
             : nullptr;
}

//===----------------------------------------------------------------------===//
// Schedulers
//===----------------------------------------------------------------------===//

moa_status *submit(World &w, uint64_t user) {
  const moa_scheduler_request request = {sizeof(request),
                                         kPrompt,
                                         5,
                                         user,
                                         w.reuses() ? w.ids.data() : nullptr,
                                         0};
  uint64_t id = 0;
  return moa_scheduler_submit(w.scheduler, &request, &id);
}

moa_status *next(World &w) {
  moa_scheduler_step step = {};
  step.struct_size = sizeof(step);
  step.entry_size = sizeof(moa_scheduler_entry);
  moa_status *failed = moa_scheduler_next(w.scheduler, &step);
  if (!failed)
    w.scheduled = step;
  return failed;
}

/// One layer of the scheduler's step.
moa_status *attendScheduled(World &w, uint32_t layer) {
  moa_attend_entry entries[kRequests];
  for (size_t i = 0; i < w.scheduled.count; ++i) {
    const moa_scheduler_entry &e = w.scheduled.entries[i];
    entries[i] = w.served[e.user][layer].entry(w.model.module->geometry,
                                               *unwrap(e.sequence), e.first_row,
                                               e.first_row + e.tokens);
  }
  moa_attend_options options = {};
  options.struct_size = sizeof(options);
  options.entry_size = sizeof(moa_attend_entry);
  options.layer = layer;
  return moa_attend(w.cache, &options, entries, w.scheduled.count);
}

/// Ends the scheduler's step.
moa_status *close(World &w, bool commit) {
  moa_status *failed =
      commit ? moa_scheduler_commit(w.scheduler, nullptr, w.scheduled.count)
             : moa_scheduler_abort_step(w.scheduler);
  if (!failed)
    w.scheduled.count = 0;
  return failed;
}

moa_status *addTokensOfRequest(World &w) {
  return w.reuses() ? moa_scheduler_add_tokens(w.scheduler, 1, w.ids.data(), 1)
                    : nullptr;
}

struct Call {
  const char *name;
  std::function<moa_status *(World &)> make;
};

/// A call that cannot fail.
template <typename Body> auto always(Body body) {
  return [body](World &w) -> moa_status * {
    body(w);
    return nullptr;
  };
}

std::vector<Call> script() {
  std::vector<Call> calls = {
      {"context", [](World &w) { return createContext(&w.context, 3); }},
      {"second context", [](World &w) { return createContext(&w.second, 1); }},
      {"load from memory",
       [](World &w) {
         return moa_module_load_memory(w.context, w.artifact.data(),
                                       w.artifact.size(), &w.loaded);
       }},
      {"load from a file",
       [](World &w) {
         return moa_module_load_file(w.context, w.file.c_str(), &w.read);
       }},
      {"range hooks",
       [](World &w) {
         const moa_range_hooks hooks = {sizeof(hooks),
                                        [](void *, const char *) {},
                                        [](void *) {}, nullptr};
         return moa_context_set_range_hooks(w.context, &hooks);
       }},
      {"trace",
       [](World &w) {
         return moa_context_set_trace(w.context, w.traced.c_str());
       }},
      {"device memory",
       [](World &w) { return moa_device_alloc(w.context, 1000, &w.memory); }},
      {"cache",
       [](World &w) {
         w.model.context = w.context;
         const moa_cache_options options = {sizeof(options), 0, kRollback, 0};
         return moa_cache_create(&w.model, &options, &w.cache);
       }},
  };
  calls.push_back({"prefix reuse", setPrefixReuse});
  for (size_t i = 0; i < kSequences; ++i)
    calls.push_back({"sequence", [i](World &w) {
                       return moa_sequence_create(w.cache, kLength,
                                                  &w.sequences[i]);
                     }});
  auto eachLayer = [&](const char *name, auto make) {
    for (uint32_t layer = 0; layer < kLayers; ++layer)
      calls.push_back({name, [=](World &w) { return make(w, layer); }});
  };
  using Counts = std::array<int64_t, kSequences>;
  auto attends = [&](const char *name, Counts counts) {
    eachLayer(name, [=](World &w, uint32_t layer) {
      return attend(w, layer, counts);
    });
  };
  calls.push_back({"tokens ahead",
                   [](World &w) { return addTokens(w, 0, kMostTokens / 2); }});
  attends("prefill", {130, 0, 0});
  attends("prefill beside decode", {1, 65, 200});
  attends("decode", {1, 1, 1});
  attends("chunk", {300, 63, 2});
  calls.push_back({"length", [](World &w) {
                     return moa_sequence_set_length(w.sequences[0],
                                                    kLength + 99);
                   }});
  attends("decode behind a longer length", {1, 1, 1});
  calls.push_back({"batch", createBatch});
  auto steps = [&](int64_t tokens) {
    calls.push_back({"begin", [=](World &w) { return begin(w, tokens); }});
    eachLayer("layer of a step", [=](World &w, uint32_t layer) {
      return attendStep(w, layer, tokens);
    });
  };
  for (int64_t tokens : {1, 4, 4, 1}) {
    steps(tokens);
    calls.push_back({"end", always([](World &w) { moa_batch_end(w.batch); })});
  }
  steps(4);
  calls.push_back(
      {"cancel", always([](World &w) { moa_batch_cancel(w.batch); })});
  attends("chunk behind a cancelled step", {3, 70, 1});
  auto freeSequence = [&](size_t i) {
    calls.push_back({"free a sequence", always([i](World &w) {
                       moa_sequence_destroy(w.sequences[i]);
                       w.sequences[i] = nullptr;
                     })});
  };
  freeSequence(1);
  calls.push_back({"free a batch", always([](World &w) {
                     moa_batch_destroy(w.batch);
                     w.batch = nullptr;
                   })});
  attends("decode after all", {1, 0, 1});
  calls.push_back({"another sequence", [](World &w) {
                     return moa_sequence_create(w.cache, kLength,
                                                &w.sequences[1]);
                   }});
  calls.push_back({"reuse", [](World &w) { return reuse(w, 1, kMostTokens); }});
  attends("chunk behind a prefix", {0, 70, 0});
  freeSequence(1);

  // Sequences that share, go back, are stored and come back.
  calls.push_back({"fork", [](World &w) {
                     return moa_sequence_fork(w.sequences[0], &w.sequences[1]);
                   }});
  attends("decode of a fork", {0, 1, 1});
  attends("chunks of both", {10, 20, 1});
  calls.push_back({"truncate", [](World &w) {
                     const int64_t seen =
                         unwrap(w.sequences[1])->layers[0].seen;
                     return moa_sequence_truncate(w.sequences[1], seen - 20);
                   }});
  attends("rows behind a truncation", {1, 7, 0});
  freeSequence(2);
  calls.push_back({"second fork", [](World &w) {
                     return moa_sequence_fork(w.sequences[1], &w.sequences[2]);
                   }});
  calls.push_back({"batch of forks", createBatch});
  steps(2);
  calls.push_back({"end", always([](World &w) { moa_batch_end(w.batch); })});
  calls.push_back({"snapshot in memory", [](World &w) {
                     return moa_sequence_snapshot_memory(
                         w.sequences[1], w.snapshot.data(), w.snapshot.size(),
                         nullptr);
                   }});
  calls.push_back({"snapshot in a file", [](World &w) {
                     return moa_sequence_snapshot_file(w.sequences[1],
                                                       w.stored.c_str());
                   }});
  freeSequence(0);
  calls.push_back({"restore from memory", [](World &w) {
                     size_t size = 0;
                     moa_sequence_snapshot_memory(w.sequences[1], nullptr, 0,
                                                  &size);
                     return moa_sequence_restore_memory(
                         w.cache, w.snapshot.data(), size, &w.sequences[0]);
                   }});
  freeSequence(2);
  calls.push_back({"restore from a file", [](World &w) {
                     return moa_sequence_restore_file(w.cache, w.stored.c_str(),
                                                      &w.sequences[2]);
                   }});
  attends("rows behind a restore", {1, 1, 30});

  // Requests.
  calls.push_back({"scheduler", [](World &w) {
                     const moa_scheduler_options options = {
                         sizeof(options), 4, MOA_ADMIT_OPTIMISTIC, 128, 64, 0};
                     return moa_scheduler_create(w.cache, &options,
                                                 &w.scheduler);
                   }});
  for (uint64_t user = 0; user < kRequests; ++user)
    calls.push_back({"submit", [=](World &w) { return submit(w, user); }});
  auto serve = [&](bool commit) {
    calls.push_back({"next", next});
    eachLayer("layer of a scheduler's step", attendScheduled);
    calls.push_back({commit ? "commit" : "abort",
                     [=](World &w) { return close(w, commit); }});
  };
  for (bool commit : {true, false, true, true, true})
    serve(commit);
  calls.push_back({"tokens of a request", addTokensOfRequest});
  calls.push_back({"cancel a request", [](World &w) {
                     return moa_scheduler_cancel(w.scheduler, 2);
                   }});
  serve(true);
  calls.push_back({"counters as text", [](World &w) {
                     size_t needed = 0;
                     return moa_cache_format_prometheus(w.cache, "model=\"a\"",
                                                        nullptr, 0, &needed);
                   }});
  calls.push_back({"end of the trace", [](World &w) {
                     return moa_context_set_trace(w.context, nullptr);
                   }});
  return calls;
}

//===----------------------------------------------------------------------===//
// The test
//===----------------------------------------------------------------------===//

/// Makes a call with failing allocations, later and later, until none of them
/// is reached; how often it failed.
int64_t failThrough(World &world, const Call &call, Fault fault) {
  const std::vector<int64_t> before = world.state();
  for (int64_t at = 0;; ++at) {
    SCOPED_TRACE("allocation " + std::to_string(at));
    FaultyAllocations faulty(fault, at);
    moa_status *status = call.make(world);
    const int64_t failed = faulty.stop();
    EXPECT_EQ(status != nullptr, failed > 0) << "an error without a status";
    if (!status)
      return at;
    EXPECT_EQ(moa_status_get_code(status), MOA_OUT_OF_MEMORY)
        << moa_status_get_message(status);
    EXPECT_STRNE(moa_status_get_message(status), "");
    moa_status_free(status);
    EXPECT_EQ(world.state(), before);
    if (testing::Test::HasFailure())
      return at;
  }
}

void expectEqualOutputs(const World &a, const World &b) {
  auto equal = [](const Tokens &x, const Tokens &y) {
    return std::memcmp(x.out.data(), y.out.data(),
                       x.out.size() * sizeof(float)) == 0;
  };
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    EXPECT_TRUE(equal(a.step[layer], b.step[layer])) << "step";
    for (size_t i = 0; i < kSequences; ++i)
      EXPECT_TRUE(equal(a.tokens[i][layer], b.tokens[i][layer])) << i;
    for (size_t i = 0; i < kRequests; ++i)
      EXPECT_TRUE(equal(a.served[i][layer], b.served[i][layer])) << i;
  }
}

TEST(AllocationFault, EveryFailureOfEveryCallChangesNothing) {
  int64_t failures = 0;
  for (uint32_t seed = 0; seed < 6; ++seed)
    for (Fault fault : {Fault::One, Fault::AllBehind}) {
      World sound(seed), faulty(seed);
      for (const Call &call : script()) {
        SCOPED_TRACE("seed " + std::to_string(seed) + ", " + call.name);
        ASSERT_EQ(call.make(sound), nullptr);
        failures += failThrough(faulty, call, fault);
        EXPECT_EQ(faulty.state(), sound.state());
        EXPECT_EQ(faulty.reserved(), sound.reserved());
        expectEqualOutputs(sound, faulty);
        if (HasFailure())
          return;
      }
    }
  std::printf("%lld allocations failed, of %zu calls\n",
              static_cast<long long>(failures), script().size());
  // Fewer would say that allocations go round the test.
  EXPECT_GT(failures, 1000);
}

} // namespace
