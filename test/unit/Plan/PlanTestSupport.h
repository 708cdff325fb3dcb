//===- PlanTestSupport.h - Plans as text, refusals as text ------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Small helpers that the tests of the plan library share.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_PLAN_PLANTESTSUPPORT_H
#define MOA_TEST_UNIT_PLAN_PLANTESTSUPPORT_H

#include "moa/Plan/Plan.h"
#include "gtest/gtest.h"
#include <cmath>

/// What parsePlan says against `text`; "accepted" if nothing.
inline std::string refusal(llvm::StringRef text) {
  auto plan = moa::plan::parsePlan(text, "p.json");
  return plan ? "accepted" : llvm::toString(plan.takeError());
}

/// The plan in `text`, which must be right.
inline moa::plan::Plan accepted(llvm::StringRef text) {
  auto plan = moa::plan::parsePlan(text, "p.json");
  if (plan)
    return std::move(*plan);
  ADD_FAILURE() << llvm::toString(plan.takeError());
  return moa::plan::Plan();
}

/// moa-plan/1 of one layer and two heads with the given further members.
inline std::string schema(const std::string &more,
                          const std::string &alphas = "[[0,64]]",
                          const std::string &betas = "[[0.5,0.25]]") {
  return "{\"format\":\"moa-plan\",\"version\":1,\"alphas\":" + alphas +
         ",\"betas\":" + betas + (more.empty() ? "" : "," + more) + "}";
}

#endif // MOA_TEST_UNIT_PLAN_PLANTESTSUPPORT_H
