//===- WarpProducts.h - What a warp multiplies in prefill -------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Products of a warp'"'"'s 16 query rows with a tile of keys and with one of
// values, and the rows that leave. Element types differ in nothing else.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOGPU_WARPPRODUCTS_H
#define MOA_CONVERSION_TILETOGPU_WARPPRODUCTS_H

#include "Builder.h"
#include "KernelForm.h"

#include <memory>

namespace moa::gpu {

class WarpProducts {
public:
  using Value = mlir::Value;
  using Values = llvm::SmallVector<Value>;

  virtual ~WarpProducts() = default;

  /// Takes up the warp's queries: rows `row` to `row` + 15 of a tile.
  virtual void setQueries(Value tile, Value row) = 0;
  /// Scores against the `count` keys of a tile, 4 a thread for each 8 of them.
  virtual Value scores(Value keys, int64_t count) = 0;
  /// Left operands of the product with values, from the exponents of scores.
  virtual Values leftOf(Value exponents) = 0;
  /// Zero sums of all outputs, 4 a thread for each 8 columns.
  virtual Values noOutputs() = 0;
  /// Multiplies each row of the outputs, now or as the next values are added.
  virtual void rescale(Value factor, llvm::MutableArrayRef<Value> outputs) = 0;
  /// Adds the product of `left` with the rows of a tile of values.
  virtual void addValues(Value values, mlir::ValueRange left,
                         llvm::MutableArrayRef<Value> outputs) = 0;
  /// Rounds finished outputs; what `storeRow` takes.
  virtual llvm::SmallVector<Values> rounded(mlir::ValueRange outputs) = 0;
  /// Stores what the thread has of its first (`half` 0) or second row, which
  /// starts at `row`.
  virtual void storeRow(llvm::ArrayRef<Values> rounded, int64_t half,
                        Value row) = 0;
};

/// Products of f16 or bf16.
std::unique_ptr<WarpProducts> makeProducts16(KernelBuilder &b,
                                             const KernelForm &form);

/// Products of f32, each three of tf32.
std::unique_ptr<WarpProducts> makeProductsF32(KernelBuilder &b,
                                              const KernelForm &form);

} // namespace moa::gpu

#endif // MOA_CONVERSION_TILETOGPU_WARPPRODUCTS_H
