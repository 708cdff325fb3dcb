//===- VerifyTileForm.cpp - Check the form that targets lower from --------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The contract between this level and the conversions below it, checked once,
// so that they need not.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/MoaTile/Transforms/Passes.h"

#include "mlir/Interfaces/FunctionInterfaces.h"

namespace moa::tile {
#define GEN_PASS_DEF_MOAVERIFYTILEFORM
#include "moa/Dialect/MoaTile/Transforms/Passes.h.inc"
} // namespace moa::tile

using namespace mlir;
using namespace moa::tile;

namespace {

struct VerifyTileForm
    : public moa::tile::impl::MoaVerifyTileFormBase<VerifyTileForm> {
  void runOnOperation() override;
};

} // namespace

/// A kernel takes one item and says how it is tiled.
static LogicalResult verifyKernel(FunctionOpInterface function) {
  bool takesItem = llvm::any_of(function.getArgumentTypes(),
                                [](Type type) { return isa<ItemType>(type); });
  if (!takesItem)
    return success();
  if (function.getNumArguments() != 1)
    return function.emitOpError(
               "expected a kernel to take one item alone, got ")
           << function.getNumArguments() << " arguments";
  if (!function->hasAttrOfType<ConfigAttr>(kConfigAttrName)) {
    InFlightDiagnostic diag = function.emitOpError("expected attribute '")
                              << kConfigAttrName << "' on a kernel";
    diag.attachNote() << "convert-moa-to-tile sets it";
    return diag;
  }
  return success();
}

/// States are linear, so that a target may update them in place.
static LogicalResult verifyLinear(Operation *op) {
  auto check = [&](Value value) -> LogicalResult {
    if (!isa<StateType>(value.getType()) || value.hasOneUse())
      return success();
    if (value.use_empty())
      return op->emitOpError("expected its state to be used exactly once, but "
                             "it is never used");
    InFlightDiagnostic diag =
        op->emitOpError("expected its state to be used exactly once, got ")
        << llvm::range_size(value.getUses()) << " uses";
    for (Operation *user : value.getUsers())
      diag.attachNote(user->getLoc()) << "used here";
    return diag;
  };
  for (Value result : op->getResults())
    if (failed(check(result)))
      return failure();
  for (Region &region : op->getRegions())
    for (Block &block : region)
      for (Value argument : block.getArguments())
        if (failed(check(argument)))
          return failure();
  return success();
}

static std::string describe(MaskClass terms) {
  return terms == MaskClass(0) ? "(none)"
                               : "(" + stringifyMaskClass(terms) + ")";
}

/// Each segment has exactly the mask it needs, and guards values where it has.
static LogicalResult verifyLoop(ForBlocksOp loop) {
  Segment segment = loop.getSegment();
  if (segment == Segment::All) {
    InFlightDiagnostic diag =
        loop.emitOpError("expected a loop over one kind of block, got 'all'");
    diag.attachNote() << "moa-split-tile-loops splits it";
    return diag;
  }
  MaskClass terms = maskTermsOf(segment);
  bool masked = terms != MaskClass(0);
  WalkResult result = loop.walk([&](Operation *op) -> WalkResult {
    std::string want;
    if (auto step = dyn_cast<SoftmaxStepOp>(op)) {
      auto mask = step.getScores().getDefiningOp<MaskOp>();
      MaskClass found = mask ? mask.getClasses() : MaskClass(0);
      if (found != terms)
        want = "scores with mask " + describe(terms) + ", got " +
               describe(found) + ",";
    } else if (auto accumulate = dyn_cast<AccumulateOp>(op)) {
      if (accumulate.getSkipZero() != masked)
        want = masked ? "skip_zero" : "no skip_zero";
    }
    if (want.empty())
      return WalkResult::advance();
    InFlightDiagnostic diag = op->emitOpError("expected ")
                              << want << " in segment '"
                              << stringifySegment(segment) << "'";
    diag.attachNote() << "moa-split-tile-loops makes loops of that form";
    return diag;
  });
  return failure(result.wasInterrupted());
}

void VerifyTileForm::runOnOperation() {
  WalkResult result = getOperation()->walk([](Operation *op) -> WalkResult {
    if (auto function = dyn_cast<FunctionOpInterface>(op))
      if (failed(verifyKernel(function)))
        return WalkResult::interrupt();
    if (auto loop = dyn_cast<ForBlocksOp>(op))
      if (failed(verifyLoop(loop)))
        return WalkResult::interrupt();
    return verifyLinear(op);
  });
  if (result.wasInterrupted())
    return signalPassFailure();
  markAllAnalysesPreserved();
}
