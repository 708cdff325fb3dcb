//===- SpanTestSupport.h - Windows by definition, random rules --*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Spans and window starts written from the definition and not from the header
// under test, and the random rules that they are compared for.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_SPAN_SPANTESTSUPPORT_H
#define MOA_TEST_UNIT_SPAN_SPANTESTSUPPORT_H

#include "moa/abi/span.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace moa::test {

constexpr int64_t kBlock = 64;

/// Span in tokens, written from the definition and not from the header.
inline int64_t spanOf(const moa_span_rule &rule, int64_t n) {
  double scaled = rule.beta * double(n);
  double raw = std::trunc(double(rule.alpha) + scaled);
  double span = std::max(std::min(raw, double(n)), double(rule.min_span));
  const auto rounded = int64_t(std::ceil(span / rule.round_to)) * rule.round_to;
  const int64_t most = rule.length_rule / 2;
  return most ? std::min(rounded, most) : rounded;
}

/// Window starts of rows 0 .. rows - 1.
inline std::vector<int64_t> startsOf(const moa_span_rule &rule, int64_t rows,
                                     int64_t n) {
  std::vector<int64_t> starts(rows);
  int64_t running = 0;
  for (int64_t i = 0; i < rows; ++i) {
    bool perRow = rule.length_rule % 2 == MOA_LENGTH_ROW;
    int64_t local = spanOf(rule, perRow ? i + 1 : n) - rule.sink;
    int64_t start = std::max<int64_t>(i - local + 1, 0);
    running = std::max(running, start);
    starts[i] = perRow ? running : start;
  }
  return starts;
}

/// Whether row `i` sees key `j`.
inline bool seesKey(int64_t i, int64_t j, int64_t start, int64_t sink) {
  return j <= i && (j < sink || j >= start);
}

/// Numbers and rules that matter.
class Random {
public:
  explicit Random(uint32_t seed) : engine(seed) {}
  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine);
  }
  template <typename T> T of(std::initializer_list<T> values) {
    return values.begin()[between(0, values.size() - 1)];
  }
  double share() { return std::uniform_real_distribution<double>()(engine); }

  moa_span_rule rule(int32_t lengthRule) {
    return rule(lengthRule,
                int32_t(of<int64_t>({0, 1, 4, 63, 64, 64, 64, 65, 100, 200})));
  }
  moa_span_rule rule(int32_t lengthRule, int32_t sink) {
    moa_span_rule rule;
    rule.sink = sink;
    rule.round_to = int32_t(of<int64_t>({1, 7, 16, 64, 64, 64, 100, 128}));
    rule.min_span =
        int32_t(rule.sink + of<int64_t>({1, 2, 64, 64, 65, between(1, 300)}));
    rule.alpha = of<int64_t>({0, between(-2000, 2000), between(-300, 300),
                              64 * between(-20, 20), -(int64_t(1) << 40),
                              int64_t(1) << 40});
    rule.beta = of<double>({0, 1, 0.5, 0.125 * double(between(0, 8)), share(),
                            share() * 1e-3, 1 - share() * 1e-3, 5e-324});
    rule.length_rule = lengthRule;
    // The window of a model's own, which may lie below the least span.
    if (sink == 0 && share() < 0.5)
      rule.length_rule += MOA_SPAN_MOST(of<int64_t>(
          {1, 63, 64, 100, between(1, 300), between(1, 3000), 1 << 20}));
    return rule;
  }

private:
  std::mt19937 engine;
};

inline std::string text(const moa_span_rule &rule) {
  char buffer[200];
  snprintf(buffer, sizeof buffer,
           "alpha %lld beta %.17g sink %d min %d round %d rule %d",
           (long long)rule.alpha, rule.beta, rule.sink, rule.min_span,
           rule.round_to, rule.length_rule);
  return buffer;
}

} // namespace moa::test

#endif // MOA_TEST_UNIT_SPAN_SPANTESTSUPPORT_H
