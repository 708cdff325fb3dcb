//===- MoaFolds.cpp - Folds of the moa operations -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rules that mean the same are written alike, so that equal windows become one
// attribute; appending no tokens is nothing. Operations without a use go away
// because they are pure.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/Moa/IR/Moa.h"

using namespace mlir;
using namespace moa;

OpFoldResult CacheAppendOp::fold(FoldAdaptor) {
  bool none = cast<RankedTensorType>(getKeys().getType()).getDimSize(0) == 0;
  return none ? OpFoldResult(getCache()) : OpFoldResult();
}

static OpFoldResult foldWindow(WindowedOpInterface op) {
  WindowAttr window = op.getWindowAttr();
  if (!window || window.getCanonical() == window)
    return {};
  op.setWindowAttr(window.getCanonical());
  return op->getResult(0);
}

OpFoldResult AttentionOp::fold(FoldAdaptor) { return foldWindow(*this); }

OpFoldResult DecodeOp::fold(FoldAdaptor) { return foldWindow(*this); }
