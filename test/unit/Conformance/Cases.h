//===- Cases.h - The table of conformance cases -----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Named lists of scenarios; every back end runs all of them.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_CONFORMANCE_CASES_H
#define MOA_TEST_UNIT_CONFORMANCE_CASES_H

#include "Scenario.h"

#include <functional>
#include <ostream>

namespace moa::conformance {

struct Case {
  const char *name;
  std::vector<Scenario> (*scenarios)();

  friend std::ostream &operator<<(std::ostream &os, const Case &c) {
    return os << c.name;
  }
};

/// All cases, in order.
const std::vector<Case> &cases();

/// One sequence that arrives in chunks of these sizes.
std::vector<std::vector<Part>> chunks(std::initializer_list<int64_t> tokens,
                                      int64_t length);

/// A prompt of its own length each, then steps of all: 64 sequences, of which
/// `chosen` are there, the others not at all or with another length.
Scenario ragged(const std::function<bool(int)> &chosen, bool others);

} // namespace moa::conformance

#endif // MOA_TEST_UNIT_CONFORMANCE_CASES_H
