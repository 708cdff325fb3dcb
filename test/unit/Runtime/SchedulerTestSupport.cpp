//===- SchedulerTestSupport.cpp - Requests for the scheduler --------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of SchedulerTestSupport.h.
//
//===----------------------------------------------------------------------===//

#include "SchedulerTestSupport.h"

#include <algorithm>

namespace moa::rt::test {
namespace {

void idlePrefill(const moa_work_item *, void *) {}
void idleAppend(const moa_append_item *, void *) {}
void idleQuantise(const moa_quantise_item *, void *) {}

} // namespace

Server::Server(const Shape &shape, std::mt19937 &random, uint64_t maxPages,
               bool computes, int64_t rollback)
    : threads(computes ? 2 : 1) {
  fill(module, shape, random);
  if (!computes)
    for (LayerKernels &layer : module.layers) {
      layer.decode = Kernel();
      layer.prefill.entry = reinterpret_cast<void *>(idlePrefill);
      layer.append.entry = reinterpret_cast<void *>(idleAppend);
      layer.quantise.entry = reinterpret_cast<void *>(idleQuantise);
    }
  auto pool = std::make_unique<PagePool>(module.geometry.pageBytes(), maxPages,
                                         module.geometry.scaleBytes());
  auto executor = makeCpuExecutor(module, *pool, threads);
  cache.cache = std::make_unique<Cache>(module, std::move(pool),
                                        std::move(executor), rollback);
}

void Server::open(moa_scheduler_options options) {
  options.struct_size = sizeof(options);
  moa_status *failed = moa_scheduler_create(&cache, &options, &scheduler);
  ASSERT_FALSE(failed) << moa_status_get_message(failed);
}

uint64_t Server::submit(int64_t prompt, int64_t mostNew) {
  moa_scheduler_request request = {sizeof(request), prompt, mostNew, 0,
                                   nullptr,         0};
  uint64_t id = 0;
  moa_status *failed = moa_scheduler_submit(scheduler, &request, &id);
  EXPECT_FALSE(failed) << moa_status_get_message(failed);
  return id;
}

moa_scheduler_stats Server::stats() const {
  moa_scheduler_stats stats = {};
  stats.struct_size = sizeof(stats);
  EXPECT_FALSE(moa_scheduler_get_stats(scheduler, &stats));
  return stats;
}

void Caller::submit(int64_t prompt, int64_t mostNew) {
  Client client;
  client.prompt = prompt;
  client.mostNew = mostNew;
  client.stopAfter = random() % 2 ? mostNew : 1 + random() % mostNew;
  moa_scheduler_request request = {sizeof(request), prompt, mostNew, 7,
                                   nullptr,         0};
  uint64_t id = 0;
  if (codeOf(moa_scheduler_submit(server.scheduler, &request, &id)) == MOA_OK)
    clients[id] = client;
}

void Caller::cancelOne() {
  if (clients.empty())
    return;
  auto victim = std::next(clients.begin(), random() % clients.size());
  EXPECT_FALSE(moa_scheduler_cancel(server.scheduler, victim->first));
  EXPECT_EQ(codeOf(moa_scheduler_cancel(server.scheduler, victim->first)),
            MOA_INVALID_ARGUMENT);
  clients.erase(victim);
}

/// Checks a step against the rules and notes what it feeds.
void Caller::checkStep(const moa_scheduler_step &step) {
  const moa_scheduler_stats stats = server.stats();
  ASSERT_LE(step.count, options.max_sequences);
  ASSERT_LE(step.tokens, options.max_step_tokens);
  std::map<uint64_t, const moa_scheduler_entry *> byId;
  int64_t tokens = 0;
  bool oldestPrompt = true;
  for (size_t i = 0; i < step.count; ++i) {
    const moa_scheduler_entry &entry = step.entries[i];
    SCOPED_TRACE(testing::Message() << "request " << entry.request);
    ASSERT_TRUE(clients.count(entry.request));
    ASSERT_TRUE(byId.emplace(entry.request, &entry).second);
    Client &client = clients[entry.request];
    // Each row once, in order; again from 0 only after a loss.
    const bool restarts = entry.first_row == 0 && client.next > 0;
    if (restarts) {
      EXPECT_TRUE(!client.running || client.lost);
      client.restartedAt = client.lost ? -1 : client.generated;
      client.next = 0;
      ++this->restarts;
    } else {
      EXPECT_EQ(entry.first_row, client.next);
    }
    client.lost = false;
    const int64_t left = client.prompt + client.generated - entry.first_row;
    EXPECT_EQ(entry.user, 7u);
    EXPECT_EQ(entry.generated, client.generated);
    EXPECT_GE(entry.tokens, 1);
    EXPECT_LE(entry.tokens, std::min(left, options.chunk_tokens));
    EXPECT_EQ(entry.samples, entry.tokens == left);
    EXPECT_EQ(entry.last,
              entry.tokens == left && client.generated + 1 == client.mostNew);
    if (i < step.decodes)
      EXPECT_TRUE(entry.tokens == 1 && entry.samples);
    else if (!entry.samples) // Only whole blocks short of the end.
      EXPECT_EQ((entry.first_row + entry.tokens) % MOA_BLOCK_KEYS, 0);
    // The first prompt of a step is the oldest unfinished one.
    if (i >= step.decodes && oldestPrompt) {
      EXPECT_GE(entry.tokens, std::min<int64_t>(left, MOA_BLOCK_KEYS));
      oldestPrompt = false;
    }
    // By arrival, in each of the two parts.
    if (i && i != step.decodes)
      EXPECT_GT(entry.request, step.entries[i - 1].request);
    tokens += entry.tokens;
  }
  EXPECT_EQ(tokens, step.tokens);

  // A token that waits to be fed is fed, unless its request was preempted.
  uint64_t gone = 0;
  for (auto &[id, client] : clients) {
    const bool fed = byId.count(id);
    const bool waits = client.prompt + client.generated - client.next == 1;
    if (client.running && !fed && waits && !client.lost) {
      ++gone;
      client.running = false;
      // Not before it has 64 tokens more than when it came back last.
      if (client.restartedAt >= 0 && !aborts)
        EXPECT_GE(client.generated, client.restartedAt + 64)
            << "request " << id;
    }
  }
  const uint64_t preempted = stats.preemptions - before.preemptions;
  EXPECT_LE(gone, preempted);
  if (options.admission == MOA_ADMIT_RESERVED)
    EXPECT_EQ(stats.preemptions, 0u);

  // Who runs is older than who waits: nobody starts, or comes back, before an
  // older one.
  EXPECT_EQ(stats.running + stats.waiting, clients.size());
  uint64_t rank = 0;
  for (auto &[id, client] : clients) {
    const bool runs = rank++ < stats.running;
    if (byId.count(id))
      EXPECT_TRUE(runs) << "request " << id << " overtakes";
    client.running = runs;
  }
  before = stats;
}

void Caller::attend(const moa_scheduler_step &step, uint32_t layers) {
  static float nowhere[kDim];
  std::vector<moa_attend_entry> entries;
  for (size_t i = 0; i < step.count; ++i) {
    moa_attend_entry entry = {};
    entry.sequence = step.entries[i].sequence;
    entry.tokens = step.entries[i].tokens;
    entry.q = entry.k = entry.v = entry.out = nowhere;
    // Kernels that do nothing look nowhere.
    entry.q_row_stride = entry.k_row_stride = entry.v_row_stride =
        entry.out_row_stride = kDim;
    entry.q_head_stride = entry.k_head_stride = entry.v_head_stride =
        entry.out_head_stride = kDim;
    entries.push_back(entry);
  }
  for (uint32_t l = 0; l < layers; ++l) {
    Status failed = server.cache.cache->attend(
        {l, 1, nullptr, entries.data(), entries.size()});
    ASSERT_FALSE(failed) << failed->message;
  }
}

bool Caller::step(bool fails) {
  moa_scheduler_step step = {};
  step.struct_size = sizeof(step);
  step.entry_size = sizeof(moa_scheduler_entry);
  moa_status *failed = moa_scheduler_next(server.scheduler, &step);
  EXPECT_FALSE(failed) << moa_status_get_message(failed);
  if (failed || step.count == 0) {
    EXPECT_TRUE(clients.empty());
    return false;
  }
  checkStep(step);
  if (testing::Test::HasFatalFailure())
    return false;
  if (random() % 40 == 0)
    cancelOne();
  const uint32_t layers = server.module.geometry.layers;
  if (fails) {
    const uint32_t done = random() % (layers + 1);
    attend(step, done);
    const bool wanted =
        std::any_of(step.entries, step.entries + step.count,
                    [&](const auto &e) { return clients.count(e.request); });
    if (done < layers && wanted) // What is missing is found.
      EXPECT_EQ(codeOf(moa_scheduler_commit(server.scheduler, nullptr, 0)),
                MOA_INVALID_ARGUMENT);
    for (size_t i = 0; i < step.count; ++i)
      if (auto found = clients.find(step.entries[i].request);
          found != clients.end() && done > 0)
        found->second.lost = true;
    aborts |= done > 0;
    EXPECT_FALSE(moa_scheduler_abort_step(server.scheduler));
    return true;
  }
  attend(step, layers);
  std::vector<uint8_t> stops(step.count);
  for (size_t i = 0; i < step.count; ++i) {
    const moa_scheduler_entry &entry = step.entries[i];
    auto found = clients.find(entry.request);
    if (found == clients.end())
      continue; // Cancelled meanwhile.
    Client &client = found->second;
    client.next = entry.first_row + entry.tokens;
    if (!entry.samples)
      continue;
    stops[i] = ++client.generated >= client.stopAfter;
    if (stops[i])
      clients.erase(found);
  }
  EXPECT_FALSE(
      moa_scheduler_commit(server.scheduler, stops.data(), step.count));
  return true;
}

} // namespace moa::rt::test
