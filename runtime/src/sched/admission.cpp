//===- admission.cpp - When a request is let in ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of admission.h.
//
//===----------------------------------------------------------------------===//

#include "sched/admission.h"

namespace moa::rt {

/// Tokens that a request which was preempted has ahead of it at least.
constexpr int64_t kProgress = 64;
/// The share of the limit that new requests leave free is 1 in so many.
constexpr uint64_t kWatermark = 100;

Admission::Admission(const Cache &cache, bool reserved, uint64_t ownLimit)
    : cache(cache), reserved(reserved), ownLimit(ownLimit),
      heads(uint64_t(cache.module.geometry.layers) *
            cache.module.geometry.kvHeads),
      kv8Heads(cache.module.kv8Heads()) {}

uint64_t Admission::limit() const {
  const uint64_t most = cache.pool.limit();
  return ownLimit && (!most || ownLimit < most) ? ownLimit : most;
}

/// A KV head takes a page where a block begins, and one of 8 bits where a block
/// is complete and its rows can no longer be taken back: some row of a block of
/// a prompt does that.
uint64_t Admission::pagesNext(const Request &request) const {
  const bool begins = request.seen % MOA_BLOCK_KEYS == 0;
  const bool goes = request.prefills() ||
                    (request.seen - cache.rollback) % MOA_BLOCK_KEYS == 0;
  return begins * heads + goes * kv8Heads;
}

bool Admission::admits(const Request &request, const RequestList &running,
                       uint64_t promised, uint64_t most) const {
  if (!limit())
    return true;
  if (running.empty()) // All that is in use is others'.
    return fits(promised, reserved ? request.most : request.now);
  if (reserved)
    return fits(most, request.most);
  if (request.preempted)
    return lasts(request, running);
  return fits(promised, request.now + limit() / kWatermark);
}

/// Whether the pages last until a request that was preempted has kProgress more
/// tokens: each step feeds a block of the oldest prompt at least, and a row of
/// each other request at most.
bool Admission::lasts(const Request &request,
                      const RequestList &running) const {
  auto blocks = [](const Request &r) { return blocksOf(r.rows()); };
  int64_t steps = blocks(request) + kProgress;
  for (const Request &other : running)
    if (other.prefills())
      steps += blocks(other);
  const uint64_t growth = (heads + kv8Heads) * (steps / MOA_BLOCK_KEYS + 1);
  const int64_t rows = request.prompt + request.generated + kProgress;
  uint64_t pages = rt::mostPages(cache, request.length(),
                                 std::min(rows, request.length() - 1));
  for (const Request &other : running)
    pages += std::min(other.most,
                      (other.prefills() ? other.now : other.held) + growth);
  return fits(pages, 0);
}

} // namespace moa::rt
