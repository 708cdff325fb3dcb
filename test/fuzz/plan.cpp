//===- plan.cpp - Fuzzing the plan reader ---------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Parses bytes as a plan file, of either form. What is accepted has a canonical
// text that is accepted too, as the same plan.
//
//===----------------------------------------------------------------------===//

#include "moa/Plan/Plan.h"

using namespace moa::plan;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  llvm::StringRef text(reinterpret_cast<const char *>(data), size);
  llvm::Expected<Plan> plan = parsePlan(text, "plan.json");
  if (!plan) {
    llvm::consumeError(plan.takeError());
    return 0;
  }
  llvm::Expected<Plan> again = parsePlan(plan->canonical, "canonical.json");
  if (!again || again->id() != plan->id())
    __builtin_trap();
  ModelShape shape{plan->layers, plan->qHeads, 1, 64, 4096};
  llvm::consumeError(checkAgainstModel(*plan, shape, "plan.json"));
  lengthWarnings(*plan, 4096);
  return 0;
}
