//===- Reference.h - Kernels and models in plain C++ ------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Modules of the runtime whose kernels are C++ functions that follow a work
// item to the letter in float64, models with random rules, and attention by
// definition to compare with. No compiler is needed.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_RUNTIME_REFERENCE_H
#define MOA_TEST_UNIT_RUNTIME_REFERENCE_H

#include "backend/cpu/cpu_device.h"
#include "cache/cache.h"
#include "sched/thread_pool.h"

#include <random>

namespace moa::rt::test {

constexpr uint32_t kDim = 8; ///< Head size of every model here.

/// What a model looks like.
struct Shape {
  uint32_t layers = 1, kvHeads = 2, group = 3;
  int32_t lengthRule = MOA_LENGTH_REQUEST;
  bool kv8 = false; ///< Random KV formats, one of 8 bits at least.
};

/// A rule drawn from those that matter: constant, growing, both, dense, and
/// windows of one token.
moa_span_rule randomRule(std::mt19937 &random, int32_t sink,
                         int32_t lengthRule);

/// Makes `module` a model with random rules and the kernels of this file.
void fill(Module &module, const Shape &shape, std::mt19937 &random);

/// A cache on the CPU.
/// What the quantise kernel here keeps of 64 rows of a KV head: whole multiples
/// of amax / 127, in a code that tells the formats apart.
struct Codes {
  /// `stride` elements between the rows at `from`.
  Codes(const float *from, int64_t stride, int32_t format);
  Codes(float scale, int32_t format) : scale(scale), format(format) {}
  uint8_t code(float value) const;
  float value(uint8_t code) const;
  float scale;
  int32_t format;
};

class CpuCache : public Cache {
public:
  CpuCache(const Module &module, ThreadPool &threads, uint64_t maxBytes,
           int64_t rollback = 0)
      : CpuCache(module, threads,
                 new PagePool(module.geometry.pageBytes(),
                              maxBytes / module.geometry.pageBytes(),
                              module.geometry.scaleBytes()),
                 rollback) {}

  Status attend(uint32_t layer, float scale, const moa_attend_entry *entries,
                size_t count) {
    return Cache::attend({layer, scale, nullptr, entries, count});
  }

private:
  CpuCache(const Module &module, ThreadPool &threads, PagePool *pages,
           int64_t rollback)
      : Cache(module, std::unique_ptr<PagePool>(pages),
              makeCpuExecutor(module, *pages, threads), rollback) {}
};

/// Tokens of one sequence and layer, [token][head][kDim] each.
struct Tokens {
  std::vector<float> q, k, v, out;

  /// Adds `count` random tokens; their outputs are NaN.
  void add(const Geometry &geometry, int64_t count, std::mt19937 &random);
  /// The entry for tokens [begin, end).
  moa_attend_entry entry(const Geometry &geometry, Sequence &sequence,
                         int64_t begin, int64_t end);
};

/// Largest difference between `tokens.out` and the definition for rows
/// [begin, end): row i of a head sees key j <= i if j is in the sink or at or
/// behind both the rule's window start and `bound[KV head]`. Rows see blocks
/// `kv8[KV head][block]`, where it is there and true, as they are in 8 bits.
double difference(const Module &module, uint32_t layer, const Tokens &tokens,
                  int64_t begin, int64_t end, int64_t n,
                  const std::vector<int64_t> &bound,
                  const std::vector<std::vector<bool>> &kv8 = {});

} // namespace moa::rt::test

#endif // MOA_TEST_UNIT_RUNTIME_REFERENCE_H
