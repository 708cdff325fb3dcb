//===- MoaTileDialect.td - Dialect definition --------------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TILE_DIALECT_TD
#define MOA_TILE_DIALECT_TD

include "mlir/IR/OpBase.td"

def MoaTile_Dialect : Dialect {
  let name = "moa_tile";
  let cppNamespace = "::moa::tile";
  let summary = "How attention over an elastic cache is computed, tile by tile";
  let description = [{
    One kernel works on one *item* at a time: up to 64 query rows of one head
    (prefill), one row of every head of a group (decode), or a few rows to copy
    into a page (append), perhaps after a rotation (rope). An attention kernel loads its queries once, walks the
    64-key blocks that its rows can see, and keeps an online softmax in a
    *state*: running maximum, running sum and accumulated output per row.

    The level is neutral of the target: tiles are values without a place. The
    conversions below this level choose registers, scratch memory and
    instructions; `lanes` on the kernel says which dimension runs along vector
    lanes.

    Lengths, spans and page addresses are facts of the item, read at run time;
    head size, group, element type and the mask classes are facts of the
    kernel, known at compile time. So one kernel serves every head of a
    structure, whatever its span.
  }];
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
}

#endif // MOA_TILE_DIALECT_TD
