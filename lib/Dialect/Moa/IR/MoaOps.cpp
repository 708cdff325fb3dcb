//===- MoaOps.cpp - Operations of the moa dialect -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Generated definitions of the moa operations and their interfaces. Verifiers:
// MoaVerify.cpp; folds: MoaFolds.cpp.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/Moa/IR/Moa.h"

#include "mlir/IR/Builders.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace moa;

#define GET_OP_CLASSES
#include "moa/Dialect/Moa/IR/MoaOps.cpp.inc"

KernelKind AttentionOp::getKernelKind() { return KernelKind::Prefill; }
KernelKind DecodeOp::getKernelKind() { return KernelKind::Decode; }

std::optional<int64_t> moa::layerOf(Operation *op) {
  auto function = op->getParentOfType<FunctionOpInterface>();
  if (!function)
    return std::nullopt;
  auto layer = function->getAttrOfType<IntegerAttr>(kLayerAttrName);
  return layer ? std::optional<int64_t>(layer.getInt()) : std::nullopt;
}
