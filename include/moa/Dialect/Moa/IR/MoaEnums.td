//===- MoaEnums.td - Enums ------------------------------ -*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_ENUMS_TD
#define MOA_ENUMS_TD

include "mlir/IR/EnumAttr.td"
include "moa/Dialect/Moa/IR/MoaDialect.td"

class Moa_I32Enum<string name, string summary, list<I32EnumAttrCase> cases>
    : I32EnumAttr<name, summary, cases> {
  let cppNamespace = "::moa";
  let genSpecializedAttr = 0;
}

// Values are those of MOA_LENGTH_* in moa/abi/span.h.
def Moa_LengthRule : Moa_I32Enum<"LengthRule", "which length N a row uses", [
  I32EnumAttrCase<"Request", 0, "request">,
  I32EnumAttrCase<"Row", 1, "row">
]>;

// Values are those of MOA_KERNEL_* in moa/abi/kernel_args.h.
def Moa_KernelKind : Moa_I32Enum<"KernelKind", "what a kernel does", [
  I32EnumAttrCase<"Prefill", 0, "prefill">,
  I32EnumAttrCase<"Decode", 1, "decode">,
  I32EnumAttrCase<"Append", 2, "append">,
  I32EnumAttrCase<"Rope", 4, "rope">,
  I32EnumAttrCase<"Quantise", 5, "quantise">
]>;

// Values are those of MOA_KV_* in moa/abi/kernel_args.h.
def Moa_KvFormat : Moa_I32Enum<"KvFormat",
    "what a KV head keeps of keys and values that are complete pages", [
  I32EnumAttrCase<"Model", 0, "model">,
  I32EnumAttrCase<"E4M3", 1, "e4m3">,
  I32EnumAttrCase<"Int8", 2, "int8">
]>;

// Values are those of MOA_ROPE_* in moa/abi/rope.h.
def Moa_RopeLayout : Moa_I32Enum<"RopeLayout",
    "which elements of a head are rotated as a pair", [
  I32EnumAttrCase<"Half", 0, "half">,
  I32EnumAttrCase<"Interleaved", 1, "interleaved">
]>;

def Moa_Lanes : Moa_I32Enum<"Lanes", "which dimension runs along vector lanes", [
  I32EnumAttrCase<"Rows", 0, "rows">,
  I32EnumAttrCase<"Dims", 1, "dims">
]>;

#endif // MOA_ENUMS_TD
