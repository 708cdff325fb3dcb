//===- Support.cpp - Which kernels a GPU has ------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The part of Conversion/Support.h that speaks of GPUs.
//
//===----------------------------------------------------------------------===//

#include "moa/Conversion/Support.h"

#include "moa/abi/kernel_args.h"
#include "llvm/Support/FormatVariadic.h"

using namespace moa;

/// Largest head of which the outputs of more than eight columns leave registers
/// to unpack codes in.
static constexpr int64_t kMostUnpacked = 128;

std::optional<std::string> moa::whyUnsupportedOnGpu(uint32_t kind,
                                                    int64_t headDim,
                                                    uint32_t dtype, bool kv8,
                                                    int64_t columns) {
  if (headDim % 16 || headDim > 256)
    return llvm::formatv("head size {0} has no kernel; expected a multiple of "
                         "16 up to 256",
                         headDim)
        .str();
  if (kind == MOA_KERNEL_DECODE && kv8 && headDim > kMostUnpacked &&
      columns > 8)
    return llvm::formatv("decode of 8-bit KV has kernels for groups of more "
                         "than 8 heads up to head size {0}; prefill takes "
                         "single tokens, or leave kv/format out of the plan",
                         kMostUnpacked)
        .str();
  if (kind == MOA_KERNEL_DECODE && dtype == MOA_DTYPE_F32)
    return "decode has no f32 kernel; prefill takes single tokens, or compile "
           "with --dtype bf16 or f16";
  return std::nullopt;
}
