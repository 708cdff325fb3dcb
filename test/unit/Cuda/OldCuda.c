//===- OldCuda.c - A driver that lacks functions --------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// libcuda-old.so: a CUDA driver from before most functions were there.
//
//===----------------------------------------------------------------------===//

int cuInit(unsigned flags) { return (int)flags; }
