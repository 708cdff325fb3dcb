//===- MoaTileEnums.td - Enums and attributes --------------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TILE_ENUMS_TD
#define MOA_TILE_ENUMS_TD

include "mlir/IR/EnumAttr.td"
include "mlir/IR/AttrTypeBase.td"
include "moa/Dialect/MoaTile/IR/MoaTileDialect.td"

class MoaTile_I32Enum<string name, string summary,
                      list<I32EnumAttrCase> cases>
    : I32EnumAttr<name, summary, cases> {
  let cppNamespace = "::moa::tile";
  let genSpecializedAttr = 0;
}

def MoaTile_ItemKind : MoaTile_I32Enum<"ItemKind", "what an item asks for", [
  I32EnumAttrCase<"Prefill", 0, "prefill">,
  I32EnumAttrCase<"Decode", 1, "decode">,
  I32EnumAttrCase<"Append", 2, "append">,
  I32EnumAttrCase<"Rope", 4, "rope">,
  I32EnumAttrCase<"Quantise", 5, "quantise">
]>;

def MoaTile_RopeLayout : MoaTile_I32Enum<"RopeLayout",
    "which elements of a row are rotated as a pair", [
  I32EnumAttrCase<"Half", 0, "half">,
  I32EnumAttrCase<"Interleaved", 1, "interleaved">
]>;

def MoaTile_Lanes : MoaTile_I32Enum<"Lanes",
    "which dimension runs along vector lanes", [
  I32EnumAttrCase<"Rows", 0, "rows">,
  I32EnumAttrCase<"Dims", 1, "dims">
]>;

def MoaTile_Segment : MoaTile_I32Enum<"Segment",
    "a run of key blocks that needs one kind of mask", [
  I32EnumAttrCase<"All", 0, "all">,
  I32EnumAttrCase<"Sink", 1, "sink">,
  I32EnumAttrCase<"Edge", 2, "edge">,
  I32EnumAttrCase<"Full", 3, "full">,
  I32EnumAttrCase<"Diagonal", 4, "diagonal">
]>;
def MoaTile_SegmentAttr
    : EnumAttr<MoaTile_Dialect, MoaTile_Segment, "segment"> {
  let assemblyFormat = "$value";
}

def MoaTile_MaskClass : I32BitEnumAttr<"MaskClass",
    "the terms of the visibility rule that a block still needs", [
  I32BitEnumAttrCaseBit<"Sink", 0, "sink">,
  I32BitEnumAttrCaseBit<"Window", 1, "window">,
  I32BitEnumAttrCaseBit<"Causal", 2, "causal">
]> {
  let cppNamespace = "::moa::tile";
  let genSpecializedAttr = 0;
  let separator = ", ";
}
def MoaTile_MaskClassAttr
    : EnumAttr<MoaTile_Dialect, MoaTile_MaskClass, "mask_class"> {
  let assemblyFormat = "`(` $value `)`";
}

def MoaTile_ConfigAttr : AttrDef<MoaTile_Dialect, "Config"> {
  let mnemonic = "config";
  let summary = "tile shape of a kernel";
  let description = [{
    Stands on a kernel function as `moa_tile.config`. `rows` are query rows of a
    work item, `keys` the keys of one block (a page, 64, or two), `lanes` the
    dimension along vector lanes.

    - (C1) `rows` is between 1 and 256.
    - (C2) `keys` is 64 or 128.
  }];
  let parameters = (ins
    EnumParameter<MoaTile_Lanes>:$lanes,
    "int64_t":$rows,
    "int64_t":$keys
  );
  let assemblyFormat = "`<` struct(params) `>`";
  let genVerifyDecl = 1;
}

def MoaTile_RopeAttr : AttrDef<MoaTile_Dialect, "Rope"> {
  let mnemonic = "rope";
  let summary = "which elements of a row are rotated, and in what pairs";
  let description = [{
    The first `rotary_dim` elements are rotated, (i, i + rotary_dim / 2) with
    layout `half`, (2 i, 2 i + 1) with `interleaved`.

    - (C1) `rotary_dim` is even and at least 2.
  }];
  let parameters = (ins
    EnumParameter<MoaTile_RopeLayout>:$layout,
    "int64_t":$rotary_dim
  );
  let assemblyFormat = "`<` $layout `,` $rotary_dim `>`";
  let genVerifyDecl = 1;
}

#endif // MOA_TILE_ENUMS_TD
