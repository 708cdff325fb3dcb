//===- scheduler.cpp - Continuous batching --------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of scheduler.h. A step costs time in the number of running
// requests; pages are counted head by head only where a prompt or a block
// begins.
//
//===----------------------------------------------------------------------===//

#include "sched/scheduler.h"

#include "cache/cache.h"

namespace moa::rt {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;
/// Why the oldest request cannot go on.
constexpr const char *kHeldByOthers =
    " are held by sequences outside of the scheduler; free these, raise the "
    "limit or cancel the request";

static Status noStep() {
  return error(MOA_INVALID_ARGUMENT,
               "the scheduler has no step under way; call moa_scheduler_next "
               "first");
}

namespace {

/// Pages that are given back when sequences go one after the other, those that
/// they share with others left out until the last of these goes.
class PagesGivenBack {
public:
  uint64_t by(const Sequence &sequence) {
    uint64_t pages = 0;
    for (const LayerState &layer : sequence.layers)
      for (const HeadPages &head : layer.heads)
        head.forPages([&](PageId page) {
          pages += ++holders[page] == sequence.pool.holdersOf(page);
        });
    return pages;
  }

private:
  std::unordered_map<PageId, uint32_t> holders; ///< That have gone.
};

} // namespace

Scheduler::Scheduler(Cache &cache, const SchedulerShape &shape)
    : cache(cache), shape(shape),
      admission(cache, shape.reserved, shape.limit) {
  step.reserve(shape.sequences);
  members.reserve(shape.sequences);
  made.reserve(shape.sequences);
}

Scheduler::~Scheduler() {
  for (Request &request : running)
    dropSequence(request);
}

Status Scheduler::submit(const moa_scheduler_request &submitted, uint64_t &id) {
  const int64_t promptTokens = submitted.prompt_tokens;
  const int64_t maxNewTokens = submitted.max_new_tokens;
  const int64_t longest = cache.module.geometry.maxLength;
  if (promptTokens < 1 || maxNewTokens < 1)
    return error(MOA_INVALID_ARGUMENT, "the request has prompt_tokens ",
                 promptTokens, " and max_new_tokens ", maxNewTokens,
                 ", expected at least 1 of each");
  if (promptTokens > longest || maxNewTokens > longest - promptTokens)
    return error(MOA_OUT_OF_RANGE, "the request's ", promptTokens,
                 " prompt tokens and ", maxNewTokens,
                 " new ones exceed the artifact's max length ", longest,
                 "; ask for fewer or compile with a larger --max-length");
  if (submitted.tokens && !cache.prefixes)
    return error(MOA_INVALID_ARGUMENT,
                 "the request has tokens, but its cache does not reuse "
                 "prefixes; call moa_cache_set_prefix_reuse first, or pass "
                 "NULL");
  Request request;
  request.prompt = promptTokens;
  request.mostNew = maxNewTokens;
  request.user = submitted.user;
  request.salt = submitted.salt;
  if (submitted.tokens)
    request.tokens.assign(submitted.tokens, submitted.tokens + promptTokens);
  // The last token sampled is not fed.
  request.most = mostPages(cache, request.length(), request.length() - 1);
  request.now = mostPages(cache, request.length(), promptTokens);
  if (!admission.fits(0, request.most)) {
    const uint64_t bytes = cache.pool.pageBytes();
    return error(MOA_OUT_OF_PAGES, "the request's ", promptTokens,
                 " prompt tokens and ", maxNewTokens, " new ones hold up to ",
                 request.most * bytes, " bytes (", request.most,
                 " pages) at once, the limit is ", admission.limit() * bytes,
                 " (", admission.limit(),
                 " pages); ask for fewer or raise max_bytes");
  }
  request.id = lastId + 1;
  RequestList one;
  one.push_back(std::move(request));
  byId.emplace(one.front().id, one.begin());
  waiting.splice(waiting.end(), one);
  id = ++lastId;
  ++counts.submitted;
  return ok();
}

Status Scheduler::find(uint64_t id, Place &place) {
  auto found = byId.find(id);
  if (found == byId.end() || found->second->cancelled)
    return error(MOA_INVALID_ARGUMENT, "there is no request ", id,
                 "; it has ended, was cancelled or never submitted");
  place = found->second;
  return ok();
}

Status Scheduler::addTokens(uint64_t id, const int64_t *tokens, size_t count) {
  Place place;
  MOA_RT_TRY(find(id, place));
  Request &request = *place;
  const auto known = static_cast<int64_t>(request.tokens.size());
  if (!known)
    return error(MOA_INVALID_ARGUMENT, "request ", id,
                 " was submitted without its prompt's tokens");
  const int64_t most = request.prompt + request.generated;
  if (!count || count > static_cast<uint64_t>(most - known))
    return error(MOA_INVALID_ARGUMENT, "request ", id, " got ", count,
                 " tokens behind ", known, " known ones, expected 1 to the ",
                 most - known, " that were sampled since");
  request.tokens.reserve(known + count);
  if (request.sequence)
    MOA_RT_TRY(request.sequence->addTokens(tokens, count));
  request.tokens.insert(request.tokens.end(), tokens, tokens + count);
  return ok();
}

Status Scheduler::cancel(uint64_t id) {
  Place place;
  MOA_RT_TRY(find(id, place));
  ++counts.cancelled;
  if (place->inStep)
    place->cancelled = true;
  else
    remove(place);
  return ok();
}

/// Notes what each running request must have to go on. Prompts beyond the
/// step's rows go on in a later one.
void Scheduler::claimPages() {
  int64_t rows = shape.tokens;
  for (const Request &request : running)
    rows -= !request.prefills();
  for (Request &request : running) {
    request.claim = admission.pagesNext(request);
    if (!request.prefills())
      continue;
    const int64_t least = std::min(request.rows(), kBlock);
    if (rows < least)
      request.claim = 0;
    rows -= least;
  }
}

/// How many of the oldest running requests go on together.
Status Scheduler::countSurvivors(uint64_t used, size_t &survivors) {
  claimPages();
  uint64_t claims = 0;
  for (const Request &request : running)
    claims += request.claim;
  survivors = running.size();
  PagesGivenBack back;
  for (auto place = running.end(); survivors && !admission.fits(used, claims);
       --survivors) {
    --place;
    claims -= place->claim;
    used -= place->sequence ? back.by(*place->sequence) : 0;
  }
  if (survivors || running.empty())
    return ok();
  const Request &oldest = running.front();
  return error(MOA_OUT_OF_PAGES, "request ", oldest.id, ", the oldest, needs ",
               oldest.claim, " pages of ", cache.pool.pageBytes(),
               " bytes beside its ", oldest.held, "; ", used, " of ",
               admission.limit(), kHeldByOthers);
}

Status Scheduler::next() {
  if (!members.empty())
    return error(MOA_INVALID_ARGUMENT,
                 "the scheduler has a step under way; call "
                 "moa_scheduler_commit, or moa_scheduler_abort_step to give it "
                 "up, first");
  const uint64_t used = cache.pool.used();
  size_t survivors = 0;
  MOA_RT_TRY(countSurvivors(used, survivors));
  const size_t started = running.size();
  try {
    build(survivors, used);
  } catch (...) {
    undo(started);
    throw;
  }
  if (!members.empty() || waiting.empty())
    return ok();
  const Request &oldest = waiting.front();
  return error(MOA_OUT_OF_PAGES, "request ", oldest.id, ", the oldest, needs ",
               shape.reserved ? oldest.most : oldest.now, " pages of ",
               cache.pool.pageBytes(), " bytes; ", used, " of ",
               admission.limit(), kHeldByOthers);
}

/// Fills the step. All that can throw comes before a request is sent back, or
/// where none is.
void Scheduler::build(size_t survivors, uint64_t used) {
  auto end = running.begin();
  std::advance(end, survivors);
  for (auto place = running.begin(); place != end; ++place)
    if (!place->sequence) // Lost in a step that was aborted.
      makeSequence(place);
  const bool scarce = survivors < running.size();
  while (survivors < running.size()) {
    running.back().preempted = true;
    ++counts.preemptions;
    sendBack();
  }
  for (auto place = running.begin(); place != running.end(); ++place)
    if (!place->prefills()) {
      addEntry(place, 1);
      used += place->claim;
    }
  singles = step.size();
  uint64_t promised = used;
  for (auto place = running.begin();
       singles < running.size() && place != running.end(); ++place)
    if (place->prefills()) {
      promised += place->now - std::min(place->now, place->held);
      const Chunk chunk = chunkOf(*place, used);
      used += chunk.pages;
      if (chunk.tokens)
        addEntry(place, chunk.tokens);
    }
  if (!scarce)
    admit(used, promised);
}

/// Lets requests in by arrival, as long as rows and pages are left.
void Scheduler::admit(uint64_t used, uint64_t promised) {
  while (!waiting.empty() && running.size() < shape.sequences) {
    Request &request = waiting.front();
    const PrefixMatch match = cache.findPrefix(
        request.salt, request.tokens.data(), request.tokens.size());
    request.seen = match.tokens();
    request.common = match.common;
    bool admitted = false;
    try {
      admitted = admitNext(match, used, promised);
    } catch (...) {
      request.seen = 0;
      throw;
    }
    if (!admitted) {
      request.seen = 0;
      return;
    }
  }
}

/// Lets the oldest request that waits begin with a match, if there are pages
/// and rows: pages of the match that others hold are there already.
bool Scheduler::admitNext(const PrefixMatch &match, uint64_t &used,
                          uint64_t &promised) {
  const Place place = waiting.begin();
  const uint64_t there = match.pages - match.idle;
  if (!admission.admits(*place, running, promised - there, mostSum))
    return false;
  const Chunk chunk = chunkOf(*place, used + match.idle);
  if (!chunk.tokens)
    return false;
  makeSequence(place, match);
  running.splice(running.end(), waiting, place);
  place->runs = true;
  mostSum += place->most;
  used += match.idle + chunk.pages;
  promised += place->now - there;
  addEntry(place, chunk.tokens);
  return true;
}

/// Chunks that do not end a prompt end with a block, so every one begins with
/// one. Where others have gone other ways one ends, for more to begin there.
Scheduler::Chunk Scheduler::chunkOf(const Request &request,
                                    uint64_t used) const {
  int64_t tokens =
      std::min({request.rows(), shape.chunk, shape.tokens - stepTokens});
  if (request.seen < request.common)
    tokens = std::min(tokens, request.common - request.seen);
  if (tokens < request.rows())
    tokens -= tokens % kBlock;
  if (tokens == 0 || !admission.limit())
    return {tokens, 0};
  auto pages = [&](int64_t rows) {
    return newPages(cache, request.length(), request.seen, rows);
  };
  const uint64_t room = admission.room(used);
  const uint64_t all = pages(tokens);
  if (all <= room)
    return {tokens, all};
  int64_t fitting = 0, beyond = blocksOf(tokens);
  while (fitting + 1 < beyond) {
    const int64_t middle = (fitting + beyond) / 2;
    (pages(middle * kBlock) <= room ? fitting : beyond) = middle;
  }
  return {fitting * kBlock, pages(fitting * kBlock)};
}

void Scheduler::addEntry(Place place, int64_t tokens) noexcept {
  Request &request = *place;
  request.inStep = true;
  moa_scheduler_entry entry = {};
  entry.request = request.id;
  entry.user = request.user;
  entry.sequence = reinterpret_cast<moa_sequence *>(request.sequence);
  entry.first_row = request.seen;
  entry.tokens = tokens;
  entry.generated = request.generated;
  entry.samples = tokens == request.rows();
  entry.last = entry.samples && request.generated + 1 == request.mostNew;
  step.push_back(entry);
  members.push_back(place);
  stepTokens += tokens;
}

void Scheduler::makeSequence(Place place, const PrefixMatch &match) {
  cache.sequences.push_back(std::make_unique<Sequence>(
      cache, cache.module, cache.pool, place->length()));
  ++cache.counters.sequences_created;
  place->sequence = cache.sequences.back().get();
  made.push_back(place);
  if (!place->tokens.empty())
    cache.beginWith(*place->sequence, match, place->salt, place->tokens.data(),
                    place->tokens.size());
}

/// All rows of the request are to be fed again.
void Scheduler::dropSequence(Request &request) noexcept {
  if (request.sequence)
    cache.destroy(*request.sequence);
  request.sequence = nullptr;
  request.seen = 0;
  request.held = 0;
  request.now =
      mostPages(cache, request.length(), request.prompt + request.generated);
}

/// Makes the youngest running request the first that waits.
void Scheduler::sendBack() noexcept {
  const Place place = std::prev(running.end());
  dropSequence(*place);
  mostSum -= place->most;
  place->runs = false;
  waiting.splice(waiting.begin(), running, place);
}

/// Makes everything as before a step that could not be made: `started` requests
/// were running.
void Scheduler::undo(size_t started) noexcept {
  for (Place place : members)
    place->inStep = false;
  while (running.size() > started)
    sendBack();
  for (Place place : made)
    dropSequence(*place);
  closeStep();
}

void Scheduler::remove(Place place) noexcept {
  dropSequence(*place);
  mostSum -= place->runs ? place->most : 0;
  byId.erase(place->id);
  (place->runs ? running : waiting).erase(place);
}

void Scheduler::closeStep() noexcept {
  step.clear();
  members.clear();
  made.clear();
  singles = 0;
  stepTokens = 0;
}

/// Whether the rows of an entry were fed in every layer.
Status Scheduler::checkFed(size_t entry) const {
  const Sequence &sequence = *members[entry]->sequence;
  if (sequence.step)
    return error(MOA_INVALID_ARGUMENT, "entry ", entry,
                 ": its sequence is part of a batch's step under way; call "
                 "moa_batch_end first");
  const int64_t total = step[entry].first_row + step[entry].tokens;
  for (size_t layer = 0; layer < sequence.layers.size(); ++layer)
    if (sequence.layers[layer].seen != total)
      return error(MOA_INVALID_ARGUMENT, "entry ", entry, ": layer ", layer,
                   " has seen ", sequence.layers[layer].seen,
                   " rows, expected ", total,
                   "; attend to every layer, or call moa_scheduler_abort_step");
  return ok();
}

Status Scheduler::commit(const uint8_t *stops, size_t count) {
  if (members.empty())
    return noStep();
  if (stops && count != members.size())
    return error(MOA_INVALID_ARGUMENT, "stops has ", count,
                 " values, expected one for each of the step's ",
                 members.size(), " entries");
  for (size_t i = 0; i < members.size(); ++i) {
    if (members[i]->cancelled)
      continue;
    MOA_RT_TRY(checkFed(i));
    if (stops && stops[i] && !step[i].samples)
      return error(MOA_INVALID_ARGUMENT, "entry ", i,
                   " stops, but samples no token: rows of its prompt are left; "
                   "call moa_scheduler_cancel to give request ",
                   step[i].request, " up");
  }
  ++counts.steps;
  counts.rows += stepTokens;
  for (size_t i = 0; i < members.size(); ++i) {
    const Place place = members[i];
    Request &request = *place;
    request.inStep = false;
    request.seen += step[i].tokens;
    counts.rows_again += std::max<int64_t>(
        0, std::min(request.fed, request.seen) - step[i].first_row);
    request.fed = std::max(request.fed, request.seen);
    request.generated += step[i].samples;
    const bool ends = step[i].last || (stops && stops[i]);
    counts.finished += ends && !request.cancelled;
    if (ends || request.cancelled)
      remove(place);
    else if (step[i].tokens > 1 || step[i].first_row % kBlock == 0)
      request.held = request.sequence->pagesHeld();
  }
  closeStep();
  return ok();
}

Status Scheduler::abortStep() {
  if (members.empty())
    return noStep();
  for (size_t i = 0; i < members.size(); ++i)
    if (members[i]->sequence->step)
      return error(MOA_INVALID_ARGUMENT, "entry ", i,
                   ": its sequence is part of a batch's step under way; call "
                   "moa_batch_cancel first");
  ++counts.aborted_steps;
  for (Place place : members) {
    Request &request = *place;
    request.inStep = false;
    auto untouched = [&](const LayerState &layer) {
      return layer.seen == request.seen;
    };
    const std::vector<LayerState> &layers = request.sequence->layers;
    if (request.cancelled)
      remove(place);
    else if (!std::all_of(layers.begin(), layers.end(), untouched))
      dropSequence(request);
  }
  closeStep();
  return ok();
}

void Scheduler::fill(moa_scheduler_stats &stats) const {
  const uint64_t bytes = cache.pool.pageBytes();
  stats = counts;
  stats.waiting = waiting.size();
  stats.running = running.size();
  stats.limit_bytes = admission.limit() * bytes;
  stats.most_bytes = mostSum * bytes;
}

} // namespace moa::rt
