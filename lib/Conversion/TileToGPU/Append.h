//===- Append.h - Rows of keys and values into pages ------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the append kernel does with an item, for kernels that do more before it.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOGPU_APPEND_H
#define MOA_CONVERSION_TILETOGPU_APPEND_H

#include "Builder.h"
#include "KernelForm.h"

namespace moa::gpu {

/// Threads of a block that copies rows.
inline constexpr int64_t kAppendThreads = 256;

/// Copies and zeroes the rows of the moa_append_item at `item`, by a block.
void copyRows(KernelBuilder &b, const KernelForm &form, mlir::Value item);

} // namespace moa::gpu

#endif // MOA_CONVERSION_TILETOGPU_APPEND_H
