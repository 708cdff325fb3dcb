//===- MoaTypes.td - Types ------------------------------ -*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TYPES_TD
#define MOA_TYPES_TD

include "mlir/IR/AttrTypeBase.td"
include "moa/Dialect/Moa/IR/MoaDialect.td"

def Moa_CacheType : TypeDef<Moa_Dialect, "Cache"> {
  let mnemonic = "cache";
  let summary = "the elastic KV cache of one layer of one sequence";
  let description = [{
    KV heads by head size by element type. How much each KV head holds is not
    part of the type: it follows from windows and length. Example:
    `!moa.cache<3x64xf32>`.

    - (C1) Both sizes are positive.
    - (C2) The element type is f32, f16 or bf16.
  }];
  let parameters = (ins "int64_t":$heads, "int64_t":$dims,
                        "::mlir::Type":$elementType);
  let hasCustomAssemblyFormat = 1;
  let genVerifyDecl = 1;
}

#endif // MOA_TYPES_TD
