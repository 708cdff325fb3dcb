//===- PTXToCubinTest.cpp - What ptxas says and what becomes of it --------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Messages of ptxas as figures and refusals; finding the program; and, where it
// is there, kernels that provoke each refusal on purpose.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/NVPTX.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/raw_ostream.h"
#include "gtest/gtest.h"

#include <cstdlib>
#include <sys/stat.h>

using namespace moa;
using llvm::StringRef;

namespace {

constexpr const char *kClean =
    "ptxas info    : 0 bytes gmem\n"
    "ptxas info    : Compiling entry function 'acc' for 'sm_90a'\n"
    "ptxas info    : Function properties for acc\n"
    "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
    "ptxas info    : Used 90 registers, used 1 barriers, 1024 bytes smem\n"
    "ptxas info    : Compile time = 13.758 ms\n";

GpuKernelFacts sampleFacts() {
  GpuKernelFacts facts;
  facts.function = "acc";
  facts.threads = 128;
  facts.registerBudget = 168;
  return facts;
}

PtxasReport reportOf(StringRef text) {
  llvm::Expected<PtxasReport> report = parsePtxasReport(text);
  if (report)
    return *report;
  ADD_FAILURE() << llvm::toString(report.takeError());
  return {};
}

std::string refusalOf(const PtxasReport &report, GpuKernelFacts facts,
                      StringRef chip = "sm_90a") {
  llvm::Error error = checkPtxasReport(report, facts, *findGpuChip(chip));
  return error ? llvm::toString(std::move(error)) : "";
}

TEST(PtxasReport, CleanKernel) {
  PtxasReport report = reportOf(kClean);
  EXPECT_EQ(report.registers, 90u);
  EXPECT_EQ(report.sharedBytes, 1024u);
  EXPECT_EQ(report.stackBytes, 0u);
  EXPECT_EQ(report.spillBytes, 0u);
  EXPECT_TRUE(report.advisories.empty());
  EXPECT_TRUE(report.warnings.empty());
  EXPECT_EQ(refusalOf(report, sampleFacts()), "");
}

TEST(PtxasReport, AdvisoriesAreRefused) {
  for (const char *code : {"C7508", "C7510", "C7514", "C7517", "C7519"}) {
    std::string line = std::string("ptxas info    : (") + code + ") something";
    PtxasReport report = reportOf(kClean + line + "\n");
    ASSERT_EQ(report.advisories.size(), 1u);
    EXPECT_EQ(refusalOf(report, sampleFacts()),
              "expected no performance message of ptxas, found 1: " + line);
  }
}

TEST(PtxasReport, SpillsAndStackAreRefused) {
  PtxasReport report = reportOf(
      "ptxas warning : Registers are spilled to local memory in function "
      "'acc', 44 bytes spill stores, 48 bytes spill loads\n"
      "ptxas info    : Used 32 registers, used 0 barriers\n");
  EXPECT_EQ(report.spillBytes, 92u);
  EXPECT_EQ(report.warnings.size(), 1u);
  EXPECT_EQ(refusalOf(report, sampleFacts()),
            "expected no spills and no stack frame, found 92 bytes spilled and "
            "0 bytes of stack with 32 registers; lower the tile or raise the "
            "budget of 168 registers");
  report = reportOf("    64 bytes stack frame, 0 bytes spill stores, 0 bytes "
                    "spill loads\nptxas info    : Used 32 registers\n");
  EXPECT_NE(refusalOf(report, sampleFacts()).find("64 bytes of stack"),
            std::string::npos);
}

TEST(PtxasReport, BudgetsAreKept) {
  GpuKernelFacts facts = sampleFacts();
  facts.registerBudget = 89;
  EXPECT_EQ(refusalOf(reportOf(kClean), facts),
            "expected at most 89 registers a thread, found 90");
  facts.registerBudget = 90;
  facts.sharedBytes = 227 * 1024 - 1024;
  EXPECT_EQ(refusalOf(reportOf(kClean), facts), "");
  ++facts.sharedBytes;
  EXPECT_EQ(refusalOf(reportOf(kClean), facts),
            "expected at most 232448 bytes of shared memory on sm_90a, found "
            "232449 (1024 static, 231425 dynamic)");
  facts.sharedBytes = 99 * 1024;
  EXPECT_NE(refusalOf(reportOf(kClean), facts, "sm_80").find("101376 bytes"),
            std::string::npos);
}

TEST(PtxasReport, BlocksThatCannotBeLaunchedAreRefused) {
  GpuKernelFacts facts = sampleFacts();
  facts.registerBudget = 224;
  facts.threads = 256;
  PtxasReport report = reportOf("ptxas info    : Used 169 registers\n");
  EXPECT_EQ(refusalOf(report, facts), "");
  // A ninth warp is the third of a quarter of the multiprocessor.
  facts.threads = 288;
  EXPECT_EQ(refusalOf(report, facts),
            "expected at most 168 registers a thread, with which sm_90a can "
            "launch a block of 288 threads, found 169; lower the budget of 224 "
            "registers or the threads");
  report.registers = 168;
  EXPECT_EQ(refusalOf(report, facts), "");
}

TEST(PtxasReport, NoReportIsRefused) {
  llvm::Expected<PtxasReport> report = parsePtxasReport("hello\n");
  ASSERT_FALSE(bool(report));
  EXPECT_EQ(llvm::toString(report.takeError()),
            "expected 'Used N registers' in what ptxas says, found: hello");
  report = parsePtxasReport(" \n");
  ASSERT_FALSE(bool(report));
  EXPECT_NE(llvm::toString(report.takeError()).find("found: nothing"),
            std::string::npos);
}

/// A folder for programs that pretend to be ptxas.
class FakePtxas : public testing::Test {
protected:
  void SetUp() override {
    ASSERT_FALSE(llvm::sys::fs::createUniqueDirectory("moa-ptxas", folder));
    path = (folder + "/ptxas").str();
  }
  void TearDown() override { llvm::sys::fs::remove_directories(folder); }

  /// Writes a script that states a version and otherwise does `action`.
  void write(StringRef action, StringRef version = "V13.0.88") {
    std::error_code error;
    llvm::raw_fd_ostream os(path, error);
    os << "#!/bin/sh\nif [ \"$1\" = --version ]; then echo '" << version
       << "'; exit 0; fi\n"
       << action << "\n";
    os.close();
    ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
  }
  std::string findError() {
    llvm::Expected<Ptxas> ptxas = findPtxas(path);
    return ptxas ? "found" : llvm::toString(ptxas.takeError());
  }
  std::string assembleError() {
    llvm::Expected<Ptxas> ptxas = findPtxas(path);
    if (!ptxas)
      return llvm::toString(ptxas.takeError());
    llvm::Expected<Cubin> cubin =
        assemblePTX("text", sampleFacts(), *findGpuChip("sm_90a"), *ptxas);
    return cubin ? "assembled" : llvm::toString(cubin.takeError());
  }

  llvm::SmallString<128> folder;
  std::string path;
};

TEST_F(FakePtxas, MissingOrStrange) {
  EXPECT_EQ(findError(),
            "expected a program that can be run at '" + path + "', found none");
  write("", "not a version");
  EXPECT_EQ(findError(), "expected '" + path +
                             " --version' to state a version such as V13.0.88, "
                             "found exit status 0 and: not a version");
}

/// A variable of the environment, as it was at the end of the scope.
class Variable {
public:
  Variable(const char *name, StringRef value) : name(name) {
    if (const char *old = std::getenv(name))
      before = old;
    ::setenv(name, value.str().c_str(), 1);
  }
  Variable(const Variable &) = delete;
  ~Variable() {
    if (before)
      ::setenv(name, before->c_str(), 1);
    else
      ::unsetenv(name);
  }
  void clear() { ::unsetenv(name); }

private:
  const char *name;
  std::optional<std::string> before;
};

TEST_F(FakePtxas, PlacesAreSearchedInTheirOrder) {
  const std::string root = folder.str().str(), site = root + "/site";
  // cudnn is a package without a toolkit.
  for (const char *package : {"cuda_nvcc", "cu13", "cu9", "cu14", "cudnn"})
    ASSERT_FALSE(
        llvm::sys::fs::create_directories(site + "/nvidia/" + package));
  Variable search("PATH", root + "/a::" + root + "/b");
  Variable home("CUDA_HOME", root + "/home");
  Variable cudaPath("CUDA_PATH", root + "/cuda-path");
  EXPECT_EQ(ptxasFolders(site),
            (std::vector<std::string>{
                root + "/a", root + "/b", root + "/home/bin",
                root + "/cuda-path/bin", "/usr/local/cuda/bin",
                site + "/nvidia/cu14/bin", site + "/nvidia/cu13/bin",
                site + "/nvidia/cu9/bin", site + "/nvidia/cuda_nvcc/bin"}));
  home.clear();
  cudaPath.clear();
  for (const std::string &without : {std::string(), root + "/none"})
    EXPECT_EQ(ptxasFolders(without),
              (std::vector<std::string>{root + "/a", root + "/b",
                                        "/usr/local/cuda/bin"}));
}

/// Each of these places holds a ptxas; the one found is taken away until none
/// is left.
TEST_F(FakePtxas, TheFirstInOrderIsFound) {
  const std::string root = folder.str().str();
  std::vector<std::string> places = {root + "/a", root + "/home/bin",
                                     root + "/cuda-path/bin"};
  if (!llvm::sys::fs::exists("/usr/local/cuda/bin/ptxas"))
    for (const char *package : {"cu13", "cuda_nvcc"})
      places.push_back(root + "/site/nvidia/" + package + "/bin");
  for (const std::string &place : places) {
    ASSERT_FALSE(llvm::sys::fs::create_directories(place));
    path = place + "/ptxas";
    write("");
  }
  Variable search("PATH", root + "/empty:" + root + "/a");
  Variable home("CUDA_HOME", root + "/home");
  Variable cudaPath("CUDA_PATH", root + "/cuda-path");
  for (const std::string &place : places) {
    llvm::Expected<Ptxas> found = findPtxas("", root + "/site");
    ASSERT_TRUE(bool(found)) << llvm::toString(found.takeError());
    EXPECT_EQ(found->path, place + "/ptxas");
    EXPECT_EQ(found->version, "13.0.88");
    ASSERT_FALSE(llvm::sys::fs::remove(found->path));
  }
  llvm::Expected<Ptxas> none = findPtxas();
  if (!none)
    EXPECT_EQ(llvm::toString(none.takeError()),
              "expected ptxas 12.7 or newer in PATH, $CUDA_HOME/bin, "
              "$CUDA_PATH/bin, /usr/local/cuda/bin or the package "
              "nvidia-cuda-nvcc beside this one, found none");
}

TEST_F(FakePtxas, OldAndBrokenOnesArePassedOver) {
  const std::string root = folder.str().str();
  for (const char *place : {"/old", "/broken", "/oldest-that-does"})
    ASSERT_FALSE(llvm::sys::fs::create_directory(root + place));
  path = root + "/old/ptxas";
  write("", "V12.6.85");
  path = root + "/broken/ptxas";
  write("", "no version");
  path = root + "/oldest-that-does/ptxas";
  write("", "V12.7.0");
  Variable search("PATH", root + "/old:" + root + "/broken:" + root +
                              "/oldest-that-does");
  llvm::Expected<Ptxas> found = findPtxas();
  ASSERT_TRUE(bool(found)) << llvm::toString(found.takeError());
  EXPECT_EQ(found->path, path);
  EXPECT_EQ(found->version, "12.7.0");
  // What is named is taken as it is.
  llvm::Expected<Ptxas> named = findPtxas(root + "/old/ptxas");
  ASSERT_TRUE(bool(named)) << llvm::toString(named.takeError());
  EXPECT_EQ(named->version, "12.6.85");
  ASSERT_FALSE(llvm::sys::fs::remove(path));
  llvm::Expected<Ptxas> none = findPtxas();
  if (!none) {
    std::string error = llvm::toString(none.takeError());
    EXPECT_TRUE(StringRef(error).contains("found 12.6.85 at '" + root +
                                          "/old/ptxas'; expected '" + root +
                                          "/broken/ptxas --version' to state"))
        << error;
  }
}

TEST_F(FakePtxas, FailuresAreNamed) {
  write("echo 'ptxas fatal   : no'; exit 7");
  EXPECT_EQ(assembleError(),
            "kernel 'acc' on sm_90a: expected ptxas to succeed, found exit "
            "status 7; ptxas 13.0.88 said:\nptxas fatal   : no");
  write("exit 0");
  EXPECT_NE(assembleError().find("expected 'Used N registers'"),
            std::string::npos);
  write("echo 'Used 9 registers'");
  EXPECT_NE(assembleError().find("a cubin that is an ELF file, found 0 bytes"),
            std::string::npos)
      << assembleError();
  write("kill -9 $$");
  EXPECT_NE(assembleError().find("cannot run"), std::string::npos)
      << assembleError();
}

/// Kernels for the real program.
class RealPtxas : public testing::Test {
protected:
  void SetUp() override {
    llvm::Expected<Ptxas> found = findPtxas();
    if (!found)
      GTEST_SKIP() << llvm::toString(found.takeError());
    ptxas = *found;
  }

  /// PTX of kernel acc for sm_90a with these directives and this body.
  static std::string source(StringRef directives, StringRef body) {
    return (".version 8.6\n.target sm_90a\n.address_size 64\n"
            ".visible .entry acc(.param .u64 out, .param .u64 in)\n" +
            directives +
            "\n{\n.reg .pred %p<2>;\n.reg .b32 %r<4>;\n.reg .f32 %f<100>;\n"
            ".reg .b64 %rd<6>;\nld.param.u64 %rd1, [out];\n"
            "ld.param.u64 %rd2, [in];\nmov.u32 %r1, %tid.x;\n" +
            body + "\nret;\n}\n")
        .str();
  }

  /// A product of two tiles; `before` and `after` stand around its issue.
  static std::string product(StringRef before, StringRef after) {
    return source(".reqntid 128", ("mov.f32 %f1, 0f00000000;\n"
                                   "mov.f32 %f2, %f1;\nmov.f32 %f3, %f1;\n"
                                   "mov.f32 %f4, %f1;\n"
                                   "setp.ne.u64 %p1, %rd2, 0;\n" +
                                   before +
                                   "wgmma.mma_async.sync.aligned.m64n8k16.f32."
                                   "bf16.bf16 {%f1, %f2, %f3, %f4}, %rd2, "
                                   "%rd2, %p1, 1, 1, 0, 0;\n"
                                   "wgmma.commit_group.sync.aligned;\n" +
                                   after +
                                   "st.global.f32 [%rd1], %f1;\n"
                                   "st.global.f32 [%rd1 + 4], %f2;\n")
                                      .str());
  }

  llvm::Expected<Cubin> assemble(StringRef ptx, GpuKernelFacts facts) {
    return assemblePTX(ptx, facts, *findGpuChip("sm_90a"), ptxas);
  }

  void refused(StringRef ptx, StringRef expected,
               GpuKernelFacts facts = sampleFacts()) {
    llvm::Expected<Cubin> cubin = assemble(ptx, facts);
    ASSERT_FALSE(bool(cubin)) << cubin->messages;
    std::string error = llvm::toString(cubin.takeError());
    EXPECT_TRUE(StringRef(error).contains(expected))
        << error << " does not say: " << expected.str();
    EXPECT_TRUE(StringRef(error).contains("kernel 'acc' on sm_90a")) << error;
    EXPECT_TRUE(StringRef(error).contains("said:\nptxas")) << error;
  }

  Ptxas ptxas;
};

constexpr const char *kFence = "wgmma.fence.sync.aligned;\n";
constexpr const char *kWait = "wgmma.wait_group.sync.aligned 0;\n";

TEST_F(RealPtxas, CleanKernel) {
  llvm::Expected<Cubin> cubin = assemble(product(kFence, kWait), sampleFacts());
  ASSERT_TRUE(bool(cubin)) << llvm::toString(cubin.takeError());
  EXPECT_GT(cubin->report.registers, 4u);
  EXPECT_EQ(cubin->report.spillBytes, 0u);
  EXPECT_GT(cubin->instructions, 10u);
  EXPECT_LT(cubin->instructions, 200u);
  EXPECT_EQ(StringRef(reinterpret_cast<const char *>(cubin->code.data()), 4),
            "\x7f"
            "ELF");
  EXPECT_NE(cubin->messages.find("Used "), std::string::npos);
}

TEST_F(RealPtxas, HazardsOfAsynchronousProductsAreRefused) {
  refused(product("", kWait), "(C7519)");
  refused(product(kFence, std::string("add.f32 %f2, %f1, %f2;\n") + kWait),
          "(C7517)");
  // A function that is not inlined.
  std::string callee =
      ".func f(.reg .b64 %d, .reg .b64 %o) {\n.reg .f32 %f<5>;\n"
      ".reg .pred %p<2>;\nmov.f32 %f1, 0f00000000;\nmov.f32 %f2, %f1;\n"
      "mov.f32 %f3, %f1;\nmov.f32 %f4, %f1;\nsetp.ne.u64 %p1, %d, 0;\n"
      "wgmma.fence.sync.aligned;\nwgmma.mma_async.sync.aligned.m64n8k16.f32."
      "bf16.bf16 {%f1, %f2, %f3, %f4}, %d, %d, %p1, 1, 1, 0, 0;\n"
      "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
      "st.global.f32 [%o], %f1;\nret;\n}\n";
  std::string caller = source(".reqntid 128", "call f, (%rd2, %rd1);");
  size_t entry = caller.find(".visible");
  refused(caller.substr(0, entry) + callee + caller.substr(entry), "(C7510)");
}

TEST_F(RealPtxas, SpillsAreRefused) {
  std::string body;
  for (int i = 0; i < 64; ++i)
    body += "ld.global.f32 %f" + std::to_string(i) + ", [%rd2 + " +
            std::to_string(4 * i) + "];\n";
  body += "bar.sync 0;\n";
  for (int i = 0; i < 64; ++i)
    body += "st.global.f32 [%rd1 + " + std::to_string(4 * i) + "], %f" +
            std::to_string(i) + ";\n";
  refused(source(".maxnreg 32", body), "expected no spills and no stack frame");
  GpuKernelFacts facts = sampleFacts();
  facts.registerBudget = 48;
  refused(source("", body), "expected at most 48 registers a thread, found",
          facts);
}

TEST_F(RealPtxas, StackFramesAreRefused) {
  refused(source("", ".local .align 4 .b8 array[256];\n"
                     "mov.u64 %rd3, array;\nmul.wide.u32 %rd4, %r1, 4;\n"
                     "add.u64 %rd5, %rd3, %rd4;\nst.local.u32 [%rd5], %r1;\n"
                     "bar.sync 0;\nld.local.u32 %r2, [array + 12];\n"
                     "st.global.u32 [%rd1], %r2;"),
          "256 bytes of stack");
}

TEST_F(RealPtxas, SharedMemoryIsCounted) {
  std::string ptx = source("", ".shared .align 16 .b8 buffer[1024];\n"
                               "st.shared.u32 [buffer], %r1;\nbar.sync 0;\n"
                               "ld.shared.u32 %r2, [buffer + 4];\n"
                               "st.global.u32 [%rd1], %r2;");
  GpuKernelFacts facts = sampleFacts();
  llvm::Expected<Cubin> cubin = assemble(ptx, facts);
  ASSERT_TRUE(bool(cubin)) << llvm::toString(cubin.takeError());
  // sm_90 keeps a kilobyte for the system, which is not counted here.
  EXPECT_EQ(cubin->report.sharedBytes, 1024u);
  facts.sharedBytes = 232448;
  refused(ptx, "found 233472 (1024 static, 232448 dynamic)", facts);
}

TEST_F(RealPtxas, BadTextIsRefused) {
  refused("this is no PTX\n", "expected ptxas to succeed, found exit status");
  refused("this is no PTX\n", "acc.ptx, line 1; fatal");
}

} // namespace
