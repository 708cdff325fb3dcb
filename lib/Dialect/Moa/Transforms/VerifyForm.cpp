//===- VerifyForm.cpp - Check the form that convert-moa-to-tile takes -----===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The contract of the moa level with the level below.
//
//===----------------------------------------------------------------------===//

#include "mlir/Interfaces/FunctionInterfaces.h"
#include "moa/Dialect/Moa/Transforms/Passes.h"

namespace moa {
#define GEN_PASS_DEF_MOAVERIFYFORM
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;

namespace {

struct VerifyForm : public moa::impl::MoaVerifyFormBase<VerifyForm> {
  void runOnOperation() override;
};

} // namespace

void VerifyForm::runOnOperation() {
  WalkResult result = getOperation()->walk([](WindowedOpInterface op)
                                               -> WalkResult {
    auto missing = [&](StringRef what, StringRef pass) {
      InFlightDiagnostic diag = op->emitOpError("expected ") << what;
      diag.attachNote() << pass << " sets it";
      return diag;
    };
    auto function = op->getParentOfType<FunctionOpInterface>();
    if (!function || !function->hasAttrOfType<IntegerAttr>(kLayerAttrName))
      return op->emitOpError("expected to be in a function with attribute '")
             << kLayerAttrName << "'";
    if (!op.getWindowAttr())
      return missing("a window", "moa-apply-plan");
    if (!op.getLayoutAttr())
      return missing("a cache layout", "moa-assign-cache-layout");
    if (!op.getTileConfigAttr())
      return missing("a tile choice", "moa-select-tile-config");
    return WalkResult::advance();
  });
  if (result.wasInterrupted())
    return signalPassFailure();
  markAllAnalysesPreserved();
}
