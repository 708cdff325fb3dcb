//===- SnapshotTest.cpp - Stored sequences that are damaged or made up ----===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Whatever the bytes, a restore gives a sequence that works or a status, and
// changes nothing then. A file has its old bytes or the new.
//
//===----------------------------------------------------------------------===//

#include "ListModel.h"

#include "cache/snapshot.h"
#include "moa/abi/snapshot.h"

#include "gtest/gtest.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <sys/stat.h>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

/// A model with one sequence of 150 tokens that has given pages up.
struct Stored : ListModel {
  /// With `kv8` KV heads keep blocks in 8 bits, and see more.
  explicit Stored(bool kv8 = false) : ListModel(5, options(kv8)) {
    const int32_t local = kv8 ? 170 : 20;
    for (moa_span_rule &rule : module.rules) {
      const int32_t sink = module.sink(0);
      rule = {1, 0, sink, sink + local, 1, MOA_LENGTH_REQUEST};
    }
    create();
    append({0}, {kv8 ? 280 : 150});
    EXPECT_EQ(kv8Blocks > 0, kv8);
    bytes.resize(snapshotBytes(*sequences[0].real));
    EXPECT_FALSE(
        writeSnapshotMemory(*sequences[0].real, bytes.data(), bytes.size()));
  }
  static ListOptions options(bool kv8) {
    ListOptions options;
    options.shape = {2, 2, 1, MOA_LENGTH_REQUEST, kv8};
    return options;
  }
  Status restore(const std::vector<char> &from) {
    Sequence *out = nullptr;
    return readSnapshotMemory(*cache, from.data(), from.size(), out);
  }
  void refuse(const std::vector<char> &from, moa_status_code code,
              const char *text) {
    Status failed = restore(from);
    ASSERT_TRUE(failed) << text;
    EXPECT_EQ(failed->code, code) << failed->message;
    EXPECT_NE(failed->message.find(text), std::string::npos) << failed->message;
    compare();
  }
  std::vector<char> bytes;
};

moa_snapshot_header headerOf(const std::vector<char> &bytes) {
  moa_snapshot_header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  return header;
}

/// Makes the checksum that of the bytes.
void seal(std::vector<char> &bytes) {
  moa_snapshot_header header = headerOf(bytes);
  header.checksum = 0;
  std::memcpy(bytes.data(), &header, sizeof header);
  header.checksum =
      moa_snapshot_hash(MOA_SNAPSHOT_HASH_START, bytes.data(), bytes.size());
  std::memcpy(bytes.data(), &header, sizeof header);
}

TEST(Snapshot, DamagedBytesAreRefused) {
  Stored stored;
  for (size_t size = 0; size < stored.bytes.size(); size += 1 + size / 16)
    EXPECT_TRUE(
        stored.restore({stored.bytes.begin(), stored.bytes.begin() + size}));
  const size_t tables = moa_snapshot_pages_offset(2, 2);
  for (size_t at = 0; at < stored.bytes.size(); at += at < tables ? 1 : 97) {
    std::vector<char> damaged = stored.bytes;
    damaged[at] ^= 1 << (at % 8);
    EXPECT_TRUE(stored.restore(damaged)) << "byte " << at;
  }
  stored.compare();
  EXPECT_FALSE(stored.restore(stored.bytes));
}

TEST(Snapshot, FieldsOfAnotherModelAreNamed) {
  Stored stored;
  auto change = [&](auto apply) {
    std::vector<char> bytes = stored.bytes;
    moa_snapshot_header header = headerOf(bytes);
    apply(header);
    std::memcpy(bytes.data(), &header, sizeof header);
    seal(bytes);
    return bytes;
  };
  using H = moa_snapshot_header;
  stored.refuse(change([](H &h) { h.magic = 1; }), MOA_CORRUPT,
                "not a snapshot");
  stored.refuse(change([](H &h) { h.version = 9; }), MOA_INCOMPATIBLE,
                "snapshot version 9, this runtime reads 3");
  stored.refuse(change([](H &h) { h.layers = 1u << 31; }), MOA_INCOMPATIBLE,
                "layers is 2147483648, the cache's module has 2");
  stored.refuse(change([](H &h) { h.kv_heads = 0; }), MOA_INCOMPATIBLE,
                "KV heads is 0");
  stored.refuse(change([](H &h) { h.head_dim = 64; }), MOA_INCOMPATIBLE,
                "head size is 64");
  stored.refuse(change([](H &h) { h.dtype = 2; }), MOA_INCOMPATIBLE, "dtype");
  stored.refuse(change([](H &h) { h.plan_id[31] ^= 1; }), MOA_INCOMPATIBLE,
                "another plan");
  stored.refuse(change([](H &h) { h.rules_hash ^= 1; }), MOA_INCOMPATIBLE,
                "another plan");
  stored.refuse(change([](H &h) { h.length = -1; }), MOA_OUT_OF_RANGE,
                "length -1");
  stored.refuse(change([](H &h) { h.pages = 1ull << 60; }), MOA_CORRUPT,
                "pages and");
  stored.refuse(change([](H &h) { h.reserved[1] = 1; }), MOA_CORRUPT,
                "reserved");
}

/// Records that nobody wrote, with a right checksum: refused, or a sequence
/// that takes rows, goes back and is stored again.
void tryMadeUpRecords(bool kv8) {
  Stored stored(kv8);
  std::mt19937 random(1);
  const size_t begin = sizeof(moa_snapshot_header),
               heads = begin + 2 * sizeof(moa_snapshot_layer),
               end = moa_snapshot_pages_offset(2, 2);
  const int32_t values[] = {-1, 0, 1, 2, 3, 64, 127, 128, 149, 150, 1 << 30};
  int taken = 0;
  for (int i = 0; i < 3000; ++i) {
    std::vector<char> bytes = stored.bytes;
    for (uint32_t n = 1 + random() % 3; n > 0; --n) {
      const int32_t value = values[random() % 11];
      const size_t head = sizeof(moa_snapshot_head);
      size_t at = begin + random() % ((end - begin) / 4) * 4;
      if (random() % 2) // In every head.
        for (at = heads + random() % (head / 4) * 4; at + head < end;
             at += head)
          std::memcpy(bytes.data() + at, &value, 4);
      std::memcpy(bytes.data() + at, &value, 4);
    }
    seal(bytes);
    Sequence *out = nullptr;
    if (readSnapshotMemory(*stored.cache, bytes.data(), bytes.size(), out))
      continue;
    ++taken;
    Tokens tokens;
    tokens.add(stored.module.geometry, 600, random);
    auto attend = [&](int64_t rows) {
      for (uint32_t layer = 0; layer < 2; ++layer) {
        const int64_t seen = out->layers[layer].seen;
        moa_attend_entry entry =
            tokens.entry(stored.module.geometry, *out, seen, seen + rows);
        EXPECT_FALSE(stored.cache->attend(layer, 1, &entry, 1));
      }
    };
    auto both = [&] {
      return std::min(out->layers[0].seen, out->layers[1].seen);
    };
    if (i % 2) {
      attend(1);
      attend(69);
      if (out->leastLength() <= both())
        EXPECT_FALSE(out->truncate(out->leastLength()));
    }
    // To where the records say that it can.
    for (int64_t to = both() - 1; to >= 0; to -= 1 + random() % 20)
      if (to <= both() && !out->truncate(to) && random() % 2)
        attend(1 + random() % 70);
    attend(1);
    std::vector<char> again(snapshotBytes(*out));
    EXPECT_FALSE(writeSnapshotMemory(*out, again.data(), again.size()));
    stored.cache->destroy(*out);
  }
  EXPECT_GT(taken, 10);
  stored.compare();
}

TEST(Snapshot, MadeUpRecordsDoNoHarm) { tryMadeUpRecords(false); }
TEST(Snapshot, MadeUpRecordsOf8BitsDoNoHarm) { tryMadeUpRecords(true); }

/// A length that no sequence had holds nothing to go back to.
TEST(Snapshot, HeldFromBeforeItsPageIsMadeUp) {
  ListOptions options;
  options.shape = {1, 1, 1, MOA_LENGTH_REQUEST, false};
  ListModel model(1, options);
  model.module.rules[0] = {1, 0, 0, 20, 1, MOA_LENGTH_REQUEST};
  model.create();
  model.append({0}, {300});
  std::vector<char> bytes(snapshotBytes(*model.sequences[0].real));
  ASSERT_FALSE(writeSnapshotMemory(*model.sequences[0].real, bytes.data(),
                                   bytes.size()));
  moa_snapshot_head head;
  char *at =
      bytes.data() + sizeof(moa_snapshot_header) + sizeof(moa_snapshot_layer);
  std::memcpy(&head, at, sizeof head);
  ASSERT_EQ(head.window_begin, 4);
  head.floor = 4;
  for (int64_t since : {0, 100, 255, 256}) {
    head.since = since;
    std::memcpy(at, &head, sizeof head);
    seal(bytes);
    Sequence *out = nullptr;
    Status failed =
        readSnapshotMemory(*model.cache, bytes.data(), bytes.size(), out);
    EXPECT_EQ(!failed, since == 256) << since;
    if (failed) {
      EXPECT_EQ(failed->code, MOA_CORRUPT);
      continue;
    }
    EXPECT_TRUE(out->truncate(255));
    EXPECT_FALSE(out->truncate(256));
    model.cache->destroy(*out);
  }
}

TEST(Snapshot, OtherFormatsAreAnotherPlan) {
  Stored stored(true);
  uint8_t &format = stored.module.kvFormats[0];
  const uint8_t before = format;
  format = before == MOA_KV_E4M3 ? MOA_KV_INT8 : MOA_KV_E4M3;
  stored.refuse(stored.bytes, MOA_INCOMPATIBLE, "another plan");
  format = before;
  EXPECT_FALSE(stored.restore(stored.bytes));
}

TEST(Snapshot, FilesHaveTheOldBytesOrTheNew) {
  Stored stored;
  const std::string path = testing::TempDir() + "moa-snapshot-test.mos";
  std::remove(path.c_str());
  auto content = [&] {
    std::ifstream file(path, std::ios::binary);
    return std::vector<char>(std::istreambuf_iterator<char>(file), {});
  };
  Sequence &sequence = *stored.sequences[0].real;
  ASSERT_FALSE(writeSnapshotFile(sequence, path));
  EXPECT_EQ(content(), stored.bytes);
  auto mode = [&] {
    struct stat facts = {};
    EXPECT_EQ(stat(path.c_str(), &facts), 0);
    return facts.st_mode & 0777;
  };
  EXPECT_EQ(mode(), 0600u);
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  ASSERT_FALSE(writeSnapshotFile(sequence, path));
  EXPECT_EQ(mode(), 0640u) << "a file that is replaced keeps its mode";
  EXPECT_EQ(content(), stored.bytes);
  Sequence *out = nullptr;
  Status failed = readSnapshotFile(*stored.cache, path, out);
  ASSERT_FALSE(failed) << failed->message;
  stored.cache->destroy(*out);
  // A sequence that cannot be stored leaves the file alone.
  Batch batch(*stored.cache, {1, 1, 64});
  ASSERT_FALSE(batch.open());
  Sequence *members[] = {&sequence};
  ASSERT_FALSE(batch.begin(members, 1, 1, nullptr));
  EXPECT_TRUE(writeSnapshotFile(sequence, path));
  batch.cancel();
  EXPECT_EQ(content(), stored.bytes);
  failed = writeSnapshotFile(sequence, path + "/no/folder");
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->code, MOA_IO);
  std::ofstream(path, std::ios::app) << "more";
  failed = readSnapshotFile(*stored.cache, path, out);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->code, MOA_CORRUPT);
  failed = readSnapshotFile(*stored.cache, testing::TempDir(), out);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->code, MOA_IO);
  std::remove(path.c_str());
  failed = readSnapshotFile(*stored.cache, path, out);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->code, MOA_IO);
}

} // namespace
