//===- ScoreScale.h - From raw scores to exponents --------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Kernels keep raw scores and multiply them with a scale where they become
// exponents. Of a kernel with a soft cap the raw score is tanh(scale * score /
// cap), and the scale the cap: maxima, masks and merges know nothing of it.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOGPU_SCORESCALE_H
#define MOA_CONVERSION_TILETOGPU_SCORESCALE_H

#include "Builder.h"
#include "KernelForm.h"

namespace moa::gpu {

class ScoreScale {
public:
  ScoreScale() = default;
  /// In a kernel of this form whose parameter is `scale`, that of products of
  /// queries and keys times log2(e).
  ScoreScale(KernelBuilder &b, const KernelForm &form, mlir::Value scale);

  /// What raw scores are multiplied with.
  operator mlir::Value() const { return scale; }
  /// Products of queries and keys as raw scores.
  mlir::Value raw(KernelBuilder &b, mlir::Value products) const;

private:
  mlir::Value scale;
  mlir::Value inner; ///< Scale / cap; null without one.
  bool approximate = false;
};

} // namespace moa::gpu

#endif // MOA_CONVERSION_TILETOGPU_SCORESCALE_H
