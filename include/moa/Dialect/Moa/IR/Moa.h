//===- Moa.h - The moa dialect ----------------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The one header to include for the moa dialect: attributes, types, interfaces,
// ops. Rationale: README.md beside the IR folder.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_DIALECT_MOA_IR_MOA_H
#define MOA_DIALECT_MOA_IR_MOA_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "moa/abi/span.h"

#include "moa/Dialect/Moa/IR/MoaDialect.h.inc"
#include "moa/Dialect/Moa/IR/MoaEnums.h.inc"
#define GET_ATTRDEF_CLASSES
#include "moa/Dialect/Moa/IR/MoaAttrs.h.inc"
#define GET_TYPEDEF_CLASSES
#include "moa/Dialect/Moa/IR/MoaTypes.h.inc"

#include "moa/Dialect/Moa/IR/MoaInterfaces.h.inc"
#define GET_OP_CLASSES
#include "moa/Dialect/Moa/IR/MoaOps.h.inc"

namespace moa {

/// ModelAttr on a module.
inline constexpr llvm::StringLiteral kModelAttrName = "moa.model";
/// SHA-256 of the plan's canonical form, hex, on a module.
inline constexpr llvm::StringLiteral kPlanIdAttrName = "moa.plan_id";
/// Layer number, i64, on a function.
inline constexpr llvm::StringLiteral kLayerAttrName = "moa.layer";
/// KernelAttr on a nested module.
inline constexpr llvm::StringLiteral kKernelAttrName = "moa.kernel";

/// Whether compiled kernels exist for heads of this size.
bool isSupportedHeadDim(int64_t dim);

/// Whether kernels exist for this soft cap: an f32 between 2^-20 and 2^20.
bool isSoftCap(mlir::FloatAttr cap);

/// The layer that `op` belongs to: `moa.layer` of the function around it.
std::optional<int64_t> layerOf(mlir::Operation *op);

} // namespace moa

#endif // MOA_DIALECT_MOA_IR_MOA_H
