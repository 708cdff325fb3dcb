//===- Prefill.h - What prefill kernels have in common ----------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Items, the window of some rows that follow one another (a warpgroup's 64 on
// Hopper, a warp's 16 elsewhere), and what a softmax begins with.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOGPU_PREFILL_H
#define MOA_CONVERSION_TILETOGPU_PREFILL_H

#include "Builder.h"

#include "moa/abi/gpu_args.h"

namespace moa::gpu::prefill {

using mlir::Value;
using mlir::ValueRange;
using mlir::VectorType;

/// The fields of a moa_gpu_prefill_item.
struct ItemFields {
  llvm::SmallVector<Value> fields;

  Value field(size_t byteOffset) const { return fields[byteOffset / 4]; }
};
#define FIELD(item, name) (item).field(offsetof(moa_gpu_prefill_item, name))

/// What some rows of an item see.
struct Window {
  Value position;       ///< Of the first row.
  Value lanePosition;   ///< Of the first of the thread's two rows.
  Value start0, start1; ///< Window starts of the thread's rows.
  Value startMax;       ///< Largest window start of the rows.
};

/// The window of `rows` rows from row `firstRow` of the item on, of which the
/// thread's first is row `laneRow`; `starts` as the kernel was given them.
Window loadWindow(KernelBuilder &b, const ItemFields &item, Value starts,
                  Value firstRow, Value laneRow, int64_t rows);

/// Scores of keys from position `firstKey` on, with minus infinity where a row
/// does not see a key.
Value masked(KernelBuilder &b, const Window &window, Value scores,
             Value firstKey, Value sink);

/// The same, where the diagonal or the left end of a window cuts the `keys`
/// keys; else the scores.
Value maskWhereNeeded(KernelBuilder &b, const Window &window, Value scores,
                      Value firstKey, int64_t keys, Value sink);

/// The largest score of each row, times `scale`.
Value scaledMaximum(KernelBuilder &b, Value scores, Value scale);

/// What exponents are taken relative to: the maximum of scaled scores; where a
/// row may not have seen a key yet (`mayBeEmpty`), 0 for such a row, so that no
/// infinity is taken from another.
Value boundOf(KernelBuilder &b, Value maximum, bool mayBeEmpty);

} // namespace moa::gpu::prefill

#endif // MOA_CONVERSION_TILETOGPU_PREFILL_H
