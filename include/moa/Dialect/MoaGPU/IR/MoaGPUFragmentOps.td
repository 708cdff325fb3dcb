//===- MoaGPUFragmentOps.td - Arithmetic on fragments ----*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_GPU_FRAGMENT_OPS_TD
#define MOA_GPU_FRAGMENT_OPS_TD

include "moa/Dialect/MoaGPU/IR/MoaGPUMemoryOps.td"

def MoaGPU_F32Fragment : VectorOfRankAndType<[1], [F32]>;
def MoaGPU_RowPair
    : Type<FixedVectorOfLengthAndType<[2], [F32]>.predicate,
           "one f32 for each of the thread's two rows", "::mlir::VectorType">,
      BuildableType<
          "::mlir::VectorType::get({2}, $_builder.getF32Type())">;

def MoaGPU_LaneRowOp : MoaGPU_Op<"lane_row", [Pure]> {
  let summary = "first of this thread's two rows in its warpgroup's 64";
  let description = [{
    The other one is 8 rows below.
  }];
  let results = (outs I32:$row);
  let assemblyFormat = "attr-dict";
}

def MoaGPU_MaskOp : MoaGPU_Op<"mask", [
    Pure, AllTypesMatch<["scores", "result"]>
  ]> {
  let summary = "minus infinity where a row does not see a key";
  let description = [{
    `position` is that of the thread's first row, `key` the position of the
    tile's first key, `start0` and `start1` the window starts of the two rows.
    Row i sees key j iff `j <= i and (j < sink or j >= start)`.

    - (C1) The fragment's size is a multiple of 4.
  }];
  let arguments = (ins MoaGPU_F32Fragment:$scores, I32:$position, I32:$key,
                       I32:$start0, I32:$start1, I32:$sink);
  let results = (outs MoaGPU_F32Fragment:$result);
  let assemblyFormat = [{
    $scores `row` $position `key` $key `starts` $start0 `,` $start1 `sink`
    $sink attr-dict `:` type($scores)
  }];
  let hasVerifier = 1;
}

def MoaGPU_RowReduceOp : MoaGPU_Op<"row_reduce", [Pure]> {
  let summary = "reduce each row of what this thread holds of a fragment";
  let description = [{
    `by_column` reduces the thread's two columns instead.

    - (C1) The fragment's size is a multiple of 4.
  }];
  let arguments = (ins MoaGPU_ReductionAttr:$kind, MoaGPU_F32Fragment:$value,
                       UnitAttr:$by_column);
  let results = (outs MoaGPU_RowPair:$result);
  let assemblyFormat = [{
    `` $kind $value (`by_column` $by_column^)? attr-dict `:` type($value)
  }];
  let hasVerifier = 1;
}

def MoaGPU_LaneReduceOp : MoaGPU_Op<"lane_reduce", [
    Pure, AllTypesMatch<["value", "result"]>
  ]> {
  let summary = "reduce over the four threads that share rows";
  let description = [{
    `by_column` reduces over the eight that share columns instead.
  }];
  let arguments = (ins MoaGPU_ReductionAttr:$kind, MoaGPU_RowPair:$value,
                       UnitAttr:$by_column);
  let results = (outs MoaGPU_RowPair:$result);
  let assemblyFormat = "`` $kind $value (`by_column` $by_column^)? attr-dict";
}

def MoaGPU_Exp2Op : MoaGPU_Op<"exp2", [
    Pure, AllTypesMatch<["value", "result"]>
  ]> {
  let summary = "2 to the power of (value * scale - bound of its row)";
  let description = [{
    Approximate, subnormal results become zero: relative error 2^-22.
    `by_column` takes the bound of its column.

    - (C1) The fragment's size is 2 or a multiple of 4; of a fragment of 2 each
      element is a row.
  }];
  let arguments = (ins MoaGPU_F32Fragment:$value, F32:$scale,
                       MoaGPU_RowPair:$bound, UnitAttr:$by_column);
  let results = (outs MoaGPU_F32Fragment:$result);
  let assemblyFormat = [{
    $value `*` $scale `-` $bound (`by_column` $by_column^)? attr-dict `:`
    type($value)
  }];
  let hasVerifier = 1;
}

def MoaGPU_TanhOp : MoaGPU_Op<"tanh", [
    Pure, AllTypesMatch<["value", "result"]>
  ]> {
  let summary = "hyperbolic tangent of value * factor";
  let description = [{
    Relative error 2^-20; with `approximate`, which is one instruction, 2^-10.9.

    - (C1) The fragment's size is a multiple of 4.
  }];
  let arguments = (ins MoaGPU_F32Fragment:$value, F32:$factor,
                       UnitAttr:$approximate);
  let results = (outs MoaGPU_F32Fragment:$result);
  let assemblyFormat = [{
    $value `*` $factor (`approximate` $approximate^)? attr-dict `:` type($value)
  }];
  let hasVerifier = 1;
}

def MoaGPU_RowScaleOp : MoaGPU_Op<"row_scale", [
    Pure, AllTypesMatch<["value", "result"]>
  ]> {
  let summary = "multiply each row by its own factor";
  let description = [{
    `by_column` multiplies columns instead.

    - (C1) The fragment's size is a multiple of 4.
  }];
  let arguments = (ins MoaGPU_F32Fragment:$value, MoaGPU_RowPair:$factor,
                       UnitAttr:$by_column);
  let results = (outs MoaGPU_F32Fragment:$result);
  let assemblyFormat = [{
    $value `,` $factor (`by_column` $by_column^)? attr-dict `:` type($value)
  }];
  let hasVerifier = 1;
}

def MoaGPU_ReciprocalOp : MoaGPU_Op<"reciprocal", [Pure]> {
  let summary = "1 / value, and 0 where the value is not positive";
  let arguments = (ins MoaGPU_RowPair:$value);
  let results = (outs MoaGPU_RowPair:$result);
  let assemblyFormat = "$value attr-dict";
}

def MoaGPU_PackOp : MoaGPU_Op<"pack", [Pure]> {
  let summary = "round a fragment to 16-bit floats, two in an i32";
  let description = [{
    The result is what a product takes as its register operand, and what
    `moa_gpu.stage` writes. Elements 2i and 2i + 1 are the low and high half of
    element i.

    - (C1) The fragment's size is a multiple of 4; the result has half as many
      elements.
    - (C2) The type is f16 or bf16.
  }];
  let arguments = (ins MoaGPU_F32Fragment:$value, TypeAttr:$type);
  let results = (outs MoaGPU_Packed:$result);
  let assemblyFormat =
      "$value `to` $type attr-dict `:` type($value) `->` type($result)";
  let hasVerifier = 1;
}

#endif // MOA_GPU_FRAGMENT_OPS_TD
