//===- ApplyPlan.cpp - Give each layer the windows of a plan --------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads the plan through lib/Plan, checks it against the module's model, and
// writes one window a layer.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/Moa/Transforms/Passes.h"
#include "moa/Plan/Plan.h"

#include "mlir/IR/BuiltinOps.h"

namespace moa {
#define GEN_PASS_DEF_MOAAPPLYPLAN
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;

namespace {

struct ApplyPlan : public moa::impl::MoaApplyPlanBase<ApplyPlan> {
  using MoaApplyPlanBase::MoaApplyPlanBase;
  void runOnOperation() override;

private:
  LogicalResult apply(const moa::plan::Plan &plan);
};

} // namespace

WindowAttr moa::planWindow(MLIRContext *ctx, const plan::Plan &plan,
                           int64_t layer, int64_t kvHeads) {
  SmallVector<SpanAttr> spans;
  for (const moa_span_rule &rule : plan.layerRules(layer))
    spans.push_back(SpanAttr::get(ctx, rule.alpha, rule.beta));
  SmallVector<KvFormat> kv;
  for (int64_t head = 0; head < kvHeads; ++head)
    kv.push_back(static_cast<KvFormat>(plan.kvFormat(layer, head)));
  if (llvm::all_of(kv, [](KvFormat f) { return f == KvFormat::Model; }))
    kv.clear();
  const moa_span_rule &first = plan.rule(layer, 0);
  return WindowAttr::get(ctx, spans, first.sink, plan.span.block, plan.span.min,
                         static_cast<LengthRule>(plan.span.lengthRule), kv,
                         moa_span_most(&first));
}

LogicalResult ApplyPlan::apply(const moa::plan::Plan &parsed) {
  ModuleOp module = getOperation();
  MLIRContext *ctx = &getContext();
  if (auto model = module->getAttrOfType<ModelAttr>(kModelAttrName)) {
    moa::plan::ModelShape shape{model.getLayers(), model.getQHeads(),
                                model.getKvHeads(), model.getHeadDim(),
                                model.getMaxLength()};
    if (llvm::Error error = checkAgainstModel(parsed, shape, plan))
      return module.emitError(llvm::toString(std::move(error)));
  }
  WalkResult result = module.walk([&](WindowedOpInterface op) -> WalkResult {
    auto layer = op->getParentOp()->getAttrOfType<IntegerAttr>(kLayerAttrName);
    if (!layer)
      return op->emitOpError("expected to be in a function with attribute '")
             << kLayerAttrName << "', to find its rules in the plan";
    if (layer.getInt() < 0 || layer.getInt() >= parsed.layers)
      return op->emitOpError("layer ")
             << layer.getInt() << " is not in the plan " << plan
             << ", which has " << parsed.layers << " layers";
    if (op.getQueryHeads() != parsed.qHeads)
      return op->emitOpError("has ")
             << op.getQueryHeads() << " query heads, the plan " << plan
             << " has rules for " << parsed.qHeads;
    int64_t kvHeads = op.getCacheType().getHeads();
    if (parsed.kvColumns && parsed.kvColumns != kvHeads)
      return op->emitOpError("has ")
             << kvHeads << " KV heads, the plan " << plan << " has formats for "
             << parsed.kvColumns;
    if (parsed.hasKv8(layer.getInt()) &&
        op.getCacheType().getElementType().isF32())
      return op->emitOpError("has a cache of f32, the plan ")
             << plan << " keeps its pages in 8 bits, which stand beside f16 or "
             << "bf16; leave kv/format out for f32";
    op.setWindowAttr(planWindow(ctx, parsed, layer.getInt(), kvHeads));
    return WalkResult::advance();
  });
  if (result.wasInterrupted())
    return failure();
  module->setAttr(kPlanIdAttrName, StringAttr::get(ctx, parsed.idText()));
  return success();
}

void ApplyPlan::runOnOperation() {
  if (plan.empty()) {
    getOperation().emitError("expected option plan=FILE");
    return signalPassFailure();
  }
  llvm::Expected<moa::plan::Plan> parsed = moa::plan::loadPlan(plan);
  if (!parsed) {
    getOperation().emitError(llvm::toString(parsed.takeError()));
    return signalPassFailure();
  }
  for (const std::string &warning : parsed->warnings)
    getOperation().emitWarning() << plan << ": " << warning;
  if (failed(apply(*parsed)))
    signalPassFailure();
}
