//===- KernelTestSupport.cpp - Compiled CPU kernels in tests --------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of KernelTestSupport.h.
//
//===----------------------------------------------------------------------===//

#include "KernelTestSupport.h"

#include "moa/Dialect/MoaTile/IR/MoaTile.h"
#include "moa/Pipelines/TileToCpu.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/InitAllDialects.h"
#include "mlir/InitAllExtensions.h"
#include "mlir/Parser/Parser.h"
#include "llvm/ADT/APFloat.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/TargetParser/Host.h"

#include <cstring>

using namespace mlir;
using namespace moa;
using namespace moa::cpu::test;

bool moa::cpu::test::hostHas(const CpuChip &chip) {
  auto features = llvm::sys::getHostCPUFeatures();
  auto has = [&](const char *name) { return features.lookup(name); };
  bool v3 = has("avx2") && has("fma") && has("f16c") && has("bmi2");
  bool v4 = has("avx512f") && has("avx512bw") && has("avx512cd") &&
            has("avx512dq") && has("avx512vl");
  return (!(chip.features & MOA_CPU_X86_64_V3) || v3) &&
         (!(chip.features & MOA_CPU_X86_64_V4) || v4) &&
         (!(chip.features & MOA_CPU_AVX512_BF16) || has("avx512bf16"));
}

std::string moa::cpu::test::kernelText(bool decode, int64_t rows, int64_t dims,
                                       StringRef element, bool kv8) {
  std::string kind = decode ? "decode" : "prefill";
  std::string text = llvm::formatv(
      "!item = !moa_tile.item<{0}>\n!state = !moa_tile.state<{1}x{2}>\n"
      "!q = !moa_tile.tile<{1}x{2}xf32>\n!kv = !moa_tile.tile<64x{2}x{3}>\n"
      "!s = !moa_tile.tile<{1}x64xf32>\n"
      "func.func @kernel(%item: !item) attributes {{moa_tile.config = "
      "#moa_tile.config<lanes = {4}, rows = {1}, keys = 64>} {{\n"
      "%q = moa_tile.load_queries %item : !item -> !q\n"
      "%s0 = moa_tile.init : !state\n",
      kind, rows, dims, element, decode ? "dims" : "rows");
  const char *segments[] = {"sink", "edge", "full", "diagonal"};
  const char *masks[] = {"(sink)", "(sink, window)", "",
                         "(sink, window, causal)"};
  for (int i = 0; i < 4; ++i) {
    bool masked = *masks[i];
    text += llvm::formatv(
        "%s{0} = moa_tile.for_blocks {1} %item, %s{2} : !item, !state {{\n"
        "^bb0(%b: index, %st: !state):\n"
        "%k = moa_tile.load_keys %item[%b] {3} : !item -> !kv\n"
        "%x = moa_tile.scores %q, %k : !q, !kv -> !s\n",
        i + 1, segments[i], i, kv8 ? "kv8" : "");
    if (masked)
      text += llvm::formatv(
          "%m = moa_tile.mask {0} %x, %item[%b] : !s, !item\n", masks[i]);
    text += llvm::formatv(
        "%p, %r = moa_tile.softmax_step {0}, %st : !s, !state -> !s\n"
        "%v = moa_tile.load_values %item[%b] {2} : !item -> !kv\n"
        "%n = moa_tile.accumulate %p, %v, %r {1} : !s, !kv, !state\n"
        "moa_tile.yield %n : !state\n}\n",
        masked ? "%m" : "%x", masked ? "skip_zero" : "", kv8 ? "kv8" : "");
  }
  text +=
      decode
          ? "moa_tile.store_partial %s4, %item : !state, !item\n"
          : llvm::formatv("moa_tile.store %s4, %item as {0} : !state, !item\n",
                          element)
                .str();
  return text + "return\n}\n";
}

KernelTest::KernelTest() {
  DialectRegistry registry;
  registerAllDialects(registry);
  registerAllExtensions(registry);
  registry.insert<tile::MoaTileDialect>();
  context.appendDialectRegistry(registry);
}

void KernelTest::compile(const std::string &text, const CpuChip &chip,
                         Mapped &mapped) {
  OwningOpRef<ModuleOp> module = parseSourceString<ModuleOp>(text, &context);
  ASSERT_TRUE(module);
  PassManager pm(&context);
  TileToCpuOptions options;
  options.chip = chip.name.str();
  buildTileToCpuPipeline(pm, options);
  ASSERT_TRUE(succeeded(pm.run(*module)));
  FailureOr<CpuImage> image = emitCpuImage(*module, "kernel", chip);
  ASSERT_TRUE(succeeded(image));
  mapped.image = std::move(*image);
  mapped.size = llvm::alignTo(mapped.image.code.size(), 4096);
  mapped.code = mmap(nullptr, mapped.size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(mapped.code, MAP_FAILED);
  memcpy(mapped.code, mapped.image.code.data(), mapped.image.code.size());
  ASSERT_EQ(mprotect(mapped.code, mapped.size, PROT_READ | PROT_EXEC), 0);
}

double moa::cpu::test::decode(const void *base, size_t i, StringRef element) {
  if (element == "f32")
    return static_cast<const float *>(base)[i];
  uint16_t bits = static_cast<const uint16_t *>(base)[i];
  if (element == "bf16") {
    uint32_t wide = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
  }
  llvm::APFloat half(llvm::APFloat::IEEEhalf(), llvm::APInt(16, bits));
  return half.convertToFloat();
}

void moa::cpu::test::encode(void *base, size_t i, float value,
                            StringRef element) {
  if (element == "f32") {
    static_cast<float *>(base)[i] = value;
    return;
  }
  llvm::APFloat exact(value);
  bool lost;
  exact.convert(element == "bf16" ? llvm::APFloat::BFloat()
                                  : llvm::APFloat::IEEEhalf(),
                llvm::APFloat::rmNearestTiesToEven, &lost);
  static_cast<uint16_t *>(base)[i] =
      uint16_t(exact.bitcastToAPInt().getZExtValue());
}
