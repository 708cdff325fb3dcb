//===- MoaGPUFetchOps.td - Tiles fetched by all threads ---*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_GPU_FETCH_OPS_TD
#define MOA_GPU_FETCH_OPS_TD

include "moa/Dialect/MoaGPU/IR/MoaGPUMemoryOps.td"

def MoaGPU_BuffersType : MoaGPU_Type<"Buffers", "buffers"> {
  let summary = "places in shared memory for tiles that all threads fetch";
  let description = [{
    Where no engine copies tiles, the threads that compute also fetch, ahead of
    their use: use number n lies in place n % `places`. Example:
    `!moa_gpu.buffers<4 x !moa_gpu.shared<64x128xbf16>>`.

    - (C1) `places` is 1, 2 or 4.
  }];
  let parameters = (ins "int64_t":$places, "SharedType":$tile);
  let assemblyFormat = "`<` $places `x` qualified($tile) `>`";
  let genVerifyDecl = 1;
}

def MoaGPU_BuffersOp : MoaGPU_Op<"buffers", [MemoryEffects<[MemAlloc]>]> {
  let summary = "shared memory of buffers";
  let description = [{
    - (C1) It stands in a kernel's entry block.
    - (C2) The kernel has no roles: every thread fetches and every thread waits.
    - (C3) It is launched with 64, 128, 256 or 512 threads, of which eight take
      a row at a time: the tile's rows are a multiple of that many.
  }];
  let results = (outs MoaGPU_BuffersType:$buffers);
  let assemblyFormat = "attr-dict `:` type($buffers)";
  let hasVerifier = 1;
}

def MoaGPU_FetchOp : MoaGPU_Op<"fetch"> {
  let summary = "start to copy a tile from global memory, each thread a share";
  let description = [{
    Row r of the tile comes from `source` + r * `stride` (bytes; both multiples
    of 16) if `first` + r is at least 0 and less than `end`; other rows become
    zero and are not read. Only the first `columns` columns are copied. Nothing
    is copied unless `present`, which is the same in all threads; a fetch that
    copies nothing counts like any other. Where `codes` holds, the same in all
    threads too, columns are of one byte, and the place becomes the tile's
    `codes`.

    - (C1) `columns` is at most the tile's, and a positive multiple of those in
      16 bytes: 8, or 4 of f32; with `codes` 16.
    - (C2) With `codes` the tile's elements have 16 bits.

    ```mlir
    moa_gpu.fetch %source stride %bytes rows %first to %end columns 80
      into %buffers[%n] if %present : !moa_gpu.buffers<4 x !tile>
    ```
  }];
  let arguments = (ins LLVM_PointerInAddressSpace<1>:$source, I64:$stride,
                       I32:$first, I32:$end, I64Attr:$columns,
                       MoaGPU_BuffersType:$buffers, I32:$use, I1:$present,
                       Optional<I1>:$codes);
  let assemblyFormat = [{
    $source `stride` $stride `rows` $first `to` $end `columns` $columns `into`
    $buffers `[` $use `]` `if` $present (`codes` `if` $codes^)? attr-dict `:`
    type($buffers)
  }];
  let hasVerifier = 1;
}

def MoaGPU_AwaitOp : MoaGPU_Op<"await"> {
  let summary = "wait for a fetched tile, and meet all threads of the block";
  let description = [{
    Fetches end in the order in which they were started; the last `pending` ones
    may still be under way. Behind it the tile is whole, and what threads read
    before it may be overwritten: the place of use n - 1 can be fetched anew,
    for use n + places - 1.

    - (C1) If the block fetches this use before the await, `pending` is the
      number of fetches between: fewer would wait too long, more too short.
    - (C2) Otherwise `pending` is places - 2 (and there are two places or more):
      what was fetched ahead of this use, of places - 1 at most.
    - (C3) An await of several places is followed, in its block and before the
      next await, by exactly one fetch into the same buffers: with none the next
      await would count wrong, a second one would overwrite a tile being read.
    - (C4) The result is the buffers' tile.
    - (C5) It stands under no branch: the whole block takes part.

    ```mlir
    %k = moa_gpu.await %buffers[%n] pending 2
      : !moa_gpu.buffers<4 x !tile> -> !tile
    ```
  }];
  let arguments = (ins MoaGPU_BuffersType:$buffers, I32:$use,
                       I64Attr:$pending);
  let results = (outs MoaGPU_SharedType:$tile);
  let assemblyFormat = [{
    $buffers `[` $use `]` `pending` $pending attr-dict `:` type($buffers) `->`
    type($tile)
  }];
  let hasVerifier = 1;
}

#endif // MOA_GPU_FETCH_OPS_TD
