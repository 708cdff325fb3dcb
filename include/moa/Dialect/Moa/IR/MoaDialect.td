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

    Attributes on operations of other dialects:

    - (C1) `moa.model`, a `#moa.model`, on a module.
    - (C2) `moa.plan_id`, 64 lower-case hexadecimal digits, on a module: the
      SHA-256 of the plan's canonical form.
    - (C3) `moa.layer`, an i64 that is not negative, on a function.
    - (C4) `moa.kernel`, a `#moa.kernel`, on a module.
  }];
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
  let hasOperationAttrVerify = 1;
  let extraClassDeclaration = [{
    void registerAttributes();
  }];
}

#endif // MOA_DIALECT_TD
