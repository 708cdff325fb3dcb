//===- UniformPlan.cpp - Plans with one rule for every head ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Writes the document that such a plan is and has it read like any other.
//
//===----------------------------------------------------------------------===//

#include "JsonText.h"

#include <algorithm>

using namespace moa::plan;
using llvm::Expected;
using nlohmann::json;

/// One more than a plan can have is refused where it is read.
constexpr int64_t kMost = (1 << 16) + 1;

Expected<Plan> moa::plan::makeUniformPlan(int64_t layers, int64_t qHeads,
                                          int64_t alpha, double beta,
                                          const SpanParams &span) {
  json document = {
      {"format", "moa-plan"},
      {"version", 1},
      {"alphas", json::array()},
      {"betas", json::array()},
      {"span",
       {{"sink", span.sink},
        {"block", span.block},
        {"min", span.min},
        {"length",
         span.lengthRule == MOA_LENGTH_ROW ? "row" : "prompt+max_new"}}}};
  for (int64_t i = 0; i < std::min(layers, kMost); ++i) {
    int64_t heads = std::clamp<int64_t>(qHeads, 0, kMost);
    document["alphas"].push_back(std::vector<double>(heads, double(alpha)));
    document["betas"].push_back(std::vector<double>(heads, beta));
  }
  std::string text = canonicalText(document);
  return parsePlan(text, "uniform plan");
}
