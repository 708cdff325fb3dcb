//===- CudaTestSupport.cpp - Artifacts and sessions on the fake driver ----===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of CudaTestSupport.h.
//
//===----------------------------------------------------------------------===//

#include "CudaTestSupport.h"

#include "moa/abi/version.h"

#include "gtest/gtest.h"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace moa::test {
namespace {

/// Says how many driver calls failed in the tests that ran.
struct CountsFailures : testing::Environment {
  void TearDown() override {
    int64_t calls = 0;
    for (const auto &[name, count] : fakeCuda()->failures)
      calls += count;
    std::printf("%lld driver calls failed, of %zu functions\n",
                static_cast<long long>(calls), fakeCuda()->failures.size());
  }
};
const auto *const counts =
    testing::AddGlobalTestEnvironment(new CountsFailures);

} // namespace

void Model::randomRules(std::mt19937 &random) {
  const int64_t alphas[] = {-200, -64, 0, 0, 1, 65, 300};
  const double betas[] = {0, 0, 0.125, 0.5, 1};
  const int32_t mins[] = {1, 2, 64, 100}, rounds[] = {1, 64};
  rules.clear();
  for (uint32_t i = 0; i < layers * qHeads(); ++i) {
    // Every other layer has a window of its model's, and so no sink.
    const bool own = i / qHeads() % 2 == 1;
    const int32_t from = own ? 0 : sink;
    rules.push_back(
        {alphas[random() % 7], betas[random() % 5], from,
         from + mins[random() % 4], rounds[random() % 2],
         lengthRule + (own ? MOA_SPAN_MOST(1 + random() % 200) : 0)});
  }
}

std::vector<uint8_t> Model::artifact() const {
  std::vector<uint8_t> bytes(sizeof(moa_artifact_header));
  moa_artifact_header header = {};
  auto add = [&](moa_artifact_section &section, const auto &list) {
    bytes.resize((bytes.size() + 63) / 64 * 64);
    section.offset = bytes.size();
    section.size = list.size() * sizeof(list[0]);
    const auto *data = reinterpret_cast<const uint8_t *>(list.data());
    bytes.insert(bytes.end(), data, data + section.size);
  };
  std::vector<moa_span_rule> all = rules;
  if (all.empty())
    all.assign(layers * qHeads(), {0, 1, sink, sink + 1, 1, lengthRule});
  std::string strings(1, 0), code;
  auto text = [&](const std::string &value) {
    auto at = uint32_t(strings.size());
    strings += value + std::string(1, 0);
    return at;
  };
  const char *names[] = {"prefill", "decode", "append",
                         "prepare", "rope",   "quantise"};
  bool prepare = decode;
  for (const ImageSpec &image : images)
    prepare &= image.target != MOA_TARGET_CPU_X86_64;
  std::vector<moa_artifact_kernel> kernels;
  std::vector<moa_artifact_image> list;
  std::vector<uint32_t> kinds = {MOA_KERNEL_PREFILL, MOA_KERNEL_DECODE,
                                 MOA_KERNEL_APPEND};
  if (prepare)
    kinds.push_back(MOA_KERNEL_PREPARE);
  if (rope)
    kinds.push_back(MOA_KERNEL_ROPE);
  const auto last = uint32_t(kinds.size());
  if (kv8)
    kinds.push_back(MOA_KERNEL_QUANTISE);
  for (uint32_t kind : kinds) {
    const bool decodes = kind == MOA_KERNEL_DECODE;
    std::vector<std::pair<ImageSpec, uint32_t>> own;
    for (const ImageSpec &image : images) {
      if (kind == MOA_KERNEL_QUANTISE && !quantise)
        break;
      own.push_back({image, decodes ? std::max(columns, group) : rows});
      if (decodes && wide && image.target != MOA_TARGET_CPU_X86_64)
        own.push_back({image, wide});
    }
    kernels.push_back({text(names[kind]), kind, dtype, dim, decodes ? group : 1,
                       uint32_t(list.size()), uint32_t(own.size()),
                       kind == MOA_KERNEL_ROPE
                           ? moa_artifact_rotation(MOA_ROPE_HALF, dim)
                           : 0,
                       uint32_t(kv8 && kind <= MOA_KERNEL_DECODE)});
    for (const auto &[image, rows] : own) {
      bool maps = (image.features & MOA_GPU_ARCH_SPECIFIC) != 0 &&
                  dtype != MOA_DTYPE_F32;
      std::string body = image.chip + " " + names[kind] + " " +
                         std::to_string(maps) + " " + std::to_string(rows) +
                         " " + std::to_string(keys) + " " +
                         std::to_string(dim) + " " + std::to_string(dtype) +
                         " " + std::to_string(group) + std::string(1, 0);
      code.resize((code.size() + 63) / 64 * 64);
      moa_artifact_image record = {};
      record.target = image.target;
      record.features = image.features;
      record.chip = text(image.chip);
      record.offset = code.size();
      record.size = body.size();
      if (image.target != MOA_TARGET_CPU_X86_64) {
        record.threads = 128;
        record.entry = text(std::string("moa_") + names[kind]);
        record.scratch_bytes = kind >= MOA_KERNEL_APPEND ? 0 : 100000;
        record.rows = rows;
        record.keys = keys;
      }
      list.push_back(record);
      code += body;
    }
  }
  std::vector<moa_artifact_layer> table(
      layers, {prefill ? 0 : MOA_NO_KERNEL, decode ? 1 : MOA_NO_KERNEL, 2,
               prepare ? 3 : MOA_NO_KERNEL, rope ? last - 1 : MOA_NO_KERNEL,
               kv8 ? last : MOA_NO_KERNEL});
  add(header.rules, all);
  add(header.layer_table, table);
  add(header.kernels, kernels);
  add(header.images, list);
  add(header.strings, strings);
  add(header.code, code);
  std::vector<uint8_t> formats;
  for (size_t head = 0; head < size_t(layers) * kvHeads; ++head)
    formats.push_back(format(head % kvHeads));
  add(header.kv_formats, formats);
  header.magic = MOA_ARTIFACT_MAGIC;
  header.version = MOA_ARTIFACT_VERSION;
  header.kernel_abi_version = MOA_KERNEL_ABI_VERSION;
  header.header_size = sizeof(header);
  header.layers = layers;
  header.q_heads = qHeads();
  header.kv_heads = kvHeads;
  header.head_dim = dim;
  header.dtype = dtype;
  header.length_rule = lengthRule;
  header.max_length = maxLength;
  header.file_size = bytes.size();
  std::memcpy(bytes.data(), &header, sizeof(header));
  header.checksum = moa_artifact_checksum(bytes.data(), bytes.size());
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes;
}

Status Session::open(const Model &from, uint64_t maxBytes,
                     int64_t decodeParts) {
  model = from;
  if (model.rules.empty())
    model.rules.assign(model.layers * model.qHeads(),
                       {0, 1, model.sink, model.sink + 1, 1, model.lengthRule});
  moa_context_options options = {};
  options.device = MOA_DEVICE_CUDA;
  options.driver_path = MOA_TEST_FAKE_CUDA;
  if (Status status = context.create(options); !status)
    return status;
  std::vector<uint8_t> bytes = model.artifact();
  if (Status status = module.load(context, bytes.data(), bytes.size()); !status)
    return status;
  if (Status status = cache.create(module, maxBytes, 0, decodeParts);
      !status || !model.rope)
    return status;
  const std::vector<double> own = frequencies();
  return cache.setRope({0, MOA_ROPE_HALF, model.dim, own.data(), kScale});
}

std::vector<double> Session::frequencies() const {
  std::vector<double> values;
  for (uint32_t i = 0; i < model.dim / 2; ++i)
    values.push_back(1.0 / (1 + i));
  return values;
}

Tokens::Tokens(const Session &session, int64_t count, std::mt19937 &random,
               int64_t padding)
    : session(session), count(count),
      qRow(int64_t(session.model.qHeads()) * session.model.dim + padding),
      kvRow(int64_t(session.model.kvHeads) * session.model.dim + padding) {
  std::uniform_real_distribution<double> values(-1, 1);
  auto make = [&](void *&tensor, int64_t row, bool exact = false) {
    const size_t bytes = session.model.elementBytes();
    std::vector<char> host(count * row * bytes);
    for (size_t at = 0; at < host.size(); at += bytes)
      storeElement(values(random), session.model.dtype, host.data() + at);
    if (exact)
      makeExact(host, random);
    moa_context *context = session.context.get();
    EXPECT_TRUE(Status(moa_device_alloc(context, host.size(), &tensor)));
    EXPECT_TRUE(
        Status(moa_device_copy(context, tensor, host.data(), host.size())));
    return host;
  };
  firstQ = make(q, qRow);
  firstK = make(k, kvRow, session.model.kv8);
  make(v, kvRow, session.model.kv8);
  make(out, qRow);
  clearOut();
}

void Tokens::makeExact(std::vector<char> &host, std::mt19937 &random) const {
  const Model &m = session.model;
  for (int64_t i = 0; i < count * kvRow; ++i) {
    const int64_t column = i % kvRow, head = column / m.dim;
    // The first element of each row is the largest: the scale is 1 / 128 or
    // 1 / 512.
    const bool largest = column % m.dim == 0;
    double value = 0;
    if (m.format(head) == MOA_KV_E4M3) // 1.5 * 2^7 is below 448.
      value = (largest ? 448
                       : (1 + int(random() % 8) / 8.0) *
                             std::exp2(int(random() % 14) - 6)) /
              512;
    else
      value = (largest ? 127 : double(random() % 128)) / 128;
    storeElement(random() % 2 ? value : -value, m.dtype,
                 host.data() + i * m.elementBytes());
  }
}

Tokens::~Tokens() {
  for (void *tensor : {q, k, v, out})
    EXPECT_TRUE(Status(moa_device_free(session.context.get(), tensor)));
}

void Tokens::clearOut() {
  std::vector<char> host(count * qRow * session.model.elementBytes(), '\xff');
  EXPECT_TRUE(Status(
      moa_device_copy(session.context.get(), out, host.data(), host.size())));
}

void Tokens::poison(int64_t token, double value) {
  const size_t bytes = session.model.elementBytes();
  std::vector<char> host(kvRow * bytes);
  for (size_t at = 0; at < host.size(); at += bytes)
    storeElement(value, session.model.dtype, host.data() + at);
  EXPECT_TRUE(Status(moa_device_copy(
      session.context.get(), static_cast<char *>(v) + token * host.size(),
      host.data(), host.size())));
}

moa_attend_entry Tokens::entry(const Sequence &sequence, int64_t begin,
                               int64_t end) {
  const int64_t dim = session.model.dim;
  auto at = [&](void *tensor, int64_t row) {
    return static_cast<char *>(tensor) +
           begin * row * session.model.elementBytes();
  };
  return {sequence.get(), end - begin, at(q, qRow), at(k, kvRow), at(v, kvRow),
          at(out, qRow),  qRow,        dim,         kvRow,        dim,
          kvRow,          dim,         qRow,        dim};
}

double Tokens::rotationError(int64_t begin, int64_t end) const {
  EXPECT_TRUE(Status(moa_device_synchronize(session.context.get())));
  const Model &m = session.model;
  const std::vector<double> frequencies = session.frequencies();
  double worst = 0;
  auto check = [&](const void *tensor, const std::vector<char> &first,
                   int64_t row, uint32_t heads) {
    const int64_t half = m.dim / 2, bytes = m.elementBytes();
    for (int64_t i = begin; i < end; ++i)
      for (int64_t d = 0; d < int64_t(heads) * m.dim; ++d) {
        if (d % m.dim >= half)
          continue;
        const int64_t low = bytes * (i * row + d), high = low + bytes * half;
        auto at = [&](const void *from, int64_t place) {
          return loadElement(static_cast<const char *>(from) + place, m.dtype);
        };
        const double x = at(first.data(), low), y = at(first.data(), high);
        const double angle = double(i) * frequencies[d % m.dim];
        const double c = m.rope ? std::cos(angle) * Session::kScale : 1;
        const double s = m.rope ? std::sin(angle) * Session::kScale : 0;
        worst = std::max({worst, std::abs(at(tensor, low) - (x * c - y * s)),
                          std::abs(at(tensor, high) - (y * c + x * s))});
      }
  };
  check(q, firstQ, qRow, m.qHeads());
  check(k, firstK, kvRow, m.kvHeads);
  return worst;
}

double Tokens::difference(uint32_t layer, int64_t begin, int64_t end, int64_t n,
                          const std::vector<int64_t> &bound) const {
  EXPECT_TRUE(Status(moa_device_synchronize(session.context.get())));
  const Model &m = session.model;
  auto at = [&](void *tensor, int64_t row, int64_t token, int64_t head,
                int64_t d) {
    return loadElement(static_cast<char *>(tensor) +
                           m.elementBytes() * (token * row + head * m.dim + d),
                       m.dtype);
  };
  double worst = 0;
  for (int64_t i = begin; i < end; ++i)
    for (uint32_t head = 0; head < m.qHeads(); ++head) {
      const int64_t kv = head / m.group;
      const moa_span_rule &rule = m.rules[layer * m.qHeads() + head];
      int64_t start = std::max(bound[kv], moa_window_start(&rule, i, n));
      double sum = 0;
      std::vector<double> right(m.dim);
      for (int64_t j = 0; j <= i; ++j) {
        if (j >= rule.sink && j < start)
          continue;
        double dot = 0;
        for (int64_t d = 0; d < m.dim; ++d)
          dot += at(q, qRow, i, head, d) * at(k, kvRow, j, kv, d);
        double weight = std::exp(dot / std::sqrt(double(m.dim)));
        sum += weight;
        for (int64_t d = 0; d < m.dim; ++d)
          right[d] += weight * at(v, kvRow, j, kv, d);
      }
      for (int64_t d = 0; d < m.dim; ++d) {
        double error = std::fabs(at(out, qRow, i, head, d) - right[d] / sum);
        worst = error <= worst ? worst : std::isnan(error) ? INFINITY : error;
      }
    }
  return worst;
}

std::vector<int64_t> boundsOf(const Session &session, const Sequence &sequence,
                              uint32_t layer) {
  std::vector<int64_t> bounds(session.model.kvHeads);
  for (uint32_t h = 0; h < session.model.kvHeads; ++h)
    EXPECT_TRUE(Status(
        moa_sequence_get_first_resident(sequence.get(), layer, h, &bounds[h])));
  return bounds;
}

} // namespace moa::test
