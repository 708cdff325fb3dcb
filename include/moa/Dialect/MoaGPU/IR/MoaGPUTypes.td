//===- MoaGPUTypes.td - Types, enums and attributes ------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_GPU_TYPES_TD
#define MOA_GPU_TYPES_TD

include "mlir/IR/AttrTypeBase.td"
include "mlir/IR/EnumAttr.td"
include "moa/Dialect/MoaGPU/IR/MoaGPUDialect.td"

class MoaGPU_Type<string name, string typeMnemonic>
    : TypeDef<MoaGPU_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def MoaGPU_SharedType : MoaGPU_Type<"Shared", "shared"> {
  let summary = "a tile in shared memory";
  let description = [{
    Panels of 128 bytes a row (64 columns, 32 of f32 or 128 of i8), one after
    the other, with the 128-byte swizzle that bulk tensor copies write and
    warpgroup products read. Tiles of f32 are fetched by threads and multiplied
    by warps alone; those of i8 have 8-bit codes of keys and values, in the
    memory of a tile of 16-bit elements. Example:
    `!moa_gpu.shared<128x128xbf16>`.

    - (C1) `rows` is a positive multiple of 64 (of f32: of 16) and `cols` a
      positive multiple of a panel's columns.
    - (C2) The element type is f32, f16, bf16 or i8.
  }];
  let parameters = (ins "int64_t":$rows, "int64_t":$cols,
                        "::mlir::Type":$elementType);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
  let extraClassDeclaration = [{
    int64_t getElementBytes() const {
      return getElementType().getIntOrFloatBitWidth() / 8;
    }
    int64_t getPanelColumns() const { return 128 / getElementBytes(); }
    int64_t getPanels() const { return getCols() / getPanelColumns(); }
    int64_t getPanelBytes() const { return getRows() * 128; }
    int64_t getBytes() const { return getPanels() * getPanelBytes(); }
    /// A tile of 8-bit codes that lies in the memory of this one.
    SharedType codes() const {
      return SharedType::get(getContext(), getRows(),
                             (getCols() + 127) / 128 * 128,
                             ::mlir::IntegerType::get(getContext(), 8));
    }
  }];
}

def MoaGPU_RingType : MoaGPU_Type<"Ring", "ring"> {
  let summary = "stages of shared memory that tiles pass through";
  let description = [{
    Each stage holds one tile and two barriers: full, on which the readers wait,
    and empty, on which the writer waits. Use number n goes through stage
    n % stages; both sides count uses alike. A few i32 `words` may travel with a
    tile. Examples: `!moa_gpu.ring<2 x !moa_gpu.shared<128x128xbf16>>`,
    `!moa_gpu.ring<1 x !moa_gpu.shared<128x64xf16>, words = 16>`.

    - (C1) One to eight stages.
    - (C2) `words` is a multiple of 4 between 0 and 64.
    - (C3) The tile's elements have 16 bits.
  }];
  let parameters = (ins "int64_t":$stages, "SharedType":$tile,
                        DefaultValuedParameter<"int64_t", "0">:$words);
  let assemblyFormat = [{
    `<` $stages `x` qualified($tile) (`,` `words` `=` $words^)? `>`
  }];
  let genVerifyDecl = 1;
}

def MoaGPU_BarrierType : MoaGPU_Type<"Barrier", "barrier"> {
  let summary = "the full barrier of a stage that is being written";
}

def MoaGPU_AsyncType : MoaGPU_Type<"Async", "async"> {
  let summary = "a product in flight";
  let description = [{
    Its registers must not be touched until a `moa_gpu.wait` has returned them.
    Example: `!moa_gpu.async<vector<64xf32>>`.

    - (C1) The fragment is a one-dimensional vector of f32.
  }];
  let parameters = (ins "::mlir::VectorType":$fragment);
  let assemblyFormat = "`<` $fragment `>`";
  let genVerifyDecl = 1;
}

class MoaGPU_I32Enum<string name, string summary,
                     list<I32EnumAttrCase> cases>
    : I32EnumAttr<name, summary, cases> {
  let cppNamespace = "::moa::gpu";
  let genSpecializedAttr = 0;
}

def MoaGPU_Reduction : MoaGPU_I32Enum<"Reduction", "how rows are reduced", [
  I32EnumAttrCase<"Max", 0, "max">, I32EnumAttrCase<"Add", 1, "add">
]>;
def MoaGPU_ReductionAttr
    : EnumAttr<MoaGPU_Dialect, MoaGPU_Reduction, "reduction"> {
  let assemblyFormat = "$value";
}

def MoaGPU_BarrierAction : MoaGPU_I32Enum<"BarrierAction",
    "whether a thread waits at a barrier or only counts", [
  I32EnumAttrCase<"Sync", 0, "sync">, I32EnumAttrCase<"Arrive", 1, "arrive">
]>;
def MoaGPU_BarrierActionAttr
    : EnumAttr<MoaGPU_Dialect, MoaGPU_BarrierAction, "barrier_action"> {
  let assemblyFormat = "$value";
}

def MoaGPU_LaunchAttr : AttrDef<MoaGPU_Dialect, "Launch"> {
  let mnemonic = "launch";
  let summary = "how a kernel is launched";
  let description = [{
    Stands on a kernel function as `moa_gpu.launch`. `threads` of one block;
    `registers`, the most that a thread may start with; `rows` of an item and
    `keys` of a tile, for the runtime that makes items (0 where it makes none).

    - (C1) `threads` is a multiple of 32 between 32 and 1024.
    - (C2) `registers` is a multiple of 8 between 24 and 255, or 255.
  }];
  let parameters = (ins "int64_t":$threads, "int64_t":$registers,
                        "int64_t":$rows, "int64_t":$keys);
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

#endif // MOA_GPU_TYPES_TD
