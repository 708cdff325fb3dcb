//===- CudaConformanceTest.cpp - Every case on CUDA -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Runs the table on CUDA device 0 for each family of kernels, and what holds
// there of equal bits. What the back end does not promise is listed with its
// reason.
//
//===----------------------------------------------------------------------===//

#include "Cases.h"

#include "gtest/gtest.h"

using namespace moa::conformance;

namespace {

/// Targets of moa-compile; the second runs on newer GPUs by its PTX.
const char *const kTargets[] = {"sm_90a", "sm_80"};

/// f32 and 16 bits have kernels of their own: cases in f32 also run in bf16.
Scenario adapted(Scenario scenario, Dtype dtype) {
  if (scenario.dtype == Dtype::F32 && dtype != Dtype::F32) {
    scenario.dtype = dtype;
    scenario.tolerance = 0;
  }
  // Prompts in 16 bits take an approximate tanh: scores, here of 25 at most,
  // have a relative error of 2^-11.
  if (scenario.softCap && scenario.dtype != Dtype::F32)
    scenario.tolerance = (scenario.dtype == Dtype::F16 ? 2e-3 : 8e-3) +
                         std::min(scenario.softCap, 25.0f) * 0x1p-11;
  return scenario;
}

/// Why a test does not begin: there is no GPU, nor a folder for artifacts.
std::string reasonToSkip() {
  return givenArtifacts() ? "" : reasonAgainstCuda();
}

/// Opens a scenario's artifact; null with a reason if there is no GPU that runs
/// its target, or with a failure.
std::unique_ptr<Backend> open(const Scenario &scenario, const char *target,
                              std::string &reason, bool batches = false) {
  std::string artifact = compileScenario(scenario, 1 << 20, target);
  if (artifact.empty())
    return nullptr;
  OpenOptions options;
  options.cuda = true;
  options.maxBytes = uint64_t(1) << 30;
  options.batches = batches;
  options.rope = scenario.rope;
  options.decodeParts = scenario.decodeParts;
  std::string error;
  auto backend = openBackend(artifact, options, error);
  if (!backend && (error.find("has no image for") != std::string::npos ||
                   error.rfind("NO_DEVICE", 0) == 0))
    reason = error;
  else if (!backend)
    ADD_FAILURE() << error;
  return backend;
}

class CudaConformance
    : public testing::TestWithParam<std::tuple<const char *, Case>> {};

/// Runs the scenarios of a case, those in f32 in `dtype`; steps go by calls or
/// as those of batches.
void runCase(const char *target, const Case &test, Dtype dtype, bool batches) {
  if (std::string reason = reasonToSkip(); !reason.empty())
    GTEST_SKIP() << reason;
  std::vector<Scenario> scenarios = test.scenarios();
  size_t ran = 0;
  std::string reasons, reason;
  for (size_t i = 0; i < scenarios.size(); ++i) {
    SCOPED_TRACE("scenario " + std::to_string(i));
    Scenario scenario = adapted(scenarios[i], dtype);
    if (dtype == Dtype::F32 && scenario.dtype != Dtype::F32)
      continue; // The other tests have it.
    if (const char *against = reasonAgainstOnCuda(scenario)) {
      reasons += "scenario " + std::to_string(i) + ": " + against + "\n";
      continue;
    }
    auto backend = open(scenario, target, reason, batches);
    if (!reason.empty())
      continue; // The others are compiled all the same.
    if (!backend)
      return;
    runScenario(scenario, *backend);
    if (testing::Test::HasFailure())
      return;
    ++ran;
  }
  std::cout << reasons;
  if (!reason.empty())
    GTEST_SKIP() << reason;
  if (!ran)
    GTEST_SKIP() << (reasons.empty() ? "no scenario in f32" : reasons);
}

TEST_P(CudaConformance, MatchesFloat64) {
  runCase(std::get<0>(GetParam()), std::get<1>(GetParam()), Dtype::BF16, false);
}

TEST_P(CudaConformance, MatchesFloat64InF32) {
  runCase(std::get<0>(GetParam()), std::get<1>(GetParam()), Dtype::F32, false);
}

TEST_P(CudaConformance, MatchesFloat64ByBatches) {
  runCase(std::get<0>(GetParam()), std::get<1>(GetParam()), Dtype::BF16, true);
}

INSTANTIATE_TEST_SUITE_P(Cuda, CudaConformance,
                         testing::Combine(testing::ValuesIn(kTargets),
                                          testing::ValuesIn(cases())),
                         [](const auto &info) {
                           return std::get<0>(info.param) + std::string("_") +
                                  std::get<1>(info.param).name;
                         });

class CudaBits
    : public testing::TestWithParam<std::tuple<const char *, Dtype>> {
protected:
  void SetUp() override {
    if (std::string reason = reasonToSkip(); !reason.empty())
      GTEST_SKIP() << reason;
  }
  /// Empty if there is no GPU that runs the target.
  Outputs run(const Scenario &scenario) {
    std::string reason;
    auto backend = open(inDtype(scenario), target(), reason);
    return backend ? runScenario(inDtype(scenario), *backend) : Outputs();
  }
  Scenario inDtype(const Scenario &scenario) {
    return adapted(scenario, std::get<1>(GetParam()));
  }
  const char *target() { return std::get<0>(GetParam()); }
};

TEST_P(CudaBits, AreTheSameTwentyTimes) {
  Scenario s;
  s.steps = {{{0, 900, 1200}, {1, 65, 300}, {2, 1, 70}},
             {{0, 1}, {1, 1}, {2, 1}},
             {{2, 66}, {0, 1}, {1, 130}}};
  s = inDtype(s);
  std::string reason;
  auto backend = open(s, target(), reason);
  if (!reason.empty())
    GTEST_SKIP() << reason;
  if (!backend)
    return;
  Outputs first = runScenario(s, *backend);
  for (int repeat = 1; repeat < 20 && !HasFailure(); ++repeat)
    EXPECT_TRUE(runScenario(s, *backend) == first) << "repeat " << repeat;
}

TEST_P(CudaBits, WithDecodePartsAreThoseOfEachAloneAndOfOtherNeighbours) {
  auto some = [&](const std::function<bool(int)> &chosen, bool others) {
    Scenario s = ragged(chosen, others);
    s.dtype = std::get<1>(GetParam());
    s.decodeParts = 3;
    return run(s);
  };
  const Outputs all = some([](int) { return true; }, false);
  if (all.empty())
    GTEST_SKIP() << "no GPU that runs " << target();
  ASSERT_EQ(all.size(), 64u);
  for (int half : {0, 1}) {
    const Outputs found = some([=](int i) { return i % 2 == half; }, true);
    for (int i = half; i < 64; i += 2)
      EXPECT_TRUE((found.at({0, i}) == all.at({0, i}))) << "sequence " << i;
  }
  for (int only = 0; only < 64 && !HasFailure(); only += 7) {
    const Outputs alone = some([=](int i) { return i == only; }, false);
    EXPECT_TRUE((alone.at({0, only}) == all.at({0, only})))
        << "sequence " << only;
  }
}

TEST_P(CudaBits, OfAFullHeadAreThoseOfADenseModel) {
  Scenario dense;
  dense.rules = {{0, 1}};
  dense.steps = chunks({300, 1, 1, 65, 1}, 400);
  Scenario wide = dense;
  wide.rules = {{1 << 20, 0}};
  Outputs expected = run(dense), found = run(wide);
  if (expected.empty())
    GTEST_SKIP() << "no GPU that runs " << target();
  EXPECT_TRUE(found == expected);
}

TEST_P(CudaBits, OfTheRowRuleAreThoseOfAnyLength) {
  Scenario s;
  s.perRow = true;
  s.steps = chunks({300, 1, 1, 65, 1}, 400);
  Scenario other = s;
  other.steps[0][0].length = 5000;
  Outputs expected = run(s);
  if (expected.empty())
    GTEST_SKIP() << "no GPU that runs " << target();
  EXPECT_TRUE(run(other) == expected);
}

INSTANTIATE_TEST_SUITE_P(Cuda, CudaBits,
                         testing::Combine(testing::ValuesIn(kTargets),
                                          testing::Values(Dtype::BF16,
                                                          Dtype::F32)),
                         [](const auto &info) {
                           bool single = std::get<1>(info.param) == Dtype::F32;
                           return std::get<0>(info.param) +
                                  std::string(single ? "_F32" : "_BF16");
                         });

/// The list of what CUDA does not run is not longer than it has to be.
TEST(CudaUnsupported, IsListedWithReasons) {
  size_t against = 0, all = 0;
  for (const Case &test : cases())
    for (const Scenario &scenario : test.scenarios()) {
      ++all;
      against += reasonAgainstOnCuda(scenario) != nullptr;
    }
  EXPECT_GT(against, 0u);
  EXPECT_LT(against, all / 5);
}

} // namespace
