//===- KernelTestSupport.h - Compiled CPU kernels in tests ------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Tile-level text of kernels, its compilation to code that this process calls,
// and elements in memory.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_TILETOCPU_KERNELTESTSUPPORT_H
#define MOA_TEST_UNIT_TILETOCPU_KERNELTESTSUPPORT_H

#include "moa/Target/CPU.h"
#include "moa/abi/artifact.h"
#include "moa/abi/kernel_args.h"

#include "mlir/IR/MLIRContext.h"
#include "gtest/gtest.h"

#include <cstdint>
#include <string>
#include <sys/mman.h>
#include <vector>

namespace moa::cpu::test {

/// A compiled kernel, mapped executable.
struct Mapped {
  void *code = nullptr;
  size_t size = 0;
  CpuImage image;
  ~Mapped() {
    if (code)
      munmap(code, size);
  }
  template <typename Fn> Fn entry() const {
    return reinterpret_cast<Fn>(static_cast<char *>(code) + image.entry);
  }
};

struct Element {
  const char *name;
  unsigned bytes;
  double tolerance; ///< semantics: relative by row norm.
};
inline const Element kElements[] = {
    {"f32", 4, 1e-5}, {"f16", 2, 2e-3}, {"bf16", 2, 8e-3}};

bool hostHas(const CpuChip &chip);

/// Text of an attention kernel after split-tile-loops; with `kv8` one that
/// takes blocks of 8 bits beside others.
std::string kernelText(bool decode, int64_t rows, int64_t dims,
                       llvm::StringRef element, bool kv8 = false);

class KernelTest : public testing::Test {
protected:
  KernelTest();
  void compile(const std::string &text, const CpuChip &chip, Mapped &mapped);

  mlir::MLIRContext context;
};

/// Scratch of a kernel, aligned.
class ScratchMemory {
public:
  explicit ScratchMemory(const CpuImage &image)
      : bytes(image.scratchBytes + 64) {}
  void *get() {
    return reinterpret_cast<void *>(
        (reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64);
  }

private:
  std::vector<char> bytes;
};

/// Element `i` at `base`, of f32, f16 or bf16.
double decode(const void *base, size_t i, llvm::StringRef element);
void encode(void *base, size_t i, float value, llvm::StringRef element);

} // namespace moa::cpu::test

#endif // MOA_TEST_UNIT_TILETOCPU_KERNELTESTSUPPORT_H
