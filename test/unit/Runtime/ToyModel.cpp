//===- ToyModel.cpp - Rows that depend on all tokens before ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of ToyModel.h.
//
//===----------------------------------------------------------------------===//

#include "ToyModel.h"

#include "gtest/gtest.h"

#include <cmath>

namespace moa::rt::test {
namespace {

/// A projection of one row: sums of two of its elements.
[[gnu::noinline]] void project(const float *row, int64_t width, float *to,
                               int64_t count, int64_t which) {
  for (int64_t i = 0; i < count; ++i)
    to[i] = row[(i * 5 + which) % width] -
            0.5f * row[(i * 3 + 2 * which + 1) % width];
}

/// What a layer makes of a row and its attention.
[[gnu::noinline]] void advance(float *row, const float *out, int64_t width) {
  for (int64_t i = 0; i < width; ++i)
    row[i] = 0.5f * row[i] + 0.5f * out[i] + 0.125f * row[(i + 1) % width];
}

/// Tensors of a call, row after row.
struct Projected {
  std::vector<float> q, k, v, out;
  Projected(const Geometry &g, const std::vector<float> &hidden) {
    const int64_t width = g.qHeads * kDim, own = g.kvHeads * kDim;
    const int64_t rows = static_cast<int64_t>(hidden.size()) / width;
    q.resize(rows * width);
    out.assign(rows * width, NAN);
    k.resize(rows * own);
    v.resize(rows * own);
    for (int64_t r = 0; r < rows; ++r) {
      project(&hidden[r * width], width, &q[r * width], width, 1);
      project(&hidden[r * width], width, &k[r * own], own, 2);
      project(&hidden[r * width], width, &v[r * own], own, 3);
    }
  }
};

} // namespace

Ids randomIds(std::mt19937 &random, size_t count) {
  Ids ids(count);
  for (int64_t &id : ids)
    id = random() % 500;
  return ids;
}

ToyModel::ToyModel(const Shape &shape, std::mt19937 &random, bool decode) {
  Shape own = shape;
  own.lengthRule = MOA_LENGTH_ROW;
  fill(module, own, random);
  for (LayerKernels &layer : module.layers)
    if (!decode)
      layer.decode = Kernel();
}

std::vector<float> ToyModel::embed(int64_t id) const {
  std::mt19937 values(static_cast<uint32_t>(id));
  std::vector<float> row(width());
  for (float &value : row)
    value = static_cast<float>(values() % 2001) / 1000 - 1;
  return row;
}

Status ToyModel::feed(Cache &cache, const std::vector<ToyRows> &rows,
                      std::vector<float> &hidden, uint32_t &first) const {
  const Geometry &g = module.geometry;
  if (first == 0) {
    hidden.clear();
    for (const ToyRows &part : rows)
      for (int64_t row = part.begin; row < part.end; ++row) {
        const std::vector<float> values = embed((*part.ids)[row]);
        hidden.insert(hidden.end(), values.begin(), values.end());
      }
  }
  const int64_t own = g.kvHeads * kDim;
  for (; first < g.layers; ++first) {
    Projected p(g, hidden);
    std::vector<moa_attend_entry> entries;
    int64_t at = 0;
    for (const ToyRows &part : rows) {
      entries.push_back({reinterpret_cast<moa_sequence *>(part.sequence),
                         part.end - part.begin, &p.q[at * width()],
                         &p.k[at * own], &p.v[at * own], &p.out[at * width()],
                         width(), kDim, own, kDim, own, kDim, width(), kDim});
      at += part.end - part.begin;
    }
    MOA_RT_TRY(
        cache.attend({first, 0.5f, nullptr, entries.data(), entries.size()}));
    for (int64_t r = 0; r < at; ++r)
      advance(&hidden[r * width()], &p.out[r * width()], width());
  }
  return ok();
}

std::vector<float> ToyModel::feed(Cache &cache, Sequence &sequence,
                                  const Ids &ids, int64_t begin,
                                  int64_t end) const {
  std::vector<float> hidden;
  uint32_t first = 0;
  Status failed = feed(cache, {{&sequence, &ids, begin, end}}, hidden, first);
  EXPECT_FALSE(failed) << failed->message;
  return hidden;
}

std::vector<float> ToyModel::step(Batch &batch, Sequence &sequence,
                                  int64_t id) const {
  const Geometry &g = module.geometry;
  const int64_t own = g.kvHeads * kDim;
  std::vector<float> hidden = embed(id);
  Sequence *member = &sequence;
  Status failed = batch.begin(&member, 1, 1, nullptr);
  EXPECT_FALSE(failed) << failed->message;
  for (uint32_t layer = 0; !failed && layer < g.layers; ++layer) {
    Projected p(g, hidden);
    StepCall call;
    call.layer = layer;
    call.scale = 0.5f;
    call.q = {p.q.data(), width(), width(), kDim};
    call.k = {p.k.data(), own, own, kDim};
    call.v = {p.v.data(), own, own, kDim};
    call.out = {p.out.data(), width(), width(), kDim};
    failed = batch.attend(call);
    EXPECT_FALSE(failed) << failed->message;
    advance(hidden.data(), p.out.data(), width());
  }
  batch.end();
  return hidden;
}

std::vector<float> ToyModel::fromScratch(const Ids &ids, int64_t chunk) const {
  CpuCache cache(module, threads, 0);
  Sequence *sequence = newSequence(cache);
  std::vector<float> all;
  const auto count = static_cast<int64_t>(ids.size());
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const std::vector<float> rows =
        feed(cache, *sequence, ids, begin, std::min(begin + chunk, count));
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

int64_t ToyModel::sample(const float *hidden) const {
  return std::abs(static_cast<int64_t>(hidden[0] * 1e4f)) % 500;
}

Sequence *newSequence(Cache &cache) {
  cache.sequences.push_back(
      std::make_unique<Sequence>(cache, cache.module, cache.pool, 1));
  return cache.sequences.back().get();
}

} // namespace moa::rt::test
