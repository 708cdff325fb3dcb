//===- MoaFolds.cpp - Canonical forms of the moa operations ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rules that cannot differ in meaning are written alike, so that equal heads
// are seen to be equal.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/Moa/IR/Moa.h"

#include "mlir/IR/PatternMatch.h"

using namespace mlir;
using namespace moa;

namespace {

/// A rule that reaches N at every length is dense however it is written: spans
/// are at most N. `(1024 + 1.0 * N)` becomes `(0 + 1.0 * N)`.
template <typename OpTy>
struct CanonicalizeDenseRules : public OpRewritePattern<OpTy> {
  using OpRewritePattern<OpTy>::OpRewritePattern;

  LogicalResult matchAndRewrite(OpTy op,
                                PatternRewriter &rewriter) const override {
    WindowAttr window = op.getWindowAttr();
    if (!window)
      return rewriter.notifyMatchFailure(op, "has no window");
    auto isOdd = [](SpanAttr span) {
      return span.getBeta() == 1 && span.getAlpha() > 0;
    };
    if (llvm::none_of(window.getSpans(), isOdd))
      return rewriter.notifyMatchFailure(op, "dense rules are canonical");
    SmallVector<SpanAttr> spans;
    for (SpanAttr span : window.getSpans())
      spans.push_back(isOdd(span) ? SpanAttr::get(op.getContext(), 0, 1.0)
                                  : span);
    rewriter.modifyOpInPlace(op, [&] {
      op.setWindowAttr(WindowAttr::get(op.getContext(), spans, window.getSink(),
                                       window.getBlock(), window.getMin(),
                                       window.getLength()));
    });
    return success();
  }
};

} // namespace

void AttentionOp::getCanonicalizationPatterns(RewritePatternSet &patterns,
                                              MLIRContext *context) {
  patterns.add<CanonicalizeDenseRules<AttentionOp>>(context);
}

void DecodeOp::getCanonicalizationPatterns(RewritePatternSet &patterns,
                                           MLIRContext *context) {
  patterns.add<CanonicalizeDenseRules<DecodeOp>>(context);
}
