//===- snapshot.cpp - Fuzzes the reader of snapshots ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Restores a sequence from bytes. What is refused leaves no trace; what is
// taken is a sequence that takes rows, goes back, is forked, and is stored as
// it will be restored. Most mutations change the records alone and are sealed
// anew, with the model, the sizes and the checksum that the reader looks at
// first.
//
//===----------------------------------------------------------------------===//

#include "../unit/Runtime/SmallArtifact.h"

#include "moa/abi/snapshot.h"
#include "moa/runtime.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

namespace {

constexpr uint32_t kLayers = 2, kDim = 16;
constexpr int64_t kMostTokens = 4096, kLength = 300, kRows = 70;
constexpr size_t kPage = 2 * 64 * kDim * sizeof(uint16_t);
constexpr uint64_t kMostPages = 24;

void require(bool holds, const char *what) {
  if (holds)
    return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  __builtin_trap();
}

void require(const moa::Status &status, const char *what) {
  if (!status)
    std::fprintf(stderr, "%s\n", status.message());
  require(bool(status), what);
}

/// A model of two layers with one KV head each, a constant and a growing window
/// behind a sink. Its kernels return at once.
std::vector<uint8_t> artifact() {
  moa::rt::test::SmallArtifact made;
  made.rules = {{20, 0, 1, 21, 1, MOA_LENGTH_REQUEST},
                {20, 0, 1, 21, 1, MOA_LENGTH_REQUEST},
                {0, 0.25, 1, 2, 1, MOA_LENGTH_REQUEST},
                {64, 0, 1, 2, 64, MOA_LENGTH_REQUEST}};
  made.kvFormats.assign(kLayers, MOA_KV_MODEL);
  for (moa_artifact_kernel &kernel : made.kernels) {
    kernel.dtype = MOA_DTYPE_F16;
    kernel.head_dim = kDim;
  }
  made.change = [](moa_artifact_header &header) {
    header.q_heads = 2;
    header.kv_heads = 1;
    header.head_dim = kDim;
    header.dtype = MOA_DTYPE_F16;
    header.max_length = kMostTokens;
  };
  return made.build();
}

struct World {
  World() {
    const std::vector<uint8_t> bytes = artifact();
    require(context.create(1), "a context");
    require(module.load(context, static_cast<const void *>(bytes.data()),
                        bytes.size()),
            "the artifact is valid");
    require(cache.create(module, kMostPages * kPage, 8), "a cache");
  }
  moa::Status attend(const moa::Sequence &sequence, int64_t tokens) {
    static uint16_t rows[kRows * 2 * kDim];
    moa_attend_entry e = {};
    e.sequence = sequence.get();
    e.tokens = tokens;
    e.q = e.k = e.v = rows;
    e.out = rows;
    e.q_row_stride = e.out_row_stride = 2 * kDim;
    e.k_row_stride = e.v_row_stride = kDim;
    e.q_head_stride = e.out_head_stride = kDim;
    e.k_head_stride = e.v_head_stride = kDim;
    for (uint32_t layer = 0; layer < kLayers; ++layer)
      if (moa::Status failed = cache.attend(layer, {e}); !failed)
        return failed;
    return {};
  }
  uint64_t pagesUsed() const {
    moa_cache_stats stats = {};
    require(cache.stats(stats), "statistics");
    return stats.pages_used;
  }
  moa::Context context;
  moa::Module module;
  moa::Cache cache;
};

World &world() {
  static World *made = new World;
  return *made;
}

/// The snapshot of a sequence that has seen so many tokens.
std::vector<char> snapshotOf(int64_t tokens) {
  moa::Sequence sequence;
  require(sequence.create(world().cache, kLength), "a sequence");
  for (int64_t seen = 0; seen < tokens; seen += kRows)
    require(world().attend(sequence, std::min(kRows, tokens - seen)), "rows");
  std::vector<char> bytes;
  require(sequence.snapshot(bytes), "a snapshot");
  return bytes;
}

/// Writes into a snapshot's header what the reader compares first.
void seal(uint8_t *data, size_t size) {
  static const std::vector<char> valid = snapshotOf(0);
  moa_snapshot_header header, model;
  std::memcpy(&header, data, sizeof header);
  std::memcpy(&model, valid.data(), sizeof model);
  model.size = size;
  model.length = header.length;
  model.pages = header.pages;
  model.checksum = 0;
  std::memcpy(data, &model, sizeof model);
  model.checksum = moa_snapshot_hash(MOA_SNAPSHOT_HASH_START, data, size);
  std::memcpy(data, &model, sizeof model);
}

} // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size,
                                          size_t most, unsigned seed) {
  const size_t tables = moa_snapshot_pages_offset(kLayers, 1);
  if (size < tables || seed % 64 == 0) { // Begins with one that is valid.
    const std::vector<char> valid = snapshotOf(seed / 64 % (kLength + 1));
    size = std::min(valid.size(), most);
    std::memcpy(data, valid.data(), size);
    return size;
  }
  if (seed % 16 == 1)
    return LLVMFuzzerMutate(data, size, most);
  LLVMFuzzerMutate(data, tables, tables);
  size_t pages = (size - tables) / kPage;
  if (seed % 8 == 2 && tables + (pages + 1) * kPage <= most) {
    std::memset(data + tables + pages * kPage, 0, kPage);
    ++pages;
  } else if (seed % 8 == 3 && pages) {
    --pages;
  }
  moa_snapshot_header header;
  std::memcpy(&header, data, sizeof header);
  header.pages = pages;
  std::memcpy(data, &header, sizeof header);
  seal(data, tables + pages * kPage);
  return tables + pages * kPage;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  World &w = world();
  moa::Sequence sequence;
  {
    moa_sequence *handle = nullptr;
    const moa::Status status(moa_sequence_restore_memory(
        w.cache.get(), size ? data : reinterpret_cast<const uint8_t *>(""),
        size, &handle));
    if (!status) {
      require(!handle, "no sequence of what is refused");
      require(w.pagesUsed() == 0, "no page of what is refused");
      require(*status.message(), "a message");
      return 0;
    }
    moa_sequence_destroy(handle);
    require(sequence.restore(w.cache, std::vector<char>(data, data + size)),
            "the same once more");
  }
  uint64_t bytes = 0;
  require(sequence.bytes(bytes), "bytes");
  require(bytes == w.pagesUsed() * kPage, "the bytes are those in use");

  // Stored again it is itself, in every byte that counts.
  std::vector<char> stored, again;
  moa::Sequence second, fork;
  require(sequence.snapshot(stored), "a snapshot");
  if (second.restore(w.cache, stored)) {
    require(second.snapshot(again), "a snapshot of what was restored");
    require(stored == again, "a snapshot that does not change");
    second = moa::Sequence();
  }
  require(fork.fork(sequence), "a fork");
  int64_t least = 0, seen[kLayers] = {};
  require(sequence.minLength(least), "the least length");
  for (uint32_t layer = 0; layer < kLayers; ++layer)
    require(sequence.seen(layer, seen[layer]), "tokens seen");
  // More rows, or a status that says why not; both leave a whole sequence.
  for (int64_t tokens : {int64_t(1), kRows})
    if (moa::Status failed = w.attend(fork, tokens); !failed)
      require(failed.code() == MOA_OUT_OF_PAGES ||
                  failed.code() == MOA_OUT_OF_RANGE,
              "rows are taken, or there is no room");
  const int64_t both = std::min(seen[0], seen[1]);
  if (least <= both)
    require(sequence.truncate(least), "goes back to the least length");
  require(sequence.snapshot(again), "a snapshot after going back");
  sequence = moa::Sequence();
  fork = moa::Sequence();
  require(w.pagesUsed() == 0, "all pages come back");
  return 0;
}
