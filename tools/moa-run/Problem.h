//===- Problem.h - Random attention problems --------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Inputs of one layer of one sequence in the artifact's type, and single rows
// of dense attention in float64 under the plan's mask.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RUN_PROBLEM_H
#define MOA_RUN_PROBLEM_H

#include "moa/abi/kernel_args.h"
#include "moa/runtime.h"

#include <cstdint>
#include <random>
#include <vector>

/// Elements of an artifact's type.
double loadElement(const void *base, size_t index, uint32_t dtype);
void storeElement(void *base, size_t index, float value, uint32_t dtype);
size_t elementBytes(uint32_t dtype);

/// Largest error relative to a row's norm that is right for a type.
double tolerance(uint32_t dtype);
/// The same where a KV head keeps pages in 8 bits, MOA_KV_*: three times what
/// half a step of a code leaves of the rows made here, by root mean square.
double kv8Tolerance(uint32_t format);

/// One layer of one sequence: all its tokens, prompt and decoded.
class Problem {
public:
  Problem(const moa_module_info &info, int64_t tokens, uint64_t seed);
  ~Problem();
  Problem(const Problem &) = delete;
  Problem &operator=(const Problem &) = delete;

  /// Copies inputs and outputs to memory of the context's device, which
  /// entries then name. The context outlives this.
  moa_status *upload(moa_context *context);
  /// Copies the outputs back, if they lie on a device.
  moa_status *download();

  /// Arguments for rows [first, first + count); outputs start as poison.
  moa_attend_entry entry(moa_sequence *sequence, int64_t first, int64_t count);

  /// Error of one output row of one query head against float64, relative to the
  /// norm of the right row. `start` is the row's window start.
  double error(int64_t row, uint32_t head, int64_t start, int64_t sink,
               double scale) const;

private:
  uint32_t qHeads, kvHeads, dim, dtype;
  double softCap; ///< 0: none.
  std::vector<char> q, k, v, out;
  moa_context *context = nullptr;
  void *onDevice[4] = {}; ///< q, k, v, out; null in the process's memory.
};

#endif // MOA_RUN_PROBLEM_H
