//===- Kv8KernelTest.cpp - Kernels of 8-bit KV against float64 ------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Codes of the quantise kernel against LLVM's own conversions; attention over
// blocks of all formats side by side, against what the codes stand for as
// tightly as without them, and against the values before by the bound that
// follows from half a step of each code.
//
//===----------------------------------------------------------------------===//

#include "KernelTestSupport.h"

#include "llvm/ADT/APFloat.h"
#include "llvm/Support/FormatVariadic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>

using namespace moa;
using namespace moa::cpu::test;

namespace {

const int32_t kFormats[] = {MOA_KV_E4M3, MOA_KV_INT8};

double mostOf(int32_t format) { return format == MOA_KV_INT8 ? 127 : 448; }

/// What a code stands for before the scale.
double valueOf(uint8_t code, int32_t format) {
  if (format == MOA_KV_INT8)
    return double(code) - 128;
  static const std::vector<float> e4m3 = [] {
    std::vector<float> values;
    for (unsigned byte = 0; byte < 256; ++byte)
      values.push_back(
          llvm::APFloat(llvm::APFloat::Float8E4M3FN(), llvm::APInt(8, byte))
              .convertToFloat());
    return values;
  }();
  return e4m3[code];
}

/// The code of a value that is in range, ties to even.
uint8_t codeOf(float value, int32_t format) {
  if (format == MOA_KV_INT8)
    return uint8_t(std::nearbyint(value) + 128);
  llvm::APFloat exact(value);
  bool lost;
  exact.convert(llvm::APFloat::Float8E4M3FN(),
                llvm::APFloat::rmNearestTiesToEven, &lost);
  return uint8_t(exact.bitcastToAPInt().getZExtValue());
}

/// Most that a value within `amax` is off by: half a step of its code, and what
/// scaling in f32 rounds.
double boundOf(double value, double amax, int32_t format) {
  const double scale = amax / mostOf(format);
  const double step = format == MOA_KV_INT8
                          ? scale
                          : std::max(std::fabs(value) * 0x1p-3, scale * 0x1p-9);
  return step / 2 + amax * 0x1p-22;
}

std::string quantiseText(int64_t dims, llvm::StringRef element) {
  return llvm::formatv(
      "func.func @kernel(%item: !moa_tile.item<quantise>) attributes "
      "{{moa_tile.config = #moa_tile.config<lanes = dims, rows = 64, keys = "
      "64>} {{\n moa_tile.quantise_rows %item dims {0} of {1} : "
      "!moa_tile.item<quantise>\n return\n}\n",
      dims, element);
}

/// A block of keys and values with padded rows, and the page it goes to.
struct Block {
  Block(int64_t dims, const char *element, int64_t padding = 16)
      : dims(dims), stride(dims + padding), element(element),
        rows{std::vector<uint16_t>(64 * stride, 0x7fc1), {}},
        page(4 * 64 * dims + kGuard, 0xA5), scales(4 + 1, -1.0f) {
    rows[1] = rows[0];
  }

  void set(int part, int64_t row, int64_t d, float value) {
    encode(rows[part].data(), row * stride + d, value, element);
  }
  double get(int part, int64_t row, int64_t d) const {
    return decode(rows[part].data(), row * stride + d, element);
  }
  void fill(std::mt19937 &random, float magnitude) {
    std::normal_distribution<float> normal(0, magnitude);
    for (int part : {0, 1})
      for (int64_t i = 0; i < 64 * dims; ++i)
        set(part, i / dims, i % dims, normal(random));
  }
  double amax(int part) const {
    double most = 0;
    for (int64_t i = 0; i < 64 * dims; ++i)
      most = std::max(most, std::fabs(get(part, i / dims, i % dims)));
    return most;
  }
  moa_quantise_item item(int32_t half, int32_t format) {
    return {rows[0].data(), rows[1].data(), stride,  stride,
            page.data(),    scales.data(),  nullptr, nullptr,
            half,           format,         0};
  }
  uint8_t code(int64_t half, int part, int64_t i) const {
    return page[(half * 2 + part) * 64 * dims + i];
  }

  static constexpr size_t kGuard = 64;
  int64_t dims, stride;
  const char *element;
  std::vector<uint16_t> rows[2];
  std::vector<uint8_t> page;
  std::vector<float> scales;
};

class Kv8KernelTest : public KernelTest {
protected:
  /// Calls `body` with each compiled variant that this machine runs.
  template <typename Body> void forChips(const std::string &text, Body body) {
    int ran = 0;
    for (const CpuChip &chip : cpuChips()) {
      if (!hostHas(chip))
        continue;
      SCOPED_TRACE(chip.name.str());
      Mapped kernel;
      ASSERT_NO_FATAL_FAILURE(compile(text, chip, kernel));
      body(kernel);
      ++ran;
    }
    EXPECT_GT(ran, 0) << "no CPU variant of this machine is known";
  }
};

TEST_F(Kv8KernelTest, CodesAreTheNearest) {
  for (int64_t dims : {64, 80, 256})
    for (const char *element : {"f16", "bf16"})
      forChips(quantiseText(dims, element), [&](const Mapped &kernel) {
        for (unsigned seed = 0; seed < 6; ++seed) {
          std::mt19937 random(seed);
          Block block(dims, element);
          block.fill(random, std::ldexp(1.0f, int(seed) * 3 - 8));
          const int32_t half = seed % 2, format = kFormats[seed / 2 % 2];
          moa_quantise_item item = block.item(half, format);
          kernel.entry<moa_quantise_kernel>()(&item, nullptr);
          for (int part : {0, 1}) {
            const double amax = block.amax(part);
            const float scale = block.scales[half * 2 + part];
            EXPECT_EQ(scale, float(amax) / float(mostOf(format)));
            const float inverse = 1 / scale;
            for (int64_t i = 0; i < 64 * dims; ++i) {
              const auto x = float(block.get(part, i / dims, i % dims));
              const uint8_t found = block.code(half, part, i);
              ASSERT_EQ(found,
                        codeOf(std::clamp(x * inverse, -float(mostOf(format)),
                                          float(mostOf(format))),
                               format))
                  << "seed " << seed << " part " << part << " element " << i
                  << ": " << x << " / " << scale;
              ASSERT_LE(std::fabs(valueOf(found, format) * scale - x),
                        boundOf(x, amax, format))
                  << x;
            }
          }
          // The other half, and what lies behind, are untouched.
          for (int64_t i = 0; i < 2 * 64 * dims; ++i)
            ASSERT_EQ(block.page[(1 - half) * 2 * 64 * dims + i], 0xA5);
          for (size_t i = 0; i < Block::kGuard; ++i)
            ASSERT_EQ(block.page[4 * 64 * dims + i], 0xA5);
          EXPECT_EQ(block.scales[(1 - half) * 2], -1);
          EXPECT_EQ(block.scales[4], -1);
        }
      });
}

TEST_F(Kv8KernelTest, EveryCodeComesBack) {
  // Values that codes stand for, at a scale of one, are kept as they are.
  for (int32_t format : kFormats)
    forChips(quantiseText(64, "f16"), [&](const Mapped &kernel) {
      Block block(64, "f16");
      for (int part : {0, 1})
        for (int64_t i = 0; i < 64 * 64; ++i) {
          auto code = uint8_t(i);
          if (format == MOA_KV_E4M3 && (code & 0x7f) == 0x7f)
            code = 0x7e; // NaN.
          if (format == MOA_KV_INT8 && code == 0)
            code = 255; // -128 is beyond the scale.
          block.set(part, i / 64, i % 64, float(valueOf(code, format)));
        }
      moa_quantise_item item = block.item(1, format);
      kernel.entry<moa_quantise_kernel>()(&item, nullptr);
      EXPECT_EQ(block.scales[2], 1);
      EXPECT_EQ(block.scales[3], 1);
      for (int part : {0, 1})
        for (int64_t i = 0; i < 64 * 64; ++i)
          ASSERT_EQ(valueOf(block.code(1, part, i), format),
                    block.get(part, i / 64, i % 64))
              << i;
    });
}

TEST_F(Kv8KernelTest, ExtremeBlocks) {
  const float tiny = 0x1p-130f;
  for (int32_t format : kFormats)
    forChips(quantiseText(64, "bf16"), [&](const Mapped &kernel) {
      for (float value : {0.0f, -0.0f, tiny, 3e38f, INFINITY, -NAN}) {
        Block block(64, "bf16");
        for (int part : {0, 1})
          for (int64_t i = 0; i < 64 * 64; ++i)
            block.set(part, i / 64, i % 64, part ? 0.5f : 0.0f);
        block.set(0, 63, 63, value);
        moa_quantise_item item = block.item(0, format);
        kernel.entry<moa_quantise_kernel>()(&item, nullptr);
        const float scale = block.scales[0];
        const double last = valueOf(block.code(0, 0, 64 * 64 - 1), format);
        if (std::isfinite(value)) {
          EXPECT_GT(scale, 0);
          const double stored = block.get(0, 63, 63);
          EXPECT_NEAR(last * scale, stored,
                      std::fabs(stored) * 1e-6 + 0x1p-100);
          EXPECT_EQ(valueOf(block.code(0, 0, 0), format) * scale, 0);
        } else {
          // Nothing of the block passes for a number.
          EXPECT_FALSE(std::isfinite(scale)) << value;
          EXPECT_FALSE(
              std::isfinite(valueOf(block.code(0, 0, 0), format) * scale));
        }
        // Values have a scale of their own.
        EXPECT_EQ(block.scales[1], 0.5f / float(mostOf(format)));
        EXPECT_NEAR(valueOf(block.code(0, 1, 5), format) * block.scales[1], 0.5,
                    1e-6);
      }
    });
}

TEST_F(Kv8KernelTest, BringsTheOtherHalfAlong) {
  forChips(quantiseText(80, "bf16"), [&](const Mapped &kernel) {
    for (int32_t half : {0, 1}) {
      std::mt19937 random(3);
      Block block(80, "bf16");
      block.fill(random, 1);
      std::vector<uint8_t> kept(4 * 64 * 80);
      for (uint8_t &byte : kept)
        byte = uint8_t(random());
      const float keptScales[] = {11, 12, 13, 14};
      moa_quantise_item item = block.item(half, MOA_KV_INT8);
      item.kept = kept.data();
      item.kept_scales = keptScales;
      kernel.entry<moa_quantise_kernel>()(&item, nullptr);
      const int64_t other = 1 - half, bytes = 2 * 64 * 80;
      EXPECT_EQ(std::memcmp(block.page.data() + other * bytes,
                            kept.data() + other * bytes, bytes),
                0);
      EXPECT_EQ(block.scales[other * 2], keptScales[other * 2]);
      EXPECT_EQ(block.scales[other * 2 + 1], keptScales[other * 2 + 1]);
      EXPECT_EQ(block.scales[half * 2], float(block.amax(0)) / 127.0f);
      EXPECT_NE(std::memcmp(block.page.data() + half * bytes,
                            kept.data() + half * bytes, bytes),
                0);
    }
  });
}

/// An attention item whose blocks are of all formats, and its references.
struct MixedProblem {
  MixedProblem(unsigned seed, bool decodes, int64_t rows, int64_t dims,
               const Element &element)
      : random(seed), decodes(decodes), rows(rows), dims(dims),
        element(element) {
    auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    const int64_t first = decodes ? pick(0, 700) : pick(0, 10) * 64;
    valid = decodes ? rows : pick(1, rows);
    const int64_t last = decodes ? first : first + valid - 1;
    item.position = int32_t(first);
    item.rows = int32_t(valid);
    item.sink = int32_t(pick(0, 130));
    scale = 1 / std::sqrt(float(dims));
    item.scale_log2 = scale * 1.4426950408889634f;
    int64_t local = pick(1, 400);
    for (int64_t r = 0; r < 64; ++r) {
      const int64_t row = std::min(r, valid - 1);
      const int64_t window = decodes ? pick(1, 400) : local;
      starts[r] = int32_t(
          std::max<int64_t>(0, (decodes ? first : first + row) + 1 - window));
    }
    item.ranges = moa_block_ranges_of(
        first, last, *std::min_element(starts, starts + valid),
        *std::max_element(starts, starts + valid), item.sink);
    fill(last / 64 + 1, last);
  }

  /// Blocks with rows to come are in the element's type, NaN behind the last.
  /// Where a whole block is seen by no row its scales are NaN.
  void fill(int64_t count, int64_t last) {
    std::normal_distribution<float> normal;
    q.resize(rows * dims);
    out.assign(rows * dims, 0xffff);
    partial.assign(rows * (dims + 2), NAN);
    for (size_t i = 0; i < q.size(); ++i)
      encode(q.data(), i, normal(random), element.name);
    for (int64_t b = 0; b < count; ++b) {
      Block &block = blocks.emplace_back(dims, element.name, 0);
      block.fill(random, 1);
      for (int64_t t = last + 1 - b * 64; t < 64; ++t)
        for (int64_t d = 0; d < dims; ++d)
          for (int part : {0, 1})
            block.set(part, t, d, NAN);
    }
    for (int64_t b = 0; b < count; ++b) {
      Block &block = blocks[b];
      formats.push_back(last / 64 == b ? MOA_KV_MODEL : int32_t(random() % 3));
      const int32_t format = formats.back();
      moa_key_block place = {block.rows[0].data(),
                             block.rows[1].data(),
                             dims,
                             dims,
                             nullptr,
                             MOA_KV_MODEL,
                             0};
      if (format != MOA_KV_MODEL) {
        const int64_t half = b % 2;
        bool seen = false;
        for (int64_t i = 0; i < valid * 64; ++i)
          seen |= visible(i / 64, b * 64 + i % 64);
        for (int part : {0, 1}) {
          const float scale = float(block.amax(part) / mostOf(format));
          block.scales[half * 2 + part] = seen ? scale : NAN;
          for (int64_t i = 0; i < 64 * dims; ++i)
            block.page[(half * 2 + part) * 64 * dims + i] = codeOf(
                std::clamp(float(block.get(part, i / dims, i % dims)) / scale,
                           -float(mostOf(format)), float(mostOf(format))),
                format);
        }
        const uint8_t *codes = block.page.data() + half * 2 * 64 * dims;
        place = {codes,
                 codes + 64 * dims,
                 dims,
                 dims,
                 block.scales.data() + half * 2,
                 format,
                 0};
      }
      table.push_back(place);
    }
    decodeAll();
    item.q = q.data();
    item.out = out.data();
    item.partial = partial.data();
    item.blocks = table.data();
    item.starts = starts;
    item.q_stride = item.out_stride = dims;
  }

  int64_t position(int64_t r) const {
    return decodes ? item.position : item.position + r;
  }
  bool visible(int64_t r, int64_t j) const {
    return moa_visible(position(r), j, starts[r], item.sink);
  }
  /// An element as it was, or as it is kept.
  double at(int part, int64_t j, int64_t d, bool kept) const {
    return elements[part][kept][j * dims + d];
  }
  void decodeAll() {
    for (int64_t j = 0; j < int64_t(blocks.size()) * 64; ++j)
      for (int64_t d = 0; d < dims; ++d)
        for (int part : {0, 1}) {
          const Block &block = blocks[j / 64];
          const int32_t format = formats[j / 64];
          const int64_t half = j / 64 % 2;
          const double was = block.get(part, j % 64, d);
          elements[part][0].push_back(was);
          elements[part][1].push_back(
              format == MOA_KV_MODEL
                  ? was
                  : valueOf(block.code(half, part, j % 64 * dims + d), format) *
                        block.scales[half * 2 + part]);
        }
    for (size_t i = 0; i < q.size(); ++i)
      queries.push_back(decode(q.data(), i, element.name));
    for (const Block &block : blocks)
      amax.push_back({block.amax(0), block.amax(1)});
  }

  /// Weights of the keys that a row sees, in float64.
  std::vector<double> weights(int64_t r, bool kept) const {
    std::vector<double> result(position(r) + 1, 0);
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j <= position(r); ++j) {
      if (!visible(r, j))
        continue;
      double dot = 0;
      for (int64_t d = 0; d < dims; ++d)
        dot += queries[r * dims + d] * at(0, j, d, kept);
      result[j] = dot * scale;
      top = std::max(top, result[j]);
    }
    for (int64_t j = 0; j <= position(r); ++j) {
      result[j] = visible(r, j) ? std::exp(result[j] - top) : 0;
      sum += result[j];
    }
    for (double &weight : result)
      weight /= sum;
    return result;
  }
  double expected(int64_t r, int64_t d, const std::vector<double> &weights,
                  bool kept) const {
    double sum = 0;
    for (int64_t j = 0; j <= position(r); ++j)
      if (visible(r, j))
        sum += weights[j] * at(1, j, d, kept);
    return sum;
  }
  double output(int64_t r, int64_t d) const {
    if (!decodes)
      return decode(out.data(), r * dims + d, element.name);
    const float *row = partial.data() + r * (dims + 2);
    return double(row[d]) / row[dims + 1];
  }

  /// Most that 8 bits move a row's output, element by element: scores move by
  /// at most `move`, so weights by a factor within exp(2 move), and values by
  /// half a step.
  std::vector<double> bound(int64_t r,
                            const std::vector<double> &weights) const {
    double move = 0;
    std::vector<double> values(dims, 0), most(dims, 0);
    for (int64_t j = 0; j <= position(r); ++j) {
      const int32_t format = formats[j / 64];
      if (!visible(r, j))
        continue;
      double score = 0;
      for (int64_t d = 0; d < dims; ++d) {
        values[d] += weights[j] * std::fabs(at(1, j, d, false));
        if (format == MOA_KV_MODEL)
          continue;
        score += std::fabs(queries[r * dims + d]) *
                 boundOf(at(0, j, d, false), amax[j / 64][0], format);
        most[d] = std::max(
            most[d], boundOf(at(1, j, d, false), amax[j / 64][1], format));
      }
      move = std::max(move, score * scale);
    }
    for (int64_t d = 0; d < dims; ++d)
      most[d] += std::expm1(2 * move) * values[d];
    return most;
  }

  std::mt19937 random;
  bool decodes;
  int64_t rows, dims;
  const Element &element;
  int64_t valid = 0;
  float scale = 0;
  moa_work_item item{};
  int32_t starts[64];
  std::vector<Block> blocks;
  std::vector<int32_t> formats;
  std::vector<double> elements[2][2]; ///< Of keys, values; as was, as kept.
  std::vector<double> queries;
  std::vector<std::array<double, 2>> amax; ///< Of each block.
  std::vector<uint16_t> q, out;
  std::vector<float> partial;
  std::vector<moa_key_block> table;
};

struct Shape {
  bool decodes;
  int64_t rows, dims;
};

class MixedFormats
    : public Kv8KernelTest,
      public testing::WithParamInterface<std::tuple<Shape, Element>> {};

TEST_P(MixedFormats, MatchesFloat64) {
  auto [shape, element] = GetParam();
  forChips(
      kernelText(shape.decodes, shape.rows, shape.dims, element.name, true),
      [&, shape = shape, element = element](const Mapped &kernel) {
        ScratchMemory scratch(kernel.image);
        double worst = 0; // Of what the bound allows.
        for (unsigned seed = 0; seed < 8; ++seed) {
          MixedProblem p(seed, shape.decodes, shape.rows, shape.dims, element);
          kernel.entry<moa_attention_kernel>()(&p.item, scratch.get());
          for (int64_t r = 0; r < p.valid; ++r) {
            const std::vector<double> kept = p.weights(r, true);
            const std::vector<double> before = p.weights(r, false);
            const std::vector<double> bound = p.bound(r, before);
            double difference = 0, norm = 0;
            for (int64_t d = 0; d < p.dims; ++d) {
              const double want = p.expected(r, d, kept, true);
              const double got = p.output(r, d);
              difference += (got - want) * (got - want);
              norm += want * want;
              const double was = p.expected(r, d, before, false);
              const double round = element.tolerance * std::sqrt(norm + 1);
              ASSERT_LE(std::fabs(got - was), bound[d] + round)
                  << "seed " << seed << " row " << r << " element " << d;
              if (bound[d] > 0)
                worst = std::max(worst, std::fabs(want - was) / bound[d]);
            }
            ASSERT_LE(std::sqrt(difference),
                      element.tolerance * std::sqrt(norm))
                << "seed " << seed << " row " << r;
          }
        }
        // The bound says something: what is found comes within two decades.
        EXPECT_GT(worst, 0.01);
        EXPECT_LE(worst, 1);
      });
}

INSTANTIATE_TEST_SUITE_P(
    Kernels, MixedFormats,
    testing::Combine(testing::Values(Shape{false, 64, 64}, Shape{false, 64, 80},
                                     Shape{true, 1, 64}, Shape{true, 4, 128},
                                     Shape{true, 16, 80}),
                     testing::Values(kElements[1], kElements[2])),
    [](const auto &info) {
      const Shape shape = std::get<0>(info.param);
      return llvm::formatv("{0}_{1}x{2}_{3}",
                           shape.decodes ? "decode" : "prefill", shape.rows,
                           shape.dims, std::get<1>(info.param).name)
          .str();
    });

} // namespace
