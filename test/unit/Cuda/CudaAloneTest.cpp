//===- CudaAloneTest.cpp - Rows whose bits are their sequence's alone -----===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Caches with decode_parts on the fake driver, whose bits say how a row was cut
// and by which kernel: rows of 64 ragged sequences alone, together, in other
// places and beside others, in calls and in steps.
//
//===----------------------------------------------------------------------===//

#include "CudaTestSupport.h"

#include "gtest/gtest.h"

#include <algorithm>
#include <map>
#include <numeric>

using namespace moa;
using namespace moa::test;

namespace {

constexpr double kTolerance = 5e-3;
constexpr int64_t kLongest = 1500, kRows = 8;

/// Rows of a sequence in a call or step.
struct Part {
  int sequence;
  int64_t tokens;
};
/// Output rows as bytes, by sequence.
using Outputs = std::map<int, std::string>;

/// One row each.
std::vector<Part> ones(const std::vector<int> &sequences) {
  std::vector<Part> parts;
  for (int sequence : sequences)
    parts.push_back({sequence, 1});
  return parts;
}

class CudaAlone : public FakeCudaTest {
protected:
  /// A cache with `count` sequences of random lengths.
  void open(int64_t decodeParts, bool kv8 = false, int count = 64) {
    Model model;
    model.columns = 8;
    model.wide = 16;
    model.kv8 = kv8;
    if (kv8)
      model.kvHeads = 3;
    model.randomRules(random);
    const Status opened = session.open(model, 32 << 20, decodeParts);
    ASSERT_TRUE(opened) << opened.message();
    for (int i = 0; i < count; ++i) {
      lengths.push_back(1 + int64_t(random() % (kLongest - kRows)));
      tokens.push_back(
          std::make_unique<Tokens>(session, lengths[i] + kRows, random));
      sequences.emplace_back();
      ASSERT_TRUE(sequences[i].create(session.cache, kLongest));
      moa_attend_entry e = tokens[i]->entry(sequences[i], 0, lengths[i]);
      e.q = nullptr;
      e.out = nullptr;
      ASSERT_TRUE(session.cache.attend(0, {e}));
    }
    all.resize(size_t(count));
    std::iota(all.begin(), all.end(), 0);
  }
  void TearDown() override {
    close();
    FakeCudaTest::TearDown();
  }
  void close() {
    tokens.clear();
    sequences.clear();
    lengths.clear();
    session.cache = Cache();
    session.module = Module();
    session.context = Context();
  }

  int64_t rowBytes(uint32_t heads) const {
    return int64_t(heads) * session.model.dim * 2;
  }
  std::string copyOut(const void *from, int64_t rows) {
    std::string bytes(size_t(rows * rowBytes(session.model.qHeads())), 0);
    EXPECT_TRUE(Status(moa_device_copy(session.context.get(), bytes.data(),
                                       from, bytes.size())));
    return bytes;
  }
  /// The next rows of forks of sequences, which stay as they are.
  Outputs byCall(const std::vector<Part> &parts) {
    std::vector<Sequence> forks(parts.size());
    std::vector<moa_attend_entry> entries;
    for (size_t i = 0; i < parts.size(); ++i) {
      const auto [s, rows] = parts[i];
      EXPECT_TRUE(forks[i].fork(sequences[s]));
      tokens[s]->clearOut();
      entries.push_back(
          tokens[s]->entry(forks[i], lengths[s], lengths[s] + rows));
    }
    Status status = session.cache.attend(0, entries);
    EXPECT_TRUE(status) << status.message();
    Outputs outputs;
    for (size_t i = 0; i < parts.size(); ++i)
      outputs[parts[i].sequence] = copyOut(entries[i].out, parts[i].tokens);
    return outputs;
  }
  /// The same in a step of a batch for `room` sequences.
  Outputs byStep(const std::vector<int> &members, size_t room) {
    const Model &m = session.model;
    moa_context *context = session.context.get();
    Batch batch;
    moa_batch_options options = {};
    options.max_sequences = uint32_t(room);
    options.max_length = kLongest;
    EXPECT_TRUE(batch.create(session.cache, options));
    moa_batch_attend_options o = {};
    moa_batch_tensor *tensors[] = {&o.q, &o.k, &o.v, &o.out};
    const uint32_t heads[] = {m.qHeads(), m.kvHeads, m.kvHeads, m.qHeads()};
    for (int i = 0; i < 4; ++i) {
      *tensors[i] = {nullptr, int64_t(heads[i]) * m.dim, 0, int64_t(m.dim)};
      EXPECT_TRUE(Status(moa_device_alloc(context, room * rowBytes(heads[i]),
                                          &tensors[i]->data)));
    }
    std::vector<Sequence> forks(members.size());
    std::vector<moa_sequence *> handles;
    for (size_t i = 0; i < members.size(); ++i) {
      const int s = members[i];
      EXPECT_TRUE(forks[i].fork(sequences[s]));
      handles.push_back(forks[i].get());
      const moa_attend_entry e =
          tokens[s]->entry(forks[i], lengths[s], lengths[s] + 1);
      const void *from[] = {e.q, e.k, e.v};
      for (int t = 0; t < 3; ++t)
        EXPECT_TRUE(Status(moa_device_copy(
            context,
            static_cast<char *>(tensors[t]->data) + i * rowBytes(heads[t]),
            from[t], rowBytes(heads[t]))));
    }
    Status status = batch.begin(handles);
    EXPECT_TRUE(status) << status.message();
    EXPECT_TRUE(batch.attend(o));
    batch.end();
    Outputs outputs;
    for (size_t i = 0; i < members.size(); ++i)
      outputs[members[i]] = copyOut(
          static_cast<char *>(o.out.data) + i * rowBytes(m.qHeads()), 1);
    for (moa_batch_tensor *tensor : tensors)
      EXPECT_TRUE(Status(moa_device_free(context, tensor->data)));
    return outputs;
  }
  /// Sequences whose rows differ.
  int differing(const Outputs &found, const Outputs &expected) {
    int count = 0;
    for (const auto &[sequence, rows] : found)
      count += rows != expected.at(sequence);
    return count;
  }

  std::mt19937 random{1};
  Session session;
  std::vector<int64_t> lengths;
  std::vector<Sequence> sequences;
  std::vector<std::unique_ptr<Tokens>> tokens;
  std::vector<int> all; ///< Numbers of sequences.
};

TEST_F(CudaAlone, RowsHaveTheSameBitsWhateverIsBesideThem) {
  for (int64_t parts : {1, 4, 64})
    for (bool kv8 : {false, true}) {
      SCOPED_TRACE(parts);
      open(parts, kv8);
      const Outputs together = byCall(ones(all));
      for (int i : all) {
        ASSERT_EQ(byCall(ones({i})).at(i), together.at(i)) << "sequence " << i;
        if (i % 9 == 0)
          ASSERT_EQ(byStep({i}, 1).at(i), together.at(i)) << "sequence " << i;
      }
      std::shuffle(all.begin(), all.end(), random);
      EXPECT_EQ(byCall(ones(all)), together);
      EXPECT_EQ(byStep(all, 64), together);
      all.resize(20);
      EXPECT_EQ(differing(byCall(ones(all)), together), 0);
      // A batch has blocks for more sequences than a step.
      EXPECT_EQ(differing(byStep(all, 64), together), 0);
      EXPECT_EQ(fakeCuda()->faults, std::vector<std::string>());
      close();
      fakeCuda()->reset();
    }
}

/// What the others compare can differ.
TEST_F(CudaAlone, WithoutPartsNeighboursChangeBits) {
  open(0);
  const Outputs together = byCall(ones(all));
  int differ = 0;
  for (int i : all)
    differ += differing(byCall(ones({i})), together);
  EXPECT_GT(differ, 32);
}

/// Nor does it matter to which kernel the rows of others go.
TEST_F(CudaAlone, RowsAreDecodedByTheKernelForSoMany) {
  open(4);
  std::vector<Part> parts;
  for (int i : all)
    parts.push_back({i, 1 + int64_t(random() % kRows)});
  parts[0].tokens = 1;
  parts[1].tokens = kRows;
  const Outputs together = byCall(parts);
  for (const Part &part : parts)
    ASSERT_EQ(byCall({part}).at(part.sequence), together.at(part.sequence))
        << "sequence " << part.sequence << ", " << part.tokens << " rows";
}

/// Partial results of a captured call stay where they are.
TEST_F(CudaAlone, GraphsOutliveLargerBatches) {
  open(16);
  Sequence fork;
  ASSERT_TRUE(fork.fork(sequences[5]));
  fakeCuda()->capturing = true;
  const moa_attend_entry e = tokens[5]->entry(fork, lengths[5], lengths[5] + 1);
  ASSERT_TRUE(session.cache.attend(0, {e}));
  fakeCuda()->capturing = false;
  fakeCuda()->replay();
  const std::string once = copyOut(e.out, 1);
  byStep(all, 64);
  tokens[5]->clearOut();
  fakeCuda()->replay();
  EXPECT_EQ(copyOut(e.out, 1), once);
  EXPECT_LT(tokens[5]->difference(0, lengths[5], lengths[5] + 1, kLongest,
                                  boundsOf(session, fork, 0)),
            kTolerance);
}

TEST_F(CudaAlone, MoreThanThereIsRoomForIsRefused) {
  open(64, false, 2);
  Batch batch;
  moa_batch_options options = {};
  options.max_length = 64;
  // Offsets of partial results have 32 bits: 64 parts of 3072 bytes an item.
  options.max_sequences = 5462;
  Status status = batch.create(session.cache, options);
  EXPECT_EQ(status.code(), MOA_INVALID_ARGUMENT);
  EXPECT_NE(std::string(status.message())
                .find("10924 items a layer, expected at most 2147483647 and "
                      "10922 with decode_parts 64; lower max_sequences"),
            std::string::npos)
      << status.message();
  options.max_sequences = 64;
  const uint64_t before = fakeCuda()->freeBytes;
  fakeCuda()->freeBytes = 1 << 20;
  EXPECT_EQ(batch.create(session.cache, options).code(), MOA_OUT_OF_MEMORY);
  fakeCuda()->freeBytes = before;
  EXPECT_TRUE(batch.create(session.cache, options));
}

} // namespace
