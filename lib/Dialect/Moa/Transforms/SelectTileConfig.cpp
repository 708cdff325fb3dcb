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
#include "llvm/Support/MathExtras.h"

namespace moa {
#define GEN_PASS_DEF_MOASELECTTILECONFIG
#include "moa/Dialect/Moa/Transforms/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;

namespace {

/// Rows of an item and keys of a tile.
struct Tile {
  int64_t rows, keys;
};

struct SelectTileConfig
    : public moa::impl::MoaSelectTileConfigBase<SelectTileConfig> {
  using MoaSelectTileConfigBase::MoaSelectTileConfigBase;
  void runOnOperation() override;
};

} // namespace

/// Hopper: 64 rows a warpgroup, a third one where its registers hold outputs,
/// scores and probabilities; two blocks of keys while two stages of keys and of
/// values, with the queries, fit the shared memory of a block. Other chips, and
/// f32 on all: one block of keys, and 16 rows for each of eight warps while the
/// queries fit beside keys and values (of f32: of half a block), else of four.
static Tile gpuPrefillTile(int64_t headDim, Type element, const GpuChip &chip) {
  const bool single = element.isF32();
  if (chip.archSpecific && chip.capability == 90 && !single)
    return {headDim <= 64 ? 3 * MOA_PREFILL_ROWS : 2 * MOA_PREFILL_ROWS,
            headDim <= 128 ? 2 * MOA_BLOCK_KEYS : MOA_BLOCK_KEYS};
  // Whole panels of 128 bytes.
  int64_t rowBytes = llvm::alignTo(headDim * (single ? 4 : 2), 128);
  int64_t keys = single ? MOA_BLOCK_KEYS / 2 : MOA_BLOCK_KEYS;
  int64_t bytes = rowBytes * (2 * MOA_PREFILL_ROWS + 2 * keys);
  return {bytes <= chip.maxSharedBytes ? 2 * MOA_PREFILL_ROWS
                                       : MOA_PREFILL_ROWS,
          MOA_BLOCK_KEYS};
}

void SelectTileConfig::runOnOperation() {
  const GpuChip *gpu = findGpuChip(chip);
  if (!chip.empty() && !gpu) {
    getOperation()->emitError("unknown GPU '")
        << chip << "', expected one of " << gpuChipNames();
    return signalPassFailure();
  }
  getOperation()->walk([&](WindowedOpInterface op) {
    bool decode = op.getKernelKind() == KernelKind::Decode;
    Tile tile = {MOA_PREFILL_ROWS, MOA_BLOCK_KEYS};
    if (decode)
      tile.rows = op.getGroup();
    else if (gpu)
      tile = gpuPrefillTile(op.getCacheType().getDims(),
                            op.getCacheType().getElementType(), *gpu);
    op.setTileConfigAttr(TileConfigAttr::get(op->getContext(),
                                             decode ? Lanes::Dims : Lanes::Rows,
                                             tile.rows, tile.keys));
  });
}
