//===- MoaGPUProductOps.td - Asynchronous products -------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_GPU_PRODUCT_OPS_TD
#define MOA_GPU_PRODUCT_OPS_TD

include "moa/Dialect/MoaGPU/IR/MoaGPUMemoryOps.td"

def MoaGPU_ScoresOp : MoaGPU_Op<"scores"> {
  let summary = "start queries times transposed keys, both in shared memory";
  let description = [{
    64 query rows from `row` of their tile against the first `keys` rows of the
    key tile, over `depth` columns; accumulated in f32 from zero.

    - (C1) Queries and keys have equal columns and element types, `depth` is a
      positive multiple of 16 and at most that.
    - (C2) `keys` is a multiple of 8 between 8 and 256, at most the key tile's
      rows.
    - (C3) The fragment has keys / 2 elements.
    - (C4) Its one use is a `moa_gpu.wait` in the same block.
    - (C5) It stands under no branch and no loop that may go differently in
      different threads: the warpgroup takes part as a whole.

    ```mlir
    %s = moa_gpu.scores %q[%row], %k keys 128 depth 128
      : !moa_gpu.shared<128x128xbf16>, !moa_gpu.shared<128x128xbf16>
      -> !moa_gpu.async<vector<64xf32>>
    ```
  }];
  let arguments = (ins MoaGPU_SharedType:$queries, I32:$row,
                       MoaGPU_SharedType:$keys_tile, I64Attr:$keys,
                       I64Attr:$depth);
  let results = (outs MoaGPU_AsyncType:$result);
  let assemblyFormat = [{
    $queries `[` $row `]` `,` $keys_tile `keys` $keys `depth` $depth attr-dict
    `:` type($queries) `,` type($keys_tile) `->` qualified(type($result))
  }];
  let hasVerifier = 1;
}

def MoaGPU_AccumulateOp : MoaGPU_Op<"accumulate", [
    TypesMatchWith<"the result is the accumulator in flight", "accumulator",
                   "result", "AsyncType::get($_self.getContext(), "
                   "::llvm::cast<::mlir::VectorType>($_self))">
  ]> {
  let summary = "start adding probabilities (registers) times values (shared)";
  let description = [{
    Probabilities of 64 rows by n keys, packed in the values' element type, n / 4
    pairs a thread, times the first n rows of the value tile.

    - (C1) The probabilities' keys are a multiple of 16 and at most the tile's
      rows.
    - (C2) The accumulator has half as many elements as the tile has columns.
    - (C3) The tile has at most 256 columns.
    - (C4), (C5) As for `moa_gpu.scores`.
  }];
  let arguments = (ins MoaGPU_Packed:$probabilities,
                       MoaGPU_SharedType:$values,
                       VectorOfRankAndType<[1], [F32]>:$accumulator);
  let results = (outs MoaGPU_AsyncType:$result);
  let assemblyFormat = [{
    $probabilities `,` $values `,` $accumulator attr-dict `:`
    type($probabilities) `,` type($values) `,` type($accumulator)
  }];
  let hasVerifier = 1;
}

def MoaGPU_WaitOp : MoaGPU_Op<"wait", [
    TypesMatchWith<"the result is the product's fragment", "product", "result",
                   "::llvm::cast<AsyncType>($_self).getFragment()">
  ]> {
  let summary = "wait for a product; younger ones may stay in flight";
  let description = [{
    Products end in the order in which they were started.

    - (C1) The product was started in the same block.
    - (C2) `pending` is the number of products started after it in the block
      and not waited for yet.
    - (C3) No older product of the block is still in flight.
    - (C4) No stage that the product reads is released before the wait.

    ```mlir
    %s = moa_gpu.wait %product pending 1 : !moa_gpu.async<vector<64xf32>>
    ```
  }];
  let arguments = (ins MoaGPU_AsyncType:$product, I64Attr:$pending);
  let results = (outs AnyVectorOfNonZeroRank:$result);
  let assemblyFormat =
      "$product `pending` $pending attr-dict `:` qualified(type($product))";
  let hasVerifier = 1;
}

#endif // MOA_GPU_PRODUCT_OPS_TD
