//===- MoaGPUMemoryOps.td - Roles, rings, copies ---------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_GPU_MEMORY_OPS_TD
#define MOA_GPU_MEMORY_OPS_TD

include "mlir/Dialect/LLVMIR/LLVMOpBase.td"
include "mlir/IR/BuiltinAttributes.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "moa/Dialect/MoaGPU/IR/MoaGPUTypes.td"

class MoaGPU_Op<string mnemonic, list<Trait> traits = []>
    : Op<MoaGPU_Dialect, mnemonic, traits>;

/// Pairs of 16-bit floats.
def MoaGPU_Packed : VectorOfRankAndType<[1], [I32]>;

def MoaGPU_RolesOp : MoaGPU_Op<"roles", [SingleBlock, NoTerminator]> {
  let summary = "split the block's warpgroups in one that loads and some that "
                "compute";
  let description = [{
    The first region runs on one thread of the first warpgroup, the second on
    each of `warpgroups` more, with its number (i32, from 0). Registers move
    from the first to the others: `producer_registers` and
    `consumer_registers` a thread.

    - (C1) The consumer region has one argument of type i32, the producer none.
    - (C2) Registers are multiples of 8 between 24 and 240.
    - (C3) Every ring used below is put by the producer, and read and released
      by the consumers.
    - (C4) Products, waits and barriers stand in the consumer region, and not
      under `moa_gpu.one_thread`.
    - (C5) Those rings have `warpgroups` readers: each reads every use.
    - (C6) A launch of the kernel is one of `warpgroups` + 1 warpgroups, with as
      many registers as they have in the end, or more: else the consumers would
      wait for theirs for ever.

    ```mlir
    moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
      ...
    } consumer {
    ^bb0(%group: i32):
      ...
    }
    ```
  }];
  let arguments = (ins I64Attr:$warpgroups, I64Attr:$producer_registers,
                       I64Attr:$consumer_registers);
  let regions = (region SizedRegion<1>:$producer, SizedRegion<1>:$consumer);
  let assemblyFormat = [{
    `warpgroups` `=` $warpgroups `,` `registers` `=` $producer_registers `,`
    $consumer_registers `producer` $producer `consumer` $consumer attr-dict
  }];
  let hasRegionVerifier = 1;
}

def MoaGPU_OneThreadOp : MoaGPU_Op<"one_thread", [
    SingleBlock, NoTerminator, RecursiveMemoryEffects
  ]> {
  let summary = "let one thread of the warpgroup run the body";
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = "$body attr-dict";
}

def MoaGPU_BarrierOp : MoaGPU_Op<"barrier"> {
  let summary = "meet other threads of the block at a named barrier";
  let description = [{
    Barrier `id` (1 to 15) is passed once `threads` threads have come: those
    that `sync` wait for it, those that `arrive` do not.

    - (C1) `threads` is a positive multiple of 32.

    ```mlir
    moa_gpu.barrier sync %id, 256
    ```
  }];
  let arguments = (ins MoaGPU_BarrierActionAttr:$action, I32:$id,
                       I64Attr:$threads);
  let assemblyFormat = "`` $action $id `,` $threads attr-dict";
  let hasVerifier = 1;
}

def MoaGPU_RingOp : MoaGPU_Op<"ring"> {
  let summary = "shared memory and barriers of a ring";
  let description = [{
    `readers` warpgroups (under `moa_gpu.warp_roles`: warps) release each stage
    before it is written again.

    - (C1) It stands in a kernel's entry block.
    - (C2) `readers` is positive.
  }];
  let arguments = (ins I64Attr:$readers);
  let results = (outs MoaGPU_RingType:$ring);
  let assemblyFormat = "`readers` `=` $readers attr-dict `:` type($ring)";
  let hasVerifier = 1;
}

def MoaGPU_SharedOp : MoaGPU_Op<"shared", [MemoryEffects<[MemAlloc]>]> {
  let summary = "a tile of shared memory";
  let description = [{
    - (C1) It stands in a kernel's entry block.
    - (C2) Its elements have 16 bits.
  }];
  let results = (outs MoaGPU_SharedType:$tile);
  let assemblyFormat = "attr-dict `:` type($tile)";
  let hasVerifier = 1;
}

def MoaGPU_PutOp : MoaGPU_Op<"put", [SingleBlock, NoTerminator]> {
  let summary = "write a stage of a ring";
  let description = [{
    Waits until use `n - stages` was released, then runs the body, whose copies
    fill the whole tile; readers of use `n` go on when all bytes have landed.
    The words are stored with it.

    - (C1) The body's arguments are the ring's tile, or its `codes`, and a
      barrier.
    - (C2) The copies in the body cover each box of 64 rows of a panel of the
      tile exactly once.
    - (C3) As many words as the ring has, or four fewer: the last four are then
      those of one `moa_gpu.copy_words` in the body, or nobody's.
    - (C4) Every copy stands directly in the body, writes its tile and counts
      at its barrier.

    ```mlir
    moa_gpu.put %ring[%n] : !moa_gpu.ring<2 x !moa_gpu.shared<64x64xbf16>> {
    ^bb0(%tile: !moa_gpu.shared<64x64xbf16>, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%col, %row, %head] to %tile[0, 0], %full ...
    }
    ```
  }];
  let arguments = (ins MoaGPU_RingType:$ring, I32:$use, Variadic<I32>:$words);
  let regions = (region SizedRegion<1>:$body);
  let assemblyFormat = [{
    $ring `[` $use `]` (`words` `(` $words^ `)`)? attr-dict `:` type($ring)
    $body
  }];
  let hasRegionVerifier = 1;
}

def MoaGPU_CopyInOp : MoaGPU_Op<"copy_in"> {
  let summary = "bulk tensor copy of a box to shared memory";
  let description = [{
    A box has 64 rows of a panel. Coordinates are those of the map, innermost
    first: column, row, head (or part of a page). What lies outside the tensor reads as zero. `box` names the
    place in the tile: 64 rows from 64 * box[0], panel box[1]. What is `read_once`
    is the first that the L2 cache gives up.

    - (C1) The box lies in the tile.
  }];
  let arguments = (ins LLVM_AnyPointer:$map, I32:$column, I32:$row, I32:$plane,
                       MoaGPU_SharedType:$tile, DenseI64ArrayAttr:$box,
                       MoaGPU_BarrierType:$full, UnitAttr:$read_once);
  let assemblyFormat = [{
    $map `[` $column `,` $row `,` $plane `]` `to` $tile `` $box `,` $full
    (`read_once` $read_once^)? attr-dict `:` type($map) `,` type($tile)
  }];
  let hasVerifier = 1;
}

def MoaGPU_GetOp : MoaGPU_Op<"get"> {
  let summary = "wait for a stage of a ring to be full";
  let arguments = (ins MoaGPU_RingType:$ring, I32:$use);
  let results = (outs MoaGPU_SharedType:$tile, Variadic<I32>:$words);
  let assemblyFormat = [{
    $ring `[` $use `]` attr-dict `:` type($ring) `->` type($tile)
    (`,` type($words)^)?
  }];
  let hasVerifier = 1;
  let description = [{
    - (C1) The result is the ring's tile.
    - (C2) As many words as the ring has, or none.
    - (C3) In `moa_gpu.roles`, between a get with words and the first release of
      the ring behind it stands a `moa_gpu.wait` or a barrier that all meet at:
      one thread releases for its warpgroup, and others may still be reading.
  }];
}

def MoaGPU_ReleaseOp : MoaGPU_Op<"release"> {
  let summary = "give a stage back: this warpgroup, or warp, reads it no more";
  let arguments = (ins MoaGPU_RingType:$ring, I32:$use);
  let assemblyFormat = "$ring `[` $use `]` attr-dict `:` type($ring)";
}

def MoaGPU_OrderFenceOp : MoaGPU_Op<"order_fence"> {
  let summary = "keep a wait behind the arithmetic that precedes it";
  let description = [{
    The assembler moves a wait for a product above independent arithmetic, which
    undoes their overlap, unless a block of code ends between them. This waits
    again for a stage that the warpgroup holds, which is full: it costs one
    instruction.

    - (C1) The stage is not released before it in the same block: its phase may
      have moved on, and the wait would never end.
  }];
  let arguments = (ins MoaGPU_RingType:$ring, I32:$use);
  let assemblyFormat = "$ring `[` $use `]` attr-dict `:` type($ring)";
  let hasVerifier = 1;
}

def MoaGPU_StageOp : MoaGPU_Op<"stage"> {
  let summary = "write a warpgroup's 64 rows of a fragment to shared memory";
  let description = [{
    Rows from `row` (i32, a multiple of 64) of the tile. Afterwards the copy
    engine may read them, once the warpgroup has met at a barrier.

    - (C1) The fragment holds a quarter as many pairs as the tile has columns.
  }];
  let arguments = (ins MoaGPU_Packed:$fragment,
                       MoaGPU_SharedType:$tile, I32:$row);
  let assemblyFormat = [{
    $fragment `,` $tile `[` $row `]` attr-dict `:` type($fragment) `,`
    type($tile)
  }];
  let hasVerifier = 1;
}

def MoaGPU_CopyOutOp : MoaGPU_Op<"copy_out"> {
  let summary = "bulk tensor copy of 64 rows of a tile to global memory";
  let description = [{
    All panels of the rows from `row` of the tile; coordinates as in
    `moa_gpu.copy_in`. Nothing is written outside the tensor. One thread starts
    it; `moa_gpu.copy_out_wait` of that thread waits until the tile was read.

    - (C1) It stands in `moa_gpu.one_thread`.
  }];
  let arguments = (ins MoaGPU_SharedType:$tile, I32:$tile_row,
                       LLVM_AnyPointer:$map, I32:$row, I32:$plane);
  let assemblyFormat = [{
    $tile `[` $tile_row `]` `to` $map `[` $row `,` $plane `]` attr-dict `:`
    type($tile) `,` type($map)
  }];
  let hasVerifier = 1;
}

def MoaGPU_CopyOutWaitOp : MoaGPU_Op<"copy_out_wait"> {
  let summary = "wait until this thread's copies out have read their tiles";
  let description = [{
    - (C1) It stands in `moa_gpu.one_thread`.
  }];
  let assemblyFormat = "attr-dict";
  let hasVerifier = 1;
}

#endif // MOA_GPU_MEMORY_OPS_TD
