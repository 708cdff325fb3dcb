//===- KernelTest.cpp - Compiled CPU kernels against float64 --------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Builds attention kernels from tile-level text, compiles and runs each variant
// that this machine has, and compares with dense attention in float64 under the
// rule of the span header. Keys and values that a row may not see are NaN.
//
//===----------------------------------------------------------------------===//

#include "KernelTestSupport.h"

#include "moa/Pipelines/TileToCpu.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Parser/Parser.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"

#include <cmath>
#include <random>

using namespace mlir;
using namespace moa;
using namespace moa::cpu::test;

namespace {

/// One random item: tensors with padded rows, windows, and its reference.
struct Problem {
  Problem(unsigned seed, bool decodes, int64_t rows, int64_t dims,
          const Element &element)
      : random(seed), decodes(decodes), rows(rows), dims(dims),
        element(element) {
    auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    int64_t first = decodes ? pick(0, 700) : pick(0, 10) * 64;
    valid = decodes ? rows : pick(1, rows);
    last = decodes ? first : first + valid - 1;
    item.position = int32_t(first);
    item.rows = int32_t(valid);
    item.sink = int32_t(pick(0, 130));
    float scale = pick(0, 5) == 0 ? -0.25f : 1 / std::sqrt(float(dims));
    item.scale_log2 = scale * 1.4426950408889634f;
    reference = scale;
    int64_t local = pick(1, 400);
    for (int64_t r = 0; r < 64; ++r) {
      int64_t row = std::min(r, valid - 1);
      int64_t window = decodes ? pick(1, 400) : local;
      int64_t start = (decodes ? first : first + row) + 1 - window;
      starts[r] = int32_t(std::max<int64_t>(0, start));
    }
    int64_t low = *std::min_element(starts, starts + valid);
    int64_t high = *std::max_element(starts, starts + valid);
    item.ranges = moa_block_ranges_of(first, last, low, high, item.sink);
    fill(pick(0, 64), pick(0, 3) * 16);
  }

  /// Random tensors; keys that no row sees and rows past the end are NaN.
  void fill(int64_t slack, int64_t padding) {
    int64_t blocks = last / 64 + 1;
    kvStride = dims + padding;
    qStride = dims + padding;
    k.resize(blocks * 64 * kvStride * element.bytes);
    v.resize(k.size());
    q.resize(rows * qStride * element.bytes);
    out.assign(rows * qStride * element.bytes + slack, 0xFF);
    partial.assign(rows * (dims + 2), NAN);
    std::normal_distribution<float> normal;
    for (int64_t j = 0; j < blocks * 64; ++j) {
      bool seen = false;
      for (int64_t r = 0; r < valid; ++r)
        seen |= visible(r, j);
      for (int64_t d = 0; d < dims; ++d) {
        encode(k.data(), j * kvStride + d, seen ? normal(random) : NAN,
               element.name);
        encode(v.data(), j * kvStride + d, seen ? normal(random) : NAN,
               element.name);
      }
    }
    for (int64_t r = 0; r < valid; ++r)
      for (int64_t d = 0; d < dims; ++d)
        encode(q.data(), r * qStride + d, normal(random), element.name);
    for (int64_t b = 0; b < blocks; ++b)
      table.push_back({k.data() + b * 64 * kvStride * element.bytes,
                       v.data() + b * 64 * kvStride * element.bytes, kvStride,
                       kvStride, nullptr, MOA_KV_MODEL, 0});
    item.q = q.data();
    item.out = out.data();
    item.partial = partial.data();
    item.blocks = table.data();
    item.starts = starts;
    item.q_stride = qStride;
    item.out_stride = qStride;
  }

  int64_t position(int64_t r) const {
    return decodes ? item.position : item.position + r;
  }
  bool visible(int64_t r, int64_t j) const {
    return moa_visible(position(r), j, starts[r], item.sink);
  }

  /// Largest error of a row, relative to the row's norm.
  double error() const {
    double worst = 0;
    for (int64_t r = 0; r < valid; ++r) {
      std::vector<double> score(position(r) + 1, -INFINITY), o(dims, 0.0);
      double top = -INFINITY, sum = 0;
      for (int64_t j = 0; j <= position(r); ++j) {
        if (!visible(r, j))
          continue;
        double dot = 0;
        for (int64_t d = 0; d < dims; ++d)
          dot += decode(q.data(), r * qStride + d, element.name) *
                 decode(k.data(), j * kvStride + d, element.name);
        score[j] = dot * reference;
        top = std::max(top, score[j]);
      }
      for (int64_t j = 0; j <= position(r); ++j) {
        if (!visible(r, j))
          continue;
        double p = std::exp(score[j] - top);
        sum += p;
        for (int64_t d = 0; d < dims; ++d)
          o[d] += p * decode(v.data(), j * kvStride + d, element.name);
      }
      double difference = 0, norm = 0;
      for (int64_t d = 0; d < dims; ++d) {
        double want = o[d] / sum, got = output(r, d);
        difference += (want - got) * (want - got);
        norm += want * want;
      }
      double relative = std::sqrt(difference / norm);
      if (!(relative <= worst)) // NaN counts as worst.
        worst = relative;
    }
    return worst;
  }

  double output(int64_t r, int64_t d) const {
    if (!decodes)
      return decode(out.data(), r * qStride + d, element.name);
    const float *row = partial.data() + r * (dims + 2);
    return double(row[d]) / row[dims + 1];
  }

  /// Whether bytes outside the item's rows kept their poison.
  bool poisonIntact() const {
    if (decodes)
      return true;
    size_t row = qStride * element.bytes, used = dims * element.bytes;
    for (size_t i = 0; i < out.size(); ++i)
      if ((i / row >= size_t(valid) || i % row >= used) && out[i] != 0xFF)
        return false;
    return true;
  }

  static double decode(const void *p, size_t i, const char *name) {
    return moa::cpu::test::decode(p, i, name);
  }

  std::mt19937 random;
  bool decodes;
  int64_t rows, dims;
  const Element &element;
  int64_t valid = 0, last = 0, kvStride = 0, qStride = 0;
  double reference = 0;
  moa_work_item item{};
  int32_t starts[64];
  std::vector<uint8_t> k, v, q, out;
  std::vector<float> partial;
  std::vector<moa_key_block> table;
};

struct Shape {
  bool decodes;
  int64_t rows, dims;
};

const Shape kShapes[] = {{false, 64, 64}, {false, 64, 80}, {false, 64, 256},
                         {true, 1, 64},   {true, 3, 96},   {true, 7, 128},
                         {true, 16, 80}};

class AttentionTest
    : public KernelTest,
      public testing::WithParamInterface<std::tuple<Shape, Element>> {};

TEST_P(AttentionTest, MatchesFloat64) {
  auto [shape, element] = GetParam();
  int ran = 0;
  for (const CpuChip &chip : cpuChips()) {
    if (!hostHas(chip))
      continue;
    SCOPED_TRACE(chip.name.str());
    Mapped kernel;
    ASSERT_NO_FATAL_FAILURE(
        compile(kernelText(shape.decodes, shape.rows, shape.dims, element.name),
                chip, kernel));
    ScratchMemory scratch(kernel.image);
    for (unsigned seed = 0; seed < 12; ++seed) {
      Problem problem(seed, shape.decodes, shape.rows, shape.dims, element);
      kernel.entry<moa_attention_kernel>()(&problem.item, scratch.get());
      EXPECT_LE(problem.error(), element.tolerance) << "seed " << seed;
      EXPECT_TRUE(problem.poisonIntact()) << "seed " << seed;
      ++ran;
    }
  }
  EXPECT_GT(ran, 0) << "no CPU variant of this machine is known";
}

INSTANTIATE_TEST_SUITE_P(Kernels, AttentionTest,
                         testing::Combine(testing::ValuesIn(kShapes),
                                          testing::ValuesIn(kElements)),
                         [](const auto &info) {
                           Shape shape = std::get<0>(info.param);
                           Element element = std::get<1>(info.param);
                           return llvm::formatv(
                                      "{0}_{1}x{2}_{3}",
                                      shape.decodes ? "decode" : "prefill",
                                      shape.rows, shape.dims, element.name)
                               .str();
                         });

TEST_F(KernelTest, AppendCopiesAndZeroes) {
  for (const CpuChip &chip : cpuChips()) {
    if (!hostHas(chip))
      continue;
    for (const Element &element : kElements) {
      const int64_t dims = 80, stride = 96, rows = 5, zero = 7;
      Mapped kernel;
      ASSERT_NO_FATAL_FAILURE(compile(
          llvm::formatv(
              "func.func @kernel(%item: !moa_tile.item<append>) attributes "
              "{{moa_tile.config = #moa_tile.config<lanes = dims, rows = 64, "
              "keys = 64>} {{\n moa_tile.copy_rows %item dims {0} of {1} : "
              "!moa_tile.item<append>\n return\n}\n",
              dims, element.name),
          chip, kernel));
      std::vector<uint8_t> k(rows * stride * element.bytes), v(k.size());
      std::vector<uint8_t> pageK(64 * dims * element.bytes, 0xAB), pageV(pageK);
      std::mt19937 random(7);
      for (size_t i = 0; i < k.size(); ++i) {
        k[i] = uint8_t(random());
        v[i] = uint8_t(random());
      }
      moa_append_item item{k.data(), v.data(), pageK.data(), pageV.data(),
                           stride,   stride,   rows,         zero};
      kernel.entry<moa_append_kernel>()(&item, nullptr);
      size_t row = dims * element.bytes;
      for (auto [page, source] : {std::pair(&pageK, &k), std::pair(&pageV, &v)})
        for (size_t i = 0; i < page->size(); ++i) {
          size_t r = i / row;
          uint8_t want = r < rows
                             ? (*source)[r * stride * element.bytes + i % row]
                         : r < rows + zero ? 0
                                           : 0xAB;
          ASSERT_EQ((*page)[i], want) << "byte " << i;
        }
    }
  }
}

TEST_F(KernelTest, UnknownChipIsRefusedByName) {
  OwningOpRef<ModuleOp> module =
      parseSourceString<ModuleOp>(kernelText(false, 64, 64, "f32"), &context);
  ASSERT_TRUE(module);
  std::string message;
  ScopedDiagnosticHandler handler(&context, [&](Diagnostic &diagnostic) {
    message = diagnostic.str();
    return success();
  });
  PassManager pm(&context);
  TileToCpuOptions options;
  options.chip = "pentium";
  buildTileToCpuPipeline(pm, options);
  EXPECT_TRUE(failed(pm.run(*module)));
  EXPECT_NE(message.find("unknown CPU variant 'pentium'"), std::string::npos)
      << message;
  EXPECT_NE(message.find("x86-64-v3"), std::string::npos) << message;
}

TEST(FlattenObject, RefusesWhatIsNotAnObject) {
  llvm::Expected<CpuImage> image = flattenObject("not an object", "kernel");
  ASSERT_FALSE(static_cast<bool>(image));
  EXPECT_FALSE(llvm::toString(image.takeError()).empty());
}

} // namespace
