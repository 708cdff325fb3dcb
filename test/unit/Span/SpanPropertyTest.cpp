//===- SpanPropertyTest.cpp - Window arithmetic against brute force -------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Random rules, all rows: spans and window starts against a loop over rows,
// key-block ranges against the mask, resident pages against a simulated cache.
//
//===----------------------------------------------------------------------===//

#include "SpanTestSupport.h"

#include "moa/abi/artifact.h"
#include "moa/abi/gpu_step.h"
#include "moa/abi/kernel_args.h"
#include "moa/observe.h"
#include "moa/prefix.h"
#include "moa/runtime.h"
#include "moa/scheduler.h"

#include "gtest/gtest.h"
#include <algorithm>
#include <set>
#include <vector>

using namespace moa::test;

extern "C" int64_t abi_c11_window_start(const moa_span_rule *rule, int64_t i,
                                        int64_t n);
extern "C" uint64_t abi_c11_layout(void);

namespace {

TEST(Span, MatchesTheDefinition) {
  Random random(1);
  for (int round = 0; round < 3000; ++round) {
    moa_span_rule rule = random.rule(MOA_LENGTH_REQUEST);
    for (int64_t n : {int64_t(1), random.between(1, 200),
                      random.between(1, 5000), random.between(1, 1 << 30)}) {
      ASSERT_EQ(moa_span(&rule, n), spanOf(rule, n)) << text(rule) << " " << n;
      ASSERT_EQ(moa_span_local(&rule, n), spanOf(rule, n) - rule.sink);
      ASSERT_GE(moa_span_local(&rule, n), 1) << text(rule) << " at " << n;
    }
  }
}

TEST(Span, PreviousPlateauIsTheLastSmallerSpan) {
  Random random(2);
  for (int round = 0; round < 300; ++round) {
    moa_span_rule rule = random.rule(MOA_LENGTH_ROW);
    int64_t rows = random.between(1, 3000), before = 0;
    for (int64_t n = 1; n <= rows; ++n) {
      // Spans never shrink, so the last smaller one moves only where they grow.
      if (n > 1 && spanOf(rule, n - 1) < spanOf(rule, n))
        before = n - 1;
      ASSERT_EQ(moa_span_previous_plateau(&rule, n), before)
          << text(rule) << " at " << n;
    }
  }
}

TEST(Span, WindowStartsMatchTheLoopOverRows) {
  Random random(3);
  for (int round = 0; round < 600; ++round) {
    moa_span_rule rule = random.rule(round % 2);
    int64_t rows = random.between(1, 3000);
    int64_t n = rows + random.between(0, 500);
    std::vector<int64_t> starts = startsOf(rule, rows, n);
    for (int64_t i = 0; i < rows; ++i) {
      ASSERT_EQ(moa_window_start(&rule, i, n), starts[i])
          << text(rule) << " row " << i << " n " << n;
      ASSERT_TRUE(i == 0 || starts[i] >= starts[i - 1]);
      ASSERT_LE(starts[i], i);
      ASSERT_EQ(abi_c11_window_start(&rule, i, n), starts[i]);
    }
  }
}

TEST(Span, SpansNeverShrinkWithLength) {
  Random random(4);
  for (int round = 0; round < 2000; ++round) {
    moa_span_rule rule = random.rule(MOA_LENGTH_REQUEST);
    int64_t n = random.between(1, 1 << 20);
    ASSERT_LE(moa_span(&rule, n), moa_span(&rule, n + random.between(0, 9999)));
  }
}

TEST(Span, VisibleCountIsThatOfTheMask) {
  Random random(5);
  for (int round = 0; round < 3000; ++round) {
    int64_t i = random.between(0, 700), sink = random.between(0, 200);
    int64_t start = random.between(0, i), count = 0;
    for (int64_t j = 0; j <= i + 70; ++j) {
      bool sees = seesKey(i, j, start, sink);
      ASSERT_EQ(moa_visible(i, j, start, sink) != 0, sees);
      count += sees;
    }
    ASSERT_EQ(moa_visible_count(i, start, sink), count);
  }
}

/// Checks the ranges of rows i0..; starts are one per row (prefill) or, with
/// `group`, one per head of the single row i0 (decode).
void checkRanges(int64_t i0, const std::vector<int64_t> &starts, bool group,
                 int64_t sink) {
  int64_t i1 = group ? i0 : i0 + int64_t(starts.size()) - 1;
  auto [low, high] = std::minmax_element(starts.begin(), starts.end());
  moa_block_ranges r = moa_block_ranges_of(i0, i1, *low, *high, sink);
  ASSERT_LE(0, r.sink_end);
  ASSERT_LE(r.sink_end, r.edge_begin);
  ASSERT_LE(r.edge_begin, r.full_begin);
  ASSERT_LE(r.full_begin, r.diag_begin);
  ASSERT_LE(r.diag_begin, r.end);
  for (int64_t b = 0; b <= i1 / kBlock + 2; ++b) {
    int64_t pairs = 0, sinkOnly = 0, noCausal = 0, all = 0;
    for (size_t row = 0; row < starts.size(); ++row)
      for (int64_t j = b * kBlock; j < (b + 1) * kBlock; ++j) {
        int64_t i = group ? i0 : i0 + int64_t(row);
        bool sees = seesKey(i, j, starts[row], sink);
        pairs += sees;
        sinkOnly += sees == (j < sink);
        noCausal += sees == (j < sink || j >= starts[row]);
        ++all;
      }
    bool inSink = b < r.sink_end;
    bool inEdge = b >= r.edge_begin && b < r.full_begin;
    bool inFull = b >= r.full_begin && b < r.diag_begin;
    bool inDiagonal = b >= r.diag_begin && b < r.end;
    // The four runs are disjoint by the order above.
    ASSERT_EQ(inSink || inEdge || inFull || inDiagonal, pairs > 0)
        << "block " << b << " rows " << i0 << ".." << i1 << " starts " << *low
        << ".." << *high << " sink " << sink;
    ASSERT_TRUE(!inSink || sinkOnly == all) << "block " << b;
    ASSERT_TRUE(!inEdge || noCausal == all) << "block " << b;
    ASSERT_TRUE(!inFull || pairs == all) << "block " << b;
  }
}

TEST(Span, BlockRangesCoverTheMaskOfRows) {
  Random random(6);
  for (int round = 0; round < 1500; ++round) {
    moa_span_rule rule = random.rule(round % 2);
    int64_t i0 = random.between(0, 900);
    int64_t rows = random.of<int64_t>(
        {1, 64 - i0 % 64, random.between(1, 64), random.between(1, 200)});
    std::vector<int64_t> starts =
        startsOf(rule, i0 + rows, i0 + rows + random.between(0, 300));
    starts.erase(starts.begin(), starts.begin() + i0);
    checkRanges(i0, starts, false, rule.sink);
    if (HasFatalFailure())
      FAIL() << text(rule);
  }
}

TEST(Span, BlockRangesCoverTheMaskOfAGroup) {
  Random random(7);
  for (int round = 0; round < 1500; ++round) {
    int64_t i = random.between(0, 900), sink = random.between(0, 200);
    std::vector<int64_t> starts(random.between(1, 16));
    for (int64_t &start : starts)
      start = random.between(0, i);
    checkRanges(i, starts, true, sink);
    if (HasFatalFailure())
      return;
  }
}

TEST(Span, ResidentPagesAreThoseThatARowToComeSees) {
  Random random(8);
  for (int round = 0; round < 1200; ++round) {
    // A group of heads with one sink and length rule, as a layer has it.
    std::vector<moa_span_rule> group(random.between(1, 4));
    moa_span_rule shared = random.rule(round % 2);
    for (moa_span_rule &rule : group) {
      rule = random.rule(round % 2);
      rule.sink = shared.sink;
      rule.min_span = std::max(rule.min_span, shared.sink + 1);
      if (rule.sink)
        rule.length_rule = round % 2; // Windows of the model have no sink.
    }
    int64_t seen = random.between(0, 900), n = 1000, horizon = seen + 130;
    std::vector<int64_t> lowest(horizon, horizon);
    for (const moa_span_rule &rule : group) {
      std::vector<int64_t> starts = startsOf(rule, horizon, n);
      for (int64_t i = 0; i < horizon; ++i)
        lowest[i] = std::min(lowest[i], starts[i]);
    }
    moa_resident resident = moa_resident_pages(seen, lowest[seen], shared.sink);
    int64_t count = 0;
    for (int64_t page = 0; page * kBlock < seen; ++page) {
      // A page is kept if a row to come sees a key in it, or if the next token
      // goes there.
      bool needed = seen / kBlock == page;
      for (int64_t j = page * kBlock; j < std::min((page + 1) * kBlock, seen);
           ++j)
        for (int64_t i = seen; i < horizon; ++i)
          needed |= seesKey(i, j, lowest[i], shared.sink);
      bool kept = page < resident.sink_pages ||
                  (page >= resident.window_begin && page < resident.window_end);
      ASSERT_EQ(kept, needed)
          << "page " << page << " seen " << seen << " " << text(group[0]);
      count += kept;
    }
    ASSERT_EQ(moa_resident_count(&resident), count);
    ASSERT_EQ(resident.kv8_end, 0);
    // In 8 bits: what lies in whole blocks before the newest row that stays.
    const int64_t deciding = moa_deciding_row(seen, random.between(0, 150));
    const moa_resident kv8 = moa_resident_kv8(resident, deciding);
    std::set<int64_t> pairs;
    int64_t whole = 0;
    for (int64_t page = 0; page * kBlock < seen; ++page) {
      const bool window =
          page >= resident.window_begin && page < resident.window_end;
      const bool is8 = window && deciding > (page + 1) * kBlock;
      ASSERT_EQ(is8, page >= kv8.window_begin && page < kv8.kv8_end)
          << "page " << page << " seen " << seen << " deciding " << deciding;
      if (is8)
        pairs.insert(page / 2);
      else
        whole += window || page < resident.sink_pages;
    }
    ASSERT_EQ(moa_resident_count(&kv8), whole + int64_t(pairs.size()));
    ASSERT_LE(kv8.kv8_end, kv8.window_end);
  }
}

TEST(Span, FirstRowFromIsTheFirst) {
  std::mt19937 random(11);
  for (int i = 0; i < 400; ++i) {
    moa_span_rule rule = {int64_t(random() % 400) - 200,
                          double(random() % 5) / 4,
                          int32_t(random() % 100),
                          0,
                          random() % 2 ? 64 : 1,
                          i % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST};
    rule.min_span = rule.sink + 1 + int32_t(random() % 100);
    const int64_t n = 1 + random() % 900, most = random() % 700;
    const int64_t position = random() % 500;
    int64_t first = 0;
    while (first < most && moa_window_start(&rule, first, n) < position)
      ++first;
    EXPECT_EQ(moa_first_row_from(&rule, position, n, most), first);
  }
}

TEST(Span, PageBytes) {
  EXPECT_EQ(moa_page_bytes(64, 4), 2 * 64 * 64 * 4);
  EXPECT_EQ(moa_page_bytes(128, 2), 2 * 64 * 128 * 2);
}

TEST(Abi, CAndCppAgreeOnLayouts) {
  const uint64_t sizes[] = {sizeof(moa_span_rule),
                            sizeof(moa_block_ranges),
                            sizeof(moa_resident),
                            sizeof(moa_key_block),
                            sizeof(moa_work_item),
                            sizeof(moa_append_item),
                            sizeof(moa_rope_item),
                            sizeof(moa_quantise_item),
                            sizeof(moa_gpu_prefill_maps),
                            sizeof(moa_gpu_prefill_entries),
                            sizeof(moa_gpu_prefill_item),
                            sizeof(moa_gpu_decode_args),
                            sizeof(moa_gpu_decode_item),
                            sizeof(moa_gpu_line),
                            sizeof(moa_gpu_rope_args),
                            sizeof(moa_gpu_prepare_args),
                            sizeof(moa_artifact_header),
                            sizeof(moa_artifact_layer),
                            sizeof(moa_artifact_kernel),
                            sizeof(moa_artifact_image),
                            sizeof(moa_allocator),
                            sizeof(moa_context_options),
                            sizeof(moa_device_info),
                            sizeof(moa_module_info),
                            sizeof(moa_cache_options),
                            sizeof(moa_cache_stats),
                            sizeof(moa_rope),
                            sizeof(moa_attend_entry),
                            sizeof(moa_attend_options),
                            sizeof(moa_scheduler_entry),
                            sizeof(moa_scheduler_step),
                            sizeof(moa_counters),
                            sizeof(moa_prefix_options),
                            sizeof(moa_scheduler_request),
                            sizeof(moa_range_hooks),
                            offsetof(moa_work_item, ranges),
                            offsetof(moa_attend_entry, out)};
  EXPECT_EQ(abi_c11_layout(),
            moa_artifact_checksum(reinterpret_cast<const uint8_t *>(sizes),
                                  sizeof sizes));
}

} // namespace
