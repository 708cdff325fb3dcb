//===- MoaGPU.td - The moa_gpu dialect: umbrella ---------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_GPU_TD
#define MOA_GPU_TD

include "moa/Dialect/MoaGPU/IR/MoaGPUDialect.td"
include "moa/Dialect/MoaGPU/IR/MoaGPUTypes.td"
include "moa/Dialect/MoaGPU/IR/MoaGPUMemoryOps.td"
include "moa/Dialect/MoaGPU/IR/MoaGPUProductOps.td"
include "moa/Dialect/MoaGPU/IR/MoaGPUFragmentOps.td"
include "moa/Dialect/MoaGPU/IR/MoaGPUWarpOps.td"
include "moa/Dialect/MoaGPU/IR/MoaGPUFetchOps.td"
include "moa/Dialect/MoaGPU/IR/MoaGPUCodesOps.td"

#endif // MOA_GPU_TD
