//===- MoaTileOps.td - Operations --------------------------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TILE_OPS_TD
#define MOA_TILE_OPS_TD

include "mlir/IR/BuiltinAttributes.td"
include "mlir/Interfaces/InferTypeOpInterface.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "moa/Dialect/MoaTile/IR/MoaTileTypes.td"

class MoaTile_Op<string mnemonic, list<Trait> traits = []>
    : Op<MoaTile_Dialect, mnemonic, traits>;

def MoaTile_LoadQueriesOp : MoaTile_Op<"load_queries", [Pure]> {
  let summary = "the item's query rows, scaled";
  let description = [{
    Rows beyond the item's repeat its last row. Each element is multiplied by
    the item's score scale times log2(e), so that scores come out in units of
    log2 and a negative scale needs no special case.

    - (C1) The item is prefill or decode.

    ```mlir
    %q = moa_tile.load_queries %item
      : !moa_tile.item<prefill> -> !moa_tile.tile<64x128xf32>
    ```
  }];
  let arguments = (ins MoaTile_ItemType:$item);
  let results = (outs MoaTile_TileType:$queries);
  let assemblyFormat =
      "$item attr-dict `:` type($item) `->` type($queries)";
  let hasVerifier = 1;
}

def MoaTile_InitOp : MoaTile_Op<"init", [Pure]> {
  let summary = "the state before any key: no maximum, sum and output zero";
  let results = (outs MoaTile_StateType:$state);
  let assemblyFormat = "attr-dict `:` type($state)";
}

def MoaTile_ForBlocksOp : MoaTile_Op<"for_blocks", [
    SingleBlock, RecursiveMemoryEffects, AllTypesMatch<["init", "result"]>
  ]> {
  let summary = "walk the key blocks of one segment of the item";
  let description = [{
    The body runs once for each block of the segment, in increasing order. Its
    arguments are the absolute block number and the state so far; it yields the
    next state. Segments partition the blocks that the item's rows can see:

    | segment    | blocks                                   | mask terms left |
    |------------|------------------------------------------|-----------------|
    | `sink`     | left of every window                     | sink            |
    | `edge`     | cut by the left end of some row's window | sink, window    |
    | `full`     | seen whole by every row                  | none            |
    | `diagonal` | cut by the diagonal                      | all             |
    | `all`      | all of them, before `split-tile-loops`   | all             |

    - (C1) The body has the arguments (index, state) and ends in
      `moa_tile.yield` of the state.
    - (C2) The item is prefill or decode.

    ```mlir
    %s1 = moa_tile.for_blocks full %item, %s0
        : !moa_tile.item<prefill>, !moa_tile.state<64x128> {
    ^bb0(%block: index, %s: !moa_tile.state<64x128>):
      ...
      moa_tile.yield %next : !moa_tile.state<64x128>
    }
    ```
  }];
  let arguments = (ins MoaTile_SegmentAttr:$segment, MoaTile_ItemType:$item,
                       MoaTile_StateType:$init);
  let results = (outs MoaTile_StateType:$result);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    `` $segment $item `,` $init attr-dict `:` type($item) `,` type($init) $body
  }];
  let hasRegionVerifier = 1;
  let hasFolder = 1;
}

def MoaTile_YieldOp : MoaTile_Op<"yield", [
    Pure, Terminator, ParentOneOf<["ForBlocksOp"]>
  ]> {
  let summary = "the state after one block";
  let arguments = (ins MoaTile_StateType:$state);
  let assemblyFormat = "$state attr-dict `:` type($state)";
}

class MoaTile_LoadBlockOp<string mnemonic, string what>
    : MoaTile_Op<mnemonic, [Pure]> {
  let summary = "the " # what # " of one block";
  let description = [{
    Rows beyond the sequence's end hold unspecified bits, NaN among them. With
    `kv8` the item says of each block whether it lies there as the type says or
    in 8 bits, and in which format; of the latter the values are those that
    codes and scale stand for, not rounded to the type.

    - (C1) The item is prefill or decode.
    - (C2) The tile has 64 or 128 rows.
    - (C3) With `kv8` the tile's elements are f16 or bf16.
  }];
  let arguments = (ins MoaTile_ItemType:$item, Index:$block, UnitAttr:$kv8);
  let results = (outs MoaTile_TileType:$tile);
  let assemblyFormat = [{
    $item `[` $block `]` (`kv8` $kv8^)? attr-dict `:` type($item) `->`
    type($tile)
  }];
  let hasVerifier = 1;
}
def MoaTile_LoadKeysOp : MoaTile_LoadBlockOp<"load_keys", "keys">;
def MoaTile_LoadValuesOp : MoaTile_LoadBlockOp<"load_values", "values">;

def MoaTile_ScoresOp : MoaTile_Op<"scores", [Pure]> {
  let summary = "queries times transposed keys, accumulated in f32";
  let description = [{
    - (C1) Queries and keys have the same number of columns (head size).
    - (C2) The result has the queries' rows, the keys' rows as columns, and
      f32 elements.
  }];
  let arguments = (ins MoaTile_TileType:$queries, MoaTile_TileType:$keys);
  let results = (outs MoaTile_TileType:$scores);
  let assemblyFormat = [{
    $queries `,` $keys attr-dict `:` type($queries) `,` type($keys) `->`
    type($scores)
  }];
  let hasVerifier = 1;
}

def MoaTile_SoftCapOp : MoaTile_Op<"soft_cap", [
    Pure, AllTypesMatch<["scores", "result"]>
  ]> {
  let summary = "cap * tanh(score / cap)";
  let description = [{
    Scores are in units of log2, as queries are scaled; `cap` is not, so the
    result is C * tanh(score / C) with C = cap * log2(e).

    - (C1) The scores are f32.
    - (C2) The cap is positive and finite.

    ```mlir
    %c = moa_tile.soft_cap %s to 50.0 : !moa_tile.tile<64x64xf32>
    ```
  }];
  let arguments = (ins MoaTile_TileType:$scores, F32Attr:$cap);
  let results = (outs MoaTile_TileType:$result);
  let assemblyFormat = "$scores `to` $cap attr-dict `:` type($scores)";
  let hasVerifier = 1;
  let extraClassDeclaration = [{
    /// The cap in units of the scores, log2.
    float getLog2Cap() {
      return getCap().convertToFloat() * 1.44269504088896340736f;
    }
  }];
}

def MoaTile_MaskOp : MoaTile_Op<"mask", [
    Pure, AllTypesMatch<["scores", "result"]>
  ]> {
  let summary = "minus infinity where a row does not see a key";
  let description = [{
    With i the row's position, j the key's and `start` the row's window start,
    the key is visible iff `j <= i and (j < sink or j >= start)`. `classes`
    names the terms that the block needs; a term left out is known to hold:
    without `causal` every key is at or below every row, without `window` no
    key is cut by a window unless it fails the sink term as well, without
    `sink` no key of the block is in the sink.

    - (C1) At least one class.
    - (C2) The scores are f32.

    ```mlir
    %m = moa_tile.mask (window, causal) %s, %item[%block]
      : !moa_tile.tile<64x64xf32>, !moa_tile.item<prefill>
    ```
  }];
  let arguments = (ins MoaTile_MaskClassAttr:$classes,
                       MoaTile_TileType:$scores, MoaTile_ItemType:$item,
                       Index:$block);
  let results = (outs MoaTile_TileType:$result);
  let assemblyFormat = [{
    $classes $scores `,` $item `[` $block `]` attr-dict `:` type($scores) `,`
    type($item)
  }];
  let hasVerifier = 1;
  let hasFolder = 1;
}

def MoaTile_SoftmaxStepOp : MoaTile_Op<"softmax_step", [
    Pure, AllTypesMatch<["state", "result"]>
  ]> {
  let summary = "online softmax: raise the maximum, rescale, exponentiate";
  let description = [{
    Probabilities are exp2(score - new maximum), exactly zero where the score
    is minus infinity; the state's sum and output are rescaled to the new
    maximum and the probabilities are added to the sum in f32.

    - (C1) Scores and probabilities have the state's rows and the same columns.
  }];
  let arguments = (ins MoaTile_TileType:$scores, MoaTile_StateType:$state);
  let results = (outs MoaTile_TileType:$probabilities,
                      MoaTile_StateType:$result);
  let assemblyFormat = [{
    $scores `,` $state attr-dict `:` type($scores) `,` type($state) `->`
    type($probabilities)
  }];
  let hasVerifier = 1;
}

def MoaTile_AccumulateOp : MoaTile_Op<"accumulate", [
    Pure, AllTypesMatch<["state", "result"]>
  ]> {
  let summary = "add probabilities times values to the state's output";
  let description = [{
    With `skip_zero`, a value whose probability is exactly zero does not touch
    the row at all, so that a NaN in a key the row cannot see cannot reach it.
    Blocks that are masked need it; blocks seen whole do not.

    - (C1) Probabilities: the state's rows by the values' rows.
    - (C2) Values: the state's dims as columns.
  }];
  let arguments = (ins MoaTile_TileType:$probabilities,
                       MoaTile_TileType:$values, MoaTile_StateType:$state,
                       UnitAttr:$skip_zero);
  let results = (outs MoaTile_StateType:$result);
  let assemblyFormat = [{
    $probabilities `,` $values `,` $state (`skip_zero` $skip_zero^)? attr-dict
    `:` type($probabilities) `,` type($values) `,` type($state)
  }];
  let hasVerifier = 1;
}

def MoaTile_StoreOp : MoaTile_Op<"store"> {
  let summary = "divide by the sum, convert, write the item's output rows";
  let description = [{
    Rows beyond the item's are not written. `type` is the output's element type.

    - (C1) The item is prefill.
    - (C2) The type is f32, f16 or bf16.
  }];
  let arguments = (ins MoaTile_StateType:$state, MoaTile_ItemType:$item,
                       TypeAttr:$type);
  let assemblyFormat = [{
    $state `,` $item `as` $type attr-dict `:` type($state) `,` type($item)
  }];
  let hasVerifier = 1;
}

def MoaTile_StorePartialOp : MoaTile_Op<"store_partial"> {
  let summary = "write the unnormalised state, to be merged with others";
  let description = [{
    Layout: `partial` of `moa_work_item`.

    - (C1) The item is decode.
  }];
  let arguments = (ins MoaTile_StateType:$state, MoaTile_ItemType:$item);
  let assemblyFormat =
      "$state `,` $item attr-dict `:` type($state) `,` type($item)";
  let hasVerifier = 1;
}

def MoaTile_CopyRowsOp : MoaTile_Op<"copy_rows"> {
  let summary = "copy the item's key and value rows into its page";
  let description = [{
    Rows have `dims` elements of `type`. The item's `zero` rows behind them are
    set to zero.

    - (C1) The item is append.
    - (C2) The type is f32, f16 or bf16 and `dims` is positive.

    ```mlir
    moa_tile.copy_rows %item dims 128 of bf16 : !moa_tile.item<append>
    ```
  }];
  let arguments = (ins MoaTile_ItemType:$item, I64Attr:$dims, TypeAttr:$type);
  let assemblyFormat = "$item `dims` $dims `of` $type attr-dict `:` type($item)";
  let hasVerifier = 1;
}

def MoaTile_QuantiseRowsOp : MoaTile_Op<"quantise_rows"> {
  let summary = "bring a block of keys and values to 8 bits";
  let description = [{
    The item's 64 rows of `dims` elements of `type` become 8-bit codes in the
    format that it names, keys and values each with the scale amax / 448 (e4m3)
    or amax / 127 (int8), where amax is the largest magnitude. If amax is not
    finite neither is what codes and scale stand for.

    - (C1) The item is quantise.
    - (C2) The type is f16 or bf16 and `dims` is positive.

    ```mlir
    moa_tile.quantise_rows %item dims 128 of bf16 : !moa_tile.item<quantise>
    ```
  }];
  let arguments = (ins MoaTile_ItemType:$item, I64Attr:$dims, TypeAttr:$type);
  let assemblyFormat = "$item `dims` $dims `of` $type attr-dict `:` type($item)";
  let hasVerifier = 1;
}

def MoaTile_RotateRowsOp : MoaTile_Op<"rotate_rows"> {
  let summary = "rotate the item's query and key rows, and copy as copy_rows";
  let description = [{
    Key rows, and the query rows of each head of their group, are rotated where
    they lie: a pair (x, y) becomes (x c - y s, y c + x s), with c and s of the
    angle of its frequency at the row's position, times the item's scale.
    Elements behind the rotary ones stay. Then keys and values are copied as
    `moa_tile.copy_rows` does, if the item has a page.

    - (C1) The item is rope.
    - (C2) The type is f32, f16 or bf16 and `dims` is positive.
    - (C3) `rope` rotates at most `dims` elements.

    ```mlir
    moa_tile.rotate_rows %item dims 128 of bf16 rope(<half, 64>)
      : !moa_tile.item<rope>
    ```
  }];
  let arguments = (ins MoaTile_ItemType:$item, I64Attr:$dims, TypeAttr:$type,
                       MoaTile_RopeAttr:$rope);
  let assemblyFormat = [{
    $item `dims` $dims `of` $type `rope` `(` $rope `)` attr-dict `:` type($item)
  }];
  let hasVerifier = 1;
}

#endif // MOA_TILE_OPS_TD
