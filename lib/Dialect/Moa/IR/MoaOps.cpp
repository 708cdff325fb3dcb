//===- MoaOps.cpp - Operations of the moa dialect -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Verifiers of the moa operations; messages start with the constraint's id in
// MoaOps.td.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/Moa/IR/Moa.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/BuiltinOps.h"
#include "moa/abi/kernel_args.h"

using namespace mlir;
using namespace moa;

#define GET_OP_CLASSES
#include "moa/Dialect/Moa/IR/MoaOps.cpp.inc"

KernelKind AttentionOp::getKernelKind() { return KernelKind::Prefill; }
KernelKind DecodeOp::getKernelKind() { return KernelKind::Decode; }

LogicalResult CacheAppendOp::verify() {
  auto rows = cast<RankedTensorType>(getKeys().getType());
  CacheType cache = getCache().getType();
  if (rows.getDimSize(1) != cache.getHeads() ||
      rows.getDimSize(2) != cache.getDims() ||
      rows.getElementType() != cache.getElementType())
    return emitOpError("(C1) expected keys and values of ?x")
           << cache.getHeads() << "x" << cache.getDims() << "x"
           << cache.getElementType() << ", got " << rows;
  return success();
}

/// What moa.attention and moa.decode have in common.
static LogicalResult verifyAttend(WindowedOpInterface op,
                                  RankedTensorType rows) {
  CacheType cache = op.getCacheType();
  int64_t heads = rows.getDimSize(1);
  if (heads % cache.getHeads() || heads < cache.getHeads() ||
      heads / cache.getHeads() > MOA_MAX_GROUP)
    return op->emitOpError("(C1) expected query heads to be 1 to ")
           << MOA_MAX_GROUP << " times the cache's " << cache.getHeads()
           << " heads, got " << heads;
  if (rows.getDimSize(2) != cache.getDims() ||
      rows.getElementType() != cache.getElementType())
    return op->emitOpError("(C2) expected queries of ?x")
           << heads << "x" << cache.getDims() << "x" << cache.getElementType()
           << " for this cache, got " << rows;
  if (WindowAttr window = op.getWindowAttr())
    if (static_cast<int64_t>(window.getSpans().size()) != heads)
      return op->emitOpError("(C3) expected one span per query head (")
             << heads << "), got " << window.getSpans().size();
  return success();
}

LogicalResult AttentionOp::verify() {
  return verifyAttend(*this, cast<RankedTensorType>(getQueries().getType()));
}

LogicalResult DecodeOp::verify() {
  auto rows = cast<RankedTensorType>(getQueries().getType());
  if (rows.getDimSize(0) != 1)
    return emitOpError("(C4) expected exactly one row, got ") << rows;
  return verifyAttend(*this, rows);
}

LogicalResult LaunchOp::verifySymbolUses(SymbolTableCollection &tables) {
  auto kernel =
      tables.lookupNearestSymbolFrom<ModuleOp>(*this, getKernelAttr());
  if (!kernel)
    return emitOpError("(C1) expected a kernel module named '")
           << getKernel() << "'";
  if (!kernel->hasAttrOfType<KernelAttr>(kKernelAttrName))
    return emitOpError("(C1) expected '")
           << getKernel() << "' to have attribute '" << kKernelAttrName << "'";
  return success();
}
