//===- KernelForm.cpp - What the CPU lowering takes -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Signature, then shapes, then the chain: queries and a state, loops that each
// compute one block, a store. The verifiers of the operations have run already.
//
//===----------------------------------------------------------------------===//

#include "KernelForm.h"

#include "moa/Dialect/MoaTile/IR/MoaTile.h"

using namespace mlir;
using namespace moa;
using namespace moa::tile;

/// The largest head size: bodies are unrolled along it.
static constexpr int64_t kMaxHeadSize = 256;

/// An error at `op` about the form, with its cure.
static InFlightDiagnostic refuse(Operation *op) {
  InFlightDiagnostic diag = op->emitOpError();
  diag.attachNote() << "convert-moa-to-tile, then moa-split-tile-loops, make "
                       "kernels of the form that CPUs are lowered from";
  return diag;
}

static std::string nameOf(Value value) {
  Operation *op = value.getDefiningOp();
  return op ? op->getName().getStringRef().str() : "a block argument";
}

/// Fails unless `value`, `what` to the user, is a result of an OpTy in the same
/// block.
template <typename OpTy>
static LogicalResult comesFrom(Operation *user, Value value, StringRef what) {
  auto op = value.getDefiningOp<OpTy>();
  if (op && op->getBlock() == user->getBlock())
    return success();
  return refuse(user) << "expected its " << what << " from "
                      << OpTy::getOperationName() << " in the same block, got "
                      << (op ? "another block's" : nameOf(value));
}

/// The only OpTy of a block, or null after an error at `where`.
template <typename OpTy> static OpTy only(Block &block, Operation *where) {
  auto ops = block.getOps<OpTy>();
  int64_t count = std::distance(ops.begin(), ops.end());
  if (count == 1)
    return *ops.begin();
  refuse(where) << "expected one " << OpTy::getOperationName() << ", got "
                << count;
  return nullptr;
}

/// Fails at the first operation of `block` that is none of OpTys.
template <typename... OpTys>
static LogicalResult consistsOf(Block &block, StringRef what) {
  for (Operation &op : block)
    if (!isa<OpTys...>(op))
      return refuse(&op) << "has no place in " << what;
  return success();
}

static LogicalResult checkSignature(func::FuncOp kernel) {
  if (kernel.isExternal())
    return refuse(kernel) << "expected a kernel with a body, got a declaration";
  Attribute config = kernel->getAttr(kConfigAttrName);
  if (!isa<ConfigAttr>(config))
    return refuse(kernel) << "expected '" << kConfigAttrName
                          << "' to be a #moa_tile.config, got " << config;
  FunctionType type = kernel.getFunctionType();
  if (type.getNumInputs() != 1 || !isa<ItemType>(type.getInput(0)) ||
      type.getNumResults() != 0)
    return refuse(kernel)
           << "expected one argument of type !moa_tile.item and no result, got "
           << type;
  if (!llvm::hasSingleElement(kernel.getBody()))
    return refuse(kernel) << "expected one block, got "
                          << kernel.getBody().getBlocks().size();
  return success();
}

template <typename OpTy>
static LogicalResult checkRows(Block &entry, StringRef what) {
  if (failed(consistsOf<OpTy, func::ReturnOp>(entry, what)))
    return failure();
  for (auto copy : entry.getOps<OpTy>()) {
    int64_t dims = copy.getDims();
    if (dims > kMaxHeadSize)
      return refuse(copy) << "expected a head size of at most " << kMaxHeadSize
                          << ", got " << dims;
    int64_t bytes = dims * copy.getType().getIntOrFloatBitWidth() / 8;
    if (bytes % 4)
      return refuse(copy) << "expected rows of a multiple of 4 bytes, got "
                          << dims << " of " << copy.getType() << ", " << bytes
                          << " bytes";
    if (isa<QuantiseRowsOp>(copy) && dims % 16)
      return refuse(copy) << "expected a head size that is a multiple of 16, "
                             "got "
                          << dims;
  }
  return success();
}

static LogicalResult checkQueries(LoadQueriesOp load, ConfigAttr config) {
  TileType queries = load.getQueries().getType();
  ItemKind kind = load.getItem().getType().getKind();
  Lanes lanes = kind == ItemKind::Prefill ? Lanes::Rows : Lanes::Dims;
  if (config.getLanes() != lanes)
    return refuse(load) << "expected lanes = " << stringifyLanes(lanes)
                        << " in '" << kConfigAttrName
                        << "' for an item of kind " << stringifyItemKind(kind)
                        << ", got " << stringifyLanes(config.getLanes());
  if (config.getRows() > 64 || config.getKeys() != 64)
    return refuse(load) << "expected at most 64 rows and 64 keys in '"
                        << kConfigAttrName << "' for a CPU, got "
                        << config.getRows() << " and " << config.getKeys();
  if (queries.getRows() != config.getRows())
    return refuse(load) << "expected queries of " << config.getRows()
                        << " rows, as '" << kConfigAttrName << "' says, got "
                        << queries.getRows();
  if (!queries.getElementType().isF32())
    return refuse(load) << "expected queries of f32, in which scores are "
                           "computed, got "
                        << queries.getElementType();
  if (queries.getCols() % 16 || queries.getCols() > kMaxHeadSize)
    return refuse(load)
           << "expected a head size that is a multiple of 16, at most "
           << kMaxHeadSize << ", got " << queries.getCols();
  return success();
}

/// Fails unless `type` is that of the kernel's keys.
static LogicalResult checkElement(Operation *op, Type type, Type element) {
  if (type == element)
    return success();
  return refuse(op) << "expected element type " << element
                    << ", that of the kernel's first keys, got " << type;
}

/// Scores reach the softmax by a cap, if there is one, then a mask, if there is
/// one.
static LogicalResult checkScores(Block &body, SoftmaxStepOp step, MaskOp mask) {
  auto caps = llvm::to_vector(body.getOps<SoftCapOp>());
  if (caps.size() > 1)
    return refuse(caps[1]) << "expected at most one soft cap, got "
                           << caps.size();
  auto fromScores = [&](Operation *user, Value scores) {
    return caps.empty() ? comesFrom<ScoresOp>(user, scores, "scores")
                        : comesFrom<SoftCapOp>(user, scores, "scores");
  };
  if (!caps.empty() &&
      failed(comesFrom<ScoresOp>(caps[0], caps[0].getScores(), "scores")))
    return failure();
  if (!mask)
    return fromScores(step, step.getScores());
  if (failed(fromScores(mask, mask.getScores())))
    return failure();
  return comesFrom<MaskOp>(step, step.getScores(), "scores");
}

/// The values of one block flow from keys to the next state.
static LogicalResult checkLoop(ForBlocksOp loop, LoadQueriesOp queries,
                               Type element) {
  if (loop.getSegment() == Segment::All)
    return refuse(loop) << "walks segment 'all', which has no CPU form";
  Block &body = loop.getBody().front();
  if (failed(consistsOf<LoadKeysOp, ScoresOp, SoftCapOp, MaskOp, SoftmaxStepOp,
                        LoadValuesOp, AccumulateOp, YieldOp>(
          body, "a loop over blocks")))
    return failure();
  auto keys = only<LoadKeysOp>(body, loop);
  auto scores = keys ? only<ScoresOp>(body, loop) : nullptr;
  auto step = scores ? only<SoftmaxStepOp>(body, loop) : nullptr;
  auto values = step ? only<LoadValuesOp>(body, loop) : nullptr;
  auto accumulate = values ? only<AccumulateOp>(body, loop) : nullptr;
  if (!accumulate)
    return failure();
  auto masks = llvm::to_vector(body.getOps<MaskOp>());
  if (masks.size() > 1)
    return refuse(masks[1])
           << "expected at most one mask, got " << masks.size();
  if (keys.getKv8() != values.getKv8())
    return refuse(values) << "expected kv8 on keys and values alike, got it on "
                          << (keys.getKv8() ? "keys" : "values") << " alone";
  if (failed(checkElement(keys, keys.getTile().getType().getElementType(),
                          element)) ||
      failed(checkElement(values, values.getTile().getType().getElementType(),
                          element)))
    return failure();
  if (scores.getQueries() != queries.getQueries())
    return refuse(scores) << "expected its queries from the kernel's "
                          << LoadQueriesOp::getOperationName() << ", got "
                          << nameOf(scores.getQueries());
  if (failed(comesFrom<LoadKeysOp>(scores, scores.getKeys(), "keys")))
    return failure();
  if (failed(checkScores(body, step, masks.empty() ? MaskOp() : masks[0])))
    return failure();
  Type probabilities = step.getProbabilities().getType().getElementType();
  if (!probabilities.isF32())
    return refuse(step) << "expected probabilities of f32, got "
                        << probabilities;
  if (failed(comesFrom<SoftmaxStepOp>(accumulate, accumulate.getProbabilities(),
                                      "probabilities")) ||
      failed(comesFrom<LoadValuesOp>(accumulate, accumulate.getValues(),
                                     "values")) ||
      failed(
          comesFrom<SoftmaxStepOp>(accumulate, accumulate.getState(), "state")))
    return failure();
  auto yield = cast<YieldOp>(body.back());
  return comesFrom<AccumulateOp>(yield, yield.getState(), "state");
}

/// A state is updated in place.
static LogicalResult checkLinear(Value state) {
  if (state.hasOneUse())
    return success();
  return refuse(state.getDefiningOp())
         << "expected its state to be used exactly once, got "
         << llvm::range_size(state.getUses()) << " uses";
}

static LogicalResult checkAttention(func::FuncOp kernel, Block &entry) {
  if (failed(consistsOf<LoadQueriesOp, InitOp, ForBlocksOp, StoreOp,
                        StorePartialOp, func::ReturnOp>(entry,
                                                        "an attention kernel")))
    return failure();
  auto queries = only<LoadQueriesOp>(entry, kernel);
  auto config = kernel->getAttrOfType<ConfigAttr>(kConfigAttrName);
  if (!queries || failed(checkQueries(queries, config)))
    return failure();
  auto init = only<InitOp>(entry, kernel);
  if (!init)
    return failure();
  TileType shape = queries.getQueries().getType();
  StateType state = init.getState().getType();
  if (state.getRows() != shape.getRows() || state.getDims() != shape.getCols())
    return refuse(init) << "expected a state of " << shape.getRows() << "x"
                        << shape.getCols() << ", the shape of the queries, got "
                        << state.getRows() << "x" << state.getDims();
  auto loops = llvm::to_vector(entry.getOps<ForBlocksOp>());
  if (loops.empty())
    return refuse(kernel) << "expected at least one "
                          << ForBlocksOp::getOperationName() << ", got none";
  Type element;
  loops.front().getBody().walk([&](LoadKeysOp op) {
    if (!element)
      element = op.getTile().getType().getElementType();
  });
  if (failed(checkLinear(init.getState())))
    return failure();
  for (ForBlocksOp loop : loops)
    if (failed(checkLoop(loop, queries, element)) ||
        failed(checkLinear(loop.getResult())))
      return failure();
  for (auto store : entry.getOps<StoreOp>())
    if (failed(checkElement(store, store.getType(), element)))
      return failure();
  return success();
}

LogicalResult moa::cpu::checkKernelForm(func::FuncOp kernel) {
  if (failed(checkSignature(kernel)))
    return failure();
  Block &entry = kernel.getBody().front();
  auto item = cast<ItemType>(kernel.getArgumentTypes().front());
  switch (item.getKind()) {
  case ItemKind::Append:
    return checkRows<CopyRowsOp>(entry, "an append kernel");
  case ItemKind::Rope:
    return checkRows<RotateRowsOp>(entry, "a rope kernel");
  case ItemKind::Quantise:
    return checkRows<QuantiseRowsOp>(entry, "a quantise kernel");
  case ItemKind::Prefill:
  case ItemKind::Decode:
    return checkAttention(kernel, entry);
  }
  llvm_unreachable("unknown item kind");
}
