//===- ObserveTest.cpp - Counters, their text, traces ---------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A series of calls, failing ones among them, whose pages, rows and items are
// counted by hand; every line of the text for Prometheus; trace files read back
// and their events nested.
//
//===----------------------------------------------------------------------===//

#include "ObserveTestSupport.h"
#include "SmallArtifact.h"

#include <regex>
#include <thread>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

TEST(Counters, OfAKnownSeries) {
  Observed o;
  moa_counters want = {};
  want.struct_size = sizeof(want);
  o.expect(want, "a new cache");
  const uint64_t page = o.cache->cache->pool.pageBytes();

  // 10 blocks of 64, 2 layers of 2 KV heads. An item is a block of a query
  // head.
  moa_sequence *a = o.create(1000);
  for (uint32_t layer : {0u, 1u})
    EXPECT_EQ(o.attend(layer, a, 600), nullptr);
  want.sequences_created = 1;
  want.attend_calls = 2;
  want.tokens = 600;
  want.prefill_rows = 1200;
  want.pages_taken = 40;
  want.page_bytes = want.page_bytes_high_water = 40 * page;
  want.work_items = 2 * 10 * 6;
  o.expect(want, "a prompt");

  // 10 blocks are shares of 8 and 2.
  for (uint32_t layer : {0u, 1u})
    EXPECT_EQ(o.attend(layer, a, 1), nullptr);
  want.attend_calls += 2;
  want.tokens += 1;
  want.decode_rows = 2;
  want.work_items += 2 * 2 * 2;
  want.work_splits = 2 * 2;
  o.expect(want, "a token");

  moa_sequence *b = nullptr;
  EXPECT_EQ(moa_sequence_fork(a, &b), nullptr);
  want.sequences_forked = 1;
  o.expect(want, "a fork");
  for (uint32_t layer : {0u, 1u})
    EXPECT_EQ(o.attend(layer, b, 1), nullptr);
  want.attend_calls += 2;
  want.tokens += 1;
  want.decode_rows += 2;
  want.work_items += 2 * 2 * 2;
  want.work_splits += 2 * 2;
  want.pages_taken += 4;
  want.pages_copied = 4;
  want.page_bytes = want.page_bytes_high_water = 44 * page;
  o.expect(want, "a fork that writes");

  // Of blocks 8 and 9 only the latter is its own.
  EXPECT_EQ(moa_sequence_truncate(b, 500), nullptr);
  want.sequences_truncated = 1;
  want.pages_returned = 4;
  want.page_bytes = 40 * page;
  o.expect(want, "a truncation");

  size_t size = 0;
  EXPECT_EQ(moa_sequence_snapshot_memory(a, nullptr, 0, &size), nullptr);
  std::vector<char> bytes(size);
  EXPECT_EQ(moa_sequence_snapshot_memory(a, bytes.data(), size, nullptr),
            nullptr);
  moa_sequence *c = nullptr;
  EXPECT_EQ(moa_sequence_restore_memory(o.cache, bytes.data(), size, &c),
            nullptr);
  want.sequences_restored = 1;
  want.pages_taken += 40;
  want.page_bytes = want.page_bytes_high_water = 80 * page;
  o.expect(want, "a snapshot that is restored");

  EXPECT_EQ(moa_cache_set_limit(o.cache, 80 * page), nullptr);
  expectRefused(o.attend(0, c, 100), MOA_OUT_OF_PAGES, "wanted 2 pages");
  expectRefused(o.attend(7, c, 1), MOA_INVALID_ARGUMENT, "layer");
  EXPECT_EQ(moa_cache_set_limit(o.cache, 0), nullptr);
  want.failed_calls = 2;
  want.out_of_pages = 1;
  o.expect(want, "calls that fail");

  o.step({a, c}, /*cancels=*/true);
  o.expect(want, "a step that is cancelled");
  o.step({a, c}, /*cancels=*/false);
  want.batch_steps = 1;
  want.batch_attend_calls = 2;
  want.tokens += 2;
  want.decode_rows += 4;
  want.work_items += 2 * 2 * 2 * 2;
  want.work_splits += 2 * 2 * 2;
  o.expect(want, "a step");

  o.serve(10);
  want.sequences_created += 1;
  want.attend_calls += 2;
  want.failed_calls += 1; // It commits twice.
  want.tokens += 10;
  want.prefill_rows += 20;
  want.work_items += 2 * 6;
  want.pages_taken += 4;
  want.pages_returned += 4;
  want.page_bytes_high_water = 84 * page;
  o.expect(want, "a request of a scheduler");

  for (moa_sequence *sequence : {a, b, c})
    moa_sequence_destroy(sequence);
  want.pages_returned = want.pages_taken;
  want.page_bytes = 0;
  o.expect(want, "the end");
}

TEST(Counters, KnowLessOfAnOlderCaller) {
  Observed o;
  moa_counters counters = {};
  counters.failed_calls = 77;
  counters.struct_size = offsetof(moa_counters, failed_calls);
  expectRefused(o.attend(7, o.create(10), 1), MOA_INVALID_ARGUMENT, "layer");
  EXPECT_EQ(moa_cache_get_counters(o.cache, &counters), nullptr);
  EXPECT_EQ(counters.failed_calls, 77u);
  expectRefused(moa_cache_get_counters(nullptr, &counters),
                MOA_INVALID_ARGUMENT, "cache is NULL");
}

std::string prometheus(const moa_cache *cache, const char *labels) {
  size_t needed = 0;
  EXPECT_EQ(moa_cache_format_prometheus(cache, labels, nullptr, 0, &needed),
            nullptr);
  std::string text(needed + 1, '#');
  EXPECT_EQ(moa_cache_format_prometheus(cache, labels, text.data(), text.size(),
                                        &needed),
            nullptr);
  EXPECT_EQ(needed + 1, text.size());
  EXPECT_EQ(text.back(), '\0');
  text.pop_back();
  return text;
}

/// Values by name, of a text whose every line is checked: HELP, TYPE and one
/// sample of each name.
std::map<std::string, std::string> parse(const std::string &text,
                                         const std::string &labels) {
  static const std::regex help("# HELP ([a-z_]+) ([A-Z][^\\\\]*\\.)"),
      type("# TYPE ([a-z_]+) (counter|gauge)"),
      sample("([a-z_]+)(\\{.*\\})? ([0-9]+(\\.[0-9]{9})?)");
  std::map<std::string, std::string> values;
  std::istringstream lines(text);
  EXPECT_EQ(text.back(), '\n');
  for (std::string line; std::getline(lines, line);) {
    std::smatch one, two, three;
    EXPECT_TRUE(std::regex_match(line, one, help)) << line;
    const std::string name = one[1];
    EXPECT_EQ(name.find("moa_cache_"), 0u);
    std::string second, third;
    EXPECT_TRUE(std::getline(lines, second) && std::getline(lines, third));
    EXPECT_TRUE(std::regex_match(second, two, type)) << second;
    EXPECT_EQ(two[1], name);
    const bool total =
        name.size() > 6 && name.substr(name.size() - 6) == "_total";
    EXPECT_EQ(two[2] == "counter", total) << name;
    EXPECT_TRUE(std::regex_match(third, three, sample)) << third;
    EXPECT_EQ(three[1], name);
    EXPECT_EQ(three[2], labels);
    EXPECT_EQ(three[4].matched, name.find("_seconds") != std::string::npos);
    EXPECT_TRUE(values.emplace(name, three[3]).second) << name << " twice";
  }
  return values;
}

TEST(Prometheus, EveryLineIsOfTheFormat) {
  Observed o;
  moa_sequence *a = o.create(1000);
  EXPECT_EQ(o.attend(0, a, 600), nullptr);
  auto values = parse(prometheus(o.cache, nullptr), "");
  EXPECT_EQ(values.size() * sizeof(uint64_t) + sizeof(size_t),
            sizeof(moa_counters));
  EXPECT_EQ(values["moa_cache_tokens_total"], "600");
  EXPECT_EQ(values["moa_cache_attend_calls_total"], "1");
  EXPECT_EQ(values["moa_cache_pages_taken_total"], "20");
  EXPECT_EQ(values["moa_cache_page_bytes"],
            std::to_string(20 * o.cache->cache->pool.pageBytes()));
  EXPECT_EQ(values["moa_cache_staging_wait_seconds_total"], "0.000000000");
  const std::string labels = R"(model="a \"b\" \\ \n",_x9="")";
  EXPECT_EQ(parse(prometheus(o.cache, labels.c_str()), "{" + labels + "}"),
            values);
}

TEST(Prometheus, WritesNoMoreThanThereIsRoomFor) {
  Observed o;
  const std::string whole = prometheus(o.cache, "");
  for (size_t size : {size_t(1), size_t(2), whole.size(), whole.size() + 1}) {
    std::string buffer(size + 8, '#');
    size_t needed = 0;
    EXPECT_EQ(
        moa_cache_format_prometheus(o.cache, "", buffer.data(), size, &needed),
        nullptr);
    EXPECT_EQ(needed, whole.size());
    EXPECT_EQ(buffer, whole.substr(0, size - 1) + '\0' + "########");
  }
}

TEST(Prometheus, RefusesWhatIsNotALabel) {
  Observed o;
  const std::pair<const char *, const char *> refused[] = {
      {"9a=\"b\"", "the name of a label at byte 0 of 6"},
      {"a", "expected = at byte 1"},
      {"a=b", "expected a quote at byte 2"},
      {"a=\"b", "a quote that ends the value at byte 4"},
      {"a=\"b\\", "behind a backslash at byte 5"},
      {"a=\"b\\t\"", "behind a backslash at byte 5"},
      {"a=\"b\nc\"", "a quote that ends the value at byte 4"},
      {"a=\"b\" ", "expected a comma at byte 5"},
      {"a=\"b\",", "the name of a label at byte 6"},
      {"a=\"b\",a=\"c\"", "a appears twice, the second time at byte 6"},
      {"a=\"b\"}", "expected a comma at byte 5"}};
  for (const auto &[labels, part] : refused) {
    char buffer[4] = "abc";
    size_t needed = 5;
    expectRefused(
        moa_cache_format_prometheus(o.cache, labels, buffer, 4, &needed),
        MOA_INVALID_ARGUMENT, part);
    EXPECT_STREQ(buffer, "abc");
    EXPECT_EQ(needed, 5u);
  }
  expectRefused(moa_cache_format_prometheus(o.cache, "", nullptr, 0, nullptr),
                MOA_INVALID_ARGUMENT, "needed is NULL");
}

TEST(Trace, HasEveryCallOfASeries) {
  TemporaryFile file;
  {
    Observed o;
    moa_sequence *a = o.create(1000);
    EXPECT_EQ(o.attend(0, a, 5), nullptr); // Before it: left out.
    ASSERT_EQ(moa_context_set_trace(o.context, file.path()), nullptr);
    EXPECT_EQ(o.attend(1, a, 5), nullptr);
    expectRefused(o.attend(7, a, 2), MOA_INVALID_ARGUMENT, "layer");
    o.step({a}, /*cancels=*/false);
    o.serve(10);
    moa_module *module = nullptr;
    const Bytes bytes = SmallArtifact().build();
    EXPECT_EQ(
        moa_module_load_memory(o.context, bytes.data(), bytes.size(), &module),
        nullptr);
    moa_module_destroy(module);
    EXPECT_EQ(
        codeOf(moa_module_load_memory(o.context, bytes.data(), 10, &module)),
        MOA_CORRUPT);
    expectRefused(moa_context_set_trace(o.context, file.path()),
                  MOA_INVALID_ARGUMENT, "a trace is being written");
    // The end of the context ends the file.
  }
  std::vector<std::string> found;
  for (const Event &event : readTrace(file))
    found.push_back(std::string(event.depth, ' ') + event.name + event.args);
  const size_t size = SmallArtifact().build().size();
  const std::vector<std::string> expected = {
      "attend layer=1 entries=1 rows=5 status=0",
      " run",
      "attend layer=7 entries=1 rows=2 status=1",
      "batch_begin sequences=1 rows=1 status=0",
      "batch_attend layer=0 status=0",
      " run",
      "batch_attend layer=1 status=0",
      " run",
      "batch_end",
      "scheduler_next entries=1 decodes=0 rows=10 status=0",
      "attend layer=0 entries=1 rows=10 status=0",
      " run",
      "attend layer=1 entries=1 rows=10 status=0",
      " run",
      "scheduler_commit entries=1 status=0",
      "scheduler_commit entries=0 status=1",
      "module_load bytes=" + std::to_string(size) + " status=0",
      "module_load bytes=10 status=5"};
  EXPECT_EQ(found, expected);
}

TEST(Trace, BeginsAnewAndEndsTwice) {
  TemporaryFile file;
  Observed o;
  moa_sequence *a = o.create(1000);
  for (int round = 0; round < 2; ++round) {
    ASSERT_EQ(moa_context_set_trace(o.context, file.path()), nullptr);
    EXPECT_EQ(o.attend(0, a, 1), nullptr);
    EXPECT_EQ(moa_context_set_trace(o.context, nullptr), nullptr);
    EXPECT_EQ(moa_context_set_trace(o.context, nullptr), nullptr);
    EXPECT_EQ(o.attend(1, a, 1), nullptr);
    EXPECT_EQ(readTrace(file).size(), 2u);
  }
}

TEST(Trace, OfSeveralThreadsIsWhole) {
  constexpr int kThreads = 3, kCalls = 400; // More than one buffer.
  TemporaryFile file;
  Observed o;
  ASSERT_EQ(moa_context_set_trace(o.context, file.path()), nullptr);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      Observed own(o);
      moa_sequence *sequence = own.create(1000);
      for (int call = 0; call < kCalls; ++call)
        EXPECT_EQ(own.attend(0, sequence, 1), nullptr);
    });
  for (std::thread &thread : threads)
    thread.join();
  ASSERT_EQ(moa_context_set_trace(o.context, nullptr), nullptr);
  std::map<long, int> calls;
  for (const Event &event : readTrace(file))
    ++calls[event.thread];
  EXPECT_EQ(calls.size(), size_t(kThreads));
  for (const auto &[thread, count] : calls)
    EXPECT_EQ(count, 2 * kCalls) << thread;
}

TEST(Trace, FilesThatCannotBeWrittenDisturbNothing) {
  Observed o;
  moa_sequence *a = o.create(2000);
  expectRefused(moa_context_set_trace(o.context, "/nowhere/trace.json"), MOA_IO,
                "/nowhere/trace.json: cannot be opened");
  EXPECT_EQ(moa_context_set_trace(o.context, nullptr), nullptr);
  ASSERT_EQ(moa_context_set_trace(o.context, "/dev/full"), nullptr);
  for (int call = 0; call < 1000; ++call) // More than one buffer.
    ASSERT_EQ(o.attend(0, a, 1), nullptr);
  expectRefused(moa_context_set_trace(o.context, nullptr), MOA_IO,
                "/dev/full: the trace could not be written");
  EXPECT_EQ(moa_context_set_trace(o.context, nullptr), nullptr);
  expectRefused(moa_context_set_trace(nullptr, nullptr), MOA_INVALID_ARGUMENT,
                "context is NULL");
}

} // namespace
