//===- rope.h - The rotation of a layer -------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What rope kernels need to know of a layer beside its rows.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_ROPE_H
#define MOA_RT_SCHED_ROPE_H

#include <cstdint>

namespace moa::rt {

struct Rope {
  /// One a pair, as in moa/abi/rope.h, where kernels read them; null: queries
  /// and keys come rotated.
  const uint64_t *turns = nullptr;
  float scale = 1; ///< Multiplies cosine and sine.

  explicit operator bool() const { return turns != nullptr; }
};

} // namespace moa::rt

#endif // MOA_RT_SCHED_ROPE_H
