//===- Reference.cpp - Kernels and models in plain C++ --------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Reference.h.
//
//===----------------------------------------------------------------------===//

#include "Reference.h"

#include "gtest/gtest.h"

#include <algorithm>
#include <cmath>

namespace moa::rt::test {
namespace {

/// Weighted values, largest score and sum of weights of one row, in float64.
struct Row {
  double out[kDim] = {}, top = -INFINITY, sum = 0;

  void add(double score, const float *v) {
    double next = std::max(top, score);
    double old = std::exp2(top - next), weight = std::exp2(score - next);
    sum = sum * old + weight;
    for (uint32_t d = 0; d < kDim; ++d)
      out[d] = out[d] * old + weight * v[d];
    top = next;
  }
};

double dot(const float *a, const float *b) {
  double sum = 0;
  for (uint32_t d = 0; d < kDim; ++d)
    sum += double(a[d]) * b[d];
  return sum;
}

/// Row `r` of an item at position `i`. Reads a key only where the mask lets it,
/// and expects that full blocks need no mask.
Row rowOf(const moa_work_item &item, int64_t r, int64_t i) {
  Row row;
  const float *q = static_cast<const float *>(item.q) + r * item.q_stride;
  auto visit = [&](int64_t block) {
    const moa_key_block &place = item.blocks[block];
    for (int64_t t = 0; t < MOA_BLOCK_KEYS; ++t) {
      int64_t j = block * MOA_BLOCK_KEYS + t;
      bool seen = moa_visible(i, j, item.starts[r], item.sink);
      if (block >= item.ranges.full_begin && block < item.ranges.diag_begin)
        EXPECT_TRUE(seen) << "key " << j << " of a full block, row " << i;
      if (seen)
        row.add(item.scale_log2 * dot(q, static_cast<const float *>(place.k) +
                                             t * place.k_stride),
                static_cast<const float *>(place.v) + t * place.v_stride);
    }
  };
  for (int64_t block = 0; block < item.ranges.sink_end; ++block)
    visit(block);
  for (int64_t block = item.ranges.edge_begin; block < item.ranges.end; ++block)
    visit(block);
  return row;
}

void prefill(const moa_work_item *item, void *) {
  for (int64_t r = 0; r < item->rows; ++r) {
    Row row = rowOf(*item, r, item->position + r);
    for (uint32_t d = 0; d < kDim; ++d)
      (static_cast<float *>(item->out) + r * item->out_stride)[d] =
          static_cast<float>(row.out[d] / row.sum);
  }
}

void decode(const moa_work_item *item, void *) {
  for (int64_t head = 0; head < item->rows; ++head) {
    Row row = rowOf(*item, head, item->position);
    float *partial = item->partial + head * (kDim + 2);
    std::copy_n(row.out, kDim, partial);
    partial[kDim] = static_cast<float>(row.top);
    partial[kDim + 1] = static_cast<float>(row.sum);
  }
}

void append(const moa_append_item *item, void *) {
  auto copy = [&](const void *from, void *to, int64_t stride) {
    for (int64_t r = 0; r < item->rows; ++r)
      std::copy_n(static_cast<const float *>(from) + r * stride, kDim,
                  static_cast<float *>(to) + r * kDim);
    std::fill_n(static_cast<float *>(to) + item->rows * kDim, item->zero * kDim,
                0.0f);
  };
  copy(item->k, item->page_k, item->k_stride);
  copy(item->v, item->page_v, item->v_stride);
}

} // namespace

moa_span_rule randomRule(std::mt19937 &random, int32_t sink,
                         int32_t lengthRule) {
  auto pick = [&](auto... values) {
    double all[] = {double(values)...};
    return all[random() % sizeof...(values)];
  };
  moa_span_rule rule = {};
  rule.alpha = int64_t(pick(-200, -64, 0, 0, 1, 65, 300));
  rule.beta = pick(0, 0, 0.125, 0.5, 1);
  rule.sink = sink;
  rule.min_span = sink + int32_t(pick(1, 2, 64, 100));
  rule.round_to = int32_t(pick(1, 64));
  rule.length_rule = lengthRule;
  return rule;
}

void fill(Module &module, const Shape &shape, std::mt19937 &random) {
  Geometry &g = module.geometry;
  g.layers = shape.layers;
  g.kvHeads = shape.kvHeads;
  g.qHeads = shape.kvHeads * shape.group;
  g.headDim = kDim;
  g.lengthRule = shape.lengthRule;
  g.maxLength = 1 << 20;
  const int32_t sinks[] = {0, 1, 64, 100};
  int32_t sink = sinks[random() % 4];
  module.rules.clear();
  for (uint32_t i = 0; i < g.layers * g.qHeads; ++i)
    module.rules.push_back(randomRule(random, sink, shape.lengthRule));
  auto kernel = [](auto *function) {
    return Kernel{reinterpret_cast<void *>(function), 64};
  };
  module.layers.assign(g.layers,
                       {kernel(prefill), kernel(decode), kernel(append),
                        Kernel(), Kernel(), Kernel()});
}

void Tokens::add(const Geometry &g, int64_t count, std::mt19937 &random) {
  std::uniform_real_distribution<float> values(-2, 2);
  auto grow = [&](std::vector<float> &tensor, uint32_t heads) {
    for (size_t i = 0; i < size_t(count) * heads * kDim; ++i)
      tensor.push_back(values(random));
  };
  grow(q, g.qHeads);
  grow(k, g.kvHeads);
  grow(v, g.kvHeads);
  out.resize(q.size(), NAN);
}

moa_attend_entry Tokens::entry(const Geometry &g, Sequence &sequence,
                               int64_t begin, int64_t end) {
  const int64_t qRow = int64_t(g.qHeads) * kDim, kRow = g.kvHeads * kDim;
  return {reinterpret_cast<moa_sequence *>(&sequence),
          end - begin,
          q.data() + begin * qRow,
          k.data() + begin * kRow,
          v.data() + begin * kRow,
          out.data() + begin * qRow,
          qRow,
          kDim,
          kRow,
          kDim,
          kRow,
          kDim,
          qRow,
          kDim};
}

double difference(const Module &module, uint32_t layer, const Tokens &tokens,
                  int64_t begin, int64_t end, int64_t n,
                  const std::vector<int64_t> &bound) {
  const Geometry &g = module.geometry;
  double worst = 0;
  for (int64_t i = begin; i < end; ++i)
    for (uint32_t head = 0; head < g.qHeads; ++head) {
      uint32_t kvHead = head / g.group();
      int64_t start = moa_window_start(&module.rule(layer, head), i, n);
      start = std::max(start, bound[kvHead]);
      Row row;
      for (int64_t j = 0; j <= i; ++j)
        if (j < module.sink() || j >= start) {
          size_t key = (j * g.kvHeads + kvHead) * kDim;
          row.add(
              1.4426950408889634 *
                  dot(&tokens.q[(i * g.qHeads + head) * kDim], &tokens.k[key]),
              &tokens.v[key]);
        }
      for (uint32_t d = 0; d < kDim; ++d) {
        double error = std::fabs(tokens.out[(i * g.qHeads + head) * kDim + d] -
                                 row.out[d] / row.sum);
        worst = error <= worst ? worst : std::isnan(error) ? INFINITY : error;
      }
    }
  return worst;
}

} // namespace moa::rt::test
