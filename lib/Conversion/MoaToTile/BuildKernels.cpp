//===- BuildKernels.cpp - Bodies of tile kernels --------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Prefill and decode share one body: load the queries, walk every block with
// the whole mask, store. Append copies rows, rope rotates them before.
//
//===----------------------------------------------------------------------===//

#include "BuildKernels.h"

#include "mlir/IR/Builders.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace moa;

/// A positive f32 as it may stand in a symbol: 50, 0p25, 1em06.
static std::string symbolOf(double value) {
  std::string text;
  llvm::raw_string_ostream(text) << llvm::format("%.9g", value);
  llvm::replace(text, '.', 'p');
  llvm::replace(text, '-', 'm');
  llvm::erase(text, '+');
  return text;
}

std::string KernelStructure::name() const {
  std::string text =
      llvm::formatv("{0}_d{1}", stringifyKernelKind(kind), headDim);
  if (kind == KernelKind::Decode)
    text += llvm::formatv("_g{0}", group);
  if (rope)
    text += llvm::formatv("_{0}{1}", stringifyRopeLayout(rope.getLayout()),
                          rope.getRotaryDim());
  llvm::raw_string_ostream(text) << '_' << dtype << (kv8 ? "_kv8" : "");
  if (softCap)
    text += "_cap" + symbolOf(softCap.getValueAsDouble());
  return text;
}

static tile::ItemKind itemKind(KernelKind kind) {
  switch (kind) {
  case KernelKind::Prefill:
    return tile::ItemKind::Prefill;
  case KernelKind::Decode:
    return tile::ItemKind::Decode;
  case KernelKind::Append:
    return tile::ItemKind::Append;
  case KernelKind::Rope:
    return tile::ItemKind::Rope;
  case KernelKind::Quantise:
    return tile::ItemKind::Quantise;
  }
  llvm_unreachable("unknown kernel kind");
}

/// The body of one block: scores, mask, softmax, values.
static void buildBlock(OpBuilder &b, Location loc, Value item, Value queries,
                       Value block, Value state,
                       const KernelStructure &structure) {
  MLIRContext *ctx = b.getContext();
  int64_t rows = structure.config.getRows(), keys = structure.config.getKeys();
  auto kvType =
      tile::TileType::get(ctx, keys, structure.headDim, structure.dtype);
  auto scoreType = tile::TileType::get(ctx, rows, keys, b.getF32Type());
  auto whole =
      tile::MaskClass::Sink | tile::MaskClass::Window | tile::MaskClass::Causal;
  Value k =
      tile::LoadKeysOp::create(b, loc, kvType, item, block, structure.kv8);
  Value s = tile::ScoresOp::create(b, loc, scoreType, queries, k);
  if (structure.softCap)
    s = tile::SoftCapOp::create(b, loc, scoreType, s, structure.softCap);
  Value masked = tile::MaskOp::create(b, loc, scoreType, whole, s, item, block);
  auto step = tile::SoftmaxStepOp::create(
      b, loc, TypeRange{scoreType, state.getType()}, masked, state);
  Value v =
      tile::LoadValuesOp::create(b, loc, kvType, item, block, structure.kv8);
  Value next = tile::AccumulateOp::create(b, loc, state.getType(),
                                          step.getProbabilities(), v,
                                          step.getResult(), /*skip_zero=*/true);
  tile::YieldOp::create(b, loc, next);
}

static void buildAttention(OpBuilder &b, Location loc, Value item,
                           const KernelStructure &structure) {
  MLIRContext *ctx = b.getContext();
  int64_t rows = structure.config.getRows();
  auto queryType =
      tile::TileType::get(ctx, rows, structure.headDim, b.getF32Type());
  auto stateType = tile::StateType::get(ctx, rows, structure.headDim);
  Value queries = tile::LoadQueriesOp::create(b, loc, queryType, item);
  Value init = tile::InitOp::create(b, loc, stateType);
  auto loop = tile::ForBlocksOp::create(b, loc, stateType, tile::Segment::All,
                                        item, init);
  {
    OpBuilder::InsertionGuard guard(b);
    Block *body = b.createBlock(&loop.getBody(), {},
                                {b.getIndexType(), stateType}, {loc, loc});
    buildBlock(b, loc, item, queries, body->getArgument(0),
               body->getArgument(1), structure);
  }
  if (structure.kind == KernelKind::Decode)
    tile::StorePartialOp::create(b, loc, loop.getResult(), item);
  else
    tile::StoreOp::create(b, loc, loop.getResult(), item, structure.dtype);
}

func::FuncOp moa::buildKernel(OpBuilder &b, Location loc,
                              const KernelStructure &structure) {
  auto itemType = tile::ItemType::get(b.getContext(), itemKind(structure.kind));
  auto function = func::FuncOp::create(b, loc, structure.name(),
                                       b.getFunctionType({itemType}, {}));
  function->setAttr(tile::kConfigAttrName, structure.config);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(function.addEntryBlock());
  Value item = function.getArgument(0);
  if (structure.kind == KernelKind::Append)
    tile::CopyRowsOp::create(b, loc, item, structure.headDim, structure.dtype);
  else if (structure.kind == KernelKind::Rope)
    tile::RotateRowsOp::create(b, loc, item, structure.headDim, structure.dtype,
                               structure.rope);
  else if (structure.kind == KernelKind::Quantise)
    tile::QuantiseRowsOp::create(b, loc, item, structure.headDim,
                                 structure.dtype);
  else
    buildAttention(b, loc, item, structure);
  func::ReturnOp::create(b, loc);
  return function;
}
