//===- ReadBackTest.cpp - The runtime loads what the compiler writes ------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Compiles a small plan for each element type and lets the runtime's reader say
// what is in the artifact.
//
//===----------------------------------------------------------------------===//

#include "moa/Pipelines/Compile.h"
#include "moa/abi/kernel_args.h"
#include "moa/runtime.h"

#include "gtest/gtest.h"
#include <cstring>

using namespace moa;

namespace {

class ReadBack : public testing::TestWithParam<std::pair<Dtype, uint32_t>> {};

/// Two layers, four query heads on two KV heads, unequal rules.
plan::Plan samplePlan() {
  llvm::Expected<plan::Plan> plan = plan::parsePlan(
      R"({"alphas": [[0, 0, 256, 256], [-512, -512, 0, 0]],
          "betas": [[1, 1, 0.25, 0.25], [0.75, 0.75, 0.5, 0.5]]})",
      "sample.json");
  if (!plan) {
    ADD_FAILURE() << llvm::toString(plan.takeError());
    return {};
  }
  return *plan;
}

TEST_P(ReadBack, InfoAndRules) {
  plan::Plan plan = samplePlan();
  ASSERT_EQ(plan.layers, 2);
  plan::ModelShape shape{2, 4, 2, 64, 4096, 50};
  CompileOptions options;
  options.dtype = GetParam().first;
  llvm::Expected<CompileResult> result =
      compile(plan, shape, options, "sample.json", "--model");
  ASSERT_TRUE(bool(result)) << llvm::toString(result.takeError());

  moa_context *context = nullptr;
  ASSERT_EQ(moa_context_create(nullptr, &context), nullptr);
  moa_module *module = nullptr;
  moa_status *status = moa_module_load_memory(context, result->bytes.data(),
                                              result->bytes.size(), &module);
  ASSERT_EQ(status, nullptr) << moa_status_get_message(status);
  moa_module_info info = {};
  info.struct_size = sizeof(info);
  ASSERT_EQ(moa_module_get_info(module, &info), nullptr);
  EXPECT_EQ(info.layers, 2u);
  EXPECT_EQ(info.q_heads, 4u);
  EXPECT_EQ(info.kv_heads, 2u);
  EXPECT_EQ(info.head_dim, 64u);
  EXPECT_EQ(info.dtype, GetParam().second);
  EXPECT_EQ(info.kernels, 3u);
  EXPECT_EQ(info.max_length, 4096);
  EXPECT_EQ(info.soft_cap, 50.0f);
  EXPECT_EQ(std::memcmp(info.plan_id, plan.id().data(), 32), 0);
  for (uint32_t layer = 0; layer < 2; ++layer)
    for (uint32_t head = 0; head < 4; ++head) {
      moa_span_rule rule = {};
      ASSERT_EQ(moa_module_get_rule(module, layer, head, &rule), nullptr);
      EXPECT_EQ(std::memcmp(&rule, &plan.rule(layer, head), sizeof(rule)), 0)
          << "layer " << layer << " head " << head;
    }
  moa_module_destroy(module);

  // A byte of the code changed on the way: refused.
  result->bytes.back() ^= 1;
  status = moa_module_load_memory(context, result->bytes.data(),
                                  result->bytes.size(), &module);
  EXPECT_EQ(moa_status_get_code(status), MOA_CORRUPT);
  moa_status_free(status);
  moa_context_destroy(context);
}

INSTANTIATE_TEST_SUITE_P(
    Dtypes, ReadBack,
    testing::Values(std::make_pair(Dtype::F32, uint32_t(MOA_DTYPE_F32)),
                    std::make_pair(Dtype::F16, uint32_t(MOA_DTYPE_F16)),
                    std::make_pair(Dtype::BF16, uint32_t(MOA_DTYPE_BF16))));

} // namespace
