//===- snapshot.h - Sequences to and from bytes -----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Writes a sequence in the format of abi/snapshot.h and makes one from such
// bytes, which may be anything; to and from memory and files.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_CACHE_SNAPSHOT_H
#define MOA_RT_CACHE_SNAPSHOT_H

#include "cache/cache.h"

namespace moa::rt {

/// Where a snapshot goes.
class SnapshotSink {
public:
  virtual ~SnapshotSink() = default;
  virtual Status write(uint64_t at, const void *bytes, size_t size) = 0;
};

/// Where one comes from.
class SnapshotSource {
public:
  virtual ~SnapshotSource() = default;
  virtual uint64_t size() const = 0;
  /// Reads bytes that are there by size().
  virtual Status read(uint64_t at, void *to, size_t bytes) = 0;
  std::string origin; ///< For messages.
};

/// Bytes of a sequence's snapshot.
uint64_t snapshotBytes(const Sequence &sequence);
Status writeSnapshot(const Sequence &sequence, SnapshotSink &sink);
/// Makes a sequence of the cache, or fails and changes nothing.
Status readSnapshot(Cache &cache, SnapshotSource &source, Sequence *&out);

Status writeSnapshotMemory(const Sequence &sequence, void *buffer,
                           uint64_t capacity);
/// `path` has the old bytes or the new, whatever happens.
Status writeSnapshotFile(const Sequence &sequence, const std::string &path);
Status readSnapshotMemory(Cache &cache, const void *bytes, uint64_t size,
                          Sequence *&out);
Status readSnapshotFile(Cache &cache, const std::string &path, Sequence *&out);

} // namespace moa::rt

#endif // MOA_RT_CACHE_SNAPSHOT_H
