//===- RopeTest.cpp - Rotations of a cache --------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rotations at far positions, and rotations that a cache refuses. The table of
// cases has those of prompts, chunks, tokens and steps.
//
//===----------------------------------------------------------------------===//

#include "Scenario.h"

#include "moa/runtime.h"

#include "gtest/gtest.h"

#include <cmath>
#include <limits>

using namespace moa::conformance;

namespace {

Scenario oneHead(Dtype dtype, std::optional<Rotation> rope) {
  Scenario s;
  s.dtype = dtype;
  s.qHeads = s.kvHeads = 1;
  s.rules = {{128, 0}};
  s.rope = rope;
  return s;
}

/// Largest error of the rows at the positions, of q and k: relative by row norm
/// in f32, else in roundings of the element type. A target that is not the CPU
/// is one of CUDA device 0.
double errorAt(const Scenario &s, const std::string &target = "cpu") {
  const std::vector<int64_t> positions = {0, 1, 4095, 131071};
  const int64_t tokens = positions.back() + 1;
  const int64_t bytes = elementBytes(s.dtype), dim = s.headDim;
  std::string artifact = compileScenario(s, 1 << 20, target), error;
  auto backend = openBackend(
      artifact, {target != "cpu", 0, 2, 1 << 28, false, s.rope}, error);
  if (!backend) {
    ADD_FAILURE() << error;
    return INFINITY;
  }
  std::vector<char> tensors[4];
  for (std::vector<char> &tensor : tensors)
    tensor.resize(tokens * dim * bytes);
  auto row = [&](int tensor, int64_t position) {
    return inputRow(s, tensor ? Poison::Key : Poison::Query, 0, 0, position, 0);
  };
  for (int tensor : {0, 1})
    for (int64_t position : positions) {
      char *to = tensors[tensor].data() + position * dim * bytes;
      for (double value : row(tensor, position)) {
        store(value, s.dtype, to);
        to += bytes;
      }
    }
  Entry entry = {backend->createSequence(tokens),
                 tokens,
                 tensors[0].data(),
                 tensors[1].data(),
                 tensors[2].data(),
                 tensors[3].data(),
                 {dim, dim},
                 {dim, dim}};
  for (int i = 0; i < 4; ++i)
    entry.around[i] = {tensors[i].data(), tensors[i].size()};
  EXPECT_EQ(backend->attend(0, nullptr, {entry}), "");
  double worst = 0;
  for (int tensor : {0, 1})
    for (int64_t position : positions) {
      const std::vector<double> exact =
          rotated(s, row(tensor, position), position);
      const char *from = tensors[tensor].data() + position * dim * bytes;
      double difference = 0, norm = 0;
      for (int64_t d = 0; d < dim; ++d) {
        const double got = load(from + d * bytes, s.dtype);
        difference += (got - exact[d]) * (got - exact[d]);
        norm += exact[d] * exact[d];
        const double ulp = std::exp2(std::ilogb(exact[d])) *
                           (s.dtype == Dtype::F16 ? 0x1p-10 : 0x1p-7);
        if (s.dtype != Dtype::F32)
          worst = std::max(worst, std::abs(got - exact[d]) / ulp);
      }
      if (s.dtype == Dtype::F32)
        worst = std::max(worst, std::sqrt(difference / norm));
    }
  return worst;
}

/// In f32 both bases over whole heads, in 16 bits half of a head.
std::vector<Scenario> farScenarios(bool interleaved) {
  return {oneHead(Dtype::F32, Rotation{interleaved, 64, 1e4}),
          oneHead(Dtype::F32, Rotation{interleaved, 64, 5e5}),
          oneHead(Dtype::F16, Rotation{interleaved, 32, 5e5}),
          oneHead(Dtype::BF16, Rotation{interleaved, 32, 5e5})};
}

/// What is left of a scenario's rows after one rounding.
double mostError(const Scenario &s) { return s.dtype == Dtype::F32 ? 1e-6 : 1; }

TEST(Rope, IsExactAtFarPositions) {
  for (bool interleaved : {false, true})
    for (const Scenario &s : farScenarios(interleaved))
      EXPECT_LE(errorAt(s), mostError(s)) << "theta " << s.rope->theta;
}

TEST(CudaRope, IsExactAtFarPositions) {
  const std::string reason = reasonAgainstCuda();
  if (!reason.empty() && !givenArtifacts())
    GTEST_SKIP() << reason;
  for (const char *target : {"sm_90a", "sm_80"})
    for (bool interleaved : {false, true})
      for (const Scenario &s : farScenarios(interleaved))
        if (reason.empty())
          EXPECT_LE(errorAt(s, target), mostError(s))
              << target << ", theta " << s.rope->theta;
        else
          compileScenario(s, 1 << 20, target);
  if (!reason.empty())
    GTEST_SKIP() << reason;
}

/// A cache of an artifact, over the C ABI.
class RopeRefused : public testing::Test {
protected:
  void open(std::optional<Rotation> compiled) {
    std::string artifact = compileScenario(oneHead(Dtype::F32, compiled));
    moa_context_options options = {};
    options.struct_size = sizeof options;
    options.threads = 1;
    ASSERT_EQ(moa_context_create(&options, &context), nullptr);
    ASSERT_EQ(moa_module_load_file(context, artifact.c_str(), &module),
              nullptr);
    ASSERT_EQ(moa_cache_create(module, nullptr, &cache), nullptr);
  }
  void TearDown() override {
    moa_cache_destroy(cache);
    moa_module_destroy(module);
    moa_context_destroy(context);
  }
  /// The message of a refusal of the code; empty for success.
  std::string set(moa_rope rope, moa_status_code code = MOA_INVALID_ARGUMENT,
                  uint32_t layer = MOA_ALL_LAYERS) {
    moa_status *status = moa_cache_set_rope(cache, layer, &rope);
    std::string text = status ? moa_status_get_message(status) : "";
    if (status)
      EXPECT_EQ(moa_status_get_code(status), code);
    moa_status_free(status);
    return text;
  }
  moa_rope good() {
    return {sizeof(moa_rope), MOA_ROPE_HALF, 64, frequencies.data(), 1};
  }

  std::vector<double> frequencies = std::vector<double>(32, 0.5);
  moa_context *context = nullptr;
  moa_module *module = nullptr;
  moa_cache *cache = nullptr;
};

TEST_F(RopeRefused, AModuleWithoutIt) {
  open(std::nullopt);
  EXPECT_EQ(set(good(), MOA_UNSUPPORTED),
            "layer 0 has no rope kernel; compile with --rope half:64");
}

TEST_F(RopeRefused, AnotherStructure) {
  open(Rotation{true, 32});
  EXPECT_EQ(set(good(), MOA_UNSUPPORTED),
            "layer 0 has a rope kernel for interleaved:32, asked for half:64; "
            "compile with --rope half:64");
}

TEST_F(RopeRefused, WrongArguments) {
  open(Rotation{});
  moa_rope rope = good();
  rope.layout = 2;
  EXPECT_NE(set(rope).find("layout is 2"), std::string::npos);
  for (uint32_t dim : {0u, 31u, 66u}) {
    rope = good();
    rope.rotary_dim = dim;
    EXPECT_EQ(set(rope), "rotary_dim is " + std::to_string(dim) +
                             ", expected an even number from 2 to the head "
                             "size 64");
  }
  rope = good();
  rope.frequencies = nullptr;
  EXPECT_NE(set(rope).find("frequencies is NULL; pass 32"), std::string::npos);
  for (float scale : {0.0f, -1.0f, std::numeric_limits<float>::infinity()}) {
    rope = good();
    rope.scale = scale;
    EXPECT_NE(set(rope).find("scale is"), std::string::npos);
  }
  frequencies[7] = NAN;
  EXPECT_NE(set(good()).find("frequency 7 is"), std::string::npos);
  frequencies[7] = 1;
  EXPECT_EQ(set(good(), MOA_INVALID_ARGUMENT, 1), "layer 1, expected below 1");
  EXPECT_EQ(set(good(), MOA_OK, 0), "");
}

TEST_F(RopeRefused, ACacheInUse) {
  open(Rotation{});
  moa_sequence *sequence = nullptr;
  ASSERT_EQ(moa_sequence_create(cache, 100, &sequence), nullptr);
  EXPECT_EQ(set(good()), "the cache has 1 sequences and 0 batches; set "
                         "rotations before the first of either");
  moa_sequence_destroy(sequence);
  EXPECT_EQ(set(good()), "");
}

} // namespace
