//===- soak.cpp - The scheduler under random arrivals ---------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Runs the scheduler on the CPU for a given time: random arrivals, lengths and
// cancelled requests in a pool that is too small for all. Rows are checked
// against float64; memory, pages and times are printed.
//
//===----------------------------------------------------------------------===//

#include "moa/abi/kernel_args.h"
#include "moa/runtime.hpp"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <unistd.h>

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void check(const moa::Status &status, const char *what) {
  if (status)
    return;
  std::fprintf(stderr, "error: %s: %s\n", what, status.message());
  std::exit(1);
}

double residentMiB() {
  std::ifstream file("/proc/self/statm");
  long total = 0, resident = 0;
  file >> total >> resident;
  return double(resident) * double(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

/// Values of a request's tensors are a function of the place, so that none
/// needs to be kept: rows are made when they are fed.
float valueAt(uint64_t request, uint32_t layer, int which, int64_t row,
              int64_t i) {
  uint64_t x = request * 0x9E3779B97F4A7C15ull + layer * 0xC2B2AE3D27D4EB4Full +
               uint64_t(which) * 0x165667B19E3779F9ull +
               uint64_t(row) * 0xD6E8FEB86659FD93ull + uint64_t(i);
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93ull;
  x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93ull;
  return float(int64_t((x ^ (x >> 32)) & 0xFFFFF) - 0x80000) / 0x80000;
}

struct Client {
  int64_t prompt, mostNew, stopAfter;
};

class Soak {
public:
  Soak(const char *artifact, uint32_t seed) : random(seed) {
    check(context.create(), "context");
    check(module.load(context, artifact), "loading the artifact");
    check(module.info(info), "info");
    if (info.dtype != MOA_DTYPE_F32) {
      std::fprintf(stderr, "error: expected an artifact in f32\n");
      std::exit(1);
    }
    longest = std::min<int64_t>(info.max_length, 1200);
    uint64_t most = 0, dense = 0;
    check(module.kvBytes(longest, longest, most, dense), "bytes");
    check(cache.create(module, 5 * most), "cache");
    moa_scheduler_options options = {};
    options.max_sequences = 16;
    options.max_step_tokens = 256;
    options.chunk_tokens = 128;
    check(scheduler.create(cache, options), "scheduler");
  }

  void run(double seconds) {
    const Clock::time_point start = Clock::now();
    double atStart = 0, nextPrint = 0;
    for (;;) {
      const double now = since(start);
      if (now >= seconds && live.empty())
        break;
      arrive(now < seconds);
      step();
      // Buffers have their sizes after the first steps.
      if (atStart == 0 && now > std::min(10.0, seconds / 4))
        atStart = residentMiB();
      if (now >= nextPrint) {
        print(now);
        nextPrint = now + 30;
      }
    }
    print(since(start));
    moa_cache_stats pages = {};
    check(cache.stats(pages), "stats");
    std::printf(
        "checked %ld rows, largest error %.2e; overhead %.1f us a step; "
        "resident %.1f MiB after the start, %.1f at the end; pages "
        "%lu of %lu at most, %lu now\n",
        long(checkedRows), worst, overhead / double(steps) * 1e6, atStart,
        residentMiB(), (unsigned long)pages.pages_high_water,
        (unsigned long)pages.pages_limit, (unsigned long)pages.pages_used);
    if (worst > 1e-5 || pages.pages_used ||
        pages.pages_high_water > pages.pages_limit) {
      std::fprintf(stderr, "error: rows or pages are wrong\n");
      std::exit(1);
    }
  }

private:
  int64_t pick(int64_t most) { return 1 + int64_t(random() % most); }

  void arrive(bool more) {
    if (more && live.size() < 40 && random() % 3 == 0) {
      Client client;
      client.mostNew = pick(300);
      client.prompt = pick(random() % 4 ? 200 : longest - client.mostNew);
      client.stopAfter = pick(client.mostNew);
      uint64_t id = 0;
      check(scheduler.submit(client.prompt, client.mostNew, id), "submit");
      live[id] = client;
    }
    if (!live.empty() && random() % 200 == 0) {
      auto victim = std::next(live.begin(), long(random() % live.size()));
      check(scheduler.cancel(victim->first), "cancel");
      live.erase(victim);
    }
  }

  void step() {
    moa_scheduler_step step;
    Clock::time_point begin = Clock::now();
    check(scheduler.next(step), "next");
    overhead += since(begin);
    if (step.count == 0)
      return;
    const int64_t d = info.head_dim, q = info.q_heads * d,
                  kv = info.kv_heads * d;
    std::vector<float> tensors[4];
    for (int which = 0; which < 4; ++which)
      tensors[which].resize(step.tokens * (which == 0 || which == 3 ? q : kv));
    const size_t checked = random() % step.count;
    const bool checks = random() % 8 == 0;
    for (uint32_t layer = 0; layer < info.layers; ++layer) {
      std::vector<moa_attend_entry> entries;
      int64_t row = 0;
      for (size_t i = 0; i < step.count; ++i) {
        const moa_scheduler_entry &e = step.entries[i];
        for (int64_t r = 0; r < e.tokens; ++r) {
          for (int64_t x = 0; x < q; ++x)
            tensors[0][(row + r) * q + x] =
                valueAt(e.request, layer, 0, e.first_row + r, x);
          for (int which : {1, 2})
            for (int64_t x = 0; x < kv; ++x)
              tensors[which][(row + r) * kv + x] =
                  valueAt(e.request, layer, which, e.first_row + r, x);
        }
        entries.push_back({e.sequence, e.tokens, &tensors[0][row * q],
                           &tensors[1][row * kv], &tensors[2][row * kv],
                           &tensors[3][row * q], q, d, kv, d, kv, d, q, d});
        row += e.tokens;
      }
      check(cache.attend(layer, entries), "attend");
      if (checks && layer == steps % info.layers)
        checkRow(step.entries[checked], layer,
                 static_cast<const float *>(entries[checked].out) +
                     (step.entries[checked].tokens - 1) * q);
    }
    std::vector<uint8_t> stops(step.count);
    for (size_t i = 0; i < step.count; ++i) {
      const moa_scheduler_entry &e = step.entries[i];
      auto found = live.find(e.request);
      stops[i] = e.samples && e.generated + 1 >= found->second.stopAfter;
      if (stops[i])
        live.erase(found);
    }
    begin = Clock::now();
    check(scheduler.commit(stops), "commit");
    overhead += since(begin);
    ++steps;
  }

  /// Compares the last row of an entry with the definition.
  void checkRow(const moa_scheduler_entry &e, uint32_t layer,
                const float *out) {
    const int64_t d = info.head_dim, i = e.first_row + e.tokens - 1;
    const Client &client = live.at(e.request);
    for (uint32_t head = 0; head < info.q_heads; ++head) {
      const int64_t kvHead = head / (info.q_heads / info.kv_heads);
      moa_span_rule rule;
      check(moa::Status(moa_module_get_rule(module.get(), layer, head, &rule)),
            "rule");
      const int64_t first =
          moa_window_start(&rule, i, client.prompt + client.mostNew);
      std::vector<double> sum(d);
      double weights = 0;
      for (int64_t j = 0; j <= i; ++j) {
        if (!moa_visible(i, j, first, rule.sink))
          continue;
        double score = 0;
        for (int64_t x = 0; x < d; ++x)
          score += double(valueAt(e.request, layer, 0, i, head * d + x)) *
                   valueAt(e.request, layer, 1, j, kvHead * d + x);
        const double weight = std::exp(score / std::sqrt(double(d)));
        weights += weight;
        for (int64_t x = 0; x < d; ++x)
          sum[x] += weight * valueAt(e.request, layer, 2, j, kvHead * d + x);
      }
      for (int64_t x = 0; x < d; ++x)
        worst = std::max(
            worst, std::fabs(sum[x] / weights - double(out[head * d + x])));
    }
    ++checkedRows;
  }

  void print(double now) {
    moa_scheduler_stats s = {};
    check(scheduler.stats(s), "stats");
    std::printf("%6.1f s: %lu steps, %lu rows (%.0f a second), %lu again; %lu "
                "requests: %lu ended, %lu cancelled, %lu run, %lu wait; %lu "
                "preemptions; resident %.1f MiB\n",
                now, (unsigned long)s.steps, (unsigned long)s.rows,
                now > 0 ? double(s.rows) / now : 0.0,
                (unsigned long)s.rows_again, (unsigned long)s.submitted,
                (unsigned long)s.finished, (unsigned long)s.cancelled,
                (unsigned long)s.running, (unsigned long)s.waiting,
                (unsigned long)s.preemptions, residentMiB());
    std::fflush(stdout);
  }

  std::mt19937 random;
  moa::Context context;
  moa::Module module;
  moa::Cache cache;
  moa::Scheduler scheduler;
  moa_module_info info = {};
  int64_t longest = 0;
  std::map<uint64_t, Client> live;
  uint64_t steps = 0, checkedRows = 0;
  double overhead = 0, worst = 0;
};

} // namespace

int main(int argc, char **argv) {
  if (argc != 3 || std::atof(argv[2]) <= 0) {
    std::fprintf(stderr, "error: expected moa-soak ARTIFACT SECONDS\n");
    return 1;
  }
  Soak(argv[1], 1).run(std::atof(argv[2]));
  return 0;
}
