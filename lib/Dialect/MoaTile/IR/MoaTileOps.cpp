//===- MoaTileOps.cpp - Operations ----------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Generated definitions of the tile operations. Verifiers: MoaTileVerify.cpp.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/MoaTile/IR/MoaTile.h"

#include "mlir/IR/Builders.h"

using namespace mlir;
using namespace moa::tile;

#define GET_OP_CLASSES
#include "moa/Dialect/MoaTile/IR/MoaTileOps.cpp.inc"
