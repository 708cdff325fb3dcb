//===- ResolveSpans.cpp - Evaluate span rules at a known length -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A constant rule of the span's value keeps its meaning: rounding and minimum
// leave a multiple of the block as it is.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/Moa/Transforms/Passes.h"

namespace moa {
#define GEN_PASS_DEF_MOARESOLVESPANS
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;

namespace {

struct ResolveSpans : public moa::impl::MoaResolveSpansBase<ResolveSpans> {
  using MoaResolveSpansBase::MoaResolveSpansBase;
  void runOnOperation() override;
};

} // namespace

void ResolveSpans::runOnOperation() {
  if (length == 0)
    return markAllAnalysesPreserved();
  if (length < 0) {
    getOperation()->emitError("expected a positive length, got ") << length;
    return signalPassFailure();
  }
  getOperation()->walk([&](WindowedOpInterface op) {
    WindowAttr window = op.getWindowAttr();
    if (!window || window.getLength() == LengthRule::Row)
      return;
    SmallVector<SpanAttr> spans;
    for (int64_t head = 0, e = window.getSpans().size(); head < e; ++head) {
      moa_span_rule rule = window.rule(head);
      spans.push_back(
          SpanAttr::get(op->getContext(), moa_span(&rule, length), 0.0));
    }
    op.setWindowAttr(WindowAttr::get(
        op->getContext(), spans, window.getSink(), window.getBlock(),
        window.getMin(), window.getLength(), window.getKv(), window.getMost()));
  });
}
