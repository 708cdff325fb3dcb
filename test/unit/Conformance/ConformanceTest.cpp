//===- ConformanceTest.cpp - Every case on every back end -----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Runs the table on each chip variant that this machine has, and checks what no
// single run shows: equal bits over batches, threads and repeats, and calls
// that are refused without a trace.
//
//===----------------------------------------------------------------------===//

#include "Cases.h"

#include "moa/abi/artifact.h"

#include "gtest/gtest.h"

using namespace moa::conformance;

namespace {

struct Chip {
  const char *name; ///< As artifacts name it.
  uint32_t features;

  friend std::ostream &operator<<(std::ostream &os, const Chip &chip) {
    return os << chip.name;
  }
};

const Chip kChips[] = {{"x86-64-v3", MOA_CPU_X86_64_V3},
                       {"x86-64-v4", MOA_CPU_X86_64_V3 | MOA_CPU_X86_64_V4},
                       {"x86-64-v4-bf16", MOA_CPU_X86_64_V3 |
                                              MOA_CPU_X86_64_V4 |
                                              MOA_CPU_AVX512_BF16}};

std::string identifier(std::string text) {
  for (char &c : text)
    if (!isalnum(c))
      c = '_';
  return text;
}

/// The scenario as a chip runs it: a chip for bf16 differs in bf16 alone.
Scenario adapted(Scenario scenario, const Chip &chip) {
  if (chip.features & MOA_CPU_AVX512_BF16 && scenario.dtype != Dtype::BF16) {
    scenario.dtype = Dtype::BF16;
    scenario.tolerance = 0;
  }
  return scenario;
}

/// Opens the artifact of a scenario for a chip; null with a failure, or null
/// without one if this machine lacks the chip's features.
std::unique_ptr<Backend> open(const Scenario &scenario, const Chip &chip,
                              int threads = 2, uint64_t maxBytes = 0,
                              bool batches = false) {
  std::string artifact = compileScenario(scenario), error;
  if (artifact.empty())
    return nullptr;
  auto backend = openBackend(artifact,
                             {false, chip.features, threads, maxBytes, batches,
                              scenario.rope, scenario.decodeParts},
                             error);
  if (!backend) {
    ADD_FAILURE() << error;
    return nullptr;
  }
  if (backend->variant() != chip.name)
    return nullptr;
  return backend;
}

class Conformance : public testing::TestWithParam<std::tuple<Chip, Case>> {};

TEST_P(Conformance, MatchesFloat64) {
  auto [chip, test] = GetParam();
  std::vector<Scenario> scenarios = test.scenarios();
  for (size_t i = 0; i < scenarios.size(); ++i) {
    SCOPED_TRACE("scenario " + std::to_string(i));
    scenarios[i] = adapted(scenarios[i], chip);
    auto backend = open(scenarios[i], chip);
    if (!backend && !HasFailure())
      GTEST_SKIP() << "this machine has no " << chip.name;
    if (!backend)
      return;
    runScenario(scenarios[i], *backend);
    if (HasFailure())
      return;
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Conformance,
                         testing::Combine(testing::ValuesIn(kChips),
                                          testing::ValuesIn(cases())),
                         [](const auto &info) {
                           return identifier(std::get<0>(info.param).name +
                                             std::string("_") +
                                             std::get<1>(info.param).name);
                         });

/// The same where steps go by batches; what chips do is the same then.
class BatchConformance : public testing::TestWithParam<Case> {};

TEST_P(BatchConformance, MatchesFloat64) {
  for (const Scenario &scenario : GetParam().scenarios()) {
    auto backend = open(scenario, kChips[0], 2, 0, true);
    if (!backend && !HasFailure())
      GTEST_SKIP() << "this machine has no " << kChips[0].name;
    if (!backend)
      return;
    runScenario(scenario, *backend);
    if (HasFailure())
      return;
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, BatchConformance, testing::ValuesIn(cases()),
                         [](const auto &info) {
                           return identifier(info.param.name);
                         });

/// Tests that need more than one run.
class Bits : public testing::TestWithParam<Chip> {
protected:
  /// Runs on the chip; empty if the machine has it not.
  Outputs run(Scenario scenario, int threads = 2) {
    scenario = adapted(scenario, GetParam());
    auto backend = open(scenario, GetParam(), threads);
    return backend ? runScenario(scenario, *backend) : Outputs();
  }
};

/// A scenario with a sequence long enough to be split in decode.
Scenario manySteps() {
  Scenario s;
  s.dtype = Dtype::BF16;
  s.steps = {{{0, 900, 1200}, {1, 65, 300}, {2, 1, 70}},
             {{0, 1}, {1, 1}, {2, 1}},
             {{2, 66}, {0, 1}, {1, 130}},
             {{1, 1}, {2, 1}, {0, 1}}};
  return s;
}

TEST_P(Bits, DoNotDependOnTheBatch) {
  Scenario all = manySteps();
  Outputs together = run(all);
  if (together.empty())
    GTEST_SKIP() << "this machine has no " << GetParam().name;
  for (int sequence : {0, 1, 2}) {
    Scenario alone = all;
    alone.steps.clear();
    for (const auto &step : all.steps)
      for (const Part &part : step)
        if (part.sequence == sequence)
          alone.steps.push_back({part});
    Outputs single = run(alone);
    EXPECT_TRUE((single[{0, sequence}] == together[{0, sequence}]))
        << "sequence " << sequence;
  }
}

TEST_P(Bits, OfARaggedBatchAreThoseOfEachAloneAndOfOtherNeighbours) {
  const Outputs all = run(ragged([](int) { return true; }, false));
  if (all.empty())
    GTEST_SKIP() << "this machine has no " << GetParam().name;
  ASSERT_EQ(all.size(), 64u);
  for (int half : {0, 1}) {
    const Outputs found =
        run(ragged([=](int i) { return i % 2 == half; }, true));
    for (int i = half; i < 64; i += 2)
      EXPECT_TRUE((found.at({0, i}) == all.at({0, i}))) << "sequence " << i;
  }
  for (int only = 0; only < 64 && !HasFailure(); ++only) {
    const Outputs alone = run(ragged([=](int i) { return i == only; }, false));
    EXPECT_TRUE((alone.at({0, only}) == all.at({0, only})))
        << "sequence " << only;
  }
}

TEST_P(Bits, DoNotDependOnThreads) {
  Outputs one = run(manySteps(), 1);
  if (one.empty())
    GTEST_SKIP() << "this machine has no " << GetParam().name;
  for (int threads : {2, 3, 7})
    EXPECT_TRUE(run(manySteps(), threads) == one) << threads << " threads";
}

TEST_P(Bits, AreTheSameTwentyTimes) {
  Scenario s = manySteps();
  s.steps.pop_back();
  s.steps[0][0].tokens = 600;
  auto backend = open(s, GetParam());
  if (!backend)
    GTEST_SKIP() << "this machine has no " << GetParam().name;
  Outputs first = runScenario(s, *backend);
  for (int repeat = 1; repeat < 20 && !HasFailure(); ++repeat)
    EXPECT_TRUE(runScenario(s, *backend) == first) << "repeat " << repeat;
}

TEST_P(Bits, OfAFullHeadAreThoseOfADenseModel) {
  Scenario dense;
  dense.rules = {{0, 1}};
  dense.steps = chunks({300, 1, 1, 65, 1}, 400);
  Scenario wide = dense;
  wide.rules = {{1 << 20, 0}};
  Outputs expected = run(dense);
  if (expected.empty())
    GTEST_SKIP() << "this machine has no " << GetParam().name;
  EXPECT_TRUE(run(wide) == expected);
}

TEST_P(Bits, OfTheRowRuleAreThoseOfAnyLength) {
  Scenario s;
  s.perRow = true;
  s.steps = chunks({300, 1, 1, 65, 1}, 400);
  Scenario other = s;
  other.steps[0][0].length = 5000;
  Outputs expected = run(s);
  if (expected.empty())
    GTEST_SKIP() << "this machine has no " << GetParam().name;
  EXPECT_TRUE(run(other) == expected);
}

INSTANTIATE_TEST_SUITE_P(Cpu, Bits, testing::ValuesIn(kChips),
                         [](const auto &info) {
                           return identifier(info.param.name);
                         });

/// Calls that must fail and change nothing.
class Refused : public testing::Test {
protected:
  void SetUp() override {
    scenario.steps = chunks({70}, 200);
    std::string artifact = compileScenario(scenario, 100), error;
    ASSERT_NE(artifact, "");
    // Room for the first call's pages and no more.
    const uint64_t pageBytes = 2 * 64 * 64 * 4;
    backend = openBackend(artifact, {false, 0, 2, 4 * pageBytes}, error);
    ASSERT_TRUE(backend) << error;
    sequence = backend->createSequence(100);
    ASSERT_GE(sequence, 0);
    data.assign(200 * 4 * 64, 0.5f);
    out.assign(data.size(), 0);
  }

  std::string attend(int64_t tokens, uint32_t layer = 0) {
    Entry entry = {sequence,    tokens,     data.data(), data.data(),
                   data.data(), out.data(), {256, 64},   {128, 64}};
    return backend->attend(layer, nullptr, {entry});
  }

  Scenario scenario;
  std::unique_ptr<Backend> backend;
  int sequence = -1;
  std::vector<float> data, out;
};

TEST_F(Refused, ZeroTokens) {
  EXPECT_EQ(attend(0).substr(0, 17), "INVALID_ARGUMENT:");
  EXPECT_EQ(attend(-1).substr(0, 17), "INVALID_ARGUMENT:");
  EXPECT_EQ(backend->tokensSeen(sequence, 0), 0);
  EXPECT_EQ(backend->bytesHeld(sequence), 0u);
}

TEST_F(Refused, LongerThanTheArtifactServes) {
  EXPECT_EQ(attend(101).substr(0, 13), "OUT_OF_RANGE:");
  EXPECT_EQ(backend->tokensSeen(sequence, 0), 0);
  EXPECT_EQ(attend(100), "");
  EXPECT_EQ(attend(1).substr(0, 13), "OUT_OF_RANGE:");
  EXPECT_EQ(backend->tokensSeen(sequence, 0), 100);
}

TEST_F(Refused, NoSuchLayer) {
  EXPECT_EQ(attend(1, 1).substr(0, 17), "INVALID_ARGUMENT:");
}

TEST_F(Refused, ASmallerLength) {
  EXPECT_EQ(backend->setLength(sequence, 99).substr(0, 17),
            "INVALID_ARGUMENT:");
  EXPECT_EQ(backend->setLength(sequence, 100), "");
}

TEST_F(Refused, OutOfPages) {
  ASSERT_EQ(attend(70), "");
  EXPECT_EQ(backend->pagesUsed(), 4u);
  int first = sequence;
  sequence = backend->createSequence(100);
  EXPECT_EQ(attend(1).substr(0, 13), "OUT_OF_PAGES:");
  EXPECT_EQ(backend->tokensSeen(sequence, 0), 0);
  EXPECT_EQ(backend->pagesUsed(), 4u);
  // Room again once the other one is gone.
  backend->destroySequence(first);
  EXPECT_EQ(attend(1), "");
}

} // namespace
