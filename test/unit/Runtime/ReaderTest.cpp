//===- ReaderTest.cpp - The artifact reader trusts nothing ----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Builds a small valid artifact in memory, then damages it: each field, each
// length, random bits, and random bytes behind a right checksum.
//
//===----------------------------------------------------------------------===//

#include "SmallArtifact.h"

#include "moa/runtime.hpp"

#include "gtest/gtest.h"

#include <cmath>
#include <functional>
#include <random>
#include <string>

using moa::rt::test::Bytes;
using Builder = moa::rt::test::SmallArtifact;

namespace {

class ReaderTest : public testing::Test {
protected:
  void SetUp() override { ASSERT_TRUE(context.create(1)); }

  moa::Status load(const Bytes &bytes) {
    moa::Module module;
    return module.load(context, static_cast<const void *>(bytes.data()),
                       bytes.size());
  }

  /// Expects a refusal with this code whose message has this text.
  void refused(const Bytes &bytes, moa_status_code code,
               const std::string &text) {
    moa::Status status = load(bytes);
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_NE(std::string(status.message()).find(text), std::string::npos)
        << status.message() << " does not say: " << text;
  }

  moa::Context context;
};

TEST_F(ReaderTest, ValidArtifactLoads) {
  moa::Module module;
  Bytes bytes = Builder().build();
  moa::Status status = module.load(
      context, static_cast<const void *>(bytes.data()), bytes.size());
  ASSERT_TRUE(status) << status.message();
  moa_module_info info = {};
  ASSERT_TRUE(module.info(info));
  EXPECT_EQ(info.layers, 2u);
  EXPECT_EQ(info.kernels, 3u);
  EXPECT_EQ(info.max_length, 4096);
  EXPECT_STREQ(info.chip, "any");
}

TEST_F(ReaderTest, OtherVersionsAreNamed) {
  Builder newer, older, abi;
  newer.change = [](auto &h) { h.version = MOA_ARTIFACT_VERSION + 1; };
  refused(newer.build(), MOA_INCOMPATIBLE,
          "version " + std::to_string(MOA_ARTIFACT_VERSION + 1));
  refused(newer.build(), MOA_INCOMPATIBLE,
          "to " + std::to_string(MOA_ARTIFACT_VERSION));
  for (uint32_t version = 0; version < MOA_ARTIFACT_VERSION_MIN; ++version) {
    older.change = [=](auto &h) { h.version = version; };
    refused(older.build(), MOA_INCOMPATIBLE,
            "version " + std::to_string(version) + ", this runtime reads");
    refused(older.build(), MOA_INCOMPATIBLE, "compile the plan again");
  }
  abi.change = [](auto &h) { h.kernel_abi_version += 7; };
  refused(abi.build(), MOA_INCOMPATIBLE,
          "kernel ABI " + std::to_string(MOA_KERNEL_ABI_VERSION + 7));
}

TEST_F(ReaderTest, HeaderFieldsAreChecked) {
  struct Case {
    const char *text;
    std::function<void(moa_artifact_header &)> change;
  };
  const Case cases[] = {
      {"not a MoA artifact", [](auto &h) { h.magic ^= 1; }},
      {"header of 216 bytes", [](auto &h) { h.header_size = 100; }},
      {"bytes, found", [](auto &h) { ++h.file_size; }},
      {"layers, found 0", [](auto &h) { h.layers = 0; }},
      {"layers, found", [](auto &h) { h.layers = 1u << 30; }},
      {"found 4 and 3", [](auto &h) { h.kv_heads = 3; }},
      {"found 4 and 0", [](auto &h) { h.kv_heads = 0; }},
      {"head size", [](auto &h) { h.head_dim = 72; }},
      {"dtype", [](auto &h) { h.dtype = 9; }},
      {"length rule", [](auto &h) { h.length_rule = 2; }},
      {"max length", [](auto &h) { h.max_length = 0; }},
      {"max length", [](auto &h) { h.max_length = INT64_MAX; }},
      {"soft cap that is positive, or 0 for none, found -1",
       [](auto &h) { h.soft_cap = -1; }},
      {"soft cap", [](auto &h) { h.soft_cap = NAN; }},
      {"soft cap", [](auto &h) { h.soft_cap = INFINITY; }},
      {"expected 0 behind the soft cap, found 1",
       [](auto &h) { h.reserved = 1; }},
      {"at most 17592186044416 pages of a sequence that keeps all of the max "
       "length, found 281474976710656",
       [](auto &h) {
         h.layers = h.q_heads = h.kv_heads = 4096;
         h.max_length = 1 << 30;
       }},
      {"section rules", [](auto &h) { h.rules.size -= 32; }},
      {"section rules", [](auto &h) { h.rules.offset += 8; }},
      {"section layers",
       [](auto &h) { h.layer_table.offset = UINT64_MAX - 63; }},
      {"section kernels", [](auto &h) { h.kernels.size = UINT64_MAX; }},
      {"section images", [](auto &h) { h.images.size += 1; }},
      {"section strings", [](auto &h) { h.strings.offset = 0; }},
      {"section code", [](auto &h) { h.code.size = h.file_size; }},
      {"section KV formats has 3 bytes, expected 4",
       [](auto &h) { h.kv_formats.size = 3; }},
  };
  for (const Case &c : cases) {
    Builder builder;
    builder.change = c.change;
    refused(builder.build(), MOA_CORRUPT, c.text);
  }
}

TEST_F(ReaderTest, RecordsAreChecked) {
  struct Case {
    const char *text;
    std::function<void(Builder &)> change;
  };
  const Case cases[] = {
      {"layer 1 head 2", [](Builder &b) { b.rules[6].beta = 2; }},
      {"layer 0 head 1", [](Builder &b) { b.rules[1].beta = NAN; }},
      {"layer 0 head 3", [](Builder &b) { b.rules[3].min_span = 64; }},
      {"layer 0 head 0", [](Builder &b) { b.rules[0].round_to = 0; }},
      {"layer 0 head 0", [](Builder &b) { b.rules[0].sink = -1; }},
      {"layer 0 head 2: sink 0, expected that of head 0, 64",
       [](Builder &b) { b.rules[2].sink = 0; }},
      {"window = 9", // Beside a sink.
       [](Builder &b) { b.rules[2].length_rule = MOA_SPAN_MOST(9); }},
      {"window = -1", [](Builder &b) { b.rules[2].length_rule = -2; }},
      {"window = 1048577",
       [](Builder &b) {
         b.rules[4].sink = 0;
         b.rules[4].length_rule = MOA_SPAN_MOST(MOA_MOST_WINDOW + 1);
       }},
      {"layer 1 head 0",
       [](Builder &b) { b.rules[4].length_rule = MOA_LENGTH_ROW; }},
      {"layer 0 head 0", [](Builder &b) { b.rules[0].alpha = INT64_MIN; }},
      {"kernel 0: kind", [](Builder &b) { b.kernels[0].head_dim = 128; }},
      {"kernel 1: kind", [](Builder &b) { b.kernels[1].group = 4; }},
      {"kernel 2: kind 6", [](Builder &b) { b.kernels[2].kind = 6; }},
      {"kernel 2: kv8 1 of kind 2", [](Builder &b) { b.kernels[2].kv8 = 1; }},
      {"kernel 1: kv8 2 of kind 1", [](Builder &b) { b.kernels[1].kv8 = 2; }},
      {"layer 1 KV head 0: KV format 1 beside dtype 0, expected 0 to 0",
       [](Builder &b) { b.kvFormats[2] = 1; }},
      {"layer 0: quantise kernel 2 is not such a kernel",
       [](Builder &b) { b.layers[0].quantise = 2; }},
      {"kernel 2: rotation 0 of kind 4",
       [](Builder &b) { b.kernels[2].kind = 4; }},
      {"kernel 0: rotation 64 of kind 0",
       [](Builder &b) { b.kernels[0].rotation = 64; }},
      {"layer 0: rope", [](Builder &b) { b.layers[0].rope = 2; }},
      {"kernel 0: kind", [](Builder &b) { b.kernels[0].dtype = 1; }},
      {"kernel 0: name", [](Builder &b) { b.kernels[0].name = 33; }},
      {"has no end", [](Builder &b) { b.strings.resize(25); }},
      {"kernel 1: images", [](Builder &b) { b.kernels[1].images = 3; }},
      {"kernel 1: images",
       [](Builder &b) { b.kernels[1].first_image = UINT32_MAX; }},
      {"image 0 at", [](Builder &b) { b.images[0].offset = 256; }},
      {"image 0 at", [](Builder &b) { b.images[0].offset = 1; }},
      {"image 1 at", [](Builder &b) { b.images[1].size = UINT64_MAX; }},
      {"image 1 at", [](Builder &b) { b.images[1].size = 0; }},
      {"image 2: entry", [](Builder &b) { b.images[2].entry = 1; }},
      {"image 2: scratch",
       [](Builder &b) { b.images[2].scratch_bytes = 1ull << 40; }},
      {"image 0: target 3", [](Builder &b) { b.images[0].target = 3; }},
      {"image 1: expected no GPU facts",
       [](Builder &b) { b.images[1].threads = 32; }},
      {"0 threads, 0 rows, 64 keys", [](Builder &b) { b.images[1].keys = 64; }},
      {"layer 0: prefill", [](Builder &b) { b.layers[0].prefill = 1; }},
      {"layer 1: append", [](Builder &b) { b.layers[1].append = 77; }},
  };
  for (const Case &c : cases) {
    Builder builder;
    c.change(builder);
    refused(builder.build(), MOA_CORRUPT, c.text);
  }
}

/// In bf16, with KV heads of 8 bits in layer 1.
Builder withKv8() {
  Builder b;
  b.kernels.push_back(b.kernels[2]);
  b.kernels[3].kind = MOA_KERNEL_QUANTISE;
  b.dtype = MOA_DTYPE_BF16;
  for (moa_artifact_kernel &kernel : b.kernels)
    kernel.dtype = b.dtype;
  b.kernels[0].kv8 = b.kernels[1].kv8 = 1;
  b.kvFormats = {MOA_KV_MODEL, MOA_KV_MODEL, MOA_KV_E4M3, MOA_KV_INT8};
  b.layers[1].quantise = 3;
  return b;
}

TEST_F(ReaderTest, FormatsOfKvHeads) {
  moa::Module module;
  Bytes bytes = withKv8().build();
  moa::Status status = module.load(
      context, static_cast<const void *>(bytes.data()), bytes.size());
  ASSERT_TRUE(status) << status.message();
  const uint32_t expected[] = {MOA_KV_MODEL, MOA_KV_MODEL, MOA_KV_E4M3,
                               MOA_KV_INT8};
  uint32_t format = 9;
  for (uint32_t i = 0; i < 4; ++i) {
    status = moa::Status(
        moa_module_get_kv_format(module.get(), i / 2, i % 2, &format));
    ASSERT_TRUE(status) << status.message();
    EXPECT_EQ(format, expected[i]);
  }
  for (auto [layer, head] : {std::pair(2u, 0u), std::pair(0u, 2u)}) {
    status = moa::Status(
        moa_module_get_kv_format(module.get(), layer, head, &format));
    EXPECT_EQ(status.code(), MOA_INVALID_ARGUMENT);
  }
  Builder b = withKv8();
  b.layers[1].quantise = MOA_NO_KERNEL;
  refused(b.build(), MOA_CORRUPT, "layer 1: no quantise kernel");
  b = withKv8();
  b.kernels[1].kv8 = 0;
  refused(b.build(), MOA_CORRUPT, "layer 1: kernel 1 does not take");
  b = withKv8();
  b.kvFormats[3] = 3;
  refused(b.build(), MOA_CORRUPT,
          "layer 1 KV head 1: KV format 3 beside dtype 2, expected 0 to 2");
}

TEST_F(ReaderTest, GpuImagesAreIgnoredOnTheCpu) {
  moa::Module module;
  Bytes bytes = Builder().addGpuImages().build();
  moa::Status status = module.load(
      context, static_cast<const void *>(bytes.data()), bytes.size());
  ASSERT_TRUE(status) << status.message();
  moa_module_info info = {};
  ASSERT_TRUE(module.info(info));
  EXPECT_STREQ(info.chip, "any");
}

TEST_F(ReaderTest, GpuRecordsAreChecked) {
  struct Case {
    const char *text;
    std::function<void(Builder &)> change;
  };
  const Case cases[] = {
      {"image 1: 0 threads", [](Builder &b) { b.images[1].threads = 0; }},
      {"image 2: 48 threads", [](Builder &b) { b.images[2].threads = 48; }},
      {"1056 threads", [](Builder &b) { b.images[1].threads = 1056; }},
      {"shared memory of 232449 bytes, expected at most 232448",
       [](Builder &b) { b.images[4].scratch_bytes = 232449; }},
      {"image 1: 256 registers",
       [](Builder &b) { b.images[1].registers = 256; }},
      {"image 1: tile of 0 rows", [](Builder &b) { b.images[1].rows = 0; }},
      {"image 4: 1 columns, expected the group's 2 to 16",
       [](Builder &b) { b.images[4].rows = 1; }},
      {"image 4: 17 columns", [](Builder &b) { b.images[4].rows = 17; }},
      {"image 2: tile of 72 keys, expected a multiple of 16 up to 1024",
       [](Builder &b) { b.images[2].keys = 72; }},
      {"image 4: tile of 1025 keys",
       [](Builder &b) { b.images[4].keys = 1025; }},
      {"image 1: features 79", [](Builder &b) { b.images[1].features = 79; }},
      {"image 1: features",
       [](Builder &b) { b.images[1].features |= 1u << 17; }},
      {"function of image 1: name at 33 outside",
       [](Builder &b) { b.images[1].entry = 33; }},
      {"function of image 1: name at 4294967296 outside",
       [](Builder &b) { b.images[1].entry = 1ull << 32; }},
      {"image 1: the function's name is empty",
       [](Builder &b) { b.images[1].entry = 7; }},
      {"image 2: PTX of 5 bytes does not end",
       [](Builder &b) { b.ptx.back() = '\n'; }},
  };
  for (const Case &c : cases) {
    Builder builder;
    c.change(builder.addGpuImages());
    refused(builder.build(), MOA_CORRUPT, c.text);
  }
}

TEST_F(ReaderTest, PrepareIsLeftOutOnTheCpu) {
  for (bool gpu : {false, true}) {
    Builder builder;
    if (gpu)
      builder.addGpuImages();
    Bytes bytes = builder.addPrepare().build();
    moa::Module module;
    moa::Status status = module.load(
        context, static_cast<const void *>(bytes.data()), bytes.size());
    ASSERT_TRUE(status) << status.message();
    moa_module_info info = {};
    ASSERT_TRUE(module.info(info));
    EXPECT_EQ(info.kernels, 4u);
    EXPECT_STREQ(info.chip, "any");
  }
}

TEST_F(ReaderTest, PrepareRecordsAreChecked) {
  struct Case {
    const char *text;
    std::function<void(Builder &)> change;
  };
  const Case cases[] = {
      {"layer 1: prepare kernel 2 is not such a kernel",
       [](Builder &b) { b.layers[1].prepare = 2; }},
      {"layer 0: prepare kernel 4 is not such a kernel (there are 4)",
       [](Builder &b) { b.layers[0].prepare = 4; }},
      {"layer 0: decode kernel 3 is not such a kernel",
       [](Builder &b) { b.layers[0].decode = 3; }},
      {"kernel 3: kind 3, dtype 0, head size 64, group 2",
       [](Builder &b) { b.kernels[3].group = 2; }},
      {"kernel 3: kind 3, dtype 0, head size 32",
       [](Builder &b) { b.kernels[3].head_dim = 32; }},
      {"image 3: target 0 of a prepare kernel, expected 1 or 2",
       [](Builder &b) { b.images[3] = b.images[0]; }},
      {"image 4: 48 threads", [](Builder &b) { b.images[4].threads = 48; }},
  };
  for (const Case &c : cases) {
    Builder builder;
    c.change(builder.addPrepare());
    refused(builder.build(), MOA_CORRUPT, c.text);
  }
}

TEST(ImageTarget, CapabilitiesThatRunIt) {
  const uint32_t cubin = MOA_TARGET_CUDA_CUBIN, ptx = MOA_TARGET_CUDA_PTX;
  const uint32_t special = 90 | MOA_GPU_ARCH_SPECIFIC;
  // A cubin: its major capability, from the minor one on.
  EXPECT_TRUE(moa_gpu_image_runs(cubin, 80, 80));
  EXPECT_TRUE(moa_gpu_image_runs(cubin, 80, 86));
  EXPECT_FALSE(moa_gpu_image_runs(cubin, 86, 80));
  EXPECT_FALSE(moa_gpu_image_runs(cubin, 80, 90));
  // PTX: anything from its capability on.
  EXPECT_TRUE(moa_gpu_image_runs(ptx, 80, 80));
  EXPECT_TRUE(moa_gpu_image_runs(ptx, 80, 120));
  EXPECT_FALSE(moa_gpu_image_runs(ptx, 80, 75));
  // Architecture-specific: that capability alone.
  for (uint32_t target : {cubin, ptx}) {
    EXPECT_TRUE(moa_gpu_image_runs(target, special, 90));
    EXPECT_FALSE(moa_gpu_image_runs(target, special, 80));
    EXPECT_FALSE(moa_gpu_image_runs(target, special, 100));
  }
  EXPECT_FALSE(moa_gpu_image_runs(MOA_TARGET_CPU_X86_64, 7, 90));
}

TEST_F(ReaderTest, ImageForAnotherMachineIsNamed) {
  Builder builder;
  builder.images[1].features = 1u << 31;
  refused(builder.build(), MOA_INCOMPATIBLE, "kernel decode has no image");
  builder.kernels[1].images = 0;
  refused(builder.build(), MOA_INCOMPATIBLE, "it has: none");
}

TEST_F(ReaderTest, EveryTruncationIsRefused) {
  Bytes whole = Builder().build();
  for (size_t size = 0; size < whole.size(); ++size) {
    moa::Status status = load(Bytes(whole.begin(), whole.begin() + size));
    ASSERT_NE(status.code(), MOA_OK) << "truncated to " << size;
  }
}

TEST_F(ReaderTest, EveryFlippedBitIsRefused) {
  Bytes whole = Builder().addGpuImages().addPrepare().build();
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    Bytes damaged = whole;
    damaged[bit / 8] ^= uint8_t(1u << (bit % 8));
    ASSERT_NE(load(damaged).code(), MOA_OK) << "bit " << bit;
  }
}

TEST_F(ReaderTest, RandomBytesBehindARightChecksumNeverCrash) {
  std::mt19937 random(1);
  Bytes whole = Builder().addGpuImages().addPrepare().build();
  int loaded = 0;
  for (int round = 0; round < 20000; ++round) {
    Bytes damaged = whole;
    for (int change = 1 + round % 4; change > 0; --change)
      damaged[sizeof(uint64_t) + random() % (damaged.size() - 8)] =
          uint8_t(random());
    moa_artifact_header header;
    std::memcpy(&header, damaged.data(), sizeof(header));
    Builder::seal(damaged, header);
    loaded += bool(load(damaged));
  }
  EXPECT_GT(loaded, 0) << "the mutations should leave some artifacts valid";
}

} // namespace
