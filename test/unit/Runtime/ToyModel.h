//===- ToyModel.h - Rows that depend on all tokens before -------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A model of attention layers over token ids: what a layer projects is made of
// the outputs of the layer before, so keys and values of a token depend on the
// tokens before it as in a transformer. Each row is computed by itself: equal
// keys give equal bits.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_RUNTIME_TOYMODEL_H
#define MOA_TEST_UNIT_RUNTIME_TOYMODEL_H

#include "Reference.h"

namespace moa::rt::test {

using Ids = std::vector<int64_t>;

/// `count` ids below 500.
Ids randomIds(std::mt19937 &random, size_t count);

/// Rows of one sequence in a call.
struct ToyRows {
  Sequence *sequence;
  const Ids *ids;
  int64_t begin, end;
};

class ToyModel {
public:
  /// Random rules under the length rule `row`. Without a decode kernel rows
  /// have the same bits in calls of any size.
  ToyModel(const Shape &shape, std::mt19937 &random, bool decode);

  int64_t width() const { return module.geometry.qHeads * int64_t(kDim); }
  /// Attends to layers from `first` on, as far as calls succeed; `hidden` then
  /// has what the last layer makes of each row, or the call is made again with
  /// the layer that failed.
  Status feed(Cache &cache, const std::vector<ToyRows> &rows,
              std::vector<float> &hidden, uint32_t &first) const;
  /// The same for one sequence in a cache that has the pages.
  std::vector<float> feed(Cache &cache, Sequence &sequence, const Ids &ids,
                          int64_t begin, int64_t end) const;
  /// The same by a step of a batch.
  std::vector<float> step(Batch &batch, Sequence &sequence, int64_t id) const;
  /// All rows computed in a cache of their own, in calls of `chunk` rows.
  std::vector<float> fromScratch(const Ids &ids, int64_t chunk) const;
  /// What would be sampled from a row.
  int64_t sample(const float *hidden) const;

  Module module;
  mutable ThreadPool threads{2};

private:
  std::vector<float> embed(int64_t id) const;
};

/// A new sequence of a cache.
Sequence *newSequence(Cache &cache);

} // namespace moa::rt::test

#endif // MOA_TEST_UNIT_RUNTIME_TOYMODEL_H
