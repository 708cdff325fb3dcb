//===- Reference.cpp - Attention in float64 -------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Inputs as a function of their place, so that neither chunks nor batches
// change them, and dense attention under the mask of the definition. Nothing
// of the header under test is used.
//
//===----------------------------------------------------------------------===//

#include "Scenario.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace moa::conformance;

int64_t moa::conformance::elementBytes(Dtype dtype) {
  return dtype == Dtype::F32 ? 4 : 2;
}

void moa::conformance::store(double value, Dtype dtype, void *to) {
  float single = float(value);
  if (dtype == Dtype::F32) {
    std::memcpy(to, &single, 4);
  } else if (dtype == Dtype::F16) {
    _Float16 half = _Float16(value);
    std::memcpy(to, &half, 2);
  } else {
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
    bool special = (bits & 0x7f800000) == 0x7f800000;
    if (!special)
      bits += 0x7fff + ((bits >> 16) & 1);
    uint16_t high = uint16_t(bits >> 16);
    if (std::isnan(single))
      high |= 0x40;
    std::memcpy(to, &high, 2);
  }
}

double moa::conformance::load(const void *from, Dtype dtype) {
  if (dtype == Dtype::F16) {
    _Float16 half;
    std::memcpy(&half, from, 2);
    return double(half);
  }
  uint32_t bits = 0;
  if (dtype == Dtype::F32) {
    std::memcpy(&bits, from, 4);
  } else {
    uint16_t high;
    std::memcpy(&high, from, 2);
    bits = uint32_t(high) << 16;
  }
  float single;
  std::memcpy(&single, &bits, 4);
  return single;
}

static double roundedTo(Dtype dtype, double value) {
  char bytes[4];
  store(value, dtype, bytes);
  return load(bytes, dtype);
}

/// A well-mixed function of a number (splitmix64).
static uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

std::vector<double> moa::conformance::inputRow(const Scenario &s,
                                               Poison::Where tensor,
                                               int64_t layer, int sequence,
                                               int64_t position, int64_t head) {
  double magnitude = tensor == Poison::Query ? s.qMagnitude
                     : tensor == Poison::Key ? s.kMagnitude
                                             : s.vMagnitude;
  uint64_t place = s.seed;
  for (int64_t part :
       {int64_t(tensor), layer, int64_t(sequence), position, head})
    place = mix(place ^ uint64_t(part));
  std::vector<double> row(s.headDim);
  for (double &value : row) {
    place = mix(place);
    double unit = double(place >> 11) * 0x1p-52 - 1; // [-1, 1)
    if (s.wholeMultiples && tensor != Poison::Value)
      unit = std::round(unit * 1.499);
    value = unit * magnitude;
  }
  for (const Poison &p : s.poison)
    if (p.where == tensor && p.sequence == sequence && p.position == position &&
        p.head == head)
      std::fill(row.begin(), row.end(), p.value);
  for (double &value : row)
    value = roundedTo(s.dtype, value);
  return row;
}

double moa::conformance::frequencyOf(const Rotation &rotation, int64_t pair) {
  return std::pow(rotation.theta, -2.0 * double(pair) / double(rotation.dim));
}

std::vector<double> moa::conformance::rotated(const Scenario &s,
                                              std::vector<double> row,
                                              int64_t position) {
  if (!s.rope)
    return row;
  const int64_t half = s.rope->dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double angle = double(position) * frequencyOf(*s.rope, i);
    const double c = std::cos(angle) * double(s.rope->scale);
    const double n = std::sin(angle) * double(s.rope->scale);
    double &x = row[s.rope->interleaved ? 2 * i : i];
    double &y = row[s.rope->interleaved ? 2 * i + 1 : i + half];
    const double before = x;
    x = before * c - y * n;
    y = y * c + before * n;
  }
  return row;
}

/// What attention reads of a row of q or k: rotated and rounded.
static std::vector<double> attended(const Scenario &s, Poison::Where tensor,
                                    int64_t layer, int sequence,
                                    int64_t position, int64_t head) {
  std::vector<double> row = rotated(
      s, inputRow(s, tensor, layer, sequence, position, head), position);
  for (double &value : row)
    value = roundedTo(s.dtype, value);
  return row;
}

/// What 8 bits make of a value: the nearest code of value / scale, ties to
/// even, times the scale.
static double kept(double value, Kv format, float scale) {
  const float inverse = 1 / scale;
  const double scaled = float(value) * inverse;
  if (format == Kv::Int8)
    return std::clamp(std::nearbyint(scaled), -127.0, 127.0) * double(scale);
  // Three bits of mantissa behind the leading one, steps of 2^-9 at least.
  int exponent = -6;
  if (std::fabs(scaled) >= 0x1p-6)
    exponent = std::ilogb(scaled);
  const double step = std::ldexp(1.0, exponent - 3);
  return std::clamp(std::nearbyint(scaled / step) * step, -448.0, 448.0) *
         double(scale);
}

/// Makes the rows of a block what 8 bits keep of them.
void Reference::keep(int64_t kvHead, int64_t block) {
  const Kv format = scenario.kvFormat(layer, kvHead);
  auto bring = [&](const Rows &from, Rows &exact, Rows &rounded) {
    double most = 0;
    for (int64_t j = block * 64; j < block * 64 + 64; ++j)
      for (double value : from[j])
        most = std::max(most, std::fabs(value));
    const float scale = float(most) / (format == Kv::Int8 ? 127.0f : 448.0f);
    exact.resize(from.size());
    rounded.resize(from.size());
    for (int64_t j = block * 64; j < block * 64 + 64; ++j)
      for (double value : from[j]) {
        exact[j].push_back(::kept(value, format, scale));
        rounded[j].push_back(roundedTo(scenario.dtype, exact[j].back()));
      }
  };
  bring(keys[kvHead], kept[0].keys[kvHead], kept[1].keys[kvHead]);
  bring(values[kvHead], kept[0].values[kvHead], kept[1].values[kvHead]);
}

std::vector<double> Reference::row(int64_t position, int64_t head, int64_t n,
                                   int64_t firstResident, int64_t kv8End,
                                   bool rounded) {
  const Scenario &s = scenario;
  const int64_t kv = head / s.group(), sink = s.sinkOf(layer);
  if (int64_t(keys[kv].size()) == position) {
    keys[kv].push_back(attended(s, Poison::Key, layer, sequence, position, kv));
    values[kv].push_back(
        inputRow(s, Poison::Value, layer, sequence, position, kv));
  }
  auto isKept = [&](int64_t j) {
    return s.kvFormat(layer, kv) != Kv::Model && j / 64 * 64 >= sink &&
           j / 64 < kv8End;
  };
  const Kept &seen = kept[rounded];
  for (int64_t block = 0; block < kv8End; ++block) {
    Rows &rows = kept[0].keys[kv];
    if (isKept(block * 64) &&
        (int64_t(rows.size()) <= block * 64 || rows[block * 64].empty()))
      keep(kv, block);
  }
  // The mask of the definition.
  Rule rule = s.rule(layer, head);
  int64_t length = s.perRow ? position + 1 : n;
  double scaled = rule.beta * double(length);
  double raw = std::trunc(double(rule.alpha) + scaled);
  double span = std::max(std::min(raw, double(length)), double(s.min));
  int64_t whole = int64_t(std::ceil(span / double(s.block))) * s.block;
  if (s.window(layer))
    whole = std::min(whole, s.window(layer));
  int64_t local = whole - sink;
  int64_t start = std::max<int64_t>(0, position - local + 1);
  if (s.perRow)
    start = running[head] = std::max(running[head], start);
  start = std::max(start, firstResident);

  std::vector<double> q =
      attended(s, Poison::Query, layer, sequence, position, head);
  double scale = s.scale ? double(*s.scale) : 1 / std::sqrt(double(s.headDim));
  std::vector<std::pair<int64_t, double>> scores;
  double top = -INFINITY;
  bool isNan = false;
  for (int64_t j = 0; j <= position; ++j) {
    if (j >= sink && j < start)
      continue;
    double dot = 0;
    for (int64_t d = 0; d < s.headDim; ++d)
      dot += q[d] * (isKept(j) ? seen.keys : keys)[kv][j][d];
    double score = dot * scale;
    if (s.softCap)
      score = double(s.softCap) * std::tanh(score / double(s.softCap));
    scores.push_back({j, score});
    isNan |= std::isnan(score);
    top = std::max(top, score);
  }
  std::vector<double> out(s.headDim, 0);
  double sum = 0;
  for (auto [j, score] : scores) {
    double weight = isNan ? NAN : std::exp(score - top);
    sum += weight;
    for (int64_t d = 0; d < s.headDim; ++d)
      out[d] += weight * (isKept(j) ? seen.values : values)[kv][j][d];
  }
  for (double &value : out)
    value /= sum;
  return out;
}
