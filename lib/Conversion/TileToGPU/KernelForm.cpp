//===- KernelForm.cpp - What GPUs are lowered from ------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Follows the chain from its end, the store, to its start.
//
//===----------------------------------------------------------------------===//

#include "KernelForm.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;
using namespace moa::tile;

static InFlightDiagnostic refuse(Operation *op) {
  InFlightDiagnostic diag = op->emitOpError();
  diag.attachNote() << "convert-moa-to-tile makes kernels of the form that "
                       "GPUs are lowered from; do not split their loops";
  return diag;
}

/// The operation of type OpTy that `value` comes from, or null after an error.
template <typename OpTy>
static OpTy expectFrom(Operation *user, Value value, StringRef what) {
  if (auto op = value.getDefiningOp<OpTy>())
    return op;
  refuse(user) << "expected its " << what << " from "
               << OpTy::getOperationName();
  return nullptr;
}

/// The loop's body: keys, scores, their cap if they have one, whole mask,
/// softmax, values, accumulate.
static LogicalResult checkBody(ForBlocksOp loop, LoadQueriesOp queries) {
  auto yield = cast<YieldOp>(loop.getBody().front().back());
  auto accumulate = expectFrom<AccumulateOp>(yield, yield.getState(), "state");
  if (!accumulate)
    return failure();
  auto step =
      expectFrom<SoftmaxStepOp>(accumulate, accumulate.getState(), "state");
  auto values =
      expectFrom<LoadValuesOp>(accumulate, accumulate.getValues(), "values");
  auto mask =
      step ? expectFrom<MaskOp>(step, step.getScores(), "scores") : nullptr;
  auto cap = mask ? mask.getScores().getDefiningOp<SoftCapOp>() : nullptr;
  Operation *behind = cap ? cap.getOperation() : mask.getOperation();
  auto scores =
      behind ? expectFrom<ScoresOp>(behind, behind->getOperand(0), "scores")
             : nullptr;
  auto keys = scores ? expectFrom<LoadKeysOp>(scores, scores.getKeys(), "keys")
                     : nullptr;
  if (!values || !keys)
    return failure();
  if (mask.getClasses() != maskTermsOf(Segment::All))
    return refuse(mask) << "expected all mask classes over segment 'all'";
  if (scores.getQueries() != queries.getQueries())
    return refuse(scores) << "expected the kernel's own queries";
  if (accumulate.getProbabilities() != step.getProbabilities())
    return refuse(accumulate)
           << "expected the probabilities of its softmax step";
  return success();
}

static FailureOr<KernelForm> matchAttention(func::FuncOp kernel,
                                            ConfigAttr config, ItemKind kind) {
  Operation *store = kernel.getBody().front().back().getPrevNode();
  if (!isa_and_nonnull<StoreOp, StorePartialOp>(store))
    return refuse(kernel) << "expected a store before the return";
  auto loop = expectFrom<ForBlocksOp>(store, store->getOperand(0), "state");
  if (!loop)
    return failure();
  if (loop.getSegment() != Segment::All)
    return refuse(loop) << "expected segment 'all', got "
                        << stringifySegment(loop.getSegment());
  if (!expectFrom<InitOp>(loop, loop.getInit(), "state"))
    return failure();
  auto loads = kernel.getOps<LoadQueriesOp>();
  if (!llvm::hasSingleElement(loads))
    return refuse(kernel) << "expected one "
                          << LoadQueriesOp::getOperationName() << ", got "
                          << llvm::range_size(loads);
  LoadQueriesOp queries = *loads.begin();
  if (failed(checkBody(loop, queries)))
    return failure();
  auto keys = *loop.getBody().front().getOps<LoadKeysOp>().begin();
  TileType tile = keys.getTile().getType();
  KernelForm form{kind,
                  tile.getCols(),
                  tile.getElementType(),
                  config.getRows(),
                  config.getKeys(),
                  /*columns=*/0,
                  keys.getKv8()};
  auto mask = *loop.getBody().front().getOps<MaskOp>().begin();
  if (auto cap = mask.getScores().getDefiningOp<SoftCapOp>())
    form.softCap = cap.getLog2Cap();
  return form;
}

template <typename OpTy>
static FailureOr<KernelForm> matchRows(func::FuncOp kernel, ConfigAttr config,
                                       ItemKind kind) {
  auto copies = kernel.getOps<OpTy>();
  if (!llvm::hasSingleElement(copies))
    return refuse(kernel) << "expected one " << OpTy::getOperationName()
                          << ", got " << llvm::range_size(copies);
  OpTy copy = *copies.begin();
  return KernelForm{kind,
                    static_cast<int64_t>(copy.getDims()),
                    copy.getType(),
                    config.getRows(),
                    config.getKeys(),
                    /*columns=*/0};
}

FailureOr<KernelForm> moa::gpu::matchKernelForm(func::FuncOp kernel) {
  auto config = kernel->getAttrOfType<ConfigAttr>(kConfigAttrName);
  FunctionType type = kernel.getFunctionType();
  if (!config || type.getNumInputs() != 1 || type.getNumResults() != 0 ||
      !isa<ItemType>(type.getInput(0)) || kernel.isExternal() ||
      !llvm::hasSingleElement(kernel.getBody()))
    return refuse(kernel) << "expected '" << kConfigAttrName
                          << "', one argument of type !moa_tile.item, no "
                             "result and one block";
  ItemKind kind = cast<ItemType>(type.getInput(0)).getKind();
  if (kind == ItemKind::Append)
    return matchRows<CopyRowsOp>(kernel, config, kind);
  if (kind == ItemKind::Quantise)
    return matchRows<QuantiseRowsOp>(kernel, config, kind);
  if (kind != ItemKind::Rope)
    return matchAttention(kernel, config, kind);
  FailureOr<KernelForm> form = matchRows<RotateRowsOp>(kernel, config, kind);
  if (succeeded(form))
    form->rope = (*kernel.getOps<RotateRowsOp>().begin()).getRope();
  return form;
}
