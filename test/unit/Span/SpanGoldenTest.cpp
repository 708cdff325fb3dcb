//===- SpanGoldenTest.cpp - The golden table of window arithmetic ---------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Compares the span header with test/Inputs/span-golden.json, which a Python
// script wrote from the definitions.
//
//===----------------------------------------------------------------------===//

#include "moa/abi/span.h"

#include "gtest/gtest.h"
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace {

/// The rows of the table: one line each, fourteen numbers.
std::vector<std::vector<double>> rows() {
  std::vector<std::vector<double>> table;
  std::ifstream file(MOA_TEST_INPUTS "/span-golden.json");
  std::string line;
  while (std::getline(file, line)) {
    if (line.compare(0, 3, "  [") != 0)
      continue;
    table.emplace_back();
    const char *at = line.c_str() + 3;
    for (char *end; *at && *at != ']'; at = end + (*end == ','))
      table.back().push_back(std::strtod(at, &end));
  }
  return table;
}

TEST(SpanGolden, HeaderGivesTheTable) {
  auto table = rows();
  ASSERT_GT(table.size(), 500u);
  int perRow = 0;
  for (const std::vector<double> &row : table) {
    ASSERT_EQ(row.size(), 14u);
    moa_span_rule rule = {int64_t(row[0]), row[1],          int32_t(row[2]),
                          int32_t(row[3]), int32_t(row[4]), MOA_LENGTH_REQUEST};
    rule.length_rule = row[5] != 0 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
    perRow += row[5] != 0;
    int64_t n = int64_t(row[6]), i = int64_t(row[7]);
    int64_t start = moa_window_start(&rule, i, n);
    moa_resident kept = moa_resident_pages(i, start, rule.sink);
    const int64_t found[] = {moa_span(&rule, n),
                             start,
                             moa_visible_count(i, start, rule.sink),
                             kept.sink_pages,
                             kept.window_begin,
                             kept.window_end};
    for (size_t column = 8; column < 14; ++column)
      EXPECT_EQ(found[column - 8], int64_t(row[column]))
          << "column " << column << ": alpha " << row[0] << " beta " << row[1]
          << " sink " << row[2] << " min " << row[3] << " block " << row[4]
          << " per row " << row[5] << " n " << n << " i " << i;
  }
  EXPECT_GT(perRow, 100);
}

} // namespace
