//===- Verify.h - Checks that verifiers share -------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What operations that split a block's warps in roles, and those at a kernel's
// entry, have in common.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_DIALECT_MOAGPU_IR_VERIFY_H
#define MOA_LIB_DIALECT_MOAGPU_IR_VERIFY_H

#include "mlir/IR/Operation.h"

namespace moa::gpu {

class LaunchAttr;

/// (C1) Whether the consumer's region has one argument of type i32 and the
/// producer's none.
mlir::LogicalResult verifyRoleArguments(mlir::Operation *roles,
                                        mlir::Region &producer,
                                        mlir::Region &consumer);

/// The launch of the kernel that `roles` is in; null where there is none.
LaunchAttr launchOf(mlir::Operation *roles);

/// (C3) Whether rings used in `roles` have both sides, each in its region.
mlir::LogicalResult verifyRings(mlir::Operation *roles, mlir::Region &producer);

/// Threads that do something together.
enum class Scope { Warp, Warpgroup };

/// (`constraint`) Whether all threads of a scope come to `op`, or none: follows
/// conditions of the operations around it to their sources.
mlir::LogicalResult verifyUniform(mlir::Operation *op,
                                  llvm::StringRef constraint, Scope scope);

/// (C1) Whether shared memory is asked for at a kernel's entry.
mlir::LogicalResult expectEntryBlock(mlir::Operation *op);

} // namespace moa::gpu

#endif // MOA_LIB_DIALECT_MOAGPU_IR_VERIFY_H
