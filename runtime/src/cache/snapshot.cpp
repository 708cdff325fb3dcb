//===- snapshot.cpp - Sequences to and from bytes -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The format of abi/snapshot.h. The reader trusts nothing: every field is
// checked before it is used, and the sequence exists only once the checksum of
// all bytes is right.
//
//===----------------------------------------------------------------------===//

#include "cache/snapshot.h"

#include "moa/abi/snapshot.h"

#include <algorithm>
#include <cstring>

namespace moa::rt {
namespace {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

moa_snapshot_header headerOf(const Module &module) {
  const Geometry &g = module.geometry;
  moa_snapshot_header header = {};
  header.magic = MOA_SNAPSHOT_MAGIC;
  header.version = MOA_SNAPSHOT_VERSION;
  header.header_size = sizeof(header);
  header.layers = g.layers;
  header.q_heads = g.qHeads;
  header.kv_heads = g.kvHeads;
  header.head_dim = g.headDim;
  header.dtype = g.dtype;
  header.length_rule = g.lengthRule;
  header.page_tokens = MOA_BLOCK_KEYS;
  header.rules_hash =
      moa_snapshot_hash(MOA_SNAPSHOT_HASH_START, module.rules.data(),
                        module.rules.size() * sizeof(moa_span_rule));
  for (uint8_t format : module.kvFormats) {
    const uint64_t word = format;
    header.rules_hash =
        moa_snapshot_hash(header.rules_hash, &word, sizeof(word));
  }
  std::memcpy(header.plan_id, module.planId, sizeof(header.plan_id));
  return header;
}

/// Whether a block lies in the page of the one before.
bool sharesPage(const HeadPages &head, int64_t block) {
  return block % 2 == 1 && head.isKv8(block) && head.isKv8(block - 1);
}

/// Calls `visit(layer, head, block)` for the pages that are held, in the order
/// of PAGES, with the first block of each.
template <typename Visit>
Status forPages(const std::vector<LayerState> &layers, Visit visit) {
  for (const LayerState &layer : layers)
    for (const HeadPages &head : layer.heads)
      for (int64_t block = 0; block < head.resident.window_end; ++block)
        if (head.keeps(block) && !sharesPage(head, block))
          MOA_RT_TRY(visit(layer, head, block));
  return ok();
}

/// Bytes of a page with its scales.
size_t pageBytes(const Geometry &g) { return g.pageBytes() + g.scaleBytes(); }

/// Zeros what nothing is kept in of the page whose first block is `block`.
void clearUnused(const Geometry &g, const LayerState &layer,
                 const HeadPages &head, int64_t block, char *page) {
  char *scales = page + g.pageBytes();
  if (!head.isKv8(block)) {
    const size_t row = g.headDim * g.elementBytes();
    const int64_t rows = std::min(kBlock, layer.seen - block * kBlock);
    for (char *half : {page, page + g.pageBytes() / 2})
      std::memset(half + rows * row, 0, (kBlock - rows) * row);
    std::memset(scales, 0, g.scaleBytes());
    return;
  }
  for (int64_t half : {0, 1})
    if (!head.isKv8(block - block % 2 + half)) {
      std::memset(page + half * 2 * g.codeBytes(), 0, 2 * g.codeBytes());
      std::memset(scales + half * g.scaleBytes() / 2, 0, g.scaleBytes() / 2);
    }
}

uint64_t countPages(const std::vector<LayerState> &layers) {
  uint64_t count = 0;
  for (const LayerState &layer : layers)
    for (const HeadPages &head : layer.heads)
      count += moa_resident_count(&head.resident);
  return count;
}

class Reader {
public:
  Reader(Cache &cache, SnapshotSource &source)
      : cache(cache), module(cache.module), source(source) {}

  Status run(Sequence *&out);

private:
  template <typename... Args> Status corrupt(const Args &...args) const {
    return error(MOA_CORRUPT, source.origin, ": ", args...,
                 "; the snapshot is damaged, compute the sequence again");
  }
  Status readHeader();
  Status checkModel() const;
  Status checkRope(uint32_t layer, uint64_t found) const;
  Status readRecords();
  Status readHead(uint32_t layer, uint32_t head);
  Status readPages();

  template <typename T> T record(uint64_t at) const {
    T value;
    std::memcpy(&value, tables.data() + at, sizeof(T));
    return value;
  }

  Cache &cache;
  const Module &module;
  SnapshotSource &source;
  moa_snapshot_header header = {};
  std::vector<char> tables; ///< All before PAGES.
  std::vector<LayerState> layers;
  std::vector<PageId> pages; ///< In the order of PAGES.
};

Status Reader::readHeader() {
  if (source.size() < sizeof(header))
    return corrupt("expected at least ", sizeof(header), " bytes, found ",
                   source.size());
  MOA_RT_TRY(source.read(0, &header, sizeof(header)));
  if (header.magic != MOA_SNAPSHOT_MAGIC)
    return error(MOA_CORRUPT, source.origin,
                 ": not a snapshot of a sequence (the first four bytes "
                 "differ)");
  if (header.version != MOA_SNAPSHOT_VERSION)
    return error(MOA_INCOMPATIBLE, source.origin, ": snapshot version ",
                 header.version, ", this runtime reads ", MOA_SNAPSHOT_VERSION,
                 "; compute the sequence again");
  if (header.header_size != sizeof(header))
    return corrupt("expected a header of ", sizeof(header), " bytes, found ",
                   header.header_size);
  if (header.size != source.size())
    return corrupt("expected ", header.size, " bytes, found ", source.size());
  if (header.reserved[0] || header.reserved[1])
    return corrupt("expected reserved fields to be zero");
  return ok();
}

/// Compares the model field by field.
Status Reader::checkModel() const {
  const moa_snapshot_header own = headerOf(module);
  const struct {
    const char *name;
    int64_t found, expected;
  } fields[] = {{"layers", header.layers, own.layers},
                {"query heads", header.q_heads, own.q_heads},
                {"KV heads", header.kv_heads, own.kv_heads},
                {"head size", header.head_dim, own.head_dim},
                {"dtype", header.dtype, own.dtype},
                {"length rule", header.length_rule, own.length_rule},
                {"tokens a page", header.page_tokens, own.page_tokens}};
  for (const auto &field : fields)
    if (field.found != field.expected)
      return error(MOA_INCOMPATIBLE, source.origin, ": ", field.name, " is ",
                   field.found, ", the cache's module has ", field.expected,
                   "; restore into a cache of the artifact it was made with");
  if (std::memcmp(header.plan_id, own.plan_id, sizeof(own.plan_id)) != 0 ||
      header.rules_hash != own.rules_hash)
    return error(MOA_INCOMPATIBLE, source.origin,
                 ": made under another plan than the cache's module has; "
                 "restore into a cache of the artifact it was made with");
  if (own.length_rule == MOA_LENGTH_REQUEST &&
      (header.length < 1 || header.length > module.geometry.maxLength))
    return error(MOA_OUT_OF_RANGE, source.origin, ": length ", header.length,
                 ", expected 1 to the artifact's max length ",
                 module.geometry.maxLength,
                 "; compile with a larger --max-length");
  return ok();
}

/// Keys lie rotated in their pages, and rows to come are rotated by the cache.
Status Reader::checkRope(uint32_t layer, uint64_t found) const {
  const uint64_t own = cache.ropeHashOf(layer);
  if (found == own)
    return ok();
  return error(MOA_INCOMPATIBLE, source.origin, ": layer ", layer,
               !found ? " was stored without a rotation, the cache has one"
               : !own ? " was stored with a rotation, the cache has none"
                      : " was stored with another rotation than the cache has",
               "; give moa_cache_set_rope the layout, frequencies and scale "
               "that the one that stored it had");
}

Status Reader::readHead(uint32_t layer, uint32_t index) {
  const int64_t seen = layers[layer].seen;
  const auto from = record<moa_snapshot_head>(
      sizeof(header) + header.layers * sizeof(moa_snapshot_layer) +
      (uint64_t(layer) * header.kv_heads + index) * sizeof(moa_snapshot_head));
  const moa_resident now = module.resident(layer, index, seen, header.length);
  // Blocks of 8 bits are complete. Truncation leaves more of them than there
  // would be otherwise.
  const bool kv8 = module.kvFormat(layer, index) != MOA_KV_MODEL;
  const int64_t whole = std::max<int64_t>(seen / kBlock, from.window_begin);
  if (kv8 ? from.kv8_end < from.window_begin || from.kv8_end > whole
          : from.kv8_end != 0)
    return corrupt("layer ", layer, ", KV head ", index, ": after ", seen,
                   " tokens expected ", kv8 ? "complete blocks" : "no block",
                   " in 8 bits, found [", from.window_begin, ", ", from.kv8_end,
                   ")");
  // No window to come starts before `floor` where N rose, which no sequence
  // shorter than that has.
  const bool rises = header.length_rule == MOA_LENGTH_REQUEST;
  const int64_t most = std::max(now.window_begin, from.floor);
  if (from.sink_pages != now.sink_pages || from.window_end != now.window_end ||
      from.window_begin < now.sink_pages || from.window_begin > most ||
      (from.window_begin > now.sink_pages &&
       from.window_begin > seen / kBlock) ||
      from.floor < 0 || from.floor > from.window_begin ||
      from.since < from.floor * kBlock || from.since > seen || from.reserved ||
      (!rises && (from.floor || from.since)))
    return corrupt("layer ", layer, ", KV head ", index, ": after ", seen,
                   " tokens expected sink pages ", now.sink_pages,
                   " and window pages from at most ", now.window_begin, " to ",
                   now.window_end, ", found ", from.sink_pages, " and ",
                   from.window_begin, " to ", from.window_end, ", floor ",
                   from.floor, " since ", from.since);
  HeadPages &head = layers[layer].heads[index];
  head.resident = {from.sink_pages, from.window_begin, from.window_end,
                   from.kv8_end};
  head.floor = from.floor;
  head.since = from.since;
  head.pages.assign(from.window_end, kNoPage);
  return ok();
}

Status Reader::readRecords() {
  const uint64_t offset =
      moa_snapshot_pages_offset(header.layers, header.kv_heads);
  if (source.size() < offset)
    return corrupt("expected at least ", offset, " bytes, found ",
                   source.size());
  tables.resize(offset);
  MOA_RT_TRY(source.read(0, tables.data(), offset));
  std::memcpy(tables.data(), &header, sizeof(header)); // As it was checked.
  layers.resize(header.layers);
  for (uint32_t layer = 0; layer < header.layers; ++layer) {
    const auto from = record<moa_snapshot_layer>(
        sizeof(header) + layer * sizeof(moa_snapshot_layer));
    if (from.seen < 0)
      return corrupt("layer ", layer, ": found ", from.seen, " tokens");
    MOA_RT_TRY(checkRope(layer, from.rope));
    if (from.seen > module.geometry.maxLength)
      return error(
          MOA_OUT_OF_RANGE, source.origin, ": layer ", layer, " has seen ",
          from.seen, " tokens, more than the artifact's max length ",
          module.geometry.maxLength, "; compile with a larger --max-length");
    layers[layer].seen = from.seen;
    // What stands behind the last row is not trusted to be zero.
    layers[layer].dirtyTail = from.seen % kBlock != 0;
    layers[layer].heads.resize(header.kv_heads);
    for (uint32_t head = 0; head < header.kv_heads; ++head)
      MOA_RT_TRY(readHead(layer, head));
  }
  const uint64_t count = countPages(layers);
  const uint64_t expected = offset + count * pageBytes(module.geometry);
  if (header.pages != count || source.size() != expected)
    return corrupt("expected ", count, " pages and ", expected,
                   " bytes, found ", header.pages, " and ", source.size());
  return ok();
}

/// Brings the pages to the cache's; the checksum decides at the end.
Status Reader::readPages() {
  const size_t bytes = pageBytes(module.geometry);
  std::vector<char> buffer(bytes);
  uint64_t at = tables.size();
  const uint64_t expected = header.checksum;
  header.checksum = 0;
  std::memcpy(tables.data(), &header, sizeof(header));
  uint64_t hash =
      moa_snapshot_hash(MOA_SNAPSHOT_HASH_START, tables.data(), tables.size());
  for (PageId page : pages) {
    MOA_RT_TRY(source.read(at, buffer.data(), bytes));
    at += bytes;
    hash = moa_snapshot_hash(hash, buffer.data(), bytes);
    MOA_RT_TRY(cache.pool.write(page, buffer.data()));
  }
  if (hash != expected)
    return corrupt("expected checksum ", expected, ", found ", hash);
  return ok();
}

Status Reader::run(Sequence *&out) {
  MOA_RT_TRY(readHeader());
  MOA_RT_TRY(checkModel());
  MOA_RT_TRY(readRecords());
  cache.sequences.reserve(cache.sequences.size() + 1);
  // Where it means nothing it may be anything.
  auto sequence = std::make_unique<Sequence>(
      cache, module, cache.pool,
      std::clamp<int64_t>(header.length, 1, module.geometry.maxLength));
  MOA_RT_TRY(cache.pool.settle());
  MOA_RT_TRY(cache.pool.allocate(header.pages, pages));
  auto undo = [&] {
    for (PageId page : pages)
      cache.pool.release(page);
  };
  try {
    if (Status failed = readPages()) {
      undo();
      return failed;
    }
  } catch (...) {
    undo();
    throw;
  }
  size_t next = 0;
  for (LayerState &layer : layers)
    for (HeadPages &head : layer.heads)
      for (int64_t block = 0; block < head.resident.window_end; ++block)
        if (sharesPage(head, block))
          head.pages[block] = head.pages[block - 1];
        else if (head.keeps(block))
          head.pages[block] = pages[next++];
  sequence->layers.swap(layers);
  out = sequence.get();
  cache.sequences.push_back(std::move(sequence));
  ++cache.counters.sequences_restored;
  return ok();
}

} // namespace

uint64_t snapshotBytes(const Sequence &sequence) {
  const Geometry &g = sequence.module.geometry;
  return moa_snapshot_pages_offset(g.layers, g.kvHeads) +
         sequence.pagesHeld() * pageBytes(g);
}

Status writeSnapshot(const Sequence &sequence, SnapshotSink &sink) {
  MOA_RT_TRY(sequence.checkIdle());
  const Geometry &g = sequence.module.geometry;
  moa_snapshot_header header = headerOf(sequence.module);
  header.size = snapshotBytes(sequence);
  header.length = sequence.length;
  header.pages = sequence.pagesHeld();
  std::vector<char> tables(moa_snapshot_pages_offset(g.layers, g.kvHeads));
  size_t end = 0;
  auto add = [&](const auto &record) {
    std::memcpy(tables.data() + end, &record, sizeof(record));
    end += sizeof(record);
  };
  add(header);
  for (uint32_t layer = 0; layer < g.layers; ++layer)
    add(moa_snapshot_layer{sequence.layers[layer].seen,
                           sequence.cache.ropeHashOf(layer)});
  for (const LayerState &layer : sequence.layers)
    for (const HeadPages &head : layer.heads)
      add(moa_snapshot_head{head.resident.sink_pages,
                            head.resident.window_begin,
                            head.resident.window_end, head.floor, head.since,
                            head.resident.kv8_end, 0});
  uint64_t hash =
      moa_snapshot_hash(MOA_SNAPSHOT_HASH_START, tables.data(), tables.size());
  MOA_RT_TRY(sequence.pool.settle());
  const size_t bytes = pageBytes(g);
  std::vector<char> buffer(bytes);
  uint64_t at = tables.size();
  MOA_RT_TRY(forPages(sequence.layers,
                      [&](const LayerState &layer, const HeadPages &head,
                          int64_t block) -> Status {
                        MOA_RT_TRY(sequence.pool.read(head.pages[block],
                                                      buffer.data()));
                        clearUnused(g, layer, head, block, buffer.data());
                        hash = moa_snapshot_hash(hash, buffer.data(), bytes);
                        MOA_RT_TRY(sink.write(at, buffer.data(), bytes));
                        at += bytes;
                        return ok();
                      }));
  header.checksum = hash;
  std::memcpy(tables.data(), &header, sizeof(header));
  return sink.write(0, tables.data(), tables.size());
}

Status readSnapshot(Cache &cache, SnapshotSource &source, Sequence *&out) {
  return Reader(cache, source).run(out);
}

} // namespace moa::rt
