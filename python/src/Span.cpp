//===- Span.cpp - Python binding of the span header -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Window arithmetic for Python: the functions of abi/span.h, none of them
// repeated.
//
//===----------------------------------------------------------------------===//

#include "moa/abi/span.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>

#include <tuple>

namespace nb = nanobind;

static void checkRow(int64_t i) {
  if (i < 0 || i >= (int64_t(1) << 40))
    throw nb::value_error("expected a row of 0 to 2^40");
}

static void checkLength(int64_t n) {
  if (n < 1 || n >= (int64_t(1) << 40))
    throw nb::value_error("expected a length of 1 to 2^40 tokens");
}

static moa_span_rule makeRule(int64_t alpha, double beta, int32_t sink,
                              int32_t minimum, int32_t block, bool perRow,
                              int32_t most) {
  if (!(beta >= 0 && beta <= 1))
    throw nb::value_error("expected beta between 0 and 1");
  if (sink < 0 || minimum <= sink || block < 1)
    throw nb::value_error("expected 0 <= sink < min and block >= 1");
  if (alpha < -(int64_t(1) << 40) || alpha > (int64_t(1) << 40))
    throw nb::value_error("expected alpha between -2^40 and 2^40");
  if (most < 0 || most > MOA_MOST_WINDOW || (most && sink))
    throw nb::value_error("expected most between 0 and 2^20, and no sink "
                          "beside it");
  return {alpha,
          beta,
          sink,
          minimum,
          block,
          (perRow ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST) + MOA_SPAN_MOST(most)};
}

void bindSpan(nb::module_ &m) {
  nb::class_<moa_span_rule>(
      m, "SpanRule",
      "Rule of one query head: span = alpha + beta * N, in tokens.")
      .def(
          "__init__",
          [](moa_span_rule *self, int64_t alpha, double beta, int32_t sink,
             int32_t minimum, int32_t block, bool perRow, int32_t most) {
            new (self) moa_span_rule(
                makeRule(alpha, beta, sink, minimum, block, perRow, most));
          },
          nb::arg("alpha"), nb::arg("beta"), nb::kw_only(),
          nb::arg("sink") = 64, nb::arg("min") = 128, nb::arg("block") = 64,
          nb::arg("per_row") = false, nb::arg("most") = 0,
          "alpha in tokens, beta in [0, 1]; per_row selects the length rule "
          "'row'; most bounds every span, 0 for no bound. ValueError when out "
          "of range.")
      .def_ro("alpha", &moa_span_rule::alpha)
      .def_ro("beta", &moa_span_rule::beta)
      .def_ro("sink", &moa_span_rule::sink)
      .def_ro("min", &moa_span_rule::min_span)
      .def_ro("block", &moa_span_rule::round_to)
      .def_prop_ro(
          "most",
          [](const moa_span_rule &rule) { return moa_span_most(&rule); })
      .def_prop_ro("per_row",
                   [](const moa_span_rule &rule) {
                     return moa_length_rule_of(&rule) == MOA_LENGTH_ROW;
                   })
      .def(
          "span",
          [](const moa_span_rule &rule, int64_t n) {
            checkLength(n);
            return moa_span(&rule, n);
          },
          nb::arg("n"), "Span in tokens at length n, sink included.")
      .def(
          "local",
          [](const moa_span_rule &rule, int64_t n) {
            checkLength(n);
            return moa_span_local(&rule, n);
          },
          nb::arg("n"), "Local window in tokens: span less sink.")
      .def(
          "window_start",
          [](const moa_span_rule &rule, int64_t i, int64_t n) {
            checkRow(i);
            checkLength(n);
            return moa_window_start(&rule, i, n);
          },
          nb::arg("i"), nb::arg("n"),
          "First key of row i's window; n is ignored when per_row.");
  m.def(
      "visible",
      [](int64_t i, int64_t j, int64_t start, int64_t sink) {
        return moa_visible(i, j, start, sink) != 0;
      },
      nb::arg("i"), nb::arg("j"), nb::arg("start"), nb::arg("sink"),
      "Whether row i, whose window begins at start, sees key j.");
  m.def(
      "resident_pages",
      [](int64_t seen, int64_t nextStart, int64_t sink) {
        moa_resident r = moa_resident_pages(seen, nextStart, sink);
        return std::make_tuple(r.sink_pages, r.window_begin, r.window_end);
      },
      nb::arg("seen"), nb::arg("next_start"), nb::arg("sink"),
      "Pages (sink_pages, window_begin, window_end) kept after seen tokens.");
  m.def(
      "resident_count",
      [](int64_t seen, int64_t nextStart, int64_t sink, bool kv8) {
        moa_resident r = moa_resident_pages(seen, nextStart, sink);
        if (kv8)
          r = moa_resident_kv8(r, seen);
        return moa_resident_count(&r);
      },
      nb::arg("seen"), nb::arg("next_start"), nb::arg("sink"),
      nb::arg("kv8") = false,
      "Number of pages kept after seen tokens; kv8: by a KV head that keeps "
      "complete blocks in 8 bits.");
}
