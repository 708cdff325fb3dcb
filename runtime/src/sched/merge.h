//===- merge.h - Merging the shares of a decode row -------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Online-softmax merge of unnormalised partial results, in the order of the
// shares whoever does it.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_MERGE_H
#define MOA_RT_SCHED_MERGE_H

#include "sched/work.h"

namespace moa::rt {

/// Counts one share as done; the last one merges and writes the output.
void finishShare(Merge &merge, const Geometry &geometry);

/// Rounds f32 to `dtype` (nearest even) and stores `count` elements.
void storeRounded(const float *from, size_t count, uint32_t dtype, void *to);

} // namespace moa::rt

#endif // MOA_RT_SCHED_MERGE_H
