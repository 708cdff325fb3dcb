//===- MoaGPU.h - The moa_gpu dialect --------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The one header to include for the GPU dialect: types, attributes, ops. Its
// rationale stands in MoaGPUDialect.td.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_DIALECT_MOAGPU_IR_MOAGPU_H
#define MOA_DIALECT_MOAGPU_IR_MOAGPU_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/Dialect/LLVMIR/LLVMTypes.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/OpImplementation.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

#include "moa/Dialect/MoaGPU/IR/MoaGPUDialect.h.inc"
#include "moa/Dialect/MoaGPU/IR/MoaGPUEnums.h.inc"
#define GET_ATTRDEF_CLASSES
#include "moa/Dialect/MoaGPU/IR/MoaGPUAttrs.h.inc"
#define GET_TYPEDEF_CLASSES
#include "moa/Dialect/MoaGPU/IR/MoaGPUTypes.h.inc"
#define GET_OP_CLASSES
#include "moa/Dialect/MoaGPU/IR/MoaGPUOps.h.inc"

namespace moa::gpu {

/// Name of the LaunchAttr on a kernel function.
inline constexpr llvm::StringLiteral kLaunchAttrName = "moa_gpu.launch";

} // namespace moa::gpu

#endif // MOA_DIALECT_MOAGPU_IR_MOAGPU_H
