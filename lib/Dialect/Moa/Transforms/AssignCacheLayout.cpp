//===- AssignCacheLayout.cpp - Decide the pages of each KV head -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A KV head holds what the widest window of its group can see. Rules are
// straight lines in N, so the widest ones are found by comparing them where one
// can overtake another.
//
//===----------------------------------------------------------------------===//

#include "mlir/IR/BuiltinOps.h"
#include "moa/Dialect/Moa/Transforms/Passes.h"
#include "llvm/ADT/SetVector.h"

namespace moa {
#define GEN_PASS_DEF_MOAASSIGNCACHELAYOUT
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;

namespace {

struct AssignCacheLayout
    : public moa::impl::MoaAssignCacheLayoutBase<AssignCacheLayout> {
  using MoaAssignCacheLayoutBase::MoaAssignCacheLayoutBase;
  void runOnOperation() override;
};

} // namespace

/// Lengths at which the order of two rules of a group can change, and the ends
/// of the range.
static SmallVector<int64_t> lengthsOfInterest(WindowAttr window, int64_t first,
                                              int64_t group, int64_t longest) {
  SmallVector<int64_t> lengths = {1, longest};
  for (int64_t a = 0; a < group; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      SpanAttr s = window.getSpans()[first + a];
      SpanAttr t = window.getSpans()[first + b];
      double slope = s.getBeta() - t.getBeta();
      if (slope == 0)
        continue;
      double cross = double(t.getAlpha() - s.getAlpha()) / slope;
      // Rounding moves a crossing by less than two blocks.
      for (double shift : {-2.0, 0.0, 2.0}) {
        double length = cross + shift * double(window.getBlock()) /
                                    std::max(std::abs(slope), 1e-9);
        if (length >= 1 && length <= double(longest))
          lengths.push_back(static_cast<int64_t>(length));
      }
    }
  }
  return lengths;
}

/// The query heads of one group that are the widest at some length: for each
/// length the first of the widest.
static DenseI64ArrayAttr decidingHeads(MLIRContext *ctx, WindowAttr window,
                                       int64_t first, int64_t group,
                                       int64_t longest) {
  llvm::SmallSetVector<int64_t, 4> heads;
  for (int64_t n : lengthsOfInterest(window, first, group, longest)) {
    int64_t best = first, widest = -1;
    for (int64_t head = first; head < first + group; ++head) {
      moa_span_rule rule = window.rule(head);
      int64_t span = moa_span(&rule, n);
      if (span > widest) {
        widest = span;
        best = head;
      }
    }
    heads.insert(best);
  }
  SmallVector<int64_t> sorted(heads.begin(), heads.end());
  llvm::sort(sorted);
  return DenseI64ArrayAttr::get(ctx, sorted);
}

void AssignCacheLayout::runOnOperation() {
  MLIRContext *ctx = &getContext();
  WalkResult result =
      getOperation()->walk([&](WindowedOpInterface op) -> WalkResult {
        WindowAttr window = op.getWindowAttr();
        if (!window) {
          InFlightDiagnostic diag = op->emitOpError("expected a window");
          diag.attachNote() << "moa-apply-plan sets it";
          return diag;
        }
        auto module = op->getParentOfType<ModuleOp>();
        auto model = module ? module->getAttrOfType<ModelAttr>(kModelAttrName)
                            : ModelAttr();
        int64_t longest = model ? model.getMaxLength() : int64_t(1) << 20;
        CacheType cache = op.getCacheType();
        int64_t group = op.getGroup();
        SmallVector<DenseI64ArrayAttr> deciding;
        SmallVector<int64_t> pages;
        for (int64_t kv = 0; kv < cache.getHeads(); ++kv) {
          deciding.push_back(
              decidingHeads(ctx, window, kv * group, group, longest));
          if (length <= 0)
            continue;
          int64_t start = length;
          for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
            moa_span_rule rule = window.rule(head);
            start = std::min(start, moa_window_start(&rule, length, length));
          }
          moa_resident held =
              moa_resident_pages(length, start, window.getSink());
          if (window.kvFormat(kv) != KvFormat::Model)
            held = moa_resident_kv8(held, length);
          pages.push_back(moa_resident_count(&held));
        }
        int64_t bytes =
            moa_page_bytes(cache.getDims(),
                           cache.getElementType().getIntOrFloatBitWidth() / 8);
        op.setLayoutAttr(
            CacheLayoutAttr::get(ctx, MOA_BLOCK_KEYS, bytes, deciding, pages));
        return WalkResult::advance();
      });
  if (result.wasInterrupted())
    signalPassFailure();
}
