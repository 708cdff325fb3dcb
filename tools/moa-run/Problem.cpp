//===- Problem.cpp - Random attention problems and their float64 answer ---===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Problem.h.
//
//===----------------------------------------------------------------------===//

#include "Problem.h"

#include <cmath>
#include <cstring>

size_t elementBytes(uint32_t dtype) { return dtype == MOA_DTYPE_F32 ? 4 : 2; }

double tolerance(uint32_t dtype) {
  return dtype == MOA_DTYPE_F32 ? 1e-5 : dtype == MOA_DTYPE_F16 ? 2e-3 : 8e-3;
}

double kv8Tolerance(uint32_t format) {
  return format == MOA_KV_E4M3 ? 0.1 : format == MOA_KV_INT8 ? 0.04 : 0;
}

double loadElement(const void *base, size_t index, uint32_t dtype) {
  if (dtype == MOA_DTYPE_F32)
    return static_cast<const float *>(base)[index];
  uint16_t bits = static_cast<const uint16_t *>(base)[index];
  if (dtype == MOA_DTYPE_BF16) {
    uint32_t wide = uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof(value));
    return value;
  }
  int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  double value = exponent == 0    ? std::ldexp(mantissa, -24)
                 : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                  : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000 ? -value : value;
}

/// Random inputs are normal numbers of moderate size: truncation is enough.
void storeElement(void *base, size_t index, float value, uint32_t dtype) {
  if (dtype == MOA_DTYPE_F32) {
    static_cast<float *>(base)[index] = value;
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  uint16_t half = static_cast<uint16_t>(bits >> 16);
  if (dtype == MOA_DTYPE_F16) {
    int exponent = static_cast<int>((bits >> 23) & 255) - 112;
    half = exponent < 1 ? uint16_t((bits >> 16) & 0x8000)
                        : static_cast<uint16_t>(((bits >> 16) & 0x8000) |
                                                (exponent << 10) |
                                                ((bits >> 13) & 1023));
  }
  static_cast<uint16_t *>(base)[index] = half;
}

Problem::Problem(const moa_module_info &info, int64_t tokens, uint64_t seed)
    : qHeads(info.q_heads), kvHeads(info.kv_heads), dim(info.head_dim),
      dtype(info.dtype), softCap(info.soft_cap) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  auto fill = [&](std::vector<char> &tensor, uint32_t heads) {
    size_t count = size_t(tokens) * heads * dim;
    tensor.resize(count * elementBytes(dtype));
    for (size_t i = 0; i < count; ++i)
      storeElement(tensor.data(), i, normal(random), dtype);
  };
  fill(q, qHeads);
  fill(k, kvHeads);
  fill(v, kvHeads);
  out.assign(q.size(), static_cast<char>(0xFF));
}

Problem::~Problem() {
  for (void *memory : onDevice)
    if (memory)
      moa_status_free(moa_device_free(context, memory));
}

moa_status *Problem::upload(moa_context *on) {
  context = on;
  const std::vector<char> *tensors[] = {&q, &k, &v, &out};
  for (int i = 0; i < 4; ++i) {
    const std::vector<char> &from = *tensors[i];
    if (!onDevice[i])
      if (auto *status = moa_device_alloc(context, from.size(), &onDevice[i]))
        return status;
    if (auto *status =
            moa_device_copy(context, onDevice[i], from.data(), from.size()))
      return status;
  }
  return nullptr;
}

moa_status *Problem::download() {
  if (!onDevice[3])
    return nullptr;
  return moa_device_copy(context, out.data(), onDevice[3], out.size());
}

moa_attend_entry Problem::entry(moa_sequence *sequence, int64_t first,
                                int64_t count) {
  const int64_t qRow = int64_t(qHeads) * dim, kvRow = int64_t(kvHeads) * dim;
  const int64_t bytes = static_cast<int64_t>(elementBytes(dtype));
  moa_attend_entry e = {};
  e.sequence = sequence;
  e.tokens = count;
  auto row = [&](int tensor, std::vector<char> &host, int64_t stride) {
    auto *base = static_cast<char *>(onDevice[tensor]);
    return (base ? base : host.data()) + first * stride * bytes;
  };
  e.q = row(0, q, qRow);
  e.k = row(1, k, kvRow);
  e.v = row(2, v, kvRow);
  e.out = row(3, out, qRow);
  e.q_row_stride = e.out_row_stride = qRow;
  e.k_row_stride = e.v_row_stride = kvRow;
  e.q_head_stride = e.k_head_stride = e.v_head_stride = e.out_head_stride = dim;
  return e;
}

double Problem::error(int64_t row, uint32_t head, int64_t start, int64_t sink,
                      double scale) const {
  const uint32_t kvHead = head / (qHeads / kvHeads);
  std::vector<double> query(dim), score(row + 1), want(dim, 0.0);
  for (uint32_t d = 0; d < dim; ++d)
    query[d] =
        loadElement(q.data(), (size_t(row) * qHeads + head) * dim + d, dtype);
  double top = -INFINITY, sum = 0;
  for (int64_t j = 0; j <= row; ++j) {
    if (!moa_visible(row, j, start, sink))
      continue;
    double dot = 0;
    size_t at = (size_t(j) * kvHeads + kvHead) * dim;
    for (uint32_t d = 0; d < dim; ++d)
      dot += query[d] * loadElement(k.data(), at + d, dtype);
    score[j] = dot * scale;
    if (softCap)
      score[j] = softCap * std::tanh(score[j] / softCap);
    top = std::max(top, score[j]);
  }
  for (int64_t j = 0; j <= row; ++j) {
    if (!moa_visible(row, j, start, sink))
      continue;
    double p = std::exp(score[j] - top);
    sum += p;
    size_t at = (size_t(j) * kvHeads + kvHead) * dim;
    for (uint32_t d = 0; d < dim; ++d)
      want[d] += p * loadElement(v.data(), at + d, dtype);
  }
  double difference = 0, norm = 0;
  for (uint32_t d = 0; d < dim; ++d) {
    double got =
        loadElement(out.data(), (size_t(row) * qHeads + head) * dim + d, dtype);
    double right = want[d] / sum;
    difference += (got - right) * (got - right);
    norm += right * right;
  }
  return std::sqrt(difference / norm);
}
