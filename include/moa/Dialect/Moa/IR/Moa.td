//===- Moa.td - The moa dialect: umbrella --------------- -*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TD
#define MOA_TD

include "moa/Dialect/Moa/IR/MoaDialect.td"
include "moa/Dialect/Moa/IR/MoaEnums.td"
include "moa/Dialect/Moa/IR/MoaAttrs.td"
include "moa/Dialect/Moa/IR/MoaTypes.td"
include "moa/Dialect/Moa/IR/MoaInterfaces.td"
include "moa/Dialect/Moa/IR/MoaOps.td"

#endif // MOA_TD
