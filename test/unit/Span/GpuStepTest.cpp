//===- GpuStepTest.cpp - A step prepared thread by thread -----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The functions of abi/gpu_step.h, called for all threads of a block in turn as
// the prepare kernel calls them, against lists made from the definition: words
// in their places, each row of each head in one item, its pages those that its
// rows see, the line their sums; the same for any number of threads.
//
//===----------------------------------------------------------------------===//

#include "GpuCuts.h"
#include "SpanTestSupport.h"

#include "moa/abi/gpu_step.h"

#include "gtest/gtest.h"
#include <cstring>
#include <map>
#include <numeric>
#include <tuple>

using namespace moa::test;

namespace {

/// What the memory of a step has before it is written to.
constexpr unsigned char kUntouched = 0xA5;

/// A model, a batch, and the changes that come with one step.
struct Step {
  explicit Step(uint32_t seed) : random(seed) {
    a.layers = int32_t(random.between(1, 3));
    a.kv_heads = int32_t(random.between(1, 3));
    group = int32_t(random.between(1, 5));
    // Now and then more heads and items than a block of threads has near.
    const bool large = seed % 60 == 7;
    if (large) {
      a.kv_heads = 30;
      group = 5;
    }
    a.q_heads = a.kv_heads * group;
    a.columns = int32_t(random.of<int64_t>(
        {8, MOA_MAX_GROUP, random.between(group, MOA_MAX_GROUP)}));
    a.tokens = int32_t(random.between(1, MOA_GPU_STEP_TOKENS));
    a.zero = int32_t(random.between(0, 1));
    for (int32_t layer = 0; layer < a.layers; ++layer) {
      const auto sink =
          int32_t(random.of<int64_t>({0, 1, 63, 64, 65, 128, 130}));
      for (int32_t head = 0; head < a.q_heads; ++head)
        rules.push_back(
            random.rule(seed % 2 ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST, sink));
    }
    a.sequence_count = int32_t(
        random.of<int64_t>({1, 2, random.between(1, 12), seed % 16 ? 3 : 90}));
    if (large)
      a.sequence_count = 36;
    a.slots = a.sequence_count + int32_t(random.between(0, 3));
    const int32_t itemsEach =
        a.kv_heads * moa_gpu_step_parts(a.tokens, a.columns, group);
    a.grid = int32_t(
        random.of<int64_t>({1, 2, 132, random.between(1, 300),
                            a.sequence_count * itemsEach + random.between(0, 9),
                            a.sequence_count * itemsEach * 2}));
    if (seed % 3 == 1) { // Items are cut by themselves.
      a.parts = int32_t(random.of<int64_t>({1, 2, 5, MOA_GPU_CUT_PARTS}));
      // The items of this step, or of one with more sequences.
      a.grid = a.parts * int32_t(random.between(0, 1) + a.sequence_count) *
               itemsEach;
    }
    makeSequences();
    makeWords();
    makeRuns();
    a.rules = rules.data();
    makeLists();
  }

  /// All lists one behind the other, in the arguments if they have room.
  void makeLists() {
    auto add = [&](const auto &list) {
      lists.resize((lists.size() + 15) / 16 * 16);
      const size_t at = lists.size(), bytes = list.size() * sizeof(list[0]);
      lists.resize(at + bytes);
      if (bytes)
        std::memcpy(lists.data() + at, list.data(), bytes);
      return int32_t(at);
    };
    a.runs_at = add(runs);
    a.sequences_at = add(sequences);
    a.values_at = add(values);
    a.first_run_at = add(firstRun);
    if (lists.size() > sizeof(a.inlined))
      a.lists = lists.data();
    else
      std::memcpy(a.inlined, lists.data(), lists.size());
  }

  void makeSequences() {
    std::vector<int32_t> slots(a.slots);
    std::iota(slots.begin(), slots.end(), 0);
    for (int32_t i = a.slots - 1; i > 0; --i)
      std::swap(slots[i], slots[random.between(0, i)]);
    int64_t longest = 0;
    for (int32_t row = 0; row < a.sequence_count; ++row) {
      const int64_t length =
          a.tokens +
          random.of<int64_t>({0, random.between(0, 130),
                              64 * random.between(1, 8) - a.tokens / 2,
                              random.between(0, 700)});
      sequences.push_back(
          {length + random.between(0, 300), slots[row], int32_t(length)});
      longest = std::max(longest, length);
    }
    a.blocks = int32_t((longest + kBlock - 1) / kBlock + random.between(0, 2));
  }

  /// Where a word lies, by what abi/gpu_step.h says of `words`.
  int64_t tableOf(int64_t slot, int64_t layer, int64_t kvHead) const {
    return ((slot * a.layers + layer) * a.kv_heads + kvHead) * a.blocks;
  }
  int64_t floorOf(int64_t slot, int64_t layer, int64_t kvHead) const {
    return int64_t(a.slots) * a.layers * a.kv_heads * a.blocks +
           (slot * a.layers + layer) * a.kv_heads + kvHead;
  }

  /// Words as they are after the step: tables of numbers that are their own,
  /// and floors up to the first new row of a sequence.
  void makeWords() {
    after.resize(floorOf(a.slots, 0, 0));
    std::iota(after.begin(), after.end(), 1000);
    for (const moa_gpu_step_sequence &sequence : sequences)
      for (int32_t layer = 0; layer < a.layers; ++layer)
        for (int32_t kvHead = 0; kvHead < a.kv_heads; ++kvHead)
          after[floorOf(sequence.slot, layer, kvHead)] =
              int32_t(random.of<int64_t>(
                  {0, random.between(0, sequence.length - a.tokens)}));
  }

  /// Words before the step, which lack what the runs of each layer bring.
  void makeRuns() {
    before = after;
    firstRun.push_back(0);
    auto bring = [&](int64_t to, int64_t count) {
      values.push_back(-7); // Between runs.
      runs.push_back({to, int32_t(values.size()), int32_t(count)});
      for (int64_t i = to; i < to + count; ++i) {
        values.push_back(after[i]);
        before[i] = -1;
      }
    };
    for (int32_t layer = 0; layer < a.layers; ++layer) {
      for (int32_t slot = 0; slot < a.slots; ++slot)
        for (int32_t kvHead = 0; kvHead < a.kv_heads; ++kvHead) {
          const int64_t from = random.between(0, a.blocks);
          if (random.between(0, 1))
            bring(tableOf(slot, layer, kvHead) + from,
                  random.of<int64_t>({std::min<int64_t>(1, a.blocks - from),
                                      a.blocks - from}));
          if (random.between(0, 1))
            bring(floorOf(slot, layer, kvHead), 1);
        }
      firstRun.push_back(int32_t(runs.size()));
    }
  }

  Random random;
  moa_gpu_prepare_args a = {};
  int32_t group = 1;
  std::vector<moa_span_rule> rules;
  std::vector<moa_gpu_step_sequence> sequences;
  std::vector<moa_gpu_run> runs;
  std::vector<int32_t> firstRun, values, before, after;
  std::vector<char> lists;
};

/// The memory that a step writes to.
struct Prepared {
  /// Runs the threads of every layer's block in turn.
  Prepared(const Step &step, int32_t threads) : args(step.a) {
    const int32_t most = args.sequence_count * args.kv_heads * args.tokens;
    words = step.before;
    args.item_stride = most + 1;
    args.line_stride = sizeof(moa_gpu_line) + 4 * (most + 1);
    items.resize(size_t(args.layers) * args.item_stride);
    lines.resize(size_t(args.layers) * args.line_stride);
    std::memset(static_cast<void *>(items.data()), kUntouched,
                items.size() * sizeof(items[0]));
    std::memset(lines.data(), kUntouched, lines.size());
    // One more than there are, to see that it stays as it was.
    cuts.resize(size_t(args.layers) * args.grid + 1);
    std::memset(static_cast<void *>(cuts.data()), kUntouched,
                cuts.size() * sizeof(cuts[0]));
    args.cuts = cuts.data();
    args.words = words.data();
    args.items = items.data();
    args.lines = lines.data();
    std::vector<int32_t> own(threads);
    for (int32_t layer = 0; layer < args.layers; ++layer) {
      moa_gpu_prepare_shared shared;
      std::memset(static_cast<void *>(&shared), kUntouched, sizeof(shared));
      for (int32_t thread = 0; thread < threads; ++thread)
        moa_gpu_prepare_apply(&args, layer, thread, threads, &shared);
      for (int32_t thread = 0; thread < threads; ++thread)
        own[thread] =
            moa_gpu_prepare_items(&args, layer, thread, threads, &shared);
      int32_t sum = 0;
      for (int32_t thread = 0; thread < threads; sum += own[thread++])
        moa_gpu_prepare_line(&args, layer, thread, threads, sum, own[thread],
                             &shared);
      for (int32_t thread = 0; thread < threads; ++thread)
        moa_gpu_prepare_apart(&args, layer, thread, threads, &shared);
      for (int32_t thread = 0; thread < threads; ++thread)
        moa_gpu_prepare_cuts(&args, layer, thread, threads, &shared);
    }
  }

  const moa_gpu_decode_item &item(int32_t layer, int32_t number) const {
    return items[size_t(layer) * args.item_stride + number];
  }
  /// Word `index` of a layer's line: items, pages, two unused, first[].
  int32_t line(int32_t layer, size_t index) const {
    int32_t word;
    std::memcpy(&word, lines.data() + layer * args.line_stride + 4 * index, 4);
    return word;
  }
  int32_t first(int32_t layer, int32_t number) const {
    return line(layer, offsetof(moa_gpu_line, first) / 4 + number);
  }

  moa_gpu_prepare_args args;
  std::vector<int32_t> words;
  std::vector<moa_gpu_decode_item> items;
  std::vector<char> lines;
  std::vector<moa_gpu_cut> cuts;
};

/// Compares a step with the lists that the definition gives.
class Model {
public:
  explicit Model(const Step &step) : step(step), a(step.a) {}

  void check(const Prepared &made) {
    ASSERT_EQ(made.words, step.after);
    for (int32_t layer = 0; layer < a.layers; ++layer)
      checkLayer(made, layer);
  }

  int64_t apart = 0; ///< Layers whose items are shared one by one.

private:
  using Row = std::tuple<int64_t, int32_t, int32_t>; ///< Of q, KV head, token.

  void checkLayer(const Prepared &made, int32_t layer) {
    std::map<Row, int> rows, zeroes;
    std::vector<std::pair<int32_t, int32_t>>
        line; ///< Item and id of each page.
    const int32_t count = made.line(layer, 0);
    ASSERT_LT(count, made.args.item_stride);
    int32_t pages = 0;
    for (int32_t i = 0; i < count; ++i) {
      const moa_gpu_decode_item &item = made.item(layer, i);
      ASSERT_EQ(made.first(layer, i), pages) << "item " << i;
      ASSERT_TRUE(item.q >= 0 && item.q < a.sequence_count) << item.q;
      ASSERT_TRUE(item.kv_head >= 0 && item.kv_head < a.kv_heads);
      ASSERT_TRUE(item.tokens >= 1 && item.tokens * step.group <= a.columns);
      for (int32_t t = item.token; t < item.token + item.tokens; ++t)
        ++rows[{item.q, item.kv_head, t}];
      if (item.zero != -1) {
        ASSERT_EQ(item.zero, a.zero);
        ++zeroes[{item.q, item.kv_head, item.token + item.tokens - 1}];
      }
      const int32_t own = checkItem(item, layer);
      for (int32_t page = 0; page < own; ++page)
        line.push_back(
            {i, step.after[(page < item.sink_pages ? item.table
                                                   : item.window_table) +
                           page]});
      pages += own;
      if (testing::Test::HasFatalFailure())
        return;
    }
    ASSERT_EQ(made.first(layer, count), pages);
    ASSERT_EQ(made.line(layer, 1), pages);
    // Each row of each KV head once; its pages are zeroed by the item of the
    // last one.
    ASSERT_EQ(rows.size(), size_t(a.sequence_count) * a.kv_heads * a.tokens);
    for (const auto &[row, times] : rows)
      ASSERT_EQ(times, 1);
    ASSERT_EQ(zeroes.size(), size_t(a.sequence_count) * a.kv_heads);
    for (const auto &[row, times] : zeroes)
      ASSERT_TRUE(times == 1 && std::get<2>(row) == a.tokens - 1);
    checkCuts(made, layer, line);
    // Nothing behind them is written.
    const auto *behind =
        reinterpret_cast<const unsigned char *>(&made.item(layer, count));
    for (size_t i = 0; i < sizeof(moa_gpu_decode_item); ++i)
      ASSERT_EQ(behind[i], kUntouched);
  }

  /// Blocks share the line, and what they find with them is what it says.
  void checkCuts(const Prepared &made, int32_t layer,
                 const std::vector<std::pair<int32_t, int32_t>> &line) {
    const moa_gpu_cut *from = made.cuts.data() + size_t(layer) * a.grid;
    std::vector<int32_t> owners;
    for (const auto &[item, id] : line)
      owners.push_back(item);
    checkShares({from, from + a.grid}, owners, made.line(layer, 0), a.parts);
    checkHost(from, made, layer);
    for (int32_t block = 0; block < a.grid; ++block) {
      const moa_gpu_cut &cut = from[block];
      if (testing::Test::HasFatalFailure())
        return;
      if (cut.begin == cut.end)
        continue;
      const int32_t behind = std::min(cut.item + 1, cut.items - 1);
      checkIds(cut, cut.own, cut.item, made, layer, line);
      checkIds(cut, cut.next, behind, made, layer, line);
      for (int32_t i = 0; i < MOA_GPU_CUT_IDS; ++i)
        ASSERT_EQ(cut.ids[i],
                  line[std::min(cut.begin + i, cut.own.to - 1)].second);
    }
    for (int32_t id : made.cuts.back().ids)
      ASSERT_EQ(id, int32_t(0xA5A5A5A5)) << "behind the cuts";
  }

  /// A host that has the items makes the same cuts.
  void checkHost(const moa_gpu_cut *cuts, const Prepared &made, int32_t layer) {
    const int32_t count = made.line(layer, 0);
    std::vector<int32_t> first;
    for (int32_t i = 0; i <= count; ++i)
      first.push_back(made.first(layer, i));
    const HostShares host(first, a.grid, a.parts);
    for (int32_t block = 0; block < a.grid; ++block) {
      moa_gpu_cut cut = moa_gpu_cut_of(
          first.data(), count, &made.item(layer, 0), block, host.shares);
      for (int32_t lane = 0; lane < MOA_GPU_CUT_IDS; ++lane)
        cut.ids[lane] = moa_gpu_cut_id(&cut, step.after.data(), lane);
      ASSERT_EQ(std::memcmp(&cut, cuts + block, sizeof(cut)), 0)
          << "block " << block;
    }
    apart += host.shares.apart != 0;
  }

  void checkIds(const moa_gpu_cut &cut, const moa_gpu_page_ids &ids,
                int32_t number, const Prepared &made, int32_t layer,
                const std::vector<std::pair<int32_t, int32_t>> &line) {
    ASSERT_EQ(ids.to, std::min(made.first(layer, number + 1), cut.end));
    for (int32_t page = made.first(layer, number); page < ids.to; ++page)
      ASSERT_EQ(
          step.after[(page < ids.sink_end ? ids.sink_table : ids.window_table) +
                     page],
          line[page].second);
  }

  /// Returns the pages of the item.
  int32_t checkItem(const moa_gpu_decode_item &item, int32_t layer) {
    const moa_gpu_step_sequence &sequence = step.sequences[item.q];
    EXPECT_EQ(item.out, item.q);
    EXPECT_EQ(item.k, item.q);
    EXPECT_EQ(item.v, item.q);
    EXPECT_EQ(item.reserved, 0);
    const int64_t cached = sequence.length - a.tokens;
    const int64_t row = cached + item.token;
    EXPECT_EQ(item.length, row + item.tokens);
    EXPECT_EQ(item.length - item.fresh, cached);
    const int32_t floor =
        step.after[step.floorOf(sequence.slot, layer, item.kv_head)];
    const int32_t columns = item.tokens * step.group;
    const int32_t sink = step.rules[layer * a.q_heads].sink;
    std::vector<bool> seen(a.blocks);
    int64_t start = 0, largest = 0;
    for (int32_t c = 0; c < MOA_MAX_GROUP; ++c) {
      if (c < columns) {
        const int64_t i = row + c / step.group;
        start = std::max<int64_t>(
            startOf(layer, item.kv_head * step.group + c % step.group, i,
                    sequence.n),
            floor);
        largest = std::max(largest, start);
        for (int64_t j = 0; j <= i; ++j)
          if (seesKey(i, j, start, sink))
            seen[j / kBlock] = true;
      }
      EXPECT_EQ(item.starts[c], start) << "column " << c;
    }
    EXPECT_EQ(item.start_max, largest);
    const int32_t pages = checkPages(
        item, seen, step.tableOf(sequence.slot, layer, item.kv_head));
    checkWholePages(item, seen.size(), sink);
    checkWindow(item, layer, floor, sequence.n, pages);
    return pages;
  }

  /// Page p of the item is that of the p-th block that its rows see.
  int32_t checkPages(const moa_gpu_decode_item &item,
                     const std::vector<bool> &seen, int64_t table) {
    int32_t page = 0;
    for (size_t block = 0; block < seen.size(); ++block)
      if (seen[block]) {
        const int64_t element =
            (page < item.sink_pages ? item.table : item.window_table) + page;
        EXPECT_EQ(element, table + int64_t(block)) << "page " << page;
        ++page;
      }
    EXPECT_GE(item.window_begin, item.sink_pages);
    return page;
  }

  /// In the pages that kernels take without a mask every column sees all.
  void checkWholePages(const moa_gpu_decode_item &item, size_t blocks,
                       int32_t sink) {
    for (int32_t key = 0; key < int32_t(blocks) * kBlock; key += kBlock) {
      if (key + kBlock > item.length - item.tokens + 1 ||
          (item.start_max > key && key + kBlock > sink))
        continue;
      for (int32_t c = 0; c < item.tokens * step.group; ++c)
        for (int64_t j = key; j < key + kBlock; ++j)
          ASSERT_TRUE(seesKey(item.length - item.tokens + c / step.group, j,
                              item.starts[c], sink))
              << "column " << c << ", key " << j;
    }
  }

  /// The same window comes of the function that hosts call.
  void checkWindow(const moa_gpu_decode_item &item, int32_t layer,
                   int32_t floor, int64_t n, int32_t pages) {
    moa_gpu_decode_item window = item;
    std::memset(window.starts, kUntouched, sizeof(window.starts));
    window.length = window.tokens = window.start_max = -5;
    window.sink_pages = window.window_begin = -5;
    EXPECT_EQ(moa_gpu_decode_window(&window,
                                    step.rules.data() + layer * a.q_heads +
                                        item.kv_head * step.group,
                                    step.group, n, floor, item.length,
                                    item.tokens,
                                    step.rules[layer * a.q_heads].sink),
              pages);
    EXPECT_EQ(std::memcmp(&window, &item, sizeof(item)), 0);
  }

  /// Window start of row i, by the loop over all rows before it.
  int64_t startOf(int32_t layer, int32_t head, int64_t i, int64_t n) {
    std::vector<int64_t> &starts = known[{n, layer, head}];
    if (int64_t(starts.size()) <= i)
      starts = startsOf(step.rules[layer * a.q_heads + head], i + 9, n);
    return starts[i];
  }

  const Step &step;
  const moa_gpu_prepare_args &a;
  std::map<Row, std::vector<int64_t>> known; ///< Of n, layer, head.
};

TEST(GpuStep, ThreadsInTurnMakeWhatTheDefinitionSays) {
  int64_t parts = 0, split = 0, inlined = 0, far = 0, apart = 0;
  for (uint32_t seed = 0; seed < 240; ++seed) {
    SCOPED_TRACE(seed);
    const Step step(seed);
    const Prepared made(step, MOA_GPU_PREPARE_THREADS);
    Model model(step);
    model.check(made);
    for (int32_t threads : {1, 32, 64}) {
      const Prepared other(step, threads);
      ASSERT_EQ(other.words, made.words) << threads << " threads";
      ASSERT_EQ(other.lines, made.lines) << threads << " threads";
      ASSERT_EQ(std::memcmp(other.items.data(), made.items.data(),
                            made.items.size() * sizeof(made.items[0])),
                0)
          << threads << " threads";
      ASSERT_EQ(std::memcmp(other.cuts.data(), made.cuts.data(),
                            made.cuts.size() * sizeof(made.cuts[0])),
                0)
          << threads << " threads";
    }
    if (HasFailure())
      return;
    apart += model.apart;
    parts += step.a.tokens > step.a.columns / step.group;
    split += step.a.columns / step.group > 1;
    inlined += !step.a.lists;
    far += made.line(0, 0) > MOA_GPU_PREPARE_ITEMS &&
           step.a.q_heads > MOA_GPU_PREPARE_RULES;
  }
  EXPECT_GT(apart, 20) << "items by themselves should be among the cases";
  EXPECT_GT(parts, 20) << "rows of several items should be among the cases";
  EXPECT_GT(split, 20) << "items of several rows should be among the cases";
  EXPECT_GT(inlined, 20) << "lists in the arguments should be among the cases";
  EXPECT_LT(inlined, 236) << "lists of their own should be among the cases";
  EXPECT_GT(far, 0)
      << "more rules and items than are near should be among the cases";
}

} // namespace
