//===- CudaDeviceTest.cpp - Drivers, devices, images and memory -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What can be wrong with a machine or an artifact before a kernel runs: each is
// a status that says what was found and what to do, and leaves nothing behind.
//
//===----------------------------------------------------------------------===//

#include "CudaTestSupport.h"

#include "gtest/gtest.h"

using namespace moa;
using namespace moa::test;

namespace {

class CudaDevice : public FakeCudaTest {
protected:
  static Status open(Context &context, const char *path, int32_t ordinal = 0) {
    moa_context_options options = {};
    options.device = MOA_DEVICE_CUDA;
    options.ordinal = ordinal;
    options.driver_path = path;
    return context.create(options);
  }
  /// Expects a failure that says all of these.
  static void expectSays(const Status &status, moa_status_code code,
                         std::initializer_list<const char *> texts) {
    EXPECT_EQ(status.code(), code) << status.message();
    for (const char *text : texts)
      EXPECT_NE(std::string(status.message()).find(text), std::string::npos)
          << status.message() << "\ndoes not say: " << text;
  }
};

TEST_F(CudaDevice, NoDriver) {
  Context context;
  expectSays(open(context, "/nowhere/libcuda.so.1"), MOA_NO_DEVICE,
             {"no CUDA driver", "/nowhere/libcuda.so.1",
              "install the NVIDIA driver, or use the CPU device"});
}

TEST_F(CudaDevice, DriverWithoutAFunction) {
  Context context;
  expectSays(open(context, MOA_TEST_OLD_CUDA), MOA_NO_DEVICE,
             {"has no cuDriverGetVersion", "CUDA 11.2", "update"});
}

TEST_F(CudaDevice, DriverDoesNotStart) {
  fakeCuda()->initResult = 803;
  Context context;
  expectSays(
      open(context, MOA_TEST_FAKE_CUDA), MOA_NO_DEVICE,
      {"starting the CUDA driver", "cuInit returned CUDA_ERROR_803", "reboot"});
}

TEST_F(CudaDevice, NoSuchDevice) {
  Context context;
  expectSays(open(context, MOA_TEST_FAKE_CUDA, 1), MOA_NO_DEVICE,
             {"device 1, the driver has 1 device", "CUDA_VISIBLE_DEVICES"});
  expectSays(open(context, MOA_TEST_FAKE_CUDA, -1), MOA_NO_DEVICE,
             {"device -1"});
  fakeCuda()->devices = 0;
  expectSays(open(context, MOA_TEST_FAKE_CUDA), MOA_NO_DEVICE,
             {"device 0, the driver has 0 devices"});
}

TEST_F(CudaDevice, NoSuchKind) {
  moa_context_options options = {};
  options.device = 7;
  Context context;
  expectSays(context.create(options), MOA_INVALID_ARGUMENT,
             {"device is 7", "MOA_DEVICE_CUDA"});
}

TEST_F(CudaDevice, Facts) {
  Context context;
  ASSERT_TRUE(open(context, MOA_TEST_FAKE_CUDA));
  moa_device_info info = {};
  ASSERT_TRUE(context.deviceInfo(info));
  EXPECT_EQ(info.device, MOA_DEVICE_CUDA);
  EXPECT_STREQ(info.name, "Fake GPU");
  EXPECT_EQ(info.capability_major, 9);
  EXPECT_EQ(info.capability_minor, 0);
  EXPECT_EQ(info.driver_version, 12080);
  EXPECT_EQ(info.processors, 4);
  EXPECT_EQ(info.memory_bytes, uint64_t(512) << 20);
  // A caller of an older header: nothing behind its struct is touched.
  info.struct_size = offsetof(moa_device_info, name);
  info.name = nullptr;
  ASSERT_TRUE(Status(moa_context_get_device_info(context.get(), &info)));
  EXPECT_EQ(info.name, nullptr);
}

/// The driver's error, its code here and what to do about it.
TEST_F(CudaDevice, ErrorsComeWithTheirCure) {
  Context context;
  ASSERT_TRUE(open(context, MOA_TEST_FAKE_CUDA));
  const struct {
    int error;
    moa_status_code code;
    const char *cure;
  } cases[] = {
      {2, MOA_OUT_OF_MEMORY, "lower max_bytes, free sequences"},
      {100, MOA_NO_DEVICE, "check nvidia-smi and CUDA_VISIBLE_DEVICES"},
      {700, MOA_DEVICE_ERROR, "the device's context is lost"},
      {715, MOA_DEVICE_ERROR, "start the process again"},
      {719, MOA_DEVICE_ERROR, "tensors stay allocated until the stream is"},
      {804, MOA_DEVICE_ERROR, "reboot, or install one version of both"},
      {900, MOA_DEVICE_ERROR, "outside of stream capture"},
      {999, MOA_DEVICE_ERROR, "nvidia-smi shows the device's state"},
  };
  for (const auto &c : cases) {
    fakeCuda()->failWith = c.error;
    fakeCuda()->calls = 0;
    fakeCuda()->failAt = 1;
    const Status failed(moa_device_synchronize(context.get()));
    expectSays(failed, c.code,
               {fakeCuda()->failed.c_str(), "returned CUDA_ERROR_", c.cure});
  }
  fakeCuda()->failAt = 0;
  EXPECT_TRUE(Status(moa_device_synchronize(context.get())));
}

TEST_F(CudaDevice, FactsOfTheCpu) {
  Context context;
  ASSERT_TRUE(context.create(3));
  moa_device_info info = {};
  ASSERT_TRUE(context.deviceInfo(info));
  EXPECT_EQ(info.device, MOA_DEVICE_CPU);
  EXPECT_EQ(info.processors, 3);
  EXPECT_EQ(info.driver_version, 0);
}

/// Memory is handled alike on every device.
TEST_F(CudaDevice, Memory) {
  for (bool cuda : {false, true}) {
    Context context;
    ASSERT_TRUE(cuda ? open(context, MOA_TEST_FAKE_CUDA) : context.create(1));
    moa_context *c = context.get();
    void *memory = nullptr;
    ASSERT_TRUE(Status(moa_device_alloc(c, 100, &memory)));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
    char in[100] = "text", out[100] = {};
    ASSERT_TRUE(Status(moa_device_copy(c, memory, in, 100)));
    ASSERT_TRUE(Status(moa_device_copy(c, out, memory, 100)));
    EXPECT_STREQ(out, "text");
    EXPECT_TRUE(Status(moa_device_synchronize(c)));
    EXPECT_TRUE(Status(moa_device_free(c, memory)));
    EXPECT_TRUE(Status(moa_device_free(c, nullptr)));
    EXPECT_TRUE(Status(moa_device_alloc(c, 0, &memory)));
    EXPECT_TRUE(Status(moa_device_free(c, memory)));
    EXPECT_EQ(Status(moa_device_alloc(c, 1, nullptr)).code(),
              MOA_INVALID_ARGUMENT);
  }
}

TEST_F(CudaDevice, GpuWithoutAnImage) {
  fakeCuda()->capabilityMajor = 8;
  fakeCuda()->capabilityMinor = 6;
  Model model;
  model.images.push_back({MOA_TARGET_CUDA_PTX, 90, "sm_90"});
  Session session;
  expectSays(session.open(model), MOA_INCOMPATIBLE,
             {"kernel prefill has no image for Fake GPU (compute capability "
              "8.6)",
              "it has: sm_90a cubin, sm_90 PTX", "--target sm_80"});
}

TEST_F(CudaDevice, ArtifactForTheCpuAlone) {
  Model model;
  model.images = {{MOA_TARGET_CPU_X86_64, 0, "x86-64"}};
  Session session;
  expectSays(session.open(model), MOA_INCOMPATIBLE,
             {"no kernel for Fake GPU", "images: x86-64",
              "compile with --target sm_90a"});
}

TEST_F(CudaDevice, RefusedCubinFallsBackToPtx) {
  Model model;
  model.images = {{}, {MOA_TARGET_CUDA_PTX, 80, "sm_80"}};
  Session first;
  ASSERT_TRUE(first.open(model));
  moa_module_info info = {};
  ASSERT_TRUE(first.module.info(info));
  EXPECT_STREQ(info.chip, "sm_90a cubin");
  EXPECT_STREQ(info.remark, "");

  fakeCuda()->refusals["sm_90a"] = 209;
  Session second;
  ASSERT_TRUE(second.open(model));
  ASSERT_TRUE(second.module.info(info));
  EXPECT_STREQ(info.chip, "sm_80 PTX");
  EXPECT_STREQ(info.remark,
               "kernel prefill: sm_90a cubin refused: "
               "CUDA_ERROR_NO_BINARY_FOR_GPU (of the fake driver): log of the "
               "fake; sm_80 PTX is used");
}

TEST_F(CudaDevice, EveryImageRefused) {
  Model model;
  model.images = {{}, {MOA_TARGET_CUDA_PTX, 80, "sm_80"}};
  fakeCuda()->refusals = {{"sm_90a", 200}, {"sm_80", 222}};
  Session session;
  expectSays(session.open(model), MOA_INCOMPATIBLE,
             {"sm_90a cubin refused: CUDA_ERROR_200",
              "sm_80 PTX refused: CUDA_ERROR_222", "update the driver"});
}

TEST_F(CudaDevice, ImageThatFailsOtherwiseIsNotPassedOver) {
  Model model;
  model.images = {{}, {MOA_TARGET_CUDA_PTX, 80, "sm_80"}};
  fakeCuda()->refusals = {{"sm_90a", 2}};
  Session session;
  expectSays(session.open(model), MOA_OUT_OF_MEMORY,
             {"loading kernel prefill, sm_90a cubin"});
}

TEST_F(CudaDevice, KernelThatDoesNotFit) {
  fakeCuda()->blocksPerProcessor = 0;
  Session session;
  expectSays(session.open(Model()), MOA_INCOMPATIBLE,
             {"kernel prefill with 128 threads and 100000 bytes of shared "
              "memory does not fit on Fake GPU"});
}

TEST_F(CudaDevice, KeyTilesNobodyListsFor) {
  Model model;
  model.keys = 176;
  Session session;
  expectSays(session.open(model), MOA_INCOMPATIBLE,
             {"key tiles of 176", "64 or 128"});
}

TEST_F(CudaDevice, PagesOfEightBitsWithoutKernel) {
  Model model;
  model.kv8 = true;
  model.quantise = false;
  Session session;
  expectSays(session.open(model), MOA_UNSUPPORTED,
             {"Fake GPU: layer 0 keeps pages in 8 bits and has no quantise "
              "kernel for this device",
              "compile the plan again with --target for it, or leave kv/format "
              "out of the plan"});
}

TEST_F(CudaDevice, PagesTakeNineTenthsOrWhatWasAsked) {
  const uint64_t page = 2 * 64 * 16 * 2;
  Session session;
  ASSERT_TRUE(session.open(Model()));
  moa_cache_stats stats = {};
  ASSERT_TRUE(session.cache.stats(stats));
  EXPECT_EQ(stats.page_bytes, page);
  EXPECT_EQ(stats.pages_limit, fakeCuda()->freeBytes / 10 * 9 / page);
  EXPECT_EQ(stats.reserved_bytes, 0u) << "memory is taken when it is needed";
  Session small;
  ASSERT_TRUE(small.open(Model(), 10 * page + 5));
  ASSERT_TRUE(small.cache.stats(stats));
  EXPECT_EQ(stats.pages_limit, 10u);
  fakeCuda()->freeBytes = 1000;
  Session none;
  expectSays(none.open(Model()), MOA_OUT_OF_MEMORY,
             {"Fake GPU has 1000 of 2000 bytes free"});
}

/// Opening is undone whole, whichever call of the driver fails.
TEST_F(CudaDevice, EveryFailureOfOpeningLeavesNothing) {
  Model model;
  model.rope = true;
  model.kv8 = true;
  model.images = {{}, {MOA_TARGET_CUDA_PTX, 80, "sm_80"}};
  for (bool virtualMemory : {true, false}) {
    int failures = 0;
    for (int64_t at = 1;; ++at) {
      fakeCuda()->reset();
      fakeCuda()->virtualMemory = virtualMemory;
      fakeCuda()->failAt = at;
      {
        Session session;
        Status status = session.open(model, 1 << 20);
        fakeCuda()->failAt = 0; // Closing is not opening.
        if (fakeCuda()->failed.empty()) {
          EXPECT_TRUE(status) << status.message();
          break;
        }
        SCOPED_TRACE(fakeCuda()->failed);
        ++failures;
        EXPECT_FALSE(status);
        EXPECT_NE(std::string(status.message()).find("CUDA_ERROR_999"),
                  std::string::npos)
            << status.message();
        EXPECT_NE(std::string(status.message()).find(fakeCuda()->failed),
                  std::string::npos)
            << status.message();
      }
      EXPECT_TRUE(fakeCuda()->clean()) << fakeCuda()->failed;
    }
    EXPECT_GT(failures, 30);
  }
}

} // namespace
