//===- MoaTile.td - The moa_tile dialect: umbrella ---------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TILE_TD
#define MOA_TILE_TD

include "moa/Dialect/MoaTile/IR/MoaTileDialect.td"
include "moa/Dialect/MoaTile/IR/MoaTileEnums.td"
include "moa/Dialect/MoaTile/IR/MoaTileTypes.td"
include "moa/Dialect/MoaTile/IR/MoaTileOps.td"

#endif // MOA_TILE_TD
