//===- Backend.h - What the conformance driver runs on ----------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The few operations that a back end offers to the driver. Each failure is a
// text that starts with the name of its status code; success is empty.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_CONFORMANCE_BACKEND_H
#define MOA_TEST_UNIT_CONFORMANCE_BACKEND_H

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace moa::conformance {

/// Strides of a tensor in elements; the elements of a head are dense.
struct Strides {
  int64_t row = 0, head = 0;
};

/// All bytes around a tensor, those that nobody may touch included.
struct Buffer {
  char *data = nullptr;
  size_t bytes = 0;
};

/// One sequence's part of a call.
struct Entry {
  int sequence;
  int64_t tokens;
  const void *q, *k, *v;
  void *out;
  Strides qStrides, kvStrides; ///< `out` has those of q.
  Buffer around[4] = {};       ///< Of q, k, v, out; for back ends that copy.
};

/// A loaded artifact with an empty cache.
class Backend {
public:
  virtual ~Backend() = default;

  /// Creates a sequence; its number, or -1.
  virtual int createSequence(int64_t length) = 0;
  virtual void destroySequence(int sequence) = 0;
  virtual std::string setLength(int sequence, int64_t length) = 0;
  virtual std::string attend(uint32_t layer, const float *scale,
                             const std::vector<Entry> &entries) = 0;
  /// Whether the rows of a sequence in a call, so many, see what 8 bits stand
  /// for rounded to the element type.
  virtual bool roundsCodes(int64_t tokens) = 0;
  virtual int64_t firstResident(int sequence, uint32_t layer,
                                uint32_t kvHead) = 0;
  virtual int64_t tokensSeen(int sequence, uint32_t layer) = 0;
  virtual uint64_t bytesHeld(int sequence) = 0;
  /// Bytes in closed form.
  virtual uint64_t bytesExpected(int64_t length, int64_t seen) = 0;
  virtual uint64_t pagesUsed() = 0;
  /// Variant that runs, as the artifact names it.
  virtual std::string variant() = 0;
};

/// A rotation of all layers, with frequencies theta^(-2i / dim).
struct Rotation {
  bool interleaved = false;
  int64_t dim = 64; ///< Elements of a head that are rotated.
  double theta = 1e4;
  float scale = 1;
};
/// Frequency of a pair.
double frequencyOf(const Rotation &rotation, int64_t pair);

/// How to open an artifact.
struct OpenOptions {
  bool cuda = false;     ///< On CUDA device 0.
  uint32_t features = 0; ///< MOA_CPU_* bits; 0 = what the machine has.
  int threads = 2;
  uint64_t maxBytes = 0; ///< Of pages; 0 = no limit.
  /// Calls that give every sequence the same few rows go as steps of a batch.
  bool batches = false;
  std::optional<Rotation> rope = {}; ///< Set on the cache.
  int64_t decodeParts = 0;           ///< Of the cache.
};

/// A back end over the C ABI. Null with a reason in `error`.
std::unique_ptr<Backend> openBackend(const std::string &artifact,
                                     const OpenOptions &options,
                                     std::string &error);

/// Why this machine runs nothing on CUDA; empty if it does.
std::string reasonAgainstCuda();

} // namespace moa::conformance

#endif // MOA_TEST_UNIT_CONFORMANCE_BACKEND_H
