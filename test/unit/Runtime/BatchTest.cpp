//===- BatchTest.cpp - Steps of batches, on the CPU -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A step is the calls it stands for: same rows, same pages after it, nothing
// after one that is given up or has no pages.
//
//===----------------------------------------------------------------------===//

#include "Reference.h"

#include <gtest/gtest.h>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

/// What a layer of a sequence holds, by KV head.
struct Held {
  std::vector<int64_t> first;         ///< Resident position behind the sink.
  std::vector<std::vector<bool>> kv8; ///< By block: in 8 bits.
};

/// A model with sequences that get their rows by calls or by steps.
struct Model {
  explicit Model(uint32_t seed, uint64_t maxPages = 0)
      : rollback(seed % 5 == 4 ? 70 : 0), random(seed), threads(2) {
    Shape shape;
    shape.layers = 1 + random() % 3;
    shape.kvHeads = 1 + random() % 2;
    shape.group = 1 + random() % 3;
    shape.lengthRule = seed % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
    shape.kv8 = seed / 2 % 2;
    fill(module, shape, random);
    cache = std::make_unique<CpuCache>(
        module, threads, maxPages * module.geometry.pageBytes(), rollback);
  }

  Sequence &add(int64_t length) {
    cache->sequences.push_back(
        std::make_unique<Sequence>(*cache, module, cache->pool, length));
    tokens.emplace_back(module.geometry.layers);
    return *cache->sequences.back();
  }

  /// A chunk of every sequence by moa_attend.
  void call(int64_t chunk) {
    const Geometry &g = module.geometry;
    for (uint32_t l = 0; l < g.layers; ++l)
      for (size_t s = 0; s < tokens.size(); ++s) {
        Sequence &sequence = *cache->sequences[s];
        int64_t seen = sequence.layers[l].seen;
        tokens[s][l].add(g, chunk, random);
        moa_attend_entry entry =
            tokens[s][l].entry(g, sequence, seen, seen + chunk);
        ASSERT_FALSE(cache->attend(l, 1, &entry, 1));
      }
  }

  /// Attends to all layers of a step under way; rows go to tensors of the step
  /// and back.
  void attend(Batch &batch, const std::vector<size_t> &members, int64_t rows) {
    const Geometry &g = module.geometry;
    const size_t q = g.qHeads * kDim, kv = g.kvHeads * kDim;
    for (uint32_t l = 0; l < g.layers; ++l) {
      // [sequence][token][head][kDim], and a row nobody may touch.
      std::vector<float> in[3], out((members.size() * rows + 1) * q, -7);
      for (size_t s : members) {
        Tokens &own = tokens[s][l];
        own.add(g, rows, random);
        in[0].insert(in[0].end(), own.q.end() - rows * q, own.q.end());
        in[1].insert(in[1].end(), own.k.end() - rows * kv, own.k.end());
        in[2].insert(in[2].end(), own.v.end() - rows * kv, own.v.end());
      }
      auto tensor = [&](const float *data, size_t row) -> StepTensor {
        return {data, int64_t(rows * row), int64_t(row), kDim};
      };
      StepCall step;
      step.layer = l;
      step.q = tensor(in[0].data(), q);
      step.k = tensor(in[1].data(), kv);
      step.v = tensor(in[2].data(), kv);
      step.out = tensor(out.data(), q);
      Status failed = batch.attend(step);
      ASSERT_FALSE(failed) << failed->message;
      for (size_t i = 0; i < members.size(); ++i)
        std::copy_n(out.begin() + i * rows * q, rows * q,
                    tokens[members[i]][l].out.end() - rows * q);
      EXPECT_EQ(out.back(), -7);
    }
  }

  /// Takes the rows of a step given up away again.
  void forget(const std::vector<size_t> &members, int64_t rows) {
    const Geometry &g = module.geometry;
    for (size_t s : members)
      for (Tokens &own : tokens[s]) {
        own.q.resize(own.q.size() - rows * g.qHeads * kDim);
        own.out.resize(own.q.size());
        own.k.resize(own.k.size() - rows * g.kvHeads * kDim);
        own.v.resize(own.k.size());
      }
  }

  /// Rows from `from` on, of a call or step before which `before` was held.
  void expectRows(size_t s, int64_t from, const std::vector<Held> &before) {
    const std::vector<Held> after = heldOf(s);
    for (uint32_t l = 0; l < module.geometry.layers; ++l) {
      const Sequence &sequence = *cache->sequences[s];
      // They see in 8 bits what was so, or became so and was complete.
      std::vector<std::vector<bool>> kv8 = after[l].kv8;
      for (size_t h = 0; h < kv8.size(); ++h)
        for (size_t block = 0; block < kv8[h].size(); ++block)
          kv8[h][block] =
              (kv8[h][block] && int64_t(block + 1) * MOA_BLOCK_KEYS <= from) ||
              (block < before[l].kv8[h].size() && before[l].kv8[h][block]);
      EXPECT_LT(difference(module, l, tokens[s][l], from,
                           sequence.layers[l].seen, sequence.length,
                           before[l].first, kv8),
                1e-5)
          << "sequence " << s << " layer " << l;
    }
  }

  /// What a sequence holds, by layer.
  std::vector<Held> heldOf(size_t s) const {
    std::vector<Held> held;
    for (const LayerState &layer : cache->sequences[s]->layers) {
      held.emplace_back();
      for (const HeadPages &head : layer.heads) {
        held.back().first.push_back(head.firstResident());
        held.back().kv8.emplace_back();
        for (int64_t block = 0; block < blocksOf(layer.seen); ++block)
          held.back().kv8.back().push_back(head.isKv8(block));
      }
    }
    return held;
  }

  /// All pages in use are those that the closed form says, no more.
  void expectClosedForm() const {
    uint64_t pages = 0;
    for (const auto &sequence : cache->sequences) {
      for (uint32_t l = 0; l < module.geometry.layers; ++l)
        for (uint32_t h = 0; h < module.geometry.kvHeads; ++h) {
          moa_resident own = sequence->layers[l].heads[h].resident;
          moa_resident next = module.resident(l, h, sequence->layers[l].seen,
                                              sequence->length, rollback);
          next.window_begin = std::max(next.window_begin, own.window_begin);
          if (module.kvFormat(l, h) != MOA_KV_MODEL)
            next.kv8_end = std::max(next.kv8_end, next.window_begin);
          EXPECT_EQ(moa_resident_count(&own), moa_resident_count(&next));
          pages += moa_resident_count(&own);
        }
    }
    EXPECT_EQ(cache->pool.used(), pages);
  }

  const int64_t rollback; ///< Tokens that can always be taken back.
  std::mt19937 random;
  Module module;
  ThreadPool threads;
  std::unique_ptr<CpuCache> cache;
  std::vector<std::vector<Tokens>> tokens; ///< [sequence][layer].
};

TEST(Batch, StepsAreTheCallsTheyStandFor) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    Model m(seed);
    std::vector<Sequence *> all;
    for (int s = 0; s < 3; ++s)
      all.push_back(&m.add(200 + 100 * s));
    Batch batch(*m.cache, {3, 8, 64});
    ASSERT_FALSE(batch.open());
    ASSERT_FALSE(batch.replays());
    m.call(1 + m.random() % 150);
    for (int step = 0; step < 30; ++step) {
      SCOPED_TRACE(step);
      std::vector<size_t> members;
      std::vector<Sequence *> sequences;
      for (size_t s = 0; s < 3; ++s)
        if (m.random() % 3) {
          members.push_back(s);
          sequences.push_back(all[s]);
        }
      if (members.empty())
        continue;
      if (step % 7 == 5)
        all[members[0]]->length += 90;
      const int64_t rows = 1 + m.random() % 8;
      std::vector<std::vector<Held>> bounds;
      for (size_t s : members)
        bounds.push_back(m.heldOf(s));
      std::vector<int64_t> seen;
      for (Sequence *sequence : sequences)
        seen.push_back(sequence->layers[0].seen);
      Status failed =
          batch.begin(sequences.data(), sequences.size(), rows, nullptr);
      ASSERT_FALSE(failed) << failed->message;
      m.attend(batch, members, rows);
      if (step % 5 == 4) {
        batch.cancel();
        m.forget(members, rows);
        for (size_t i = 0; i < members.size(); ++i)
          EXPECT_EQ(sequences[i]->layers[0].seen, seen[i]);
        m.expectClosedForm();
        continue;
      }
      batch.end();
      for (size_t i = 0; i < members.size(); ++i) {
        EXPECT_EQ(sequences[i]->layers[0].seen, seen[i] + rows);
        m.expectRows(members[i], seen[i], bounds[i]);
      }
      m.expectClosedForm();
      if (step % 11 == 10) { // By calls again.
        std::vector<std::vector<Held>> before;
        std::vector<int64_t> from;
        for (size_t s = 0; s < 3; ++s) {
          before.push_back(m.heldOf(s));
          from.push_back(all[s]->layers[0].seen);
        }
        m.call(1 + m.random() % 70);
        for (size_t s = 0; s < 3; ++s)
          m.expectRows(s, from[s], before[s]);
      }
    }
  }
}

TEST(Batch, WithoutPagesNothingHappens) {
  Model m(2, 40);
  std::vector<Sequence *> all = {&m.add(1 << 16), &m.add(1 << 16)};
  // Of the cache, which tells it of sequences that go.
  m.cache->batches.push_back(
      std::make_unique<Batch>(*m.cache, BatchShape{2, 8, 1024}));
  Batch &batch = *m.cache->batches.back();
  ASSERT_FALSE(batch.open());
  int64_t steps = 0;
  for (;; ++steps) {
    ASSERT_LT(steps, 3000);
    const uint64_t used = m.cache->pool.used();
    Status failed = batch.begin(all.data(), 2, 8, nullptr);
    if (failed) {
      EXPECT_EQ(failed->code, MOA_OUT_OF_PAGES);
      EXPECT_EQ(m.cache->pool.used(), used);
      EXPECT_FALSE(batch.isOpen());
      EXPECT_EQ(all[0]->step, nullptr);
      break;
    }
    batch.end();
  }
  ASSERT_GT(steps, 0);
  m.expectClosedForm();
  // It fails again, not half; with one sequence gone it goes on.
  EXPECT_TRUE(batch.begin(all.data(), 2, 8, nullptr));
  m.cache->destroy(*all[1]);
  m.tokens.pop_back();
  ASSERT_FALSE(batch.begin(all.data(), 1, 8, nullptr));
  batch.end();
  m.expectClosedForm();
}

TEST(Batch, Refusals) {
  Model m(3), other(3);
  std::vector<Sequence *> all = {&m.add(300), &m.add(300)};
  Sequence &foreign = other.add(300);
  Batch batch(*m.cache, {2, 4, 2}), second(*m.cache, {2, 1, 2});
  ASSERT_FALSE(batch.open());
  ASSERT_FALSE(second.open());
  auto expect = [&](std::vector<Sequence *> sequences, int64_t tokens,
                    moa_status_code code, const char *text) {
    Status failed =
        batch.begin(sequences.data(), sequences.size(), tokens, nullptr);
    ASSERT_TRUE(failed);
    EXPECT_EQ(failed->code, code);
    EXPECT_NE(failed->message.find(text), std::string::npos) << failed->message;
    EXPECT_FALSE(batch.isOpen());
  };
  expect({}, 1, MOA_INVALID_ARGUMENT, "has 0 sequences, expected 1 to");
  expect({all[0], all[1], all[0]}, 1, MOA_INVALID_ARGUMENT, "max_sequences 2");
  expect({all[0], all[0]}, 1, MOA_INVALID_ARGUMENT, "are the same");
  expect({all[0], nullptr}, 1, MOA_INVALID_ARGUMENT, "sequence 1 is NULL");
  expect({&foreign}, 1, MOA_INVALID_ARGUMENT, "of another cache");
  expect({all[0]}, 0, MOA_INVALID_ARGUMENT, "has 0 tokens");
  expect({all[0]}, 5, MOA_INVALID_ARGUMENT, "max_tokens 4");
  EXPECT_TRUE(batch.attend({})) << "no step is under way";
  m.call(127);
  expect({all[0]}, 2, MOA_OUT_OF_RANGE, "exceed 128");
  ASSERT_FALSE(batch.begin(all.data(), 2, 1, nullptr));
  Status failed = batch.begin(all.data(), 2, 1, nullptr);
  ASSERT_TRUE(failed);
  EXPECT_NE(failed->message.find("a step under way"), std::string::npos);
  failed = second.begin(all.data(), 1, 1, nullptr);
  ASSERT_TRUE(failed);
  EXPECT_NE(failed->message.find("another batch's step"), std::string::npos);
  // Its sequences take no other call meanwhile.
  Tokens tokens;
  tokens.add(m.module.geometry, 1, m.random);
  moa_attend_entry entry = tokens.entry(m.module.geometry, *all[0], 0, 1);
  failed = m.cache->attend(0, 1, &entry, 1);
  ASSERT_TRUE(failed);
  EXPECT_NE(failed->message.find("part of a step"), std::string::npos);
  batch.cancel();
  EXPECT_FALSE(m.cache->attend(0, 1, &entry, 1));
  if (m.module.geometry.layers > 1)
    expect({all[0]}, 1, MOA_INVALID_ARGUMENT, "layer 0 has seen 128");
}

TEST(Batch, SequencesAndBatchesGoInAnyOrder) {
  Model m(4);
  std::vector<Sequence *> all = {&m.add(300), &m.add(300)};
  m.call(100);
  auto owned = std::make_unique<Batch>(*m.cache, BatchShape{2, 1, 64});
  Batch &batch = *owned;
  ASSERT_FALSE(batch.open());
  m.cache->batches.push_back(std::move(owned));
  ASSERT_FALSE(batch.begin(all.data(), 2, 1, nullptr));
  m.cache->destroy(*all[0]); // Ends the step.
  EXPECT_FALSE(batch.isOpen());
  EXPECT_EQ(all[1]->layers[0].seen, 101);
  ASSERT_FALSE(batch.begin(&all[1], 1, 1, nullptr));
  m.cache->destroy(batch); // Gives it up.
  EXPECT_TRUE(m.cache->batches.empty());
  EXPECT_EQ(all[1]->step, nullptr);
  EXPECT_EQ(all[1]->layers[0].seen, 101);
  m.expectClosedForm();
}

} // namespace
