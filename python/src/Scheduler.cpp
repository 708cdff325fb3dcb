//===- Scheduler.cpp - Continuous batching for Python ---------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Scheduler.h. Sequences of a step are lent to Python: when
// the step is over they are gone, and calls with them say so.
//
//===----------------------------------------------------------------------===//

#include "Scheduler.h"

#include "Objects.h"

#include "moa/scheduler.h"

#include <nanobind/stl/vector.h>

#include <vector>

using namespace moa::python;

namespace {

/// What a step feeds of one request: moa_scheduler_entry.
struct StepEntry {
  uint64_t request, user;
  std::shared_ptr<Sequence> sequence;
  int64_t firstRow, tokens, generated;
  bool samples, last;
};

class Scheduler {
public:
  Scheduler(std::shared_ptr<Cache> owner, uint32_t maxSequences,
            int64_t maxStepTokens, int64_t chunkTokens, uint64_t maxBytes,
            const std::string &admission)
      : cache(std::move(owner)) {
    if (admission != "optimistic" && admission != "reserved")
      throw nb::value_error(
          ("admission is '" + admission + "', expected optimistic or reserved")
              .c_str());
    moa_scheduler_options options = {};
    options.struct_size = sizeof(options);
    options.max_sequences = maxSequences;
    options.admission =
        admission == "reserved" ? MOA_ADMIT_RESERVED : MOA_ADMIT_OPTIMISTIC;
    options.max_step_tokens = maxStepTokens;
    options.chunk_tokens = chunkTokens;
    options.max_bytes = maxBytes;
    check(moa_scheduler_create(cache->handle, &options, &handle));
  }
  Scheduler(const Scheduler &) = delete;
  Scheduler &operator=(const Scheduler &) = delete;
  ~Scheduler() {
    takeBack();
    moa_scheduler_destroy(handle);
  }

  uint64_t submit(int64_t promptTokens, int64_t maxNewTokens, uint64_t user,
                  const std::optional<std::vector<int64_t>> &tokens,
                  uint64_t salt) {
    if (tokens && int64_t(tokens->size()) != promptTokens)
      throw nb::value_error(("tokens has " + std::to_string(tokens->size()) +
                             " values, expected prompt_tokens, " +
                             std::to_string(promptTokens))
                                .c_str());
    moa_scheduler_request request = {};
    request.struct_size = sizeof(request);
    request.prompt_tokens = promptTokens;
    request.max_new_tokens = maxNewTokens;
    request.user = user;
    request.tokens = tokens ? tokens->data() : nullptr;
    request.salt = salt;
    uint64_t id = 0;
    check(moa_scheduler_submit(handle, &request, &id));
    return id;
  }
  void addTokens(uint64_t id, const std::vector<int64_t> &tokens) {
    check(moa_scheduler_add_tokens(handle, id, tokens.data(), tokens.size()));
  }
  void cancel(uint64_t id) { check(moa_scheduler_cancel(handle, id)); }

  std::vector<StepEntry> next() {
    moa_scheduler_step step = {};
    step.struct_size = sizeof(step);
    step.entry_size = sizeof(moa_scheduler_entry);
    checkReleased([&] { return moa_scheduler_next(handle, &step); });
    std::vector<StepEntry> entries;
    for (size_t i = 0; i < step.count; ++i) {
      const moa_scheduler_entry &e = step.entries[i];
      lent.push_back(std::make_shared<Sequence>(cache, e.sequence, false));
      entries.push_back({e.request, e.user, lent.back(), e.first_row, e.tokens,
                         e.generated, e.samples != 0, e.last != 0});
    }
    return entries;
  }
  /// `stops`: a value an entry, or none where no request ends.
  void commit(const std::optional<std::vector<bool>> &stops) {
    std::vector<uint8_t> raw;
    if (stops)
      raw.assign(stops->begin(), stops->end());
    const size_t count = stops ? raw.size() : lent.size();
    checkReleased([&] {
      return moa_scheduler_commit(handle, stops ? raw.data() : nullptr, count);
    });
    takeBack();
  }
  void abortStep() {
    checkReleased([&] { return moa_scheduler_abort_step(handle); });
    takeBack();
  }
  nb::dict stats() const {
    moa_scheduler_stats stats = {};
    stats.struct_size = sizeof(stats);
    check(moa_scheduler_get_stats(handle, &stats));
    nb::dict out;
    out["waiting"] = stats.waiting;
    out["running"] = stats.running;
    out["submitted"] = stats.submitted;
    out["finished"] = stats.finished;
    out["cancelled"] = stats.cancelled;
    out["preemptions"] = stats.preemptions;
    out["steps"] = stats.steps;
    out["aborted_steps"] = stats.aborted_steps;
    out["rows"] = stats.rows;
    out["rows_again"] = stats.rows_again;
    out["limit_bytes"] = stats.limit_bytes;
    out["most_bytes"] = stats.most_bytes;
    return out;
  }

private:
  /// The step is over: its sequences are no longer Python's to use.
  void takeBack() {
    for (const std::shared_ptr<Sequence> &sequence : lent)
      sequence->handle = nullptr;
    lent.clear();
  }

  std::shared_ptr<Cache> cache;
  moa_scheduler *handle = nullptr;
  std::vector<std::shared_ptr<Sequence>> lent; ///< Of the step under way.
};

} // namespace

void bindScheduler(nb::module_ &m) {
  nb::class_<StepEntry>(m, "StepEntry", "What a step feeds of one request.")
      .def_ro("request", &StepEntry::request, "The number of the request.")
      .def_ro("user", &StepEntry::user, "As submitted.")
      .def_ro("sequence", &StepEntry::sequence,
              "To be passed to attend or a Batch and read; gone when the step "
              "is over.")
      .def_ro("first_row", &StepEntry::firstRow,
              "Row of the sequence that the first token becomes.")
      .def_ro("tokens", &StepEntry::tokens, "Rows to feed, at least 1.")
      .def_ro("generated", &StepEntry::generated, "Tokens sampled so far.")
      .def_ro("samples", &StepEntry::samples,
              "Whether a token is sampled from the last row.")
      .def_ro("last", &StepEntry::last,
              "Whether that token is the last of max_new_tokens.");
  nb::class_<Scheduler>(
      m, "Scheduler",
      "Decides which rows of which requests a step feeds: next, attend to all "
      "entries in every layer, then commit or abort_step. It sees lengths; "
      "tokens, tensors and sampling are the caller's. See moa/scheduler.h.")
      .def(nb::init<std::shared_ptr<Cache>, uint32_t, int64_t, int64_t,
                    uint64_t, const std::string &>(),
           nb::arg("cache"), nb::arg("max_sequences") = 0,
           nb::arg("max_step_tokens") = 0, nb::arg("chunk_tokens") = 0,
           nb::arg("max_bytes") = 0, nb::arg("admission") = "optimistic",
           "admission: optimistic (requests may be preempted) or reserved. 0 "
           "for the defaults of moa_scheduler_options.")
      .def("submit", &Scheduler::submit, nb::arg("prompt_tokens"),
           nb::arg("max_new_tokens"), nb::arg("user") = 0,
           nb::arg("tokens") = nb::none(), nb::arg("salt") = 0,
           "Adds a request behind those that wait; its number. tokens: of the "
           "prompt, to begin with a prefix that the cache has "
           "(Cache.set_prefix_reuse); requests of different salts share "
           "nothing. Raises OutOfRangeError or OutOfPagesError if it could "
           "never run.")
      .def("add_tokens", &Scheduler::addTokens, nb::arg("request"),
           nb::arg("tokens"),
           "Says which tokens follow those of a request that are known: "
           "sampled ones, for others to begin with. See "
           "moa_scheduler_add_tokens.")
      .def("cancel", &Scheduler::cancel, nb::arg("request"),
           "Takes a request away; with the step under way, if it is part.")
      .def("next", &Scheduler::next,
           "Begins a step: a list of StepEntry; empty if there is nothing to "
           "do.")
      .def("commit", &Scheduler::commit, nb::arg("stops") = nb::none(),
           "Ends the step, its rows count. stops: for each entry whether its "
           "request ends with the token just sampled; None where none does.")
      .def("abort_step", &Scheduler::abortStep,
           "Gives the step up after a failure; its rows are fed again.")
      .def_prop_ro("stats", &Scheduler::stats);
}
