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
#include <array>
#include <cmath>
#include <cstring>

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
/// Row `t` of keys or values of a block, as it is or stands for. Kernels
/// allocate nothing.
std::array<float, kDim> rowAt(const moa_key_block &place, bool values,
                              int64_t t) {
  const void *base = values ? place.v : place.k;
  const int64_t at = t * (values ? place.v_stride : place.k_stride);
  std::array<float, kDim> row;
  for (uint32_t d = 0; d < kDim; ++d)
    row[d] = place.format == MOA_KV_MODEL
                 ? static_cast<const float *>(base)[at + d]
                 : Codes(place.scales[values], place.format)
                       .value(static_cast<const uint8_t *>(base)[at + d]);
  return row;
}

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
        row.add(item.scale_log2 * dot(q, rowAt(place, false, t).data()),
                rowAt(place, true, t).data());
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

void quantise(const moa_quantise_item *item, void *) {
  const int64_t codes = MOA_BLOCK_KEYS * kDim, other = 1 - item->half;
  auto *page = static_cast<uint8_t *>(item->page);
  if (item->kept) {
    std::memcpy(page + other * 2 * codes,
                static_cast<const uint8_t *>(item->kept) + other * 2 * codes,
                2 * codes);
    std::copy_n(item->kept_scales + other * 2, 2, item->scales + other * 2);
  }
  auto bring = [&](const void *from, int64_t stride, int64_t part) {
    const auto *rows = static_cast<const float *>(from);
    const Codes to(rows, stride, item->format);
    item->scales[item->half * 2 + part] = to.scale;
    for (int64_t i = 0; i < codes; ++i)
      page[(item->half * 2 + part) * codes + i] =
          to.code(rows[i / kDim * stride + i % kDim]);
  };
  bring(item->k, item->k_stride, 0);
  bring(item->v, item->v_stride, 1);
}

} // namespace

Codes::Codes(const float *from, int64_t stride, int32_t format)
    : scale(0), format(format) {
  for (int64_t i = 0; i < MOA_BLOCK_KEYS * kDim; ++i)
    scale = std::max(scale, std::fabs(from[i / kDim * stride + i % kDim]));
  scale /= 127;
}

uint8_t Codes::code(float value) const {
  const auto whole = static_cast<uint8_t>(std::lrint(value / scale) + 128);
  return format == MOA_KV_E4M3 ? whole ^ 0xff : whole;
}

float Codes::value(uint8_t code) const {
  return float(int(format == MOA_KV_E4M3 ? code ^ 0xff : code) - 128) * scale;
}

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
  if (sink == 0 && random() % 2)
    rule.length_rule += MOA_SPAN_MOST(pick(1, 20, 64, 100, 200));
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
  module.rules.clear();
  for (uint32_t layer = 0; layer < g.layers; ++layer) {
    const int32_t sink = sinks[random() % 4];
    for (uint32_t head = 0; head < g.qHeads; ++head)
      module.rules.push_back(randomRule(random, sink, shape.lengthRule));
  }
  if (shape.kv8) {
    for (uint32_t i = 0; i < g.layers * g.kvHeads; ++i)
      module.kvFormats.push_back(static_cast<uint8_t>(random() % 3));
    module.kvFormats[random() % module.kvFormats.size()] = MOA_KV_INT8;
    g.kv8 = true;
  }
  auto kernel = [](auto *function) {
    return Kernel{reinterpret_cast<void *>(function), 64};
  };
  module.layers.assign(g.layers,
                       {kernel(prefill), kernel(decode), kernel(append),
                        Kernel(), Kernel(), Kernel(), kernel(quantise)});
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
                  const std::vector<int64_t> &bound,
                  const std::vector<std::vector<bool>> &kv8) {
  const Geometry &g = module.geometry;
  const int64_t stride = int64_t(g.kvHeads) * kDim;
  // Keys and values as rows see them.
  std::vector<float> seen[2] = {tokens.k, tokens.v};
  for (uint32_t h = 0; h < kv8.size(); ++h)
    for (size_t block = 0; block < kv8[h].size(); ++block)
      for (std::vector<float> &rows : seen)
        if (kv8[h][block]) {
          float *from = &rows[block * MOA_BLOCK_KEYS * stride + h * kDim];
          const Codes codes(from, stride, module.kvFormat(layer, h));
          for (int64_t i = 0; i < MOA_BLOCK_KEYS * kDim; ++i) {
            float &x = from[i / kDim * stride + i % kDim];
            x = codes.value(codes.code(x));
          }
        }
  double worst = 0;
  for (int64_t i = begin; i < end; ++i)
    for (uint32_t head = 0; head < g.qHeads; ++head) {
      uint32_t kvHead = head / g.group();
      int64_t start = moa_window_start(&module.rule(layer, head), i, n);
      start = std::max(start, bound[kvHead]);
      Row row;
      for (int64_t j = 0; j <= i; ++j)
        if (j < module.sink(layer) || j >= start) {
          size_t key = (j * g.kvHeads + kvHead) * kDim;
          row.add(
              1.4426950408889634 *
                  dot(&tokens.q[(i * g.qHeads + head) * kDim], &seen[0][key]),
              &seen[1][key]);
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
