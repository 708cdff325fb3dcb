//===- SelectTileConfig.cpp - Choose tile shapes --------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The choice alone, as an attribute; convert-moa-to-tile applies it.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/Moa/Transforms/Passes.h"
#include "moa/abi/kernel_args.h"

namespace moa {
#define GEN_PASS_DEF_MOASELECTTILECONFIG
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;

namespace {

struct SelectTileConfig
    : public moa::impl::MoaSelectTileConfigBase<SelectTileConfig> {
  void runOnOperation() override;
};

} // namespace

void SelectTileConfig::runOnOperation() {
  getOperation()->walk([](WindowedOpInterface op) {
    bool decode = op.getKernelKind() == KernelKind::Decode;
    op.setTileConfigAttr(TileConfigAttr::get(
        op->getContext(), decode ? Lanes::Dims : Lanes::Rows,
        decode ? op.getGroup() : MOA_PREFILL_ROWS, MOA_BLOCK_KEYS));
  });
}
