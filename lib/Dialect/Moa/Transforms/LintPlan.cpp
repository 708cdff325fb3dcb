//===- LintPlan.cpp - Remark on what windows cost -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Closed forms of bytes and FLOPs at one length, as remarks where the
// operations stand.
//
//===----------------------------------------------------------------------===//

#include "mlir/IR/BuiltinOps.h"
#include "moa/Dialect/Moa/Transforms/Passes.h"
#include "llvm/Support/FormatVariadic.h"

namespace moa {
#define GEN_PASS_DEF_MOALINTPLAN
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;

namespace {

struct LintPlan : public moa::impl::MoaLintPlanBase<LintPlan> {
  using MoaLintPlanBase::MoaLintPlanBase;
  void runOnOperation() override;
};

} // namespace

/// Visible (row, key) pairs of one head over a whole prompt of `n` tokens.
static int64_t visiblePairs(const moa_span_rule &rule, int64_t n) {
  int64_t pairs = 0;
  for (int64_t i = 0; i < n; ++i)
    pairs += moa_visible_count(i, moa_window_start(&rule, i, n), rule.sink);
  return pairs;
}

/// Number of the layer that `op` belongs to, for messages.
static std::string layerName(Operation *op) {
  auto layer = op->getParentOp()->getAttrOfType<IntegerAttr>(kLayerAttrName);
  return layer ? llvm::formatv("layer {0}", layer.getInt()).str()
               : std::string("attention");
}

static void lint(WindowedOpInterface op, int64_t n) {
  WindowAttr window = op.getWindowAttr();
  if (!window) {
    op->emitWarning("has no window, so every head is dense; run "
                    "moa-apply-plan to give it one");
    return;
  }
  CacheType cache = op.getCacheType();
  int64_t group = op.getGroup(), heads = op.getQueryHeads();
  int64_t pageBytes = moa_page_bytes(
      cache.getDims(), cache.getElementType().getIntOrFloatBitWidth() / 8);
  int64_t pages = 0, pairs = 0, headPairs = 0, floored = 0;
  bool allFull = true;
  for (int64_t kv = 0; kv < cache.getHeads(); ++kv) {
    int64_t start = n;
    for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
      moa_span_rule rule = window.rule(head);
      start = std::min(start, moa_window_start(&rule, n, n));
      // Equal neighbours see as many keys.
      bool same =
          head > 0 && window.getSpans()[head] == window.getSpans()[head - 1];
      headPairs = same ? headPairs : visiblePairs(rule, n);
      pairs += headPairs;
      allFull &= moa_span(&rule, n) >= n;
      floored += moa_span_raw(&rule, n) < rule.min_span;
    }
    moa_resident held = moa_resident_pages(n, start, window.getSink());
    if (window.kvFormat(kv) != KvFormat::Model)
      held = moa_resident_kv8(held, n);
    pages += moa_resident_count(&held);
  }
  int64_t densePages =
      cache.getHeads() * ((n + MOA_BLOCK_KEYS - 1) / MOA_BLOCK_KEYS);
  int64_t flops = 4 * cache.getDims() * pairs;
  int64_t denseFlops = 4 * cache.getDims() * heads * (n * (n + 1) / 2);
  op->emitRemark() << layerName(op) << " at N = " << n << ": "
                   << pages * pageBytes << " KV bytes of "
                   << densePages * pageBytes << " dense, " << flops
                   << " useful FLOPs of " << denseFlops << " dense";
  if (allFull && !window.isDense())
    op->emitWarning() << layerName(op) << ": every span is at least N = " << n
                      << ", so the windows save nothing at this length";
  if (floored)
    op->emitWarning() << layerName(op) << ": " << floored << " of " << heads
                      << " rules fall below the minimum span "
                      << window.getMin() << " at N = " << n
                      << "; the minimum decides there";
}

void LintPlan::runOnOperation() {
  if (length < 1) {
    getOperation().emitError("expected a length of at least 1, got ") << length;
    return signalPassFailure();
  }
  getOperation()->walk([&](WindowedOpInterface op) {
    // One remark a layer: decode sees what prefill sees.
    if (op.getKernelKind() == KernelKind::Prefill)
      lint(op, length);
  });
  markAllAnalysesPreserved();
}
