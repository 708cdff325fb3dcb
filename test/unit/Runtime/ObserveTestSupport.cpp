//===- ObserveTestSupport.cpp - What tests of counters and traces share ---===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of ObserveTestSupport.h.
//
//===----------------------------------------------------------------------===//

#include "ObserveTestSupport.h"

#include <algorithm>
#include <fstream>
#include <unistd.h>

namespace moa::rt::test {

Observed::Observed() : own(std::make_unique<moa_module>()), model(own.get()) {
  moa_context_options options = {};
  options.struct_size = sizeof(options);
  options.threads = 2;
  EXPECT_EQ(moa_context_create(&options, &context), nullptr);
  own->context = context;
  own->module = std::make_unique<Module>();
  Shape shape;
  shape.layers = 2;
  fill(*own->module, shape, random);
  for (moa_span_rule &rule : own->module->rules)
    rule = {1 << 20, 0, 0, 1, 1, MOA_LENGTH_REQUEST};
  EXPECT_EQ(moa_cache_create(model, nullptr, &cache), nullptr);
}

Observed::Observed(Observed &other) : model(other.model) {
  EXPECT_EQ(moa_cache_create(model, nullptr, &cache), nullptr);
}

Observed::~Observed() {
  moa_cache_destroy(cache);
  own.reset();
  moa_context_destroy(context);
}

moa_sequence *Observed::create(int64_t length) {
  moa_sequence *sequence = nullptr;
  EXPECT_EQ(moa_sequence_create(cache, length, &sequence), nullptr);
  return sequence;
}

moa_status *Observed::attend(uint32_t layer, moa_sequence *sequence,
                             int64_t rows) {
  Tokens tokens;
  tokens.add(model->module->geometry, rows, random);
  const moa_attend_entry entry =
      tokens.entry(model->module->geometry, *unwrap(sequence), 0, rows);
  moa_attend_options options = {};
  options.struct_size = sizeof(options);
  options.entry_size = sizeof(entry);
  options.layer = layer;
  return moa_attend(cache, &options, &entry, 1);
}

void Observed::step(const std::vector<moa_sequence *> &sequences,
                    bool cancels) {
  const Geometry &g = model->module->geometry;
  moa_batch_options options = {};
  options.struct_size = sizeof(options);
  options.max_sequences = static_cast<uint32_t>(sequences.size());
  options.max_length = 2000;
  moa_batch *batch = nullptr;
  ASSERT_EQ(moa_batch_create(cache, &options, &batch), nullptr);
  moa_batch_step step = {};
  step.struct_size = sizeof(step);
  step.sequences = sequences.data();
  step.count = sequences.size();
  ASSERT_EQ(moa_batch_begin(batch, &step), nullptr);
  Tokens tokens;
  tokens.add(g, static_cast<int64_t>(sequences.size()), random);
  for (uint32_t layer = 0; layer < g.layers && !cancels; ++layer) {
    moa_batch_attend_options call = {};
    call.struct_size = sizeof(call);
    call.layer = layer;
    const int64_t qRow = int64_t(g.qHeads) * kDim, kRow = g.kvHeads * kDim;
    call.q = {tokens.q.data(), qRow, qRow, kDim};
    call.k = {tokens.k.data(), kRow, kRow, kDim};
    call.v = {tokens.v.data(), kRow, kRow, kDim};
    call.out = {tokens.out.data(), qRow, qRow, kDim};
    EXPECT_EQ(moa_batch_attend(batch, &call), nullptr);
  }
  if (cancels)
    moa_batch_cancel(batch);
  else
    moa_batch_end(batch);
  moa_batch_destroy(batch);
}

void Observed::serve(int64_t prompt) {
  moa_scheduler *scheduler = nullptr;
  ASSERT_EQ(moa_scheduler_create(cache, nullptr, &scheduler), nullptr);
  moa_scheduler_request request = {sizeof(request), prompt, 1, 0, nullptr, 0};
  uint64_t id = 0;
  EXPECT_EQ(moa_scheduler_submit(scheduler, &request, &id), nullptr);
  moa_scheduler_step step = {};
  step.struct_size = sizeof(step);
  step.entry_size = sizeof(moa_scheduler_entry);
  EXPECT_EQ(moa_scheduler_next(scheduler, &step), nullptr);
  ASSERT_EQ(step.count, 1u);
  for (uint32_t layer : {0u, 1u})
    EXPECT_EQ(attend(layer, step.entries[0].sequence, step.entries[0].tokens),
              nullptr);
  EXPECT_EQ(moa_scheduler_commit(scheduler, nullptr, 0), nullptr);
  EXPECT_EQ(codeOf(moa_scheduler_commit(scheduler, nullptr, 0)),
            MOA_INVALID_ARGUMENT);
  moa_scheduler_destroy(scheduler);
}

void Observed::expect(const moa_counters &want, const char *after) {
  SCOPED_TRACE(after);
  moa_counters found = {};
  found.struct_size = sizeof(found);
  ASSERT_EQ(moa_cache_get_counters(cache, &found), nullptr);
  EXPECT_EQ(found.attend_calls, want.attend_calls);
  EXPECT_EQ(found.batch_attend_calls, want.batch_attend_calls);
  EXPECT_EQ(found.failed_calls, want.failed_calls);
  EXPECT_EQ(found.batch_steps, want.batch_steps);
  EXPECT_EQ(found.tokens, want.tokens);
  EXPECT_EQ(found.prefill_rows, want.prefill_rows);
  EXPECT_EQ(found.decode_rows, want.decode_rows);
  EXPECT_EQ(found.pages_taken, want.pages_taken);
  EXPECT_EQ(found.pages_returned, want.pages_returned);
  EXPECT_EQ(found.pages_copied, want.pages_copied);
  EXPECT_EQ(found.page_bytes, want.page_bytes);
  EXPECT_EQ(found.page_bytes_high_water, want.page_bytes_high_water);
  EXPECT_EQ(found.out_of_pages, want.out_of_pages);
  EXPECT_EQ(found.work_items, want.work_items);
  EXPECT_EQ(found.work_splits, want.work_splits);
  EXPECT_EQ(found.staging_wait_ns, want.staging_wait_ns);
  EXPECT_EQ(found.sequences_created, want.sequences_created);
  EXPECT_EQ(found.sequences_forked, want.sequences_forked);
  EXPECT_EQ(found.sequences_truncated, want.sequences_truncated);
  EXPECT_EQ(found.sequences_restored, want.sequences_restored);
  EXPECT_EQ(found.prefix_tokens_asked, want.prefix_tokens_asked);
  EXPECT_EQ(found.prefix_tokens_reused, want.prefix_tokens_reused);
  EXPECT_EQ(found.prefix_pages_reused, want.prefix_pages_reused);
  EXPECT_EQ(found.prefix_pages_merged, want.prefix_pages_merged);
  EXPECT_EQ(found.prefix_pages_evicted, want.prefix_pages_evicted);
  EXPECT_EQ(found.prefix_bytes_saved, want.prefix_bytes_saved);
  EXPECT_EQ(found.prefix_bytes, want.prefix_bytes);
}

TemporaryFile::TemporaryFile() {
  name = ::testing::TempDir() + "moa-trace-XXXXXX";
  const int file = mkstemp(name.data());
  EXPECT_GE(file, 0);
  close(file);
}

TemporaryFile::~TemporaryFile() { unlink(name.c_str()); }

namespace {

/// Reads JSON of objects, arrays, numbers and strings without escapes, and
/// calls back for each member of an object: its path and its text.
class JsonReader {
public:
  JsonReader(const std::string &text) : text(text) {}

  /// Members of each object of the array "traceEvents", in order.
  bool run() { return value("") && (space(), at == text.size()); }
  std::vector<std::vector<std::pair<std::string, std::string>>> events;

private:
  void space() {
    while (at < text.size() && (text[at] == ' ' || text[at] == '\n'))
      ++at;
  }
  bool take(char wanted) {
    space();
    if (at == text.size() || text[at] != wanted)
      return false;
    ++at;
    return true;
  }
  bool string(std::string &out) {
    if (!take('"'))
      return false;
    while (at < text.size() && text[at] != '"' && text[at] != '\\' &&
           static_cast<unsigned char>(text[at]) >= ' ')
      out += text[at++];
    return take('"');
  }
  bool number(std::string &out) {
    space();
    while (at < text.size() && std::strchr("-.0123456789", text[at]))
      out += text[at++];
    return !out.empty();
  }
  template <typename Item> bool list(char close, Item item) {
    ++at;
    if (take(close))
      return true;
    do {
      if (!item())
        return false;
    } while (take(','));
    return take(close);
  }
  bool value(const std::string &path) {
    space();
    if (at == text.size())
      return false;
    if (text[at] == '[')
      return list(']', [&] {
        if (path == ".traceEvents")
          events.emplace_back();
        return value(path);
      });
    if (text[at] == '{')
      return list('}', [&] {
        std::string key;
        return string(key) && take(':') && value(path + "." + key);
      });
    std::string scalar;
    if (!(text[at] == '"' ? string(scalar) : number(scalar)))
      return false;
    if (!events.empty())
      events.back().emplace_back(path.substr(sizeof(".traceEvents.") - 1),
                                 scalar);
    return true;
  }

  const std::string &text;
  size_t at = 0;
};

/// Microseconds with three decimals.
int64_t nanoseconds(const std::string &text) {
  const size_t point = text.find('.');
  EXPECT_EQ(text.size(), point + 4) << text;
  return std::stoll(text.substr(0, point)) * 1000 +
         std::stoll(text.substr(point + 1));
}

} // namespace

std::vector<Event> readTrace(const TemporaryFile &file) {
  std::ifstream stream(file.path());
  const std::string text((std::istreambuf_iterator<char>(stream)), {});
  JsonReader reader(text);
  EXPECT_TRUE(reader.run()) << text;
  std::vector<Event> events;
  for (const auto &members : reader.events) {
    Event event;
    std::map<std::string, std::string> named(members.begin(), members.end());
    EXPECT_EQ(named["pid"], std::to_string(getpid()));
    if (named["ph"] == "M") {
      EXPECT_EQ(named["name"], "process_name");
      continue;
    }
    EXPECT_EQ(named["ph"], "X");
    event.name = named["name"];
    event.thread = std::stol(named["tid"]);
    event.begin = nanoseconds(named["ts"]);
    event.end = event.begin + nanoseconds(named["dur"]);
    for (const auto &[key, value] : members)
      if (key.find("args.") == 0)
        event.args += " " + key.substr(5) + "=" + value;
    events.push_back(event);
  }
  // Those around others first.
  std::stable_sort(
      events.begin(), events.end(), [](const Event &a, const Event &b) {
        return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
      });
  std::map<long, std::vector<int64_t>> open; // Ends, by thread.
  for (Event &event : events) {
    std::vector<int64_t> &ends = open[event.thread];
    while (!ends.empty() && ends.back() <= event.begin)
      ends.pop_back();
    if (!ends.empty()) {
      EXPECT_LE(event.end, ends.back()) << event.name << " does not nest";
    }
    event.depth = ends.size();
    ends.push_back(event.end);
  }
  return events;
}

} // namespace moa::rt::test
