//===- MoaTile.h - The moa_tile dialect ------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The one header to include for the tile dialect: types, attributes, ops. Its
// rationale stands in MoaTileDialect.td.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_DIALECT_MOATILE_IR_MOATILE_H
#define MOA_DIALECT_MOATILE_IR_MOATILE_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "moa/Dialect/MoaTile/IR/MoaTileDialect.h.inc"
#include "moa/Dialect/MoaTile/IR/MoaTileEnums.h.inc"
#define GET_ATTRDEF_CLASSES
#include "moa/Dialect/MoaTile/IR/MoaTileAttrs.h.inc"
#define GET_TYPEDEF_CLASSES
#include "moa/Dialect/MoaTile/IR/MoaTileTypes.h.inc"
#define GET_OP_CLASSES
#include "moa/Dialect/MoaTile/IR/MoaTileOps.h.inc"

namespace moa::tile {

/// Name of the ConfigAttr on a kernel function.
inline constexpr llvm::StringLiteral kConfigAttrName = "moa_tile.config";

/// The terms of the visibility rule that blocks of `segment` may fail; none for
/// blocks seen whole, all before the loops are split.
MaskClass maskTermsOf(Segment segment);

} // namespace moa::tile

#endif // MOA_DIALECT_MOATILE_IR_MOATILE_H
