//===- call.h - One call of moa_attend inside the runtime -------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the caller asked for, and where rows of its tensors lie. Addresses may
// be those of a device: nothing here reads them.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_SCHED_CALL_H
#define MOA_RT_SCHED_CALL_H

#include "cache/sequence.h"

namespace moa::rt {

struct AttendCall {
  uint32_t layer = 0;
  float scale = 1; ///< Of the scores, before log2(e).
  void *stream = nullptr;
  const moa_attend_entry *entries = nullptr;
  size_t count = 0;

  Sequence &sequence(size_t entry) const {
    return *reinterpret_cast<Sequence *>(entries[entry].sequence);
  }
  float scaleLog2() const { return scale * 1.4426950408889634f; }
};

/// One entry with its place in the sequence.
struct EntryView {
  EntryView(const Module &module, const AttendCall &call, size_t index)
      : module(module), entry(call.entries[index]), layer(call.layer),
        length(call.sequence(index).length),
        past(call.sequence(index).layers[call.layer].seen),
        total(past + entry.tokens),
        dirtyTail(call.sequence(index).layers[call.layer].dirtyTail) {}

  const Module &module;
  const moa_attend_entry &entry;
  uint32_t layer;
  int64_t length; ///< N of the length rule `request`.
  int64_t past;   ///< Tokens before the call.
  int64_t total;  ///< Tokens after it.
  bool dirtyTail; ///< As LayerState has it.

  /// Whether there are queries; else the entry's rows are appended alone.
  bool attends() const { return entry.q != nullptr; }
  /// Whether a decode kernel takes the entry.
  bool decodes() const {
    return attends() && module.decodes(layer, entry.tokens);
  }
  int64_t bytes(int64_t elements) const {
    return elements * static_cast<int64_t>(module.geometry.elementBytes());
  }
  const char *key(int64_t token, uint32_t head) const {
    return static_cast<const char *>(entry.k) +
           bytes(token * entry.k_row_stride + head * entry.k_head_stride);
  }
  const char *value(int64_t token, uint32_t head) const {
    return static_cast<const char *>(entry.v) +
           bytes(token * entry.v_row_stride + head * entry.v_head_stride);
  }
  const char *query(int64_t token, uint32_t head) const {
    return static_cast<const char *>(entry.q) +
           bytes(token * entry.q_row_stride + head * entry.q_head_stride);
  }
  char *output(int64_t token, uint32_t head) const {
    return static_cast<char *>(entry.out) +
           bytes(token * entry.out_row_stride + head * entry.out_head_stride);
  }
};

} // namespace moa::rt

#endif // MOA_RT_SCHED_CALL_H
