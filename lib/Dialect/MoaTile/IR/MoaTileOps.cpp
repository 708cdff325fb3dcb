//===- MoaTileOps.cpp - Operations ----------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Generated definitions of the tile operations, and the mask that each segment
// needs. Verifiers: MoaTileVerify.cpp; folds: MoaTileFolds.cpp.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/MoaTile/IR/MoaTile.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace moa::tile;

#define GET_OP_CLASSES
#include "moa/Dialect/MoaTile/IR/MoaTileOps.cpp.inc"

MaskClass moa::tile::maskTermsOf(Segment segment) {
  switch (segment) {
  case Segment::Sink:
    return MaskClass::Sink;
  case Segment::Edge:
    return MaskClass::Sink | MaskClass::Window;
  case Segment::Full:
    return MaskClass(0);
  case Segment::All:
  case Segment::Diagonal:
    return MaskClass::Sink | MaskClass::Window | MaskClass::Causal;
  }
  llvm_unreachable("unknown segment");
}
