//===- Passes.td - Conversions between levels --------------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_PASSES_TD
#define MOA_CONVERSION_PASSES_TD

include "mlir/Pass/PassBase.td"

def ConvertMoaToTile : Pass<"convert-moa-to-tile", "::mlir::ModuleOp"> {
  let summary = "Turn attention and appends into launches of tile kernels";
  let description = [{
    Operations of one structure (kind, head size, group, element type, tile
    shape) share one kernel, whatever their windows: a module of its own, named
    after the structure, with the facts in `moa.kernel`. The operation becomes a
    `moa.launch` that keeps window, layout and scale for the runtime.

    Before:
    ```mlir
    %o = moa.attention %q, %c window(#window) layout(#layout)
         tile(<lanes = rows, rows = 64, keys = 64>)
         : tensor<?x9x64xf32>, !moa.cache<3x64xf32>
    ```
    After:
    ```mlir
    %o = moa.launch @prefill_d64_f32(%q, %c) {layout = #layout, window = #window}
         : (tensor<?x9x64xf32>, !moa.cache<3x64xf32>) -> tensor<?x9x64xf32>
    ...
    module @prefill_d64_f32 attributes {moa.kernel = #moa.kernel<...>} {
      func.func @prefill_d64_f32(%item: !moa_tile.item<prefill>) ...
    }
    ```
  }];
  let dependentDialects = [
    "::mlir::func::FuncDialect", "::moa::tile::MoaTileDialect"
  ];
}

def ConvertMoaTileToCPU : Pass<"convert-moa-tile-to-cpu", "::mlir::ModuleOp"> {
  let summary = "Lower tile kernels to vectors, loops and pointers for a CPU";
  let description = [{
    Every function with a `moa_tile.config` in the module is replaced by a
    function of the same name that takes two pointers, the work item and the
    scratch memory, and whose body uses scf, arith, vector, math and llvm
    operations. `moa.scratch_bytes` on the function says how much scratch it
    needs.

    Kernels with `lanes = rows` keep scores and outputs transposed, so that
    keys and values are read where they lie, as broadcast scalars, and the
    softmax needs no horizontal step. Kernels with `lanes = dims` run along the
    head size, which suits one row of a few heads.

    Before:
    ```mlir
    func.func @append_d64_f32(%item: !moa_tile.item<append>)
        attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 64, keys = 64>} {
      moa_tile.copy_rows %item dims 64 of f32 : !moa_tile.item<append>
      return
    }
    ```
    After: `func.func @append_d64_f32(%item: !llvm.ptr, %scratch: !llvm.ptr)`
    with a loop of vector loads and stores.
  }];
  let options = [
    Option<"chip", "chip", "std::string", /*default=*/"\"x86-64-v4\"",
           "CPU variant to lower for (x86-64-v3, x86-64-v4)">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::math::MathDialect",
    "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect"
  ];
}

#endif // MOA_CONVERSION_PASSES_TD
