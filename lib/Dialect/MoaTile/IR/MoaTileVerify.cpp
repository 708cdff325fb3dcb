//===- MoaTileVerify.cpp - Verifiers of the tile operations ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One function an op; every message starts with the constraint's id in
// MoaTileOps.td. Linearity of states is checked by verify-tile-form.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/MoaTile/IR/MoaTile.h"

using namespace mlir;
using namespace moa::tile;

static LogicalResult expectKind(Operation *op, ItemType item,
                                ArrayRef<ItemKind> kinds) {
  if (llvm::is_contained(kinds, item.getKind()))
    return success();
  InFlightDiagnostic diag = op->emitOpError("(C1) expected an item of kind ");
  llvm::interleave(
      kinds, [&](ItemKind kind) { diag << stringifyItemKind(kind); },
      [&] { diag << " or "; });
  return diag << ", got " << stringifyItemKind(item.getKind());
}

static LogicalResult expectAttention(Operation *op, ItemType item) {
  return expectKind(op, item, {ItemKind::Prefill, ItemKind::Decode});
}

static LogicalResult expectElement(Operation *op, Type type) {
  if (type.isF32() || type.isF16() || type.isBF16())
    return success();
  return op->emitOpError("(C2) expected type f32, f16 or bf16, got ") << type;
}

LogicalResult LoadQueriesOp::verify() {
  return expectAttention(*this, getItem().getType());
}

LogicalResult ForBlocksOp::verifyRegions() {
  Block &body = getBody().front();
  if (body.getNumArguments() != 2 || !body.getArgument(0).getType().isIndex() ||
      body.getArgument(1).getType() != getInit().getType())
    return emitOpError("(C1) expected body arguments (index, ")
           << getInit().getType() << "), got " << body.getArgumentTypes();
  auto yield = dyn_cast<YieldOp>(body.back());
  if (!yield || yield.getState().getType() != getInit().getType())
    return emitOpError("(C1) expected the body to end in a yield of ")
           << getInit().getType();
  ItemKind kind = getItem().getType().getKind();
  if (kind != ItemKind::Prefill && kind != ItemKind::Decode)
    return emitOpError("(C2) expected an item of kind prefill or decode, got ")
           << stringifyItemKind(kind);
  return success();
}

template <typename OpTy> static LogicalResult verifyLoadBlock(OpTy op) {
  if (failed(expectAttention(op, op.getItem().getType())))
    return failure();
  int64_t rows = op.getTile().getType().getRows();
  if (rows != 64 && rows != 128)
    return op.emitOpError("(C2) expected a tile of 64 or 128 rows, got ")
           << rows;
  Type element = op.getTile().getType().getElementType();
  if (op.getKv8() && element.isF32())
    return op.emitOpError("(C3) expected elements of f16 or bf16 beside kv8, "
                          "got ")
           << element;
  return success();
}
LogicalResult LoadKeysOp::verify() { return verifyLoadBlock(*this); }
LogicalResult LoadValuesOp::verify() { return verifyLoadBlock(*this); }

LogicalResult ScoresOp::verify() {
  TileType q = getQueries().getType(), k = getKeys().getType();
  TileType s = getScores().getType();
  if (q.getCols() != k.getCols())
    return emitOpError("(C1) expected queries and keys of one head size, got ")
           << q.getCols() << " and " << k.getCols();
  if (s.getRows() != q.getRows() || s.getCols() != k.getRows() ||
      !s.getElementType().isF32())
    return emitOpError("(C2) expected scores of ")
           << q.getRows() << "x" << k.getRows() << "xf32, got " << s;
  return success();
}

LogicalResult SoftCapOp::verify() {
  if (!getScores().getType().getElementType().isF32())
    return emitOpError("(C1) expected f32 scores, got ")
           << getScores().getType();
  if (!getCap().isFiniteNonZero() || getCap().isNegative())
    return emitOpError("(C2) expected a positive and finite cap, got ")
           << getCapAttr();
  return success();
}

LogicalResult MaskOp::verify() {
  if (getClasses() == static_cast<MaskClass>(0))
    return emitOpError("(C1) expected at least one mask class");
  if (!getScores().getType().getElementType().isF32())
    return emitOpError("(C2) expected f32 scores, got ")
           << getScores().getType();
  return success();
}

LogicalResult SoftmaxStepOp::verify() {
  TileType s = getScores().getType(), p = getProbabilities().getType();
  int64_t rows = getState().getType().getRows();
  if (s.getRows() != rows || p.getRows() != rows || s.getCols() != p.getCols())
    return emitOpError("(C1) expected scores and probabilities of ")
           << rows << " rows and equal columns, got " << s << " and " << p;
  return success();
}

LogicalResult AccumulateOp::verify() {
  TileType p = getProbabilities().getType(), v = getValues().getType();
  StateType state = getState().getType();
  if (p.getRows() != state.getRows() || p.getCols() != v.getRows())
    return emitOpError("(C1) expected probabilities of ")
           << state.getRows() << "x" << v.getRows() << ", got " << p;
  if (v.getCols() != state.getDims())
    return emitOpError("(C2) expected values of ")
           << state.getDims() << " columns, got " << v.getCols();
  return success();
}

LogicalResult StoreOp::verify() {
  if (failed(expectKind(*this, getItem().getType(), {ItemKind::Prefill})))
    return failure();
  return expectElement(*this, getType());
}

LogicalResult StorePartialOp::verify() {
  return expectKind(*this, getItem().getType(), {ItemKind::Decode});
}

template <typename OpTy>
static LogicalResult verifyRows(OpTy op, ItemKind kind) {
  if (failed(expectKind(op, op.getItem().getType(), {kind})) ||
      failed(expectElement(op, op.getType())))
    return failure();
  int64_t dims = op.getDims(); // The accessor is unsigned.
  if (dims < 1)
    return op.emitOpError("(C2) expected a positive dims, got ") << dims;
  return success();
}

LogicalResult CopyRowsOp::verify() {
  return verifyRows(*this, ItemKind::Append);
}

LogicalResult QuantiseRowsOp::verify() {
  if (failed(verifyRows(*this, ItemKind::Quantise)))
    return failure();
  if (getType().isF32())
    return emitOpError("(C2) expected type f16 or bf16, got ") << getType();
  return success();
}

LogicalResult RotateRowsOp::verify() {
  if (failed(verifyRows(*this, ItemKind::Rope)))
    return failure();
  int64_t dims = getDims();
  if (getRope().getRotaryDim() > dims)
    return emitOpError("(C3) expected to rotate at most ")
           << dims << " elements, got " << getRope();
  return success();
}
