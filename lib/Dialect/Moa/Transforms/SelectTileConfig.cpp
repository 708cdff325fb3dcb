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
#include "moa/Target/Chip.h"
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
  using MoaSelectTileConfigBase::MoaSelectTileConfigBase;
  void runOnOperation() override;
};

} // namespace

/// Keys of a tile on a GPU: two blocks while two stages of keys and of values,
/// with the queries, fit the shared memory of a block.
static int64_t gpuKeys(int64_t headDim) {
  return headDim <= 128 ? 2 * MOA_BLOCK_KEYS : MOA_BLOCK_KEYS;
}

/// Query rows of an item on a GPU, 64 a warpgroup: a third one where its
/// registers hold outputs, scores and probabilities.
static int64_t gpuRows(int64_t headDim) {
  return headDim <= 64 ? 3 * MOA_PREFILL_ROWS : 2 * MOA_PREFILL_ROWS;
}

void SelectTileConfig::runOnOperation() {
  if (!chip.empty() && !findGpuChip(chip)) {
    getOperation()->emitError("unknown GPU '")
        << chip << "', expected one of " << gpuChipNames();
    return signalPassFailure();
  }
  getOperation()->walk([&](WindowedOpInterface op) {
    bool decode = op.getKernelKind() == KernelKind::Decode;
    bool gpuPrefill = !chip.empty() && !decode;
    int64_t rows = decode       ? op.getGroup()
                   : gpuPrefill ? gpuRows(op.getCacheType().getDims())
                                : MOA_PREFILL_ROWS;
    int64_t keys =
        gpuPrefill ? gpuKeys(op.getCacheType().getDims()) : MOA_BLOCK_KEYS;
    op.setTileConfigAttr(TileConfigAttr::get(
        op->getContext(), decode ? Lanes::Dims : Lanes::Rows, rows, keys));
  });
}
