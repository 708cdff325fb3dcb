//===- PublishedPlansTest.cpp - Plans that exist must read right ----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The six published plans, their uniform companions and two small ones are
// accepted; their densities are those printed in the planner's table.
//
//===----------------------------------------------------------------------===//

#include "PlanTestSupport.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FormatVariadic.h"
#include <set>

using namespace moa::plan;

namespace {

Plan load(const std::string &name) {
  auto plan = loadPlan(MOA_TEST_PLANS "/" + name + ".json");
  if (plan)
    return std::move(*plan);
  ADD_FAILURE() << llvm::toString(plan.takeError());
  return Plan();
}

/// One row of the table: densities at 4k, 8k, 16k, 32k, 64k as printed.
struct Published {
  const char *name;
  int64_t layers, qHeads, kvHeads;
  size_t distinct; ///< Different rules of the plan.
  int onlyOne;     ///< Layers with one rule; all others have two.
  const char *query;
  const char *kv;
  int mixedPercent; ///< KV heads whose query heads differ; -1: not stated.

  friend std::ostream &operator<<(std::ostream &os, const Published &plan) {
    return os << plan.name;
  }
};

const Published kPublished[] = {
    {"vicuna-7b-moa", 32, 32, 32, 9, 0, ".484 .492 .496 .498 .499",
     ".484 .492 .496 .498 .499", -1},
    {"vicuna-13b-moa", 40, 40, 40, 15, 0, ".484 .484 .484 .484 .484",
     ".484 .484 .484 .484 .484", -1},
    {"llama-3-8b-moa", 32, 32, 8, 11, 0, ".484 .492 .495 .496 .497",
     ".616 .655 .673 .682 .686", 53},
    {"llama-3-70b-moa", 80, 64, 8, 17, 2, ".488 .491 .483 .479 .477",
     ".662 .661 .642 .632 .628", 53},
    {"llama-3.2-1b-moa", 16, 32, 8, 11, 0, ".486 .484 .464 .454 .449",
     ".658 .659 .633 .620 .613", 63},
    {"llama-3.2-3b-moa", 28, 24, 8, 15, 1, ".487 .468 .446 .436 .430",
     ".575 .551 .525 .514 .509", 34},
};

std::string densities(const Plan &plan, int64_t kvHeads) {
  std::string text;
  for (int64_t n = 4096; n <= 65536; n *= 2)
    text +=
        (n == 4096 ? "" : " ") +
        llvm::formatv("{0:F3}", kvDensity(plan, kvHeads, n)).str().substr(1);
  return text;
}

class PublishedPlan : public testing::TestWithParam<Published> {};

TEST_P(PublishedPlan, HasTheShapeAndDensitiesOfTheTable) {
  const Published &row = GetParam();
  Plan plan = load(row.name);
  ASSERT_EQ(plan.layers, row.layers);
  ASSERT_EQ(plan.qHeads, row.qHeads);
  EXPECT_TRUE(plan.legacy);
  EXPECT_TRUE(plan.warnings.empty());
  EXPECT_EQ(plan.span.lengthRule, MOA_LENGTH_REQUEST);
  EXPECT_EQ(densities(plan, row.qHeads), row.query);
  EXPECT_EQ(densities(plan, row.kvHeads), row.kv);
  EXPECT_DOUBLE_EQ(queryDensity(plan, 4096), kvDensity(plan, row.qHeads, 4096));

  using Rule = std::pair<int64_t, double>;
  std::set<Rule> all;
  int onlyOne = 0, mixed = 0;
  for (int64_t layer = 0; layer < plan.layers; ++layer) {
    std::set<Rule> inLayer;
    for (int64_t head = 0; head < plan.qHeads; ++head) {
      const moa_span_rule &rule = plan.rule(layer, head);
      inLayer.insert({rule.alpha, rule.beta});
      EXPECT_EQ(rule.alpha % 1024, 0);
      EXPECT_EQ(rule.beta * 8, std::floor(rule.beta * 8));
      EXPECT_EQ(rule.sink, 64);
      EXPECT_EQ(rule.min_span, 128);
      EXPECT_EQ(rule.round_to, 64);
    }
    int64_t group = plan.qHeads / row.kvHeads;
    for (int64_t kv = 0; kv < row.kvHeads; ++kv) {
      std::set<Rule> inGroup;
      for (int64_t head = kv * group; head < (kv + 1) * group; ++head)
        inGroup.insert(
            {plan.rule(layer, head).alpha, plan.rule(layer, head).beta});
      mixed += inGroup.size() > 1;
    }
    EXPECT_LE(inLayer.size(), 2u);
    onlyOne += inLayer.size() == 1;
    all.insert(inLayer.begin(), inLayer.end());
  }
  EXPECT_EQ(all.size(), row.distinct);
  EXPECT_EQ(onlyOne, row.onlyOne);
  if (row.mixedPercent >= 0)
    EXPECT_NEAR(100.0 * mixed / (row.layers * row.kvHeads), row.mixedPercent,
                0.5);
}

INSTANTIATE_TEST_SUITE_P(Table, PublishedPlan, testing::ValuesIn(kPublished),
                         [](const auto &info) {
                           std::string name = info.param.name;
                           std::replace_if(
                               name.begin(), name.end(),
                               [](char c) { return !isalnum(c); }, '_');
                           return name;
                         });

TEST(PublishedPlans, UniformCompanionsAreHalfEverywhere) {
  for (const char *name : {"vicuna-7b", "vicuna-13b", "llama-3-8b",
                           "llama-3-70b", "llama-3.2-1b", "llama-3.2-3b"}) {
    Plan plan = load(std::string(name) + "-streaming");
    EXPECT_DOUBLE_EQ(queryDensity(plan, 8192), 0.5) << name;
    for (const moa_span_rule &rule : plan.rules)
      ASSERT_TRUE(rule.alpha == 0 && rule.beta == 0.5) << name;
  }
}

TEST(PublishedPlans, SmallOnes) {
  Plan moa = load("smollm2-moa"), mixed = load("smollm2-mixed");
  EXPECT_EQ(moa.layers, 30);
  EXPECT_EQ(moa.qHeads, 9);
  auto text = [](const Plan &plan, int64_t kvHeads,
                 std::initializer_list<int64_t> lengths) {
    std::string result;
    for (int64_t n : lengths)
      result += llvm::formatv("{0:F3} ", kvDensity(plan, kvHeads, n));
    return result;
  };
  EXPECT_EQ(text(moa, 3, {512, 1024, 2048, 4096, 8192}),
            "0.500 0.500 0.500 0.529 0.544 ");
  std::string half;
  for (int64_t n : {512, 1024, 2048})
    half += llvm::formatv("{0:F2} ", kvDensity(mixed, 3, n));
  EXPECT_EQ(half, "0.61 0.61 0.59 ");
}

TEST(PublishedPlans, IdsAreThoseOfPythonsJson) {
  // Each is sha256 of json.dumps(plan, sort_keys=True, separators=(",", ":"))
  // and a newline.
  EXPECT_EQ(load("smollm2-moa").idText(),
            "2c822527a3474323cbffa490a7ed6a87603c851037434170e8fa505af50e55e9");
  EXPECT_EQ(load("smollm2-mixed").idText(),
            "89869b1c03de8bb79cef03c155f651e612a21924b249f2fe7f94a73249149711");
  EXPECT_EQ(load("llama-3-70b-moa").idText(),
            "c3cc51f92a4429c9eda4a48335c149b72cac9fb554ed7cd503310fe5b31dc46c");
}

TEST(PublishedPlans, ShortLengthsAreWarnedAbout) {
  Plan plan = load("llama-3-8b-moa");
  std::vector<std::string> warnings = lengthWarnings(plan, 1024);
  ASSERT_FALSE(warnings.empty());
  EXPECT_NE(warnings.back().find("375 of 1024 heads fall below the minimum "
                                 "span 128"),
            std::string::npos)
      << warnings.back();
  EXPECT_TRUE(lengthWarnings(plan, 8192).empty());
}

} // namespace
