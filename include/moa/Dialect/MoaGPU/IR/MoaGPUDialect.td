//===- MoaGPUDialect.td - Dialect definition -------------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_GPU_DIALECT_TD
#define MOA_GPU_DIALECT_TD

include "mlir/IR/OpBase.td"

def MoaGPU_Dialect : Dialect {
  let name = "moa_gpu";
  let cppNamespace = "::moa::gpu";
  let summary = "Roles, rings and asynchronous products of a GPU kernel";
  let description = [{
    How one thread block computes: which warps load and which multiply, through
    which rings of shared memory tiles pass from one to the other, and when a
    product that runs asynchronously is waited for. The operations say what the
    hardware's instructions do, but leave descriptors, swizzles, barriers'
    addresses and parities to the next conversion.

    What the hardware leaves undefined is made hard to write here: a product in
    flight has a type of its own that nothing but a wait accepts, waits name how
    many younger products may stay in flight and are checked to be right, and
    every ring must have both sides.

    Values. A `vector<NxF>` is what one thread holds of a fragment: for a
    warpgroup's 64 x n product, n / 2 elements of two rows, element e belonging
    to the thread's row (e / 2) % 2. A `vector<2xf32>` holds one number for each
    of the two rows. Where one warp computes alone, its heads are columns: the
    thread has two of them, element e belonging to column e % 2, and
    operations say `by_column`.

    Attributes on foreign operations:
    - (C1) `moa_gpu.launch` is a #moa_gpu.launch on a function with a body.
  }];
  // Pointers of operations: their types may come without `!llvm`.
  let dependentDialects = ["::mlir::LLVM::LLVMDialect"];
  let useDefaultTypePrinterParser = 1;
  let useDefaultAttributePrinterParser = 1;
  let hasOperationAttrVerify = 1;
}

#endif // MOA_GPU_DIALECT_TD
