//===- ModuleToPTXTest.cpp - PTX of small kernels -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Launch facts read off a function, what the PTX of a kernel has, and every
// reason for which a module gets none.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/NVPTX.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/IR/Diagnostics.h"
#include "mlir/Parser/Parser.h"
#include "llvm/ADT/StringExtras.h"
#include "gtest/gtest.h"

using namespace mlir;
using namespace moa;

namespace {

/// Attributes of a kernel as the conversion to NVVM leaves them.
constexpr const char *kFacts =
    "moa.threads = 128 : i64, moa.shared_bytes = 2048 : i64, moa.tile_rows = 64"
    " : i64, moa.tile_keys = 80 : i64, moa.register_budget = 168 : i64";

/// A module with kernel @k of this body, and what else is given.
std::string kernel(StringRef body, StringRef facts = kFacts,
                   StringRef others = "") {
  return (llvm::Twine(others) +
          "\nllvm.func @k(%out: !llvm.ptr<1>, %in: !llvm.ptr<1>) attributes "
          "{nvvm.kernel, nvvm.reqntid = array<i32: 128, 1, 1>, " +
          facts + "} {\n  %tid = nvvm.read.ptx.sreg.tid.x : i32\n" + body +
          "\n  llvm.return\n}\n")
      .str();
}

class ModuleToPTX : public testing::Test {
protected:
  ModuleToPTX()
      : context(MLIRContext::Threading::DISABLED),
        handler(&context, [this](Diagnostic &diagnostic) {
          llvm::raw_string_ostream(errors) << diagnostic;
        }) {
    context.loadDialect<LLVM::LLVMDialect, NVVM::NVVMDialect,
                        arith::ArithDialect>();
  }

  OwningOpRef<ModuleOp> parse(StringRef text) {
    auto module = parseSourceString<ModuleOp>(text, &context);
    EXPECT_TRUE(module) << errors;
    return module ? std::move(module)
                  : OwningOpRef<ModuleOp>(
                        ModuleOp::create(UnknownLoc::get(&context)));
  }

  std::string ptxOf(StringRef text, StringRef chip = "sm_90a",
                    std::string *llvmIR = nullptr) {
    OwningOpRef<ModuleOp> module = parse(text);
    FailureOr<std::string> ptx =
        emitPTX(*module, *findGpuChip(chip), PtxEmitOptions{llvmIR});
    return succeeded(ptx) ? *ptx : "failed: " + errors;
  }

  void refused(StringRef text, StringRef expected) {
    errors.clear();
    OwningOpRef<ModuleOp> module = parse(text);
    EXPECT_TRUE(failed(emitPTX(*module, *findGpuChip("sm_90a"))));
    EXPECT_TRUE(StringRef(errors).contains(expected))
        << errors << " does not say: " << expected.str();
  }

  MLIRContext context;
  std::string errors;
  ScopedDiagnosticHandler handler;
};

TEST(GpuChips, Table) {
  ASSERT_EQ(gpuChips().size(), 2u);
  EXPECT_EQ(findGpuChip("sm_90a")->features(), 90u | 1u << 16);
  EXPECT_EQ(findGpuChip("sm_80")->features(), 80u);
  EXPECT_EQ(findGpuChip("sm_75"), nullptr);
}

TEST(GpuChips, RegistersOfABlock) {
  // Threads of a block, and what the fullest quarter leaves each of them.
  constexpr int64_t cases[][2] = {{32, 255},  {128, 255}, {160, 255},
                                  {256, 255}, {288, 168}, {384, 168},
                                  {416, 128}, {640, 96},  {1024, 64}};
  for (const GpuChip &chip : gpuChips())
    for (const auto &[threads, registers] : cases)
      EXPECT_EQ(chip.maxRegistersOf(threads), registers) << threads;
}

TEST_F(ModuleToPTX, Facts) {
  OwningOpRef<ModuleOp> module = parse(kernel(""));
  FailureOr<GpuKernelFacts> facts =
      readGpuKernelFacts(*module, *findGpuChip("sm_90a"));
  ASSERT_TRUE(succeeded(facts)) << errors;
  EXPECT_EQ(facts->function, "k");
  EXPECT_EQ(facts->threads, 128u);
  EXPECT_EQ(facts->sharedBytes, 2048u);
  EXPECT_EQ(facts->tileRows, 64u);
  EXPECT_EQ(facts->tileKeys, 80u);
  EXPECT_EQ(facts->registerBudget, 168u);
}

TEST_F(ModuleToPTX, FactsThatAreMissingOrImpossible) {
  const struct {
    const char *from, *to, *expected;
  } cases[] = {
      {"moa.threads = 128", "moa.threads = 100",
       "'moa.threads' from 32 to 1024 in steps of 32, got 100"},
      {"moa.threads = 128", "moa.threads = 2048", "got 2048"},
      {"moa.threads", "moa.other",
       "expected attribute 'moa.threads' from 32 to 1024 in steps of 32, found "
       "none; the conversion to NVVM sets it"},
      {"moa.shared_bytes = 2048", "moa.shared_bytes = -4",
       "'moa.shared_bytes' from 0 to 4294967295, got -4"},
      {"moa.register_budget = 168", "moa.register_budget = 256",
       "'moa.register_budget' from 1 to 255, got 256"},
      {"moa.threads = 128", "moa.threads = 416",
       "expected 'moa.register_budget' of at most 128, with which sm_90a can "
       "launch a block of 416 threads, got 168; lower the budget or the "
       "threads"},
      {"moa.tile_rows", "moa.x", "'moa.tile_rows'"},
      {"moa.tile_keys", "moa.x", "'moa.tile_keys'"},
  };
  for (const auto &c : cases) {
    errors.clear();
    auto [before, after] = StringRef(kFacts).split(c.from);
    OwningOpRef<ModuleOp> module =
        parse(kernel("", (llvm::Twine(before) + c.to + after).str()));
    EXPECT_TRUE(failed(readGpuKernelFacts(*module, *findGpuChip("sm_90a"))));
    EXPECT_TRUE(StringRef(errors).contains(c.expected))
        << errors << " does not say: " << c.expected;
  }
}

TEST_F(ModuleToPTX, KernelForEachChip) {
  constexpr const char *shared =
      "llvm.mlir.global external @shared() {addr_space = 3 : i32, alignment = "
      "1024 : i64} : !llvm.array<0 x i8>";
  constexpr const char *body = R"(
    %s = llvm.mlir.addressof @shared : !llvm.ptr<3>
    %p = llvm.getelementptr %s[%tid] : (!llvm.ptr<3>, i32) -> !llvm.ptr<3>, f32
    %x = llvm.load %in : !llvm.ptr<1> -> f32
    llvm.store %x, %p : f32, !llvm.ptr<3>
    nvvm.barrier0
    %y = llvm.load %s : !llvm.ptr<3> -> f32
    llvm.store %y, %out : f32, !llvm.ptr<1>)";
  std::string llvmIR;
  std::string hopper = ptxOf(kernel(body, kFacts, shared), "sm_90a", &llvmIR);
  for (StringRef expected :
       {".version 8.6", ".target sm_90a", ".visible .entry k(",
        ".extern .shared .align 1024 .b8 shared[]", ".reqntid 128", "st.shared",
        "bar.sync", "ld.global"})
    EXPECT_TRUE(StringRef(hopper).contains(expected))
        << hopper << " lacks: " << expected.str();
  EXPECT_TRUE(StringRef(llvmIR).contains("define ptx_kernel void @k("))
      << llvmIR;
  std::string ampere = ptxOf(kernel(body, kFacts, shared), "sm_80");
  for (StringRef expected : {".version 8.0", ".target sm_80"})
    EXPECT_TRUE(StringRef(ampere).contains(expected))
        << ampere << " lacks: " << expected.str();
}

TEST_F(ModuleToPTX, OtherFunctionsAreInlined) {
  std::string ptx = ptxOf(
      kernel("%x = llvm.load %in : !llvm.ptr<1> -> f32\n"
             "%y = llvm.call @square(%x) : (f32) -> f32\n"
             "llvm.store %y, %out : f32, !llvm.ptr<1>",
             kFacts,
             "llvm.func @square(%x: f32) -> f32 attributes {no_inline} {\n"
             "  %y = llvm.fmul %x, %x : f32\n  llvm.return %y : f32\n}"));
  EXPECT_TRUE(StringRef(ptx).contains("mul.rn.f32")) << ptx;
  EXPECT_FALSE(StringRef(ptx).contains("call")) << ptx;
  EXPECT_FALSE(StringRef(ptx).contains(".func")) << ptx;
}

TEST_F(ModuleToPTX, Refusals) {
  refused("", "expected one function with 'nvvm.kernel', found 0");
  refused(kernel("") + "llvm.func @l() attributes {nvvm.kernel} {\n"
                       "  llvm.return\n}",
          "expected one function with 'nvvm.kernel', found 2");
  refused("llvm.func @k() attributes {nvvm.kernel}",
          "expected a kernel with a body");
  refused(kernel("%c = arith.constant 1.0 : f32\n"
                 "llvm.store %c, %out : f32, !llvm.ptr<1>"),
          "cannot be translated to LLVM IR");
  refused(
      kernel("llvm.call @outside() : () -> ()", kFacts, "llvm.func @outside()"),
      "expected no call in the kernel, found one of 'outside'");
}

TEST_F(ModuleToPTX, LocalMemoryIsRefused) {
  refused(kernel(R"(
    %n = llvm.mlir.constant(8 : i32) : i32
    %a = llvm.alloca %n x f32 : (i32) -> !llvm.ptr
    %x = llvm.load %in : !llvm.ptr<1> -> f32
    %p = llvm.getelementptr %a[%tid] : (!llvm.ptr, i32) -> !llvm.ptr, f32
    llvm.store %x, %p : f32, !llvm.ptr
    nvvm.barrier0
    %q = llvm.getelementptr %a[3] : (!llvm.ptr) -> !llvm.ptr, f32
    %y = llvm.load %q : !llvm.ptr -> f32
    llvm.store %y, %out : f32, !llvm.ptr<1>)"),
          "expected no variable in local memory, found an alloca of");
  // A vector that is indexed by a value lands there only in the code generator.
  refused(kernel(R"(
    %v = llvm.load volatile %in : !llvm.ptr<1> -> vector<8xf32>
    %y = llvm.extractelement %v[%tid : i32] : vector<8xf32>
    llvm.store %y, %out : f32, !llvm.ptr<1>)"),
          "found a local depot");
}

} // namespace
