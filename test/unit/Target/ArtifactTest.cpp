//===- ArtifactTest.cpp - What writeArtifact lays out and refuses ---------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Layout against the structs of the format, every check of the writer, and
// files that appear whole or not at all.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/Artifact.h"

#include "moa/abi/kernel_args.h"
#include "moa/abi/version.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "gtest/gtest.h"

#include <cstring>
#include <sys/stat.h>

using namespace moa;

namespace {

/// Two layers of four heads, one prefill kernel with two images.
ArtifactContents sample() {
  ArtifactContents c;
  c.layers = 2;
  c.qHeads = 4;
  c.kvHeads = 2;
  c.headDim = 64;
  c.dtype = MOA_DTYPE_F32;
  c.lengthRule = MOA_LENGTH_REQUEST;
  c.maxLength = 4096;
  c.softCap = 50;
  for (int i = 0; i < 32; ++i)
    c.planId[i] = i;
  for (int i = 0; i < 8; ++i)
    c.rules.push_back({i, 0.5, 64, 128, 64, MOA_LENGTH_REQUEST});
  c.kvFormats.assign(4, MOA_KV_MODEL);
  c.layerTable.assign(2, {0, MOA_NO_KERNEL, MOA_NO_KERNEL, MOA_NO_KERNEL,
                          MOA_NO_KERNEL, MOA_NO_KERNEL});
  ArtifactImage wide;
  wide.features = MOA_CPU_X86_64_V3 | MOA_CPU_X86_64_V4;
  wide.chip = "x86-64-v4";
  wide.code = {1, 2, 3};
  wide.entry = 2;
  wide.scratchBytes = 4096;
  ArtifactImage narrow = wide;
  narrow.features = MOA_CPU_X86_64_V3;
  narrow.chip = "x86-64-v3";
  narrow.code = {4, 5};
  narrow.entry = 0;
  ArtifactKernel kernel;
  kernel.name = "prefill_d64_f32";
  kernel.kind = MOA_KERNEL_PREFILL;
  kernel.dtype = MOA_DTYPE_F32;
  kernel.headDim = 64;
  kernel.images = {wide, narrow};
  c.kernels.push_back(kernel);
  return c;
}

/// The same with a cubin as third image.
ArtifactContents gpuSample() {
  ArtifactContents c = sample();
  ArtifactImage gpu;
  gpu.target = MOA_TARGET_CUDA_CUBIN;
  gpu.features = 90 | MOA_GPU_ARCH_SPECIFIC;
  gpu.chip = "sm_90a";
  gpu.code = {6, 7, 8, 0};
  gpu.function = "prefill";
  gpu.scratchBytes = 200000;
  gpu.threads = 384;
  gpu.rows = 128;
  gpu.keys = 176;
  gpu.registers = 168;
  c.kernels[0].images.push_back(gpu);
  return c;
}

std::vector<uint8_t> bytesOf(const ArtifactContents &contents) {
  llvm::Expected<std::vector<uint8_t>> bytes = writeArtifact(contents);
  if (!bytes) {
    ADD_FAILURE() << llvm::toString(bytes.takeError());
    return std::vector<uint8_t>(sizeof(moa_artifact_header), 0);
  }
  return *bytes;
}

std::string refusalOf(const ArtifactContents &contents) {
  llvm::Expected<std::vector<uint8_t>> bytes = writeArtifact(contents);
  return bytes ? "" : llvm::toString(bytes.takeError());
}

template <typename T>
T recordAt(const std::vector<uint8_t> &file, uint64_t offset) {
  T record = {};
  if (offset + sizeof(T) > file.size())
    ADD_FAILURE() << "offset " << offset << " beyond " << file.size();
  else
    std::memcpy(&record, file.data() + offset, sizeof(T));
  return record;
}

TEST(Artifact, Layout) {
  std::vector<uint8_t> file = bytesOf(sample());
  auto header = recordAt<moa_artifact_header>(file, 0);
  EXPECT_EQ(std::memcmp(file.data(), "MOA\x1a", 4), 0);
  EXPECT_EQ(header.version, uint32_t(MOA_ARTIFACT_VERSION));
  EXPECT_EQ(header.kernel_abi_version, uint32_t(MOA_KERNEL_ABI_VERSION));
  EXPECT_EQ(header.file_size, file.size());
  EXPECT_EQ(header.header_size, sizeof(header));
  EXPECT_EQ(header.checksum, moa_artifact_checksum(file.data(), file.size()));
  EXPECT_EQ(header.q_heads, 4u);
  EXPECT_EQ(header.max_length, 4096);
  EXPECT_EQ(header.soft_cap, 50.0f);
  EXPECT_EQ(header.plan_id[31], 31);
  for (moa_artifact_section s :
       {header.rules, header.layer_table, header.kernels, header.images,
        header.strings, header.code}) {
    EXPECT_EQ(s.offset % MOA_ARTIFACT_ALIGN, 0u);
    EXPECT_LE(s.offset + s.size, file.size());
  }
  EXPECT_EQ(header.rules.size, 8 * sizeof(moa_span_rule));
  auto rule = recordAt<moa_span_rule>(file, header.rules.offset + 5 * 32);
  EXPECT_EQ(rule.alpha, 5);
  auto kernel = recordAt<moa_artifact_kernel>(file, header.kernels.offset);
  EXPECT_EQ(kernel.images, 2u);
  const char *strings =
      reinterpret_cast<const char *>(file.data()) + header.strings.offset;
  EXPECT_STREQ(strings + kernel.name, "prefill_d64_f32");
  auto second = recordAt<moa_artifact_image>(
      file, header.images.offset + sizeof(moa_artifact_image));
  EXPECT_STREQ(strings + second.chip, "x86-64-v3");
  EXPECT_EQ(second.offset, 64u);
  EXPECT_EQ(second.size, 2u);
  EXPECT_EQ(file[header.code.offset + second.offset + 1], 5);
}

TEST(Artifact, GpuImage) {
  std::vector<uint8_t> file = bytesOf(gpuSample());
  auto header = recordAt<moa_artifact_header>(file, 0);
  auto image = recordAt<moa_artifact_image>(
      file, header.images.offset + 2 * sizeof(moa_artifact_image));
  const char *strings =
      reinterpret_cast<const char *>(file.data()) + header.strings.offset;
  EXPECT_EQ(image.target, uint32_t(MOA_TARGET_CUDA_CUBIN));
  EXPECT_EQ(image.features, 90 | MOA_GPU_ARCH_SPECIFIC);
  EXPECT_STREQ(strings + image.chip, "sm_90a");
  EXPECT_STREQ(strings + image.entry, "prefill");
  EXPECT_EQ(image.scratch_bytes, 200000u);
  EXPECT_EQ(image.threads, 384u);
  EXPECT_EQ(image.rows, 128u);
  EXPECT_EQ(image.keys, 176u);
  EXPECT_EQ(image.registers, 168u);
  EXPECT_EQ(file[header.code.offset + image.offset], 6);
}

TEST(Artifact, GpuRefusals) {
  struct Case {
    const char *text;
    void (*change)(ArtifactImage &);
  };
  const Case cases[] = {
      {"expected target 0 to 2, got 3", [](auto &i) { i.target = 3; }},
      {"got 0 bytes, 'prefill' and 0", [](auto &i) { i.code.clear(); }},
      {"got 4 bytes, '' and 0", [](auto &i) { i.function.clear(); }},
      {"got 4 bytes, 'prefill' and 1", [](auto &i) { i.entry = 1; }},
      {"expected PTX to end with a zero byte, got 1",
       [](auto &i) {
         i.target = MOA_TARGET_CUDA_PTX;
         i.code.back() = 1;
       }},
      {"capability of at least 80, got 75", [](auto &i) { i.features = 75; }},
      {"as threads, got 0", [](auto &i) { i.threads = 0; }},
      {"as threads, got 1056", [](auto &i) { i.threads = 1056; }},
      {"at most 232448 bytes of shared memory, got 232449",
       [](auto &i) { i.scratchBytes = 232449; }},
      {"at most 255 registers, got 256", [](auto &i) { i.registers = 256; }},
      {"got 0 rows and 176 keys", [](auto &i) { i.rows = 0; }},
      {"got 128 rows and 72 keys", [](auto &i) { i.keys = 72; }},
      {"got 1040 rows", [](auto &i) { i.rows = 1040; }},
      {"no GPU facts for a CPU, got function 'prefill'",
       [](auto &i) { i.target = MOA_TARGET_CPU_X86_64; }},
  };
  for (const Case &c : cases) {
    ArtifactContents contents = gpuSample();
    c.change(contents.kernels[0].images[2]);
    std::string refusal = refusalOf(contents);
    EXPECT_NE(refusal.find("kernel 0 ('prefill_d64_f32') image 2 ('sm_90a')"),
              std::string::npos)
        << refusal;
    EXPECT_NE(refusal.find(c.text), std::string::npos)
        << refusal << " does not say: " << c.text;
  }
}

/// The same with a decode kernel in layer 1, and what prepares its items.
ArtifactContents prepareSample() {
  ArtifactContents c = gpuSample();
  ArtifactKernel decode = c.kernels[0];
  decode.name = "decode_d64_g2_f32";
  decode.kind = MOA_KERNEL_DECODE;
  decode.group = 2;
  c.kernels.push_back(decode);
  c.layerTable[1].decode = 1;
  ArtifactImage image = decode.images[2];
  image.function = "moa_prepare";
  image.scratchBytes = image.rows = image.keys = 0;
  c.kernels[addPrepareKernel(c)].images = {image};
  return c;
}

TEST(Artifact, PrepareServesTheLayersThatDecode) {
  ArtifactContents c = prepareSample();
  ASSERT_EQ(c.kernels.size(), 3u);
  EXPECT_EQ(c.kernels[2].layers, std::vector<int64_t>{1});
  std::vector<uint8_t> file = bytesOf(c);
  auto header = recordAt<moa_artifact_header>(file, 0);
  for (uint32_t layer : {0, 1}) {
    auto record = recordAt<moa_artifact_layer>(
        file, header.layer_table.offset + layer * sizeof(moa_artifact_layer));
    EXPECT_EQ(record.prepare, layer ? 2 : MOA_NO_KERNEL);
  }
  auto kernel = recordAt<moa_artifact_kernel>(
      file, header.kernels.offset + 2 * sizeof(moa_artifact_kernel));
  EXPECT_EQ(kernel.kind, uint32_t(MOA_KERNEL_PREPARE));
  EXPECT_EQ(kernel.dtype, c.dtype);
  EXPECT_EQ(kernel.head_dim, c.headDim);
  EXPECT_EQ(kernel.group, 1u);
}

TEST(Artifact, RotationsAreThoseOfRopeKernels) {
  ArtifactContents c = prepareSample();
  c.kernels[1].rotation = moa_artifact_rotation(0, 64);
  EXPECT_EQ(refusalOf(c), "kernel 1 ('decode_d64_g2_f32'): expected an even "
                          "number of rotated elements, 2 to 64, on rope "
                          "kernels alone, got rotation 64");
  c = prepareSample();
  c.layerTable[0].rope = 1;
  EXPECT_EQ(refusalOf(c), "layer 0: expected kernel 1 ('decode_d64_g2_f32') to "
                          "be of kind 4 (rope), got 1");
}

TEST(Artifact, PrepareRefusals) {
  ArtifactContents c = prepareSample();
  c.layerTable[0].prepare = 1;
  EXPECT_EQ(refusalOf(c), "layer 0: expected kernel 1 ('decode_d64_g2_f32') to "
                          "be of kind 3 (prepare), got 1");
  c = prepareSample();
  c.layerTable[0].prepare = 3;
  EXPECT_EQ(refusalOf(c),
            "layer 0: expected the prepare kernel to be below 3, got 3");
  c = prepareSample();
  c.kernels[2].images.push_back(c.kernels[0].images[0]);
  EXPECT_EQ(refusalOf(c),
            "kernel 2 ('prepare') image 1 ('x86-64-v4'): expected "
            "a GPU as target of a prepare kernel, got a CPU");
}

/// The sample in bf16 with a KV head of 8 bits in layer 1.
ArtifactContents kv8Sample() {
  ArtifactContents c = sample();
  c.dtype = c.kernels[0].dtype = MOA_DTYPE_BF16;
  c.kernels[0].kv8 = true;
  ArtifactKernel quantise = c.kernels[0];
  quantise.name = "quantise_d64_bf16";
  quantise.kind = MOA_KERNEL_QUANTISE;
  quantise.kv8 = false;
  c.kernels.push_back(quantise);
  c.kvFormats[3] = MOA_KV_INT8;
  c.layerTable[1].quantise = 1;
  return c;
}

TEST(Artifact, FormatsOfKvHeads) {
  std::vector<uint8_t> file = bytesOf(kv8Sample());
  auto header = recordAt<moa_artifact_header>(file, 0);
  ASSERT_EQ(header.kv_formats.size, 4u);
  const uint8_t expected[] = {MOA_KV_MODEL, MOA_KV_MODEL, MOA_KV_MODEL,
                              MOA_KV_INT8};
  EXPECT_EQ(std::memcmp(file.data() + header.kv_formats.offset, expected, 4),
            0);
  EXPECT_EQ(recordAt<moa_artifact_kernel>(file, header.kernels.offset).kv8, 1u);
}

TEST(Artifact, FormatRefusals) {
  ArtifactContents c = kv8Sample();
  c.kvFormats.pop_back();
  EXPECT_EQ(refusalOf(c), "expected 4 KV formats (2 layers of 2 heads), got 3");
  c = kv8Sample();
  c.kvFormats[1] = 3;
  EXPECT_EQ(refusalOf(c),
            "layer 0 KV head 1: expected a KV format of 0 to 2, got 3");
  c = kv8Sample();
  c.dtype = MOA_DTYPE_F32;
  EXPECT_EQ(refusalOf(c),
            "layer 1 KV head 1: expected a KV format of 0 to 0, got 2");
  c = kv8Sample();
  c.kernels[0].kv8 = false;
  EXPECT_EQ(refusalOf(c), "layer 1: expected kernels that take KV formats of 8 "
                          "bits, got kernel 0 ('prefill_d64_f32')");
  c = kv8Sample();
  c.layerTable[1].quantise = MOA_NO_KERNEL;
  EXPECT_EQ(refusalOf(c), "layer 1: expected a quantise kernel beside KV "
                          "formats of 8 bits, got none");
  c = kv8Sample();
  c.layerTable[1].quantise = 0;
  EXPECT_EQ(refusalOf(c), "layer 1: expected kernel 0 ('prefill_d64_f32') to "
                          "be of kind 5 (quantise), got 0");
  c = kv8Sample();
  c.kernels[1].kv8 = true;
  EXPECT_EQ(refusalOf(c), "kernel 1 ('quantise_d64_bf16'): expected kv8 on "
                          "prefill and decode kernels alone, got kind 5");
}

TEST(Artifact, EqualImagesLieOnce) {
  ArtifactContents c = sample();
  c.kernels[0].images[1].code = c.kernels[0].images[0].code;
  auto header = recordAt<moa_artifact_header>(bytesOf(c), 0);
  EXPECT_EQ(header.code.size, 3u);
  EXPECT_EQ(bytesOf(c), bytesOf(c));
}

TEST(Artifact, Refusals) {
  ArtifactContents c = sample();
  c.rules.pop_back();
  EXPECT_EQ(refusalOf(c), "expected 8 rules (2 layers of 4 heads), got 7");
  c = sample();
  c.rules[6].length_rule = MOA_LENGTH_ROW;
  EXPECT_EQ(refusalOf(c), "layer 1 head 2: expected length rule 0 as "
                          "everywhere, got 1");
  c = sample();
  c.rules[0].beta = 1.5;
  EXPECT_NE(refusalOf(c).find("layer 0 head 0: expected beta"),
            std::string::npos);
  c = sample();
  c.rules[3].min_span = 64;
  EXPECT_NE(refusalOf(c).find("got 64, 64 and 64"), std::string::npos);
  c = sample();
  c.kvHeads = 3;
  EXPECT_NE(refusalOf(c).find("multiple of kv_heads"), std::string::npos);
  c = sample();
  c.layerTable.pop_back();
  EXPECT_EQ(refusalOf(c), "expected 2 entries in the layer table, got 1");
  c = sample();
  c.layerTable[1].decode = 0;
  EXPECT_EQ(refusalOf(c), "layer 1: expected kernel 0 ('prefill_d64_f32') to "
                          "be of kind 1 (decode), got 0");
  c = sample();
  c.layerTable[1].append = 7;
  EXPECT_EQ(refusalOf(c),
            "layer 1: expected the append kernel to be below 1, got 7");
  c = sample();
  c.kernels[0].images.clear();
  EXPECT_EQ(refusalOf(c), "expected at least one image, got none for 1 "
                          "kernels");
  c = sample();
  c.kernels[0].images[1].entry = 2;
  EXPECT_EQ(refusalOf(c), "kernel 0 ('prefill_d64_f32') image 1 ('x86-64-v3'): "
                          "expected an entry below its 2 bytes, got 2");
  c = sample();
  c.kernels[0].headDim = 128;
  EXPECT_NE(refusalOf(c).find("as the model has, got 128"), std::string::npos);
}

class WriteFile : public testing::Test {
protected:
  void SetUp() override {
    ASSERT_FALSE(llvm::sys::fs::createUniqueDirectory("moa-write", folder));
  }
  void TearDown() override { llvm::sys::fs::remove_directories(folder); }
  std::string in(llvm::StringRef name) { return (folder + "/" + name).str(); }
  size_t filesInFolder() {
    std::error_code error;
    size_t count = 0;
    for (llvm::sys::fs::directory_iterator it(folder, error), end;
         it != end && !error; it.increment(error))
      ++count;
    return count;
  }
  static std::string textOf(const std::string &path) {
    auto buffer = llvm::MemoryBuffer::getFile(path);
    return buffer ? (*buffer)->getBuffer().str() : "unreadable";
  }
  llvm::SmallString<128> folder;
};

TEST_F(WriteFile, ReplacesWholeAndKeepsMode) {
  ASSERT_FALSE(bool(writeFileAtomically(in("a"), "first")));
  ASSERT_EQ(::chmod(in("a").c_str(), 0640), 0);
  ASSERT_FALSE(bool(writeFileAtomically(in("a"), "second")));
  EXPECT_EQ(textOf(in("a")), "second");
  struct stat status;
  ASSERT_EQ(::stat(in("a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640u);
  EXPECT_EQ(filesInFolder(), 1u);
}

TEST_F(WriteFile, FollowsLinks) {
  ASSERT_FALSE(bool(writeFileAtomically(in("a"), "first")));
  ASSERT_FALSE(bool(llvm::sys::fs::create_link(in("a"), in("link"))));
  ASSERT_FALSE(bool(writeFileAtomically(in("link"), "second")));
  EXPECT_TRUE(llvm::sys::fs::is_symlink_file(in("link")));
  EXPECT_EQ(textOf(in("a")), "second");
}

TEST_F(WriteFile, FailureLeavesNothing) {
  llvm::Error error = writeFileAtomically(in("none/a"), "text");
  ASSERT_TRUE(bool(error));
  EXPECT_NE(llvm::toString(std::move(error)).find("No such file"),
            std::string::npos);
  // A folder cannot be replaced.
  ASSERT_FALSE(bool(llvm::sys::fs::create_directory(in("taken"))));
  error = writeFileAtomically(in("taken"), "text");
  EXPECT_TRUE(bool(error));
  llvm::consumeError(std::move(error));
  EXPECT_EQ(filesInFolder(), 1u);
}

} // namespace
