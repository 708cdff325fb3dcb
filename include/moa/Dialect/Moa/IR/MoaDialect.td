//===- MoaDialect.td - Dialect definition ----------------- -*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_DIALECT_TD
#define MOA_DIALECT_TD

include "mlir/IR/OpBase.td"

def Moa_Dialect : Dialect {
  let name = "moa";
  let cppNamespace = "::moa";
  let summary = "Attention whose heads each have a span of their own";
  let description = [{
    States what is computed: attention over an elastic cache, with the rule by
    which each query head's span grows with the input. A module holds one
    function a layer and phase; passes read a plan into windows, lay the cache
    out, choose tiles, and hand the result to `moa_tile`.
  }];
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
  let extraClassDeclaration = [{
    void registerAttributes();
  }];
}

#endif // MOA_DIALECT_TD
