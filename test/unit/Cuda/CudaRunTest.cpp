//===- CudaRunTest.cpp - moa-run on the CUDA back end ---------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The program as users start it, with the fake driver where the system would
// find the real one: checks, benchmarks, the choice of a device, and its
// refusals.
//
//===----------------------------------------------------------------------===//

#include "CudaTestSupport.h"

#include "gtest/gtest.h"

#include <cstdio>
#include <fstream>
#include <sys/wait.h>
#include <unistd.h>

using namespace moa::test;

namespace {

struct Outcome {
  int code;
  std::string text; ///< Both streams.
};

/// Runs moa-run, with or without a driver to be found.
Outcome run(const std::string &arguments, bool driver = true) {
  std::string command = std::string(driver ? "LD_LIBRARY_PATH='" : "X='") +
                        MOA_TEST_FAKE_FOLDER + "' '" + MOA_TEST_RUN + "' " +
                        arguments + " 2>&1";
  FILE *pipe = popen(command.c_str(), "r");
  Outcome outcome = {-1, ""};
  char buffer[4096];
  while (size_t count = fread(buffer, 1, sizeof buffer, pipe))
    outcome.text.append(buffer, count);
  outcome.code = WEXITSTATUS(pclose(pipe));
  return outcome;
}

class CudaRun : public testing::Test {
protected:
  /// Writes the artifact of a model.
  void write(const Model &model) {
    path = testing::TempDir() + "moa-run-" + std::to_string(getpid()) + ".moa";
    std::vector<uint8_t> bytes = model.artifact();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char *>(bytes.data()),
               std::streamsize(bytes.size()));
  }
  void TearDown() override { std::remove(path.c_str()); }

  static void expectSays(const Outcome &outcome, int code, const char *text) {
    EXPECT_EQ(outcome.code, code) << outcome.text;
    EXPECT_NE(outcome.text.find(text), std::string::npos) << outcome.text;
  }
  static Model spanned() {
    Model model;
    model.layers = 2;
    model.rules.assign(8, {0, 0.5, 64, 128, 64, MOA_LENGTH_REQUEST});
    return model;
  }

  std::string path;
};

TEST_F(CudaRun, Check) {
  write(spanned());
  for (const char *device : {"auto", "cuda", "cuda:0"}) {
    Outcome outcome = run(
        path + " --check --batch 2 --prompt 300,70 --new 3 --device " + device);
    expectSays(outcome, 0, "bf16 kernels for sm_90a cubin on Fake GPU");
    expectSays(outcome, 0, "check: largest relative error");
  }
}

TEST_F(CudaRun, Bench) {
  write(spanned());
  Outcome outcome =
      run(path + " --bench --json --prompt 200 --new 2 --device cuda");
  expectSays(outcome, 0, "\"useful_flops_per_s\"");
  expectSays(outcome, 0, "\"needed_bytes_per_s\"");
}

TEST_F(CudaRun, Refusals) {
  write(spanned());
  expectSays(run(path + " --device cuda:1"), 1, "device 1, the driver has 1");
  expectSays(run(path + " --device cuda:x"), 2,
             "expected auto, cpu, cuda or cuda:NUMBER");
  expectSays(run(path + " --device gpu"), 2, "got 'gpu'");
  expectSays(run(path + " --device cpu"), 1, "has no image for this CPU");
  // Auto tells about the device it went on with.
  expectSays(run(path, false), 1, "has no image for this CPU");
}

} // namespace
