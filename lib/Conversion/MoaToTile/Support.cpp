//===- Support.cpp - Which operations have kernels ------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Support.h.
//
//===----------------------------------------------------------------------===//

#include "moa/Conversion/Support.h"

#include "moa/Dialect/Moa/IR/Moa.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace moa;

std::optional<std::string> moa::whyUnsupported(Operation *op) {
  int64_t dims;
  if (auto append = dyn_cast<CacheAppendOp>(op))
    dims = append.getCache().getType().getDims();
  else if (auto append = dyn_cast<RopeAppendOp>(op))
    dims = append.getCache().getType().getDims();
  else if (auto attend = dyn_cast<WindowedOpInterface>(op))
    dims = attend.getCacheType().getDims();
  else
    return "only moa.attention, moa.decode, moa.cache_append and "
           "moa.rope_append have kernels";
  if (!isSupportedHeadDim(dims))
    return llvm::formatv("head size {0} has no kernel; expected 64, 80, 96, "
                         "128, 192 or 256",
                         dims)
        .str();
  return std::nullopt;
}
