//===- embed.cpp - Forks and snapshots from C++ ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Two answers to one prompt, by moa/runtime.hpp: the prompt is fed once and
// forked; each answer goes its own way over shared pages. One of them is stored
// and goes on in another cache.
//
//===----------------------------------------------------------------------===//

#include "moa/abi/kernel_args.h"
#include "moa/runtime.hpp"

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <vector>

namespace {

constexpr int64_t kPrompt = 200, kTokens = 220;

void check(const moa::Status &status, const char *what) {
  if (status)
    return;
  std::cerr << "error: " << what << ": " << status.message() << "\n";
  std::exit(1);
}

/// Tensors of one layer, made up from positions and the number of an answer.
struct Rows {
  Rows(const moa_module_info &info, int64_t answer)
      : d(info.head_dim), qs(info.q_heads * d), ks(info.kv_heads * d),
        q(kTokens * qs), k(kTokens * ks), v(kTokens * ks), out(kTokens * qs) {
    auto fill = [&](std::vector<float> &to, int64_t row, int64_t which) {
      for (int64_t i = 0; i < int64_t(to.size()); ++i) {
        const int64_t own = i / row < kPrompt ? 0 : answer;
        to[i] = float((i * 13 + own * 31 + which * 7) % 97) / 97 - 0.5f;
      }
    };
    fill(q, qs, 0);
    fill(k, ks, 1);
    fill(v, ks, 2);
  }
  moa_attend_entry entry(const moa::Sequence &sequence, int64_t begin,
                         int64_t end) {
    return {sequence.get(),
            end - begin,
            q.data() + begin * qs,
            k.data() + begin * ks,
            v.data() + begin * ks,
            out.data() + begin * qs,
            qs,
            d,
            ks,
            d,
            ks,
            d,
            qs,
            d};
  }
  /// Of one token.
  std::vector<float> result(int64_t token) const {
    return {out.begin() + token * qs, out.begin() + (token + 1) * qs};
  }
  int64_t d, qs, ks;
  std::vector<float> q, k, v, out;
};

} // namespace

int main(int argc, char **argv) {
  if (argc != 2) {
    std::cerr << "error: expected embed ARTIFACT\n";
    return 1;
  }
  moa::Context context;
  moa::Module module;
  moa::Cache cache;
  moa_module_info info = {};
  check(context.create(), "context");
  check(module.load(context, argv[1]), "module");
  check(module.info(info), "info");
  check(cache.create(module), "cache");
  if (info.dtype != MOA_DTYPE_F32) {
    std::cerr << "error: expected an artifact in f32\n";
    return 1;
  }

  // The prompt once, for both; then a token of each in one call.
  Rows rows[] = {Rows(info, 1), Rows(info, 2)};
  moa::Sequence answers[2];
  auto feed = [&](const moa::Cache &to,
                  const std::vector<moa_attend_entry> &entries) {
    moa_attend_options options = {
        sizeof(options), sizeof(moa_attend_entry), 0, 0, 0, nullptr};
    for (uint32_t layer = 0; layer < info.layers; ++layer) {
      options.layer = layer;
      check(moa::Status(
                moa_attend(to.get(), &options, entries.data(), entries.size())),
            "attend");
    }
  };
  check(answers[0].create(cache, kTokens), "sequence");
  feed(cache, {rows[0].entry(answers[0], 0, kPrompt)});
  check(answers[1].fork(answers[0]), "fork");
  moa_cache_stats stats = {};
  check(cache.stats(stats), "stats");
  std::cout << "after the fork: " << stats.pages_used << " pages in use, "
            << stats.pages_referenced << " without sharing\n";
  for (int64_t i = kPrompt; i < kTokens - 1; ++i)
    feed(cache, {rows[0].entry(answers[0], i, i + 1),
                 rows[1].entry(answers[1], i, i + 1)});

  // One is stored, and goes on elsewhere as it does here.
  std::vector<char> stored;
  check(answers[0].snapshot(stored), "snapshot");
  feed(cache, {rows[0].entry(answers[0], kTokens - 1, kTokens)});
  const std::vector<float> here = rows[0].result(kTokens - 1);
  moa::Cache other;
  moa::Sequence restored;
  check(other.create(module), "second cache");
  check(restored.restore(other, stored), "restore");
  feed(other, {rows[0].entry(restored, kTokens - 1, kTokens)});
  const bool same = rows[0].result(kTokens - 1) == here;
  const bool apart = rows[0].result(kPrompt) != rows[1].result(kPrompt);
  std::cout << "two answers " << (apart ? "differ" : "are the same")
            << "; the one that was stored goes on "
            << (same ? "with the same bits" : "differently") << "\n";
  return same && apart ? 0 : 1;
}
