//===- Passes.td - Passes on tile kernels ------------------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TILE_TRANSFORMS_PASSES_TD
#define MOA_TILE_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoaSplitTileLoops : Pass<"moa-split-tile-loops"> {
  let summary = "Split block loops by the mask their blocks need";
  let description = [{
    A loop over all blocks becomes four in a row, over the sink, the left edge
    of the windows, the blocks seen whole and the diagonal. Each keeps only the
    mask terms its blocks need; blocks seen whole lose the mask, and values no
    longer guard against probabilities of zero there.

    Before:
    ```mlir
    %s1 = moa_tile.for_blocks all %item, %s0 ... {
      ...
      %m = moa_tile.mask (sink, window, causal) %x, %item[%b] : ...
      ...
    }
    ```
    After:
    ```mlir
    %s1 = moa_tile.for_blocks sink %item, %s0 ... {       // mask (sink)
    %s2 = moa_tile.for_blocks edge %item, %s1 ... {       // mask (sink, window)
    %s3 = moa_tile.for_blocks full %item, %s2 ... {       // no mask
    %s4 = moa_tile.for_blocks diagonal %item, %s3 ... {   // the whole mask
    ```
  }];
  let dependentDialects = ["::moa::tile::MoaTileDialect"];
}

def MoaVerifyTileForm : Pass<"moa-verify-tile-form"> {
  let summary = "Check the form that targets lower from";
  let description = [{
    Every function with an item argument has `moa_tile.config` and no other
    argument; no loop walks segment `all`; a loop over a segment with a mask
    masks its scores and skips zeros, and one over `full` does neither; each
    state is used exactly once. Notes name the pass that establishes the form.
    Changes nothing.
  }];
}

#endif // MOA_TILE_TRANSFORMS_PASSES_TD
