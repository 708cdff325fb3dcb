//===- Support.h - Which operations have kernels ----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The one predicate for support: dialect conversion, the compile driver and
// Python all get their answer, and the reason, from here.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_SUPPORT_H
#define MOA_CONVERSION_SUPPORT_H

#include "mlir/IR/Operation.h"
#include <optional>
#include <string>

namespace moa {

/// Whether a moa operation can become a tile kernel: nothing, or the reason why
/// not with the cure.
std::optional<std::string> whyUnsupported(mlir::Operation *op);

/// Whether a kernel of MOA_KERNEL_* for elements of MOA_DTYPE_*, with `kv8` one
/// that takes blocks of 8 bits, of decode with so many columns, can be lowered
/// for GPUs: nothing, or the reason why not with the cure.
std::optional<std::string> whyUnsupportedOnGpu(uint32_t kind, int64_t headDim,
                                               uint32_t dtype, bool kv8,
                                               int64_t columns);

} // namespace moa

#endif // MOA_CONVERSION_SUPPORT_H
