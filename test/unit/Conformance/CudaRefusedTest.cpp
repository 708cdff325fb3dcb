//===- CudaRefusedTest.cpp - What a real driver refuses -------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Calls that must fail on CUDA device 0, each with its code and its cure, and a
// cache that gives the bits of one that saw none of them. test/unit/Cuda has
// every failure on a driver that is made up; this is what real ones answer.
//
//===----------------------------------------------------------------------===//

#include "Scenario.h"

#include "moa/runtime.hpp"

#include "gtest/gtest.h"

using namespace moa::conformance;

namespace {

constexpr int64_t kRows = 70;

class CudaRefused : public testing::Test {
protected:
  void SetUp() override {
    std::string reason = reasonAgainstCuda(), artifact;
    scenario.dtype = Dtype::BF16;
    if (reason.empty() || givenArtifacts()) {
      artifact = compileScenario(scenario, 1 << 20, "sm_90a,sm_80");
      forCpu = compileScenario(scenario);
    }
    if (!reason.empty())
      GTEST_SKIP() << reason;
    succeeds(context.createCuda());
    succeeds(module.load(context, artifact));
    succeeds(cache.create(module, 1 << 20));
    for (void *&tensor : tensors)
      succeeds(moa::Status(moa_device_alloc(context.get(), bytes(), &tensor)));
    std::string values;
    for (size_t i = 0; i < bytes() / 2; ++i) { // 0.5 to 1, of either sign.
      values += char(i * 37 % 128);
      values += char(i % 3 ? 0x3f : 0xbf);
    }
    for (int i = 0; i < 3; ++i)
      copy(tensors[i], values.data());
  }
  void TearDown() override {
    for (void *tensor : tensors)
      if (tensor)
        succeeds(moa::Status(moa_device_free(context.get(), tensor)));
  }

  static void succeeds(const moa::Status &status) {
    EXPECT_TRUE(status) << status.message();
  }
  static void fails(const moa::Status &status, moa_status_code code,
                    const char *says) {
    EXPECT_EQ(status.code(), code) << status.message();
    EXPECT_NE(std::string(status.message()).find(says), std::string::npos)
        << status.message() << "\ndoes not say: " << says;
  }

  size_t bytes() const {
    return kRows * scenario.qHeads * scenario.headDim * 2;
  }
  void copy(void *to, const void *from) {
    succeeds(moa::Status(moa_device_copy(context.get(), to, from, bytes())));
  }
  moa_attend_entry entry(const moa::Sequence &sequence) const {
    const int64_t d = scenario.headDim, q = d * scenario.qHeads,
                  k = d * scenario.kvHeads;
    return {sequence.get(),
            kRows,
            tensors[0],
            tensors[1],
            tensors[2],
            tensors[3],
            q,
            d,
            k,
            d,
            k,
            d,
            q,
            d};
  }
  /// The rows of a new sequence of a cache.
  std::string rows(moa::Cache &of) {
    std::string out(bytes(), '\xff');
    copy(tensors[3], out.data());
    moa::Sequence sequence;
    succeeds(sequence.create(of, kRows));
    succeeds(of.attend(0, {entry(sequence)}));
    copy(out.data(), tensors[3]);
    return out;
  }
  /// Nothing is in use, and rows have the bits of a cache of its own.
  void goesOn() {
    moa_cache_stats stats = {};
    succeeds(cache.stats(stats));
    EXPECT_EQ(stats.pages_used, 0u);
    moa::Cache other;
    succeeds(other.create(module, 1 << 20));
    EXPECT_TRUE(rows(cache) == rows(other));
  }

  Scenario scenario;
  std::string forCpu; ///< An artifact without kernels for GPUs.
  moa::Context context;
  moa::Module module;
  moa::Cache cache;
  void *tensors[4] = {}; ///< q, k, v, out.
};

TEST_F(CudaRefused, TensorsElsewhere) {
  std::vector<char> host(bytes() + 16);
  void *const aligned = reinterpret_cast<void *>(
      (reinterpret_cast<uintptr_t>(host.data()) + 15) / 16 * 16);
  const struct {
    void *tensor;
    const char *says;
  } places[] = {
      {aligned, "does not lie on device 0 (host memory); move the tensor"},
      {reinterpret_cast<void *>(uintptr_t(1) << 44),
       "does not lie on device 0"},
      {static_cast<char *>(tensors[3]) + 2, "is not aligned to 16 bytes"},
      {nullptr, "is NULL"}};
  moa::Sequence sequence;
  succeeds(sequence.create(cache, kRows));
  for (const auto &place : places) {
    moa_attend_entry query = entry(sequence), out = query;
    query.q = place.tensor;
    out.out = place.tensor;
    for (const moa_attend_entry &bad : {query, out})
      fails(cache.attend(0, {bad}), MOA_INVALID_ARGUMENT, place.says);
  }
  goesOn();
}

TEST_F(CudaRefused, MoreMemoryThanThereIs) {
  void *memory = nullptr;
  fails(moa::Status(moa_device_alloc(context.get(), size_t(1) << 46, &memory)),
        MOA_OUT_OF_MEMORY, "free memory of other programs");
  EXPECT_EQ(memory, nullptr);
  moa::Cache small;
  succeeds(small.create(module, 1 << 15));
  moa::Sequence sequence;
  succeeds(sequence.create(small, kRows));
  fails(small.attend(0, {entry(sequence)}), MOA_OUT_OF_PAGES, "page");
  goesOn();
}

TEST_F(CudaRefused, OtherDevicesAndArtifacts) {
  moa::Context other;
  fails(other.createCuda(99), MOA_NO_DEVICE, "device 99, the driver has");
  moa::Module cpu;
  fails(cpu.load(context, forCpu), MOA_INCOMPATIBLE,
        "compile with --target sm_");
  goesOn();
}

} // namespace
