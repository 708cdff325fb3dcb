//===- MoaTileFolds.cpp - Folds of the tile operations --------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Masks of masks merge; loops that hand their state through vanish. Loads,
// scores and other values without a use go away because they are pure.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/MoaTile/IR/MoaTile.h"

using namespace mlir;
using namespace moa::tile;

OpFoldResult ForBlocksOp::fold(FoldAdaptor) {
  Block &body = getBody().front();
  if (!llvm::hasSingleElement(body))
    return {};
  auto yield = cast<YieldOp>(body.back());
  return yield.getState() == body.getArgument(1) ? getInit() : OpFoldResult();
}

OpFoldResult MaskOp::fold(FoldAdaptor) {
  auto inner = getScores().getDefiningOp<MaskOp>();
  if (!inner || inner.getItem() != getItem() || inner.getBlock() != getBlock())
    return {};
  // Sink and window are joined by "or", so that a mask with one of them and a
  // mask with the other hide more than the mask with both.
  const MaskClass reach = MaskClass::Sink | MaskClass::Window;
  MaskClass ours = getClasses() & reach, theirs = inner.getClasses() & reach;
  if (ours != theirs && ours != MaskClass(0) && theirs != MaskClass(0))
    return {};
  setClasses(getClasses() | inner.getClasses());
  getScoresMutable().assign(inner.getScores());
  return getResult();
}
