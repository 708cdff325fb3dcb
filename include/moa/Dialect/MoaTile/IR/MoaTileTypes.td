//===- MoaTileTypes.td - Types -----------------------------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TILE_TYPES_TD
#define MOA_TILE_TYPES_TD

include "mlir/IR/AttrTypeBase.td"
include "moa/Dialect/MoaTile/IR/MoaTileEnums.td"

class MoaTile_Type<string name, string typeMnemonic>
    : TypeDef<MoaTile_Dialect, name> {
  let mnemonic = typeMnemonic;
}

def MoaTile_ItemType : MoaTile_Type<"Item", "item"> {
  let summary = "one piece of work, as the runtime hands it to a kernel";
  let description = [{
    Opaque here; `moa_work_item`, `moa_append_item`, `moa_rope_item` or
    `moa_quantise_item` of `moa/abi/kernel_args.h` below. Example: `!moa_tile.item<prefill>`.
  }];
  let parameters = (ins EnumParameter<MoaTile_ItemKind>:$kind);
  let assemblyFormat = "`<` $kind `>`";
}

def MoaTile_TileType : MoaTile_Type<"Tile", "tile"> {
  let summary = "a two-dimensional tile of queries, keys, values or scores";
  let description = [{
    Example: `!moa_tile.tile<64x128xbf16>`.

    - (C1) Both sizes are positive.
    - (C2) The element type is f32, f16 or bf16.
  }];
  let parameters = (ins "int64_t":$rows, "int64_t":$cols,
                        "::mlir::Type":$elementType);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

def MoaTile_StateType : MoaTile_Type<"State", "state"> {
  let summary = "online-softmax state of `rows` rows";
  let description = [{
    Per row: running maximum (in units of log2), running sum, and `dims`
    accumulated outputs, all f32. A state is linear: each value is used exactly
    once, so that a target may update it in place. Example:
    `!moa_tile.state<64x128>`.

    - (C1) Both sizes are positive.
  }];
  let parameters = (ins "int64_t":$rows, "int64_t":$dims);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

#endif // MOA_TILE_TYPES_TD
