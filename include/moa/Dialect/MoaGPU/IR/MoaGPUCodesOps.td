//===- MoaGPUCodesOps.td - Keys and values in 8 bits -----*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Codes are read as they lie and unpacked in registers, pair by pair. This
// gives operands another order of columns than matrix loads of 16-bit elements
// have: the woven one. Whoever multiplies both reads the latter woven too.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_GPU_CODES_OPS_TD
#define MOA_GPU_CODES_OPS_TD

include "moa/Dialect/MoaGPU/IR/MoaGPUWarpOps.td"

def MoaGPU_Code : MoaGPU_I32Enum<"Code", "what 8 bits stand for", [
  I32EnumAttrCase<"E4M3", 0, "e4m3">, I32EnumAttrCase<"Int8", 1, "int8">
]>;
def MoaGPU_CodeAttr : EnumAttr<MoaGPU_Dialect, MoaGPU_Code, "code"> {
  let assemblyFormat = "$value";
}

def MoaGPU_AsCodesOp : MoaGPU_Op<"as_codes", [Pure]> {
  let summary = "the memory of a tile as one of 8-bit codes";
  let description = [{
    As many rows, from the same place on.

    - (C1) The result is the tile's `codes`: its columns rounded up to a
      multiple of 128, of type i8.

    ```mlir
    %codes = moa_gpu.as_codes %tile
      : !moa_gpu.shared<128x64xbf16> -> !moa_gpu.shared<128x128xi8>
    ```
  }];
  let arguments = (ins MoaGPU_SharedType:$tile);
  let results = (outs MoaGPU_SharedType:$codes);
  let assemblyFormat =
      "$tile attr-dict `:` type($tile) `->` type($codes)";
  let hasVerifier = 1;
}

def MoaGPU_CopyWordsOp : MoaGPU_Op<"copy_words"> {
  let summary = "bulk copy of 16 bytes to the last four words of a stage";
  let description = [{
    `source` is aligned to 16 bytes.

    - (C1) It stands directly in the body of a `moa_gpu.put` and counts at its
      barrier.
  }];
  let arguments = (ins LLVM_PointerInAddressSpace<1>:$source,
                       MoaGPU_BarrierType:$full);
  let assemblyFormat = "$source `,` $full attr-dict `:` type($source)";
  let hasVerifier = 1;
}

def MoaGPU_WeaveOp : MoaGPU_Op<"weave", [Pure]> {
  let summary = "the low halves of two pairs, then their high halves";
  let description = [{
    Of four columns in a row, those of even number, then the others.
  }];
  let arguments = (ins MoaGPU_RightBlock:$pairs);
  let results = (outs MoaGPU_RightBlock:$woven);
  let assemblyFormat = "$pairs attr-dict";
}

def MoaGPU_LoadWovenOp : MoaGPU_Op<"load_woven"> {
  let summary = "read 16 rows of 32 bytes of a tile as a woven left operand";
  let description = [{
    Rows from `row` (i32, a multiple of 16), 16 columns from `column`. Where
    `moa_gpu.load_matrix` has columns 2 l, 2 l + 1, 2 l + 8, 2 l + 9 in lane l
    of four, a woven operand has 4 l, 4 l + 2, 4 l + 1, 4 l + 3. Transposed, the
    operand's row r is column 2 r of the tile, and row r + 8 column 2 r + 1.

    - (C1) The tile's elements have 16 bits; `column` is a multiple of 16 below
      its columns.

    ```mlir
    %a = moa_gpu.load_woven %tile[%row, 16] transposed
      : !moa_gpu.shared<128x128xbf16>
    ```
  }];
  let arguments = (ins MoaGPU_SharedType:$tile, I32:$row, I64Attr:$column,
                       UnitAttr:$transposed);
  let results = (outs MoaGPU_LeftBlock:$block);
  let assemblyFormat = [{
    $tile `[` $row `,` $column `]` (`transposed` $transposed^)? attr-dict `:`
    type($tile)
  }];
  let hasVerifier = 1;
}

def MoaGPU_UnpackOp : MoaGPU_Op<"unpack", [Pure]> {
  let summary = "pairs of 16-bit floats that 8-bit codes stand for, exactly";
  let description = [{
    Element i of the codes becomes pair 2 i, of its bytes 0 and 2, and pair
    2 i + 1, of its bytes 1 and 3. So a matrix of codes becomes woven operands.
    A code of int8 is the number plus 128; e4m3 is that of OCP, whose NaN is
    read as a number: no block of finite scale has any.

    - (C1) The type is f16 or bf16.
    - (C2) The result has twice as many elements.

    ```mlir
    %pairs = moa_gpu.unpack %codes e4m3 to bf16 : vector<4xi32> -> vector<8xi32>
    ```
  }];
  let arguments = (ins MoaGPU_Packed:$codes, MoaGPU_CodeAttr:$code,
                       TypeAttr:$type);
  let results = (outs MoaGPU_Packed:$pairs);
  let assemblyFormat = [{
    $codes `` $code `to` $type attr-dict `:` type($codes) `->` type($pairs)
  }];
  let hasVerifier = 1;
}

#endif // MOA_GPU_CODES_OPS_TD
