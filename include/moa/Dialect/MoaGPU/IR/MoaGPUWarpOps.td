//===- MoaGPUWarpOps.td - Work of single warps -----------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_GPU_WARP_OPS_TD
#define MOA_GPU_WARP_OPS_TD

include "moa/Dialect/MoaGPU/IR/MoaGPUFragmentOps.td"

/// Registers of a left operand of 16 rows, of a right one of 8 columns, of a
/// 16 x 8 result. The depth is 16, or 8 of tf32.
class MoaGPU_VectorOf<int length, Type element, string name>
    : Type<FixedVectorOfLengthAndType<[length], [element]>.predicate, name,
           "::mlir::VectorType">;
def MoaGPU_LeftBlock : MoaGPU_VectorOf<4, I32, "registers of 16 rows of 32 bytes">,
    BuildableType<"::mlir::VectorType::get({4}, $_builder.getI32Type())">;
def MoaGPU_RightBlock : MoaGPU_VectorOf<2, I32, "registers of 8 columns of 32 bytes">,
    BuildableType<"::mlir::VectorType::get({2}, $_builder.getI32Type())">;
def MoaGPU_SumBlock : MoaGPU_VectorOf<4, F32, "four f32 of a block">,
    BuildableType<"::mlir::VectorType::get({4}, $_builder.getF32Type())">;

def MoaGPU_WarpRolesOp : MoaGPU_Op<"warp_roles", [SingleBlock, NoTerminator]> {
  let summary = "split the block's warps in some that compute and one that "
                "loads";
  let description = [{
    The second region runs on each of the first `consumers` warps, with its
    number (i32), the first on the warp behind them. Bodies of `moa_gpu.put` run
    on one of its threads.

    - (C1) The consumer region has one argument of type i32, the producer none.
    - (C2) The kernel is launched with `consumers` + 1 warps.
    - (C3) Every ring used below is put by the producer, and read and released
      by the consumers, which are as many as it has readers or more.
    - (C4) Barriers and products stand in the consumer region.
    - (C5) A ring's readers divide the consumers, which take its uses in turn,
      and its stages are a multiple of consumers / readers: uses n and n + stages
      are the same warps'. Others could wait for the later one by a parity that
      holds already, before the earlier one has landed.

    ```mlir
    moa_gpu.warp_roles consumers = 8 producer {
      ...
    } consumer {
    ^bb0(%warp: i32):
      ...
    }
    ```
  }];
  let arguments = (ins I64Attr:$consumers);
  let regions = (region SizedRegion<1>:$producer, SizedRegion<1>:$consumer);
  let assemblyFormat = [{
    `consumers` `=` $consumers `producer` $producer `consumer` $consumer
    attr-dict
  }];
  let hasRegionVerifier = 1;
}

def MoaGPU_WarpOp : MoaGPU_Op<"warp", [Pure]> {
  let summary = "number of this warp in its block";
  let description = [{
    The same in all lanes of the warp.
  }];
  let results = (outs I32:$number);
  let assemblyFormat = "attr-dict";
}

def MoaGPU_ScratchOp : MoaGPU_Op<"scratch", [MemoryEffects<[MemAlloc]>]> {
  let summary = "plain shared memory, aligned to 16 bytes";
  let description = [{
    - (C1) It stands in a kernel's entry block.
    - (C2) `bytes` is a positive multiple of 16.
  }];
  let arguments = (ins I64Attr:$bytes);
  let results = (outs LLVM_PointerInAddressSpace<3>:$memory);
  let assemblyFormat = "$bytes attr-dict `:` type($memory)";
  let hasVerifier = 1;
}

def MoaGPU_OpaqueOp : MoaGPU_Op<"opaque"> {
  let summary = "the same number, which nothing is known of";
  let description = [{
    What is computed from it is computed where it stands: work of a branch that
    is rarely taken does not move out of the loop around it, whose registers it
    would hold.
  }];
  let arguments = (ins I32:$value);
  let results = (outs I32:$result);
  let assemblyFormat = "$value attr-dict";
}

def MoaGPU_LaneCountOp : MoaGPU_Op<"lane_count"> {
  let summary = "number of the warp's lanes for which a condition holds";
  let description = [{
    All lanes of the warp take part.
  }];
  let arguments = (ins I1:$condition);
  let results = (outs I32:$count);
  let assemblyFormat = "$condition attr-dict";
}

def MoaGPU_LoadMatrixOp : MoaGPU_Op<"load_matrix"> {
  let summary = "read 16 rows of 32 bytes of a tile as operands";
  let description = [{
    Rows from `row` (i32, a multiple of 16), 16 columns (8 of f32, 32 of codes)
    from `column`. They are a left operand; with `right` two right ones, the first 8
    rows, which are its columns, in registers 0 and 1, the others in 2 and 3.
    `transposed` makes the tile's columns what its rows are otherwise.

    - (C1) `column` is a multiple of 16 (of f32: of 8, of codes: of 32) below the
      tile's columns.
    - (C2) Tiles of f32 are read as they lie: matrices are transposed by pairs
      of bytes. (Of codes, so by two columns at a time.)

    ```mlir
    %a = moa_gpu.load_matrix %tile[%row, 16] transposed right
      : !moa_gpu.shared<128x128xbf16>
    ```
  }];
  let arguments = (ins MoaGPU_SharedType:$tile, I32:$row, I64Attr:$column,
                       UnitAttr:$transposed, UnitAttr:$right);
  let results = (outs MoaGPU_LeftBlock:$block);
  let assemblyFormat = [{
    $tile `[` $row `,` $column `]` (`transposed` $transposed^)?
    (`right` $right^)? attr-dict `:` type($tile)
  }];
  let hasVerifier = 1;
}

def MoaGPU_StorePieceOp : MoaGPU_Op<"store_piece"> {
  let summary = "write 16 bytes of a row of a tile, each lane its own";
  let description = [{
    Eight elements from `column` (i32, a multiple of 8) of row `row`, where a
    copy would have put them. Lanes may write the same piece with equal values.

    - (C1) It stands in the consumer region of `moa_gpu.warp_roles`, or in a
      kernel without roles.
    - (C2) A `moa_gpu.seal` stands behind it, in its block or one around it, and
      no read or release of a stage in between.

    ```mlir
    moa_gpu.store_piece %piece, %tile[%row, %column]
      : !moa_gpu.shared<128x128xbf16>
    ```
  }];
  let arguments = (ins MoaGPU_LeftBlock:$piece, MoaGPU_SharedType:$tile,
                       I32:$row, I32:$column);
  let assemblyFormat = [{
    $piece `,` $tile `[` $row `,` $column `]` attr-dict `:` type($tile)
  }];
  let hasVerifier = 1;
}

def MoaGPU_SealOp : MoaGPU_Op<"seal"> {
  let summary = "end a warp's writes to a tile";
  let description = [{
    Behind it all lanes read what each of them has written, and the copy engine,
    where a ring has one, writes later, once the stage is released.

    - (C1) It stands under no branch and no loop that may go differently in
      different threads of a warp: all its lanes meet here.
  }];
  let assemblyFormat = "attr-dict";
  let hasVerifier = 1;
}

def MoaGPU_LoadRightOp : MoaGPU_Op<"load_right"> {
  let summary = "read 8 rows of 16 columns of f32 as two right operands";
  let description = [{
    Rows from `row` (i32, a multiple of 8), columns from `column`; the operands
    are registers 0 and 1, for 8 columns, and 2 and 3, for the others. Depths
    l and l + 4 are rows 2 l and 2 l + 1, as where a left operand is made of
    sums: register h of a thread is row 2 * (lane % 4) + h, column lane / 4.

    - (C1) The tile is of f32.
    - (C2) `column` is a multiple of 16 below the tile's columns.

    ```mlir
    %v = moa_gpu.load_right %tile[%row, 32] : !moa_gpu.shared<64x128xf32>
    ```
  }];
  let arguments = (ins MoaGPU_SharedType:$tile, I32:$row, I64Attr:$column);
  let results = (outs MoaGPU_SumBlock:$block);
  let assemblyFormat = [{
    $tile `[` $row `,` $column `]` attr-dict `:` type($tile)
  }];
  let hasVerifier = 1;
}

def MoaGPU_SplitOp : MoaGPU_Op<"split", [Pure]> {
  let summary = "write f32 as the sum of two tf32";
  let description = [{
    `big` has the 11 leading bits of each element, `small` the 13 behind them,
    of which a product reads 11: what is lost is below 2^-21 of the element.
    Three products (`small` with `big` both ways, and `big` with `big`) give one
    of f32 but for as much. An infinite element has NaN for `small`.

    - (C1) All three have the same size.
  }];
  let arguments = (ins MoaGPU_F32Fragment:$value);
  let results = (outs MoaGPU_Packed:$big, MoaGPU_Packed:$small);
  let assemblyFormat =
      "$value attr-dict `:` type($value) `->` type($big) `,` type($small)";
  let hasVerifier = 1;
}

def MoaGPU_MultiplyOp : MoaGPU_Op<"multiply", [Pure]> {
  let summary = "a warp's product: 16 rows times 8 columns, added to 16 x 8";
  let description = [{
    Sums are f32. Element e of a thread is row lane / 4 + 8 * (e / 2), column
    2 * (lane % 4) + e % 2: of its two columns element e is in column e % 2.
    The depth is 16, and the right operand holds rows 2 * (lane % 4) + {0, 1}
    (pair 0) and those 8 below (pair 1) of column lane / 4; or, of tf32, 8 and
    rows lane % 4 (register 0) and 4 below (register 1).

    - (C1) The type is f16, bf16 or tf32.
  }];
  let arguments = (ins MoaGPU_LeftBlock:$left, MoaGPU_RightBlock:$right,
                       MoaGPU_SumBlock:$sums, TypeAttr:$type);
  let results = (outs MoaGPU_SumBlock:$result);
  let assemblyFormat = "$left `,` $right `,` $sums `as` $type attr-dict";
  let hasVerifier = 1;
}

def MoaGPU_TransposeOp : MoaGPU_Op<"transpose", [
    AllTypesMatch<["value", "result"]>
  ]> {
  let summary = "transpose each 8 x 8 block of packed 16-bit floats in a warp";
  let description = [{
    Turns packed sums of `moa_gpu.multiply` to its right operand.
  }];
  let arguments = (ins MoaGPU_Packed:$value);
  let results = (outs MoaGPU_Packed:$result);
  let assemblyFormat = "$value attr-dict `:` type($value)";
}

def MoaGPU_MaskColumnsOp : MoaGPU_Op<"mask_columns", [Pure]> {
  let summary = "minus infinity where a column does not see a key";
  let description = [{
    Rows are keys, `key` the position of the block's first. `start0` and
    `start1` are the window starts of the thread's two columns, `end0` and
    `end1` the positions behind the last keys that they see. A column sees key j
    iff `j < end and (j < sink or j >= start)`.
  }];
  let arguments = (ins MoaGPU_SumBlock:$scores, I32:$key, I32:$start0,
                       I32:$start1, I32:$end0, I32:$end1, I32:$sink);
  let results = (outs MoaGPU_SumBlock:$result);
  let assemblyFormat = [{
    $scores `,` `key` $key `starts` $start0 `,` $start1 `ends` $end0 `,` $end1
    `sink` $sink attr-dict
  }];
}

def MoaGPU_WaitLaunchesOp : MoaGPU_Op<"wait_launches"> {
  let summary = "wait for the end of the launch before this one";
  let description = [{
    A kernel that is launched so may start while the launch before it still
    runs. Behind this, all that the other has written is seen, and nothing
    behind it is read or written before. Every block waits in some of its
    threads, so that the end of a launch is the end of all before it too.
    Elsewhere it does nothing.
  }];
  let assemblyFormat = "attr-dict";
}

def MoaGPU_LaunchNextOp : MoaGPU_Op<"launch_next"> {
  let summary = "let the launch behind this one start";
  let description = [{
    It starts once a thread of every block has been here, or the block has
    ended. This launch, and others before it, may still run then: ahead of a
    `moa_gpu.wait_launches` it may read what was written before the first launch
    of a row that start so, which waits for the end of all before it, and may
    write nothing.
  }];
  let assemblyFormat = "attr-dict";
}

def MoaGPU_CountArrivalOp : MoaGPU_Op<"count_arrival"> {
  let summary = "add one to a counter in global memory, and say what it was";
  let description = [{
    One thread counts for those it has met at a barrier before: what they wrote
    is seen by the threads that it meets behind, in whichever block finds a
    higher count. (Upstream's atomic operations lose their ordering on the way
    to PTX.)
  }];
  let arguments = (ins LLVM_PointerInAddressSpace<1>:$counter);
  let results = (outs I32:$found);
  let assemblyFormat = "$counter attr-dict `:` type($counter)";
}

#endif // MOA_GPU_WARP_OPS_TD
