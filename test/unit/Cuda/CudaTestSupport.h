//===- CudaTestSupport.h - Artifacts and sessions on the fake driver *- C++
//-*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Builds artifacts whose GPU images are texts that the fake driver understands,
// and runs them through the C ABI with tensors in its memory.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_CUDA_CUDATESTSUPPORT_H
#define MOA_TEST_UNIT_CUDA_CUDATESTSUPPORT_H

#include "FakeCuda.h"
#include "FakeTensor.h"
#include "gtest/gtest.h"

#include "moa/abi/artifact.h"
#include "moa/abi/kernel_args.h"
#include "moa/runtime.hpp"

#include <memory>
#include <random>
#include <string>
#include <vector>

namespace moa::test {

using fake::loadElement;
using fake::storeElement;

/// A test on a fresh fake driver, which is clean behind it.
class FakeCudaTest : public testing::Test {
protected:
  void SetUp() override { fakeCuda()->reset(); }
  void TearDown() override {
    EXPECT_TRUE(fakeCuda()->clean());
    for (const std::string &fault : fakeCuda()->faults)
      ADD_FAILURE() << fault;
  }
};

/// An image of every kernel.
struct ImageSpec {
  uint32_t target = MOA_TARGET_CUDA_CUBIN;
  uint32_t features = 90 | MOA_GPU_ARCH_SPECIFIC;
  std::string chip = "sm_90a";
};

/// A model and its artifact.
struct Model {
  uint32_t layers = 1, kvHeads = 2, group = 2, dim = 16;
  uint32_t dtype = MOA_DTYPE_BF16;
  int32_t lengthRule = MOA_LENGTH_REQUEST, sink = 64;
  uint32_t rows = 128, keys = 128;
  uint32_t columns = 0; ///< Of the decode kernel; 0: the group's.
  uint32_t wide = 0;    ///< Of a second image of it; 0: none.
  bool prefill = true, decode = true;
  bool rope = false; ///< A session sets rotations of whole heads, by halves.
  /// KV heads keep int8, e4m3 and the model's type in turn. Keys and values are
  /// such that 8 bits keep them as they are.
  bool kv8 = false;
  bool quantise = true; ///< With kv8: that kernel has images.
  int64_t maxLength = 1 << 16;
  std::vector<moa_span_rule> rules; ///< [layer][query head].
  std::vector<ImageSpec> images = {ImageSpec()};

  uint32_t qHeads() const { return kvHeads * group; }
  int64_t elementBytes() const { return dtype == MOA_DTYPE_F32 ? 4 : 2; }
  /// MOA_KV_* of a KV head, counted over all layers.
  uint8_t format(size_t head) const {
    static constexpr uint8_t kFormats[] = {MOA_KV_INT8, MOA_KV_E4M3,
                                           MOA_KV_MODEL};
    return kv8 ? kFormats[head % 3] : uint8_t(MOA_KV_MODEL);
  }
  /// Rules that matter, with one sink.
  void randomRules(std::mt19937 &random);
  std::vector<uint8_t> artifact() const;
};

/// A context, module and cache on the fake driver.
struct Session {
  /// Opens all three; the failure, or success.
  Status open(const Model &model, uint64_t maxBytes = 0,
              int64_t decodeParts = 0);

  Model model;
  Context context;
  Module module;
  Cache cache;

  /// The rotation of `model.rope`.
  std::vector<double> frequencies() const;
  static constexpr float kScale = 1.25f;
};

/// All tokens of one sequence and layer, in device memory. Tensors are [token]
/// [head][dim] with `padding` elements behind each row.
class Tokens {
public:
  Tokens(const Session &session, int64_t count, std::mt19937 &random,
         int64_t padding = 0);
  ~Tokens();
  Tokens(const Tokens &) = delete;
  Tokens &operator=(const Tokens &) = delete;

  moa_attend_entry entry(const Sequence &sequence, int64_t begin, int64_t end);
  /// Overwrites one row of `values`, of all KV heads.
  void poison(int64_t token, double value);
  /// Outputs become NaN again.
  void clearOut();
  /// Largest difference between outputs [begin, end) and the definition, spans
  /// at length `n`, nothing visible between sink and bound[KV head]. Waits.
  double difference(uint32_t layer, int64_t begin, int64_t end, int64_t n,
                    const std::vector<int64_t> &bound) const;
  /// Largest difference between rows [begin, end) of q and k and what the
  /// session's rotation makes of those there were; 0 without one. Waits.
  double rotationError(int64_t begin, int64_t end) const;

private:
  /// Puts what 8 bits keep as it is in the place of keys or values: the same
  /// for all formats, up to the sign of a power of two that is their scale.
  void makeExact(std::vector<char> &host, std::mt19937 &random) const;

  const Session &session;
  int64_t count, qRow, kvRow;
  void *q = nullptr, *k = nullptr, *v = nullptr, *out = nullptr;
  std::vector<char> firstQ, firstK; ///< What q and k were made with.
};

/// First resident position of each KV head.
std::vector<int64_t> boundsOf(const Session &session, const Sequence &sequence,
                              uint32_t layer);

} // namespace moa::test

#endif // MOA_TEST_UNIT_CUDA_CUDATESTSUPPORT_H
