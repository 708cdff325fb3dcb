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
    Operations of one structure (kind, head size, group, element type, soft cap,
    tile shape) share one kernel, whatever their windows: a module of its own, named
    after the structure, with the facts in `moa.kernel`. The operation becomes a
    `moa.launch` that keeps window, layout and scale for the runtime. Layers
    with KV heads of 8 bits have attention kernels of their own, and share one
    that makes such blocks: the runtime launches it when a page is complete.

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
    head size, which suits one row of a few heads. Blocks of 8 bits are widened
    in registers or with the copy that widens others, behind a branch a block.

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

def ConvertMoaTileToGPU : Pass<"convert-moa-tile-to-gpu", "::mlir::ModuleOp"> {
  let summary = "Arrange tile kernels as warps, rings and products of a GPU";
  let description = [{
    Every function with a `moa_tile.config` in the module becomes a kernel of
    the moa_gpu dialect with the parameters of `moa/abi/gpu_args.h`. The walk
    over `all` blocks becomes one loop over the item's key tiles, from the
    diagonal leftwards, then the sink: masks stand behind a branch that is
    uniform in a warpgroup.

    Kernels for Hopper load by bulk tensor copies in a warp of their own and
    multiply in two warpgroups that take turns; the product of the values of one
    tile overlaps the softmax of the next. Prefill for other chips, and in f32
    for all, fetches by all threads and multiplies warp by warp; a product of
    f32 is three of tf32.

    A decode kernel has as many columns as the heads of its group fill tiles of
    8; with `columns` it has that many, for items of several tokens, and a name
    that says so.
  }];
  let options = [
    Option<"chip", "chip", "std::string", /*default=*/"\"sm_90a\"",
           "GPU to arrange for (sm_90a, sm_80)">,
    Option<"columns", "columns", "unsigned", /*default=*/"0",
           "Columns of decode kernels (8 or 16; 0: what the group needs)">
  ];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::func::FuncDialect",
    "::mlir::LLVM::LLVMDialect", "::mlir::NVVM::NVVMDialect",
    "::mlir::scf::SCFDialect", "::mlir::vector::VectorDialect",
    "::moa::gpu::MoaGPUDialect"
  ];
}

def ConvertMoaGPUToNVVM : Pass<"convert-moa-gpu-to-nvvm", "::mlir::ModuleOp"> {
  let summary = "Spell the moa_gpu dialect in NVVM operations and inline PTX";
  let description = [{
    Lays out shared memory and barriers of the module's kernel, computes
    addresses, parities and descriptors, and replaces every operation of the
    dialect. The kernel keeps its parameters; `moa.threads`, `moa.shared_bytes`,
    `moa.tile_rows`, `moa.tile_keys` and `moa.register_budget` say how it is
    launched.
  }];
  let dependentDialects = [
    "::mlir::arith::ArithDialect", "::mlir::LLVM::LLVMDialect",
    "::mlir::NVVM::NVVMDialect", "::mlir::scf::SCFDialect",
    "::mlir::vector::VectorDialect"
  ];
}

#endif // MOA_CONVERSION_PASSES_TD
