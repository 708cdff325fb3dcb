//===- step.h - One step of a batch for a device ----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a device that prepares steps itself must be told of one: the sequences
// and their lengths, and which words of its tables changed since the last.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_STEP_H
#define MOA_RT_SCHED_STEP_H

#include "moa/abi/gpu_step.h"

#include <array>
#include <vector>

namespace moa::rt {

/// How large the steps of a batch can be.
struct BatchShape {
  uint32_t sequences = 0;
  int32_t tokens = 0; ///< Of a sequence in a step.
  int32_t blocks = 0; ///< Of the longest sequence.
};

struct StepLists {
  std::vector<moa_gpu_step_sequence> sequences;
  std::vector<moa_gpu_run> runs;
  std::vector<int32_t> firstRun; ///< Of each layer, and their number.
  std::vector<int32_t> values;
  int32_t tokens = 1;
  bool zeroTails = false;
};

/// Tensors of one layer of a step: row b is that of sequence b. Strides count
/// elements.
struct StepTensor {
  const void *data;
  int64_t sequenceStride, tokenStride, headStride;
};

struct StepCall {
  uint32_t layer = 0;
  float scale = 1; ///< Of the scores, before log2(e).
  void *stream = nullptr;
  StepTensor q, k, v, out;

  struct Named {
    const char *name; ///< For messages.
    const StepTensor &tensor;
    uint32_t heads;
  };
  std::array<Named, 4> tensors(uint32_t qHeads, uint32_t kvHeads) const {
    return {{{"q", q, qHeads},
             {"k", k, kvHeads},
             {"v", v, kvHeads},
             {"out", out, qHeads}}};
  }
  float scaleLog2() const { return scale * 1.4426950408889634f; }
};

} // namespace moa::rt

#endif // MOA_RT_SCHED_STEP_H
