//===- SplitTileLoops.cpp - Split block loops by mask ---------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Replaces each loop over all blocks by one loop a segment. What each segment
// still needs says maskTermsOf; the bodies are clones.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/MoaTile/Transforms/Passes.h"

#include "mlir/IR/IRMapping.h"
#include "mlir/IR/PatternMatch.h"

namespace moa::tile {
#define GEN_PASS_DEF_MOASPLITTILELOOPS
#include "moa/Dialect/MoaTile/Transforms/Passes.h.inc"
} // namespace moa::tile

using namespace mlir;
using namespace moa::tile;

namespace {

struct SplitTileLoops
    : public moa::tile::impl::MoaSplitTileLoopsBase<SplitTileLoops> {
  void runOnOperation() override;
};

} // namespace

static constexpr Segment kSegments[] = {Segment::Sink, Segment::Edge,
                                        Segment::Full, Segment::Diagonal};

/// Reduces masks of one loop to `terms`.
static void narrowMasks(ForBlocksOp loop, MaskClass terms) {
  loop.walk([&](MaskOp mask) {
    MaskClass kept = mask.getClasses() & terms;
    if (kept == MaskClass(0)) {
      mask.getResult().replaceAllUsesWith(mask.getScores());
      mask.erase();
    } else {
      mask.setClasses(kept);
    }
  });
  if (terms == MaskClass(0))
    loop.walk([](AccumulateOp op) { op.setSkipZero(false); });
}

static void split(ForBlocksOp loop) {
  OpBuilder builder(loop);
  Value state = loop.getInit();
  for (Segment segment : kSegments) {
    IRMapping mapping;
    mapping.map(loop.getInit(), state);
    auto clone = cast<ForBlocksOp>(builder.clone(*loop, mapping));
    clone.setSegment(segment);
    narrowMasks(clone, maskTermsOf(segment));
    state = clone.getResult();
  }
  loop.getResult().replaceAllUsesWith(state);
  loop.erase();
}

void SplitTileLoops::runOnOperation() {
  SmallVector<ForBlocksOp> loops;
  getOperation()->walk([&](ForBlocksOp loop) {
    if (loop.getSegment() == Segment::All)
      loops.push_back(loop);
  });
  for (ForBlocksOp loop : loops)
    split(loop);
}
