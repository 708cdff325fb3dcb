//===- InlinePTX.h - Every line of PTX that is written by hand --*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Instructions that upstream operations do not reach, or reach in a form that
// passes may reorder: warpgroup products with their fences and waits, and
// barriers' spin waits.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_GPUTONVVM_INLINEPTX_H
#define MOA_CONVERSION_GPUTONVVM_INLINEPTX_H

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace moa::gpu::ptx {

using AsmBuilder = mlir::ImplicitLocOpBuilder;
using Values = llvm::SmallVector<mlir::Value>;

/// Spins until the phase of parity `parity` (i32) of the barrier at `address`
/// (i32, shared) has completed.
void waitBarrier(AsmBuilder &b, mlir::Value address, mlir::Value parity);

/// Counts one arrival at the barrier at `address`.
void arriveBarrier(AsmBuilder &b, mlir::Value address);

/// Adds one to the i32 in global memory at `address` (i64), ordered both ways
/// for the whole device; returns what it was.
mlir::Value countArrival(AsmBuilder &b, mlir::Value address);

/// A copy of an i32 that no pass sees through.
mlir::Value copy(AsmBuilder &b, mlir::Value value);

/// Waits for the end of the launch before; no access to memory moves across.
void waitLaunches(AsmBuilder &b);

/// Lets the next launch start.
void launchNext(AsmBuilder &b);

/// Transposes the 8 x 8 matrix of 16-bit elements that a warp holds, a pair
/// (i32) a lane.
mlir::Value transpose(AsmBuilder &b, mlir::Value pair);

/// A function of the bits of x, y and z, which `table` tells as PTX's lop3
/// does: the function of 0xf0, 0xcc and 0xaa.
mlir::Value bitwise(AsmBuilder &b, mlir::Value x, uint32_t y, uint32_t z,
                    uint8_t table);

/// Shape of a product of one warpgroup, 64 rows.
struct Product {
  mlir::Type element;  ///< f16 or bf16.
  int64_t columns;     ///< Of the result.
  int64_t depth;       ///< Summed over, a multiple of 16.
  int64_t aPanelBytes; ///< Between 64-column panels of A (scores).
  int64_t bPanelBytes; ///< Between 64-column panels of B.
};

/// Starts A * B^T from zero, both in shared memory with rows along the depth,
/// by descriptor; returns columns / 2 registers in flight.
Values startScores(AsmBuilder &b, const Product &shape, mlir::Value a,
                   mlir::Value bDescriptor);

/// Starts sum += A * B with A in registers (pairs, i32) and B's rows along the
/// depth; returns the sums in flight.
Values startAccumulate(AsmBuilder &b, const Product &shape, mlir::ValueRange a,
                       mlir::Value bDescriptor, mlir::ValueRange sums);

/// Waits until at most `pending` groups are in flight, and returns `values`
/// once their product is done: no use can move above the wait.
Values waitProducts(AsmBuilder &b, int64_t pending, mlir::ValueRange values);

} // namespace moa::gpu::ptx

#endif // MOA_CONVERSION_GPUTONVVM_INLINEPTX_H
