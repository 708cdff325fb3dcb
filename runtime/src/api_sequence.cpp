//===- api_sequence.cpp ---------------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The C ABI of sequences. No exception leaves this file.
//
//===----------------------------------------------------------------------===//

#include "api_support.h"
#include "cache/snapshot.h"
#include "moa/abi/gpu_step.h"

namespace moa::rt {

Status checkLength(const Module &module, int64_t length) {
  if (module.geometry.lengthRule == MOA_LENGTH_ROW)
    return ok();
  if (length < 1)
    return error(MOA_INVALID_ARGUMENT, "length ", length,
                 ", expected prompt tokens plus generation budget, at least 1");
  if (length > module.geometry.maxLength)
    return error(MOA_OUT_OF_RANGE, "length ", length,
                 " exceeds the artifact's max length ",
                 module.geometry.maxLength,
                 "; compile with a larger --max-length");
  return ok();
}

Status checkRollback(const Module &module, int64_t tokens) {
  if (tokens >= 0 && tokens <= module.geometry.maxLength)
    return ok();
  return error(MOA_INVALID_ARGUMENT, "rollback_tokens is ", tokens,
               ", expected 0 to the artifact's max length ",
               module.geometry.maxLength);
}

Status checkDecodeParts(int64_t parts) {
  if (parts >= 0 && parts <= MOA_GPU_CUT_PARTS)
    return ok();
  return error(MOA_INVALID_ARGUMENT, "decode_parts is ", parts,
               ", expected 1 to ", MOA_GPU_CUT_PARTS,
               ", or 0 where bits may depend on the batch");
}

Status checkLimit(uint64_t bytes, uint64_t pageBytes) {
  if (!bytes || bytes >= pageBytes)
    return ok();
  return error(MOA_INVALID_ARGUMENT, "max_bytes is ", bytes,
               ", less than one page of ", pageBytes, " bytes: allow more");
}

} // namespace moa::rt

using namespace moa::rt;

extern "C" {

moa_status *moa_sequence_create(moa_cache *cache, int64_t length,
                                moa_sequence **out) {
  return guard([&]() -> Status {
    if (!cache || !out)
      return missing(!cache ? "cache" : "out");
    Cache &c = *cache->cache;
    MOA_RT_TRY(checkLength(c.module, length));
    c.sequences.push_back(
        std::make_unique<Sequence>(c, c.module, c.pool, length));
    ++c.counters.sequences_created;
    *out = reinterpret_cast<moa_sequence *>(c.sequences.back().get());
    return ok();
  });
}

moa_status *moa_sequence_fork(moa_sequence *sequence, moa_sequence **out) {
  return guard([&]() -> Status {
    if (!sequence || !out)
      return missing(!sequence ? "sequence" : "out");
    Sequence *fork = nullptr;
    MOA_RT_TRY(unwrap(sequence)->cache.fork(*unwrap(sequence), fork));
    *out = reinterpret_cast<moa_sequence *>(fork);
    return ok();
  });
}

void moa_sequence_destroy(moa_sequence *sequence) {
  if (!sequence)
    return;
  unwrap(sequence)->cache.destroy(*unwrap(sequence));
}

moa_status *moa_sequence_set_length(moa_sequence *sequence, int64_t length) {
  return guard([&]() -> Status {
    if (!sequence)
      return missing("sequence");
    Sequence &s = *unwrap(sequence);
    MOA_RT_TRY(checkLength(s.module, length));
    MOA_RT_TRY(s.checkIdle());
    if (s.module.geometry.lengthRule == MOA_LENGTH_ROW)
      return ok();
    if (length < s.length)
      return error(MOA_INVALID_ARGUMENT, "length ", length,
                   " is below the sequence's ", s.length,
                   "; a length may only rise");
    s.raise(length);
    return ok();
  });
}

moa_status *moa_sequence_truncate(moa_sequence *sequence, int64_t tokens) {
  return guard([&]() -> Status {
    if (!sequence)
      return missing("sequence");
    return unwrap(sequence)->truncate(tokens);
  });
}

moa_status *moa_sequence_get_min_length(const moa_sequence *sequence,
                                        int64_t *tokens) {
  return guard([&]() -> Status {
    if (!sequence || !tokens)
      return missing(!sequence ? "sequence" : "tokens");
    *tokens = unwrap(sequence)->leastLength();
    return ok();
  });
}

moa_status *moa_sequence_snapshot_file(const moa_sequence *sequence,
                                       const char *path) {
  return guard([&]() -> Status {
    if (!sequence || !path)
      return missing(!sequence ? "sequence" : "path");
    return writeSnapshotFile(*unwrap(sequence), path);
  });
}

moa_status *moa_sequence_snapshot_memory(const moa_sequence *sequence,
                                         void *buffer, size_t capacity,
                                         size_t *size) {
  return guard([&]() -> Status {
    if (!sequence)
      return missing("sequence");
    if (buffer)
      MOA_RT_TRY(writeSnapshotMemory(*unwrap(sequence), buffer, capacity));
    if (size)
      *size = snapshotBytes(*unwrap(sequence));
    return ok();
  });
}

moa_status *moa_sequence_restore_file(moa_cache *cache, const char *path,
                                      moa_sequence **out) {
  return guard([&]() -> Status {
    if (!cache || !path || !out)
      return missing(!cache ? "cache" : !path ? "path" : "out");
    Sequence *sequence = nullptr;
    MOA_RT_TRY(readSnapshotFile(*cache->cache, path, sequence));
    *out = reinterpret_cast<moa_sequence *>(sequence);
    return ok();
  });
}

moa_status *moa_sequence_restore_memory(moa_cache *cache, const void *bytes,
                                        size_t size, moa_sequence **out) {
  return guard([&]() -> Status {
    if (!cache || !bytes || !out)
      return missing(!cache ? "cache" : !bytes ? "bytes" : "out");
    Sequence *sequence = nullptr;
    MOA_RT_TRY(readSnapshotMemory(*cache->cache, bytes, size, sequence));
    *out = reinterpret_cast<moa_sequence *>(sequence);
    return ok();
  });
}

moa_status *moa_sequence_get_length(const moa_sequence *sequence,
                                    uint32_t layer, int64_t *length,
                                    int64_t *seen) {
  return guard([&]() -> Status {
    if (!sequence)
      return missing("sequence");
    MOA_RT_TRY(unwrap(sequence)->module.checkLayer(layer));
    if (length)
      *length = unwrap(sequence)->length;
    if (seen)
      *seen = unwrap(sequence)->layers[layer].seen;
    return ok();
  });
}

moa_status *moa_sequence_get_first_resident(const moa_sequence *sequence,
                                            uint32_t layer, uint32_t kv_head,
                                            int64_t *position) {
  return guard([&]() -> Status {
    if (!sequence || !position)
      return missing(!sequence ? "sequence" : "position");
    const Sequence &s = *unwrap(sequence);
    MOA_RT_TRY(s.module.checkLayer(layer));
    if (kv_head >= s.module.geometry.kvHeads)
      return error(MOA_INVALID_ARGUMENT, "KV head ", kv_head,
                   ", expected below ", s.module.geometry.kvHeads);
    *position = s.layers[layer].heads[kv_head].firstResident();
    return ok();
  });
}

moa_status *moa_sequence_get_bytes(const moa_sequence *sequence,
                                   uint64_t *bytes) {
  return guard([&]() -> Status {
    if (!sequence || !bytes)
      return missing(!sequence ? "sequence" : "bytes");
    const Sequence &s = *unwrap(sequence);
    *bytes = s.pagesHeld() * s.pool.pageBytes();
    return ok();
  });
}

} // extern "C"
