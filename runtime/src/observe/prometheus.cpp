//===- prometheus.cpp - Counters as text ----------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of prometheus.h.
//
//===----------------------------------------------------------------------===//

#include "observe/prometheus.h"

#include <vector>

namespace moa::rt {
namespace {

struct Metric {
  const char *name; ///< Behind moa_cache_, by Prometheus' rules: base units,
                    ///< _total for what only goes up.
  const char *type;
  const char *help;
  uint64_t moa_counters::*value;
  bool nanoseconds = false; ///< Printed in seconds.
};

const Metric kMetrics[] = {
    {"attend_calls_total", "counter", "Successful calls of moa_attend.",
     &moa_counters::attend_calls},
    {"batch_attend_calls_total", "counter",
     "Successful calls of moa_batch_attend.",
     &moa_counters::batch_attend_calls},
    {"failed_calls_total", "counter",
     "Calls of attention, batches and schedulers that failed.",
     &moa_counters::failed_calls},
    {"batch_steps_total", "counter", "Steps of batches that ended.",
     &moa_counters::batch_steps},
    {"tokens_total", "counter", "Tokens appended.", &moa_counters::tokens},
    {"prefill_rows_total", "counter",
     "Rows of all layers attended to by prefill kernels.",
     &moa_counters::prefill_rows},
    {"decode_rows_total", "counter",
     "Rows of all layers attended to by decode kernels.",
     &moa_counters::decode_rows},
    {"pages_taken_total", "counter", "Pages that left the pool.",
     &moa_counters::pages_taken},
    {"pages_returned_total", "counter", "Pages that came back to the pool.",
     &moa_counters::pages_returned},
    {"pages_copied_total", "counter",
     "Shared pages copied before they were written to.",
     &moa_counters::pages_copied},
    {"page_bytes", "gauge", "Bytes of pages in use.",
     &moa_counters::page_bytes},
    {"page_high_water_bytes", "gauge", "Most bytes of pages in use so far.",
     &moa_counters::page_bytes_high_water},
    {"out_of_pages_total", "counter", "Times the pool had too few pages.",
     &moa_counters::out_of_pages},
    {"work_items_total", "counter",
     "Items of attention kernels on lists made by the host.",
     &moa_counters::work_items},
    {"work_splits_total", "counter",
     "Further shares of decode rows that were cut on the CPU.",
     &moa_counters::work_splits},
    {"staging_wait_seconds_total", "counter",
     "Time the host waited for a buffer for tables.",
     &moa_counters::staging_wait_ns, true},
    {"sequences_created_total", "counter", "Sequences created empty.",
     &moa_counters::sequences_created},
    {"sequences_forked_total", "counter", "Sequences made by forks.",
     &moa_counters::sequences_forked},
    {"sequences_truncated_total", "counter", "Truncations of sequences.",
     &moa_counters::sequences_truncated},
    {"sequences_restored_total", "counter", "Sequences made from snapshots.",
     &moa_counters::sequences_restored},
    {"prefix_tokens_asked_total", "counter",
     "Tokens of sequences that asked for a prefix.",
     &moa_counters::prefix_tokens_asked},
    {"prefix_tokens_reused_total", "counter",
     "Tokens of prefixes that were there.",
     &moa_counters::prefix_tokens_reused},
    {"prefix_pages_reused_total", "counter", "Pages that sequences began with.",
     &moa_counters::prefix_pages_reused},
    {"prefix_pages_merged_total", "counter",
     "Pages that went back because others were the same.",
     &moa_counters::prefix_pages_merged},
    {"prefix_pages_evicted_total", "counter", "Kept pages that were given up.",
     &moa_counters::prefix_pages_evicted},
    {"prefix_saved_bytes_total", "counter", "Bytes of pages reused and merged.",
     &moa_counters::prefix_bytes_saved},
    {"prefix_bytes", "gauge", "Bytes of pages kept that no sequence holds.",
     &moa_counters::prefix_bytes},
};

std::string textOf(uint64_t value, bool nanoseconds) {
  if (!nanoseconds)
    return std::to_string(value);
  constexpr uint64_t kSecond = 1000000000;
  const std::string rest = std::to_string(kSecond + value % kSecond);
  return std::to_string(value / kSecond) + "." + rest.substr(1);
}

/// Reads labels from the front.
class LabelReader {
public:
  explicit LabelReader(std::string_view labels) : labels(labels) {}
  Status run();

private:
  char next() const { return at < labels.size() ? labels[at] : '\0'; }
  bool take(char wanted) {
    if (next() != wanted)
      return false;
    ++at;
    return true;
  }
  Status expected(const char *what) const {
    return error(MOA_INVALID_ARGUMENT, "labels: expected ", what, " at byte ",
                 at, " of ", labels.size(),
                 "; write them as name=\"value\",other=\"value\"");
  }
  Status name();
  Status value();

  const std::string_view labels;
  size_t at = 0;
  std::vector<std::string_view> names;
};

Status LabelReader::name() {
  const size_t begin = at;
  auto letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  while (letter(next()) || (at > begin && next() >= '0' && next() <= '9'))
    ++at;
  const std::string_view found = labels.substr(begin, at - begin);
  if (found.empty())
    return expected("the name of a label");
  for (std::string_view other : names)
    if (other == found)
      return error(MOA_INVALID_ARGUMENT, "labels: ", found,
                   " appears twice, the second time at byte ", begin,
                   "; give each label once");
  names.push_back(found);
  return ok();
}

Status LabelReader::value() {
  if (!take('"'))
    return expected("a quote");
  while (!take('"')) {
    if (at == labels.size() || next() == '\n')
      return expected("a quote that ends the value");
    if (take('\\') && next() != '\\' && next() != '"' && next() != 'n')
      return expected("\\, \" or n behind a backslash");
    ++at;
  }
  return ok();
}

Status LabelReader::run() {
  if (labels.empty())
    return ok();
  do {
    MOA_RT_TRY(name());
    if (!take('='))
      return expected("=");
    MOA_RT_TRY(value());
  } while (take(','));
  return at == labels.size() ? ok() : expected("a comma");
}

} // namespace

Status checkLabels(std::string_view labels) {
  return LabelReader(labels).run();
}

std::string formatPrometheus(const moa_counters &counters,
                             std::string_view labels) {
  std::string text;
  for (const Metric &metric : kMetrics) {
    const std::string name = std::string("moa_cache_") + metric.name;
    text += "# HELP " + name + " " + metric.help + "\n# TYPE " + name + " " +
            metric.type + "\n" + name;
    if (!labels.empty())
      text.append("{").append(labels).append("}");
    text += " " + textOf(counters.*metric.value, metric.nanoseconds) + "\n";
  }
  return text;
}

} // namespace moa::rt
