//===- Run.cpp - One run of moa-run ---------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Run.h. Layers are run one after another, each with prompt
// and decode steps, so that inputs of one layer at a time are in memory.
//
//===----------------------------------------------------------------------===//

#include "Run.h"

#include "Problem.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <memory>

namespace {

/// Passes of a benchmark on a CUDA device before the one whose cache stays.
constexpr int kBenchPasses = 5;

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point since) {
  return std::chrono::duration<double, std::milli>(Clock::now() - since)
      .count();
}

double median(std::vector<double> values) {
  if (values.empty())
    return 0;
  std::nth_element(values.begin(), values.begin() + values.size() / 2,
                   values.end());
  return values[values.size() / 2];
}

/// Takes a status; its message, or an empty string.
std::string take(moa_status *status) {
  std::string text = status ? moa_status_get_message(status) : "";
  moa_status_free(status);
  return text;
}

#define TRY(call)                                                              \
  do {                                                                         \
    if (std::string message_ = (call); !message_.empty())                      \
      return message_;                                                         \
  } while (false)

class Run {
public:
  Run(const Options &options, Report &report) : o(options), report(report) {}
  ~Run() {
    moa_cache_destroy(cache);
    moa_module_destroy(module);
    moa_context_destroy(context);
  }

  std::string run();

private:
  std::string open(int32_t device);
  std::string load();
  std::string makeSequences(std::vector<moa_sequence *> &list);
  std::string runLayer(uint32_t layer);
  std::string runPass(uint32_t layer, std::deque<Problem> &problems,
                      const std::vector<moa_sequence *> &list,
                      double &prefillMs, std::vector<double> &stepMs);
  std::string attend(uint32_t layer,
                     const std::vector<moa_attend_entry> &entries);
  std::string checkLayer(uint32_t layer, const std::deque<Problem> &problems);
  std::string countWork(uint32_t layer);

  int64_t total(int64_t sequence) const {
    return o.prompt(sequence) + o.newTokens;
  }

  const Options &o;
  Report &report;
  moa_context *context = nullptr;
  moa_module *module = nullptr;
  moa_cache *cache = nullptr;
  std::vector<moa_sequence *> sequences;
  moa_module_info info = {};
  bool cuda = false;
  double flops = 0, neededBytes = 0;
  double prefill = 0;
  std::vector<double> decodeSteps; ///< Summed over layers.
};

/// Context and module on a kind of device.
std::string Run::open(int32_t device) {
  moa_context_options options = {};
  options.struct_size = sizeof(options);
  options.threads = o.threads;
  options.device = device;
  options.ordinal = o.ordinal;
  TRY(take(moa_context_create(&options, &context)));
  TRY(take(moa_module_load_file(context, o.artifact.c_str(), &module)));
  cuda = device == MOA_DEVICE_CUDA;
  return "";
}

std::string Run::makeSequences(std::vector<moa_sequence *> &list) {
  for (int64_t i = 0; i < o.batch; ++i) {
    moa_sequence *sequence = nullptr;
    TRY(take(moa_sequence_create(cache, total(i), &sequence)));
    list.push_back(sequence);
  }
  return "";
}

std::string Run::load() {
  std::string failed = "not tried";
  if (o.where != Where::Cpu)
    failed = open(MOA_DEVICE_CUDA);
  if (o.where == Where::Cuda && !failed.empty())
    return failed;
  if (!failed.empty()) {
    moa_context_destroy(context);
    context = nullptr;
    TRY(open(MOA_DEVICE_CPU));
  }
  info.struct_size = sizeof(info);
  TRY(take(moa_module_get_info(module, &info)));
  if (o.layer >= int64_t(info.layers))
    return "--layer " + std::to_string(o.layer) +
           ": the artifact has layers 0 to " + std::to_string(info.layers - 1);
  TRY(take(moa_cache_create(module, nullptr, &cache)));
  TRY(makeSequences(sequences));
  if (cuda) {
    moa_device_info device = {};
    device.struct_size = sizeof(device);
    TRY(take(moa_context_get_device_info(context, &device)));
    report.device = device.name;
  }
  report.chip = info.chip;
  report.remark = info.remark;
  static const char *names[] = {"f32", "f16", "bf16"};
  report.dtype = names[info.dtype];
  report.tolerance = tolerance(info.dtype);
  for (uint32_t layer = 0; layer < info.layers; ++layer)
    for (uint32_t head = 0; head < info.kv_heads; ++head) {
      uint32_t format = MOA_KV_MODEL;
      TRY(take(moa_module_get_kv_format(module, layer, head, &format)));
      report.tolerance = std::max(report.tolerance, kv8Tolerance(format));
    }
  return "";
}

std::string Run::attend(uint32_t layer,
                        const std::vector<moa_attend_entry> &entries) {
  moa_attend_options options = {};
  options.struct_size = sizeof(options);
  options.entry_size = sizeof(moa_attend_entry);
  options.layer = layer;
  return take(moa_attend(cache, &options, entries.data(), entries.size()));
}

/// Useful FLOPs of the prompts, bytes a decode step needs, closed-form bytes.
std::string Run::countWork(uint32_t layer) {
  const uint32_t group = info.q_heads / info.kv_heads;
  const double keyBytes = 2.0 * info.head_dim * elementBytes(info.dtype);
  for (int64_t s = 0; s < o.batch; ++s) {
    const int64_t n = total(s), last = n - 1;
    for (uint32_t kv = 0; kv < info.kv_heads; ++kv) {
      int64_t keys = 0, nextStart = n, sink = 0;
      uint32_t format = MOA_KV_MODEL;
      TRY(take(moa_module_get_kv_format(module, layer, kv, &format)));
      for (uint32_t h = kv * group; h < (kv + 1) * group; ++h) {
        moa_span_rule rule;
        TRY(take(moa_module_get_rule(module, layer, h, &rule)));
        for (int64_t i = 0; i < o.prompt(s); ++i)
          flops +=
              4.0 * info.head_dim *
              moa_visible_count(i, moa_window_start(&rule, i, n), rule.sink);
        keys = std::max(
            keys, moa_visible_count(last, moa_window_start(&rule, last, n),
                                    rule.sink));
        nextStart = std::min(nextStart, moa_window_start(&rule, n, n));
        sink = rule.sink;
      }
      moa_resident held = moa_resident_pages(n, nextStart, sink);
      // Keys of the sink and of the newest page come whole.
      int64_t whole = keys;
      if (format != MOA_KV_MODEL) {
        held = moa_resident_kv8(held, n);
        whole = std::min(keys, sink + last % MOA_BLOCK_KEYS + 1);
      }
      report.closedFormBytes +=
          moa_resident_count(&held) *
          moa_page_bytes(info.head_dim, elementBytes(info.dtype));
      neededBytes += whole * keyBytes + (keys - whole) * 2.0 * info.head_dim;
    }
    report.denseBytes +=
        (n + MOA_BLOCK_KEYS - 1) / MOA_BLOCK_KEYS * info.kv_heads *
        moa_page_bytes(info.head_dim, elementBytes(info.dtype));
  }
  return "";
}

/// Rows to check: edges of blocks and of the prompt, some in between, and every
/// decoded one.
static std::vector<int64_t> sampleRows(int64_t prompt, int64_t total) {
  std::vector<int64_t> rows = {
      0, 63, 64, 65, prompt / 3, prompt / 2 + 7, prompt - 2, prompt - 1};
  for (int64_t row = prompt; row < total; ++row)
    rows.push_back(row);
  rows.erase(std::remove_if(rows.begin(), rows.end(),
                            [&](int64_t r) { return r < 0 || r >= total; }),
             rows.end());
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

std::string Run::checkLayer(uint32_t layer,
                            const std::deque<Problem> &problems) {
  const double scale = 1.0 / std::sqrt(double(info.head_dim));
  for (int64_t s = 0; s < o.batch; ++s)
    for (int64_t row : sampleRows(o.prompt(s), total(s)))
      for (uint32_t h = 0; h < info.q_heads; ++h) {
        moa_span_rule rule;
        TRY(take(moa_module_get_rule(module, layer, h, &rule)));
        double error = problems[s].error(
            row, h, moa_window_start(&rule, row, total(s)), rule.sink, scale);
        // NaN is the worst error of all and stays.
        if (std::isnan(report.worstError) || error <= report.worstError)
          continue;
        report.worstError = error;
        report.worstWhere = "layer " + std::to_string(layer) + " sequence " +
                            std::to_string(s) + " row " + std::to_string(row) +
                            " head " + std::to_string(h);
      }
  return "";
}

/// Prompts, then decode steps. On a CUDA device steps are enqueued one behind
/// another and get equal shares of their time.
std::string Run::runPass(uint32_t layer, std::deque<Problem> &problems,
                         const std::vector<moa_sequence *> &list,
                         double &prefillMs, std::vector<double> &stepMs) {
  std::vector<moa_attend_entry> entries;
  for (int64_t s = 0; s < o.batch; ++s)
    entries.push_back(problems[s].entry(list[s], 0, o.prompt(s)));
  TRY(take(moa_device_synchronize(context)));
  auto start = Clock::now();
  TRY(attend(layer, entries));
  TRY(take(moa_device_synchronize(context)));
  prefillMs = milliseconds(start);
  stepMs.assign(o.newTokens, 0);
  start = Clock::now();
  for (int64_t step = 0; step < o.newTokens; ++step) {
    for (int64_t s = 0; s < o.batch; ++s)
      entries[s] = problems[s].entry(list[s], o.prompt(s) + step, 1);
    auto begin = Clock::now();
    TRY(attend(layer, entries));
    stepMs[step] = milliseconds(begin);
  }
  if (cuda && o.newTokens) {
    TRY(take(moa_device_synchronize(context)));
    stepMs.assign(o.newTokens, milliseconds(start) / double(o.newTokens));
  }
  return "";
}

std::string Run::runLayer(uint32_t layer) {
  std::deque<Problem> problems;
  for (int64_t s = 0; s < o.batch; ++s) {
    uint64_t seed = (o.seed * 1000003 + layer) * 1000003 + s;
    problems.emplace_back(info, total(s), seed);
    if (cuda)
      TRY(take(problems[s].upload(context)));
  }
  std::vector<double> prefills;
  std::vector<std::vector<double>> steps;
  // Passes on sequences that go again: the first warms up.
  for (int pass = 0; o.bench && cuda && pass < kBenchPasses; ++pass) {
    std::vector<moa_sequence *> own;
    TRY(makeSequences(own));
    double prefillMs = 0;
    std::vector<double> stepMs;
    TRY(runPass(layer, problems, own, prefillMs, stepMs));
    for (moa_sequence *sequence : own)
      moa_sequence_destroy(sequence);
    if (pass > 0) {
      prefills.push_back(prefillMs);
      steps.push_back(stepMs);
    }
  }
  prefills.emplace_back();
  steps.emplace_back();
  TRY(runPass(layer, problems, sequences, prefills.back(), steps.back()));
  prefill += median(prefills);
  decodeSteps.resize(o.newTokens);
  for (int64_t step = 0; step < o.newTokens; ++step) {
    std::vector<double> values;
    for (const std::vector<double> &pass : steps)
      values.push_back(pass[step]);
    decodeSteps[step] += median(values);
  }
  if (o.check) {
    for (Problem &problem : problems)
      TRY(take(problem.download()));
    TRY(checkLayer(layer, problems));
  }
  return countWork(layer);
}

std::string Run::run() {
  TRY(load());
  uint32_t first = o.layer < 0 ? 0 : uint32_t(o.layer);
  uint32_t end = o.layer < 0 ? info.layers : first + 1;
  for (uint32_t layer = first; layer < end; ++layer)
    TRY(runLayer(layer));
  for (moa_sequence *sequence : sequences) {
    uint64_t bytes = 0;
    TRY(take(moa_sequence_get_bytes(sequence, &bytes)));
    report.allocatedBytes += bytes;
  }
  report.prefillMs = prefill;
  report.usefulFlopsPerSecond = flops / prefill * 1e3;
  if (!decodeSteps.empty()) {
    report.decodeMs = median(decodeSteps);
    report.neededBytesPerSecond = neededBytes / report.decodeMs * 1e3;
  }
  return "";
}

} // namespace

std::string runArtifact(const Options &options, Report &report) {
  return Run(options, report).run();
}
