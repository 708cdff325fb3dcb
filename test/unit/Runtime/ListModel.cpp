//===- ListModel.cpp - Sequences as plain lists ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of ListModel.h. What is held is decided block by block, by the
// definition; nothing is taken from the cache but what is compared.
//
//===----------------------------------------------------------------------===//

#include "ListModel.h"

#include "cache/snapshot.h"

#include "gtest/gtest.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace moa::rt::test {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

ListModel::ListModel(uint32_t seed, const ListOptions &options)
    : random(seed), options(options) {
  fill(module, options.shape, random);
  cache = std::make_unique<CpuCache>(
      module, threads, options.maxPages * module.geometry.pageBytes(),
      options.rollback);
  if (options.prefixes)
    EXPECT_FALSE(cache->setPrefixReuse(options.maxPages ? 0 : 1 << 30));
  const BatchShape shape = {uint32_t(options.sequences), 4, 1 << 14};
  cache->batches.push_back(std::make_unique<Batch>(*cache, shape));
  EXPECT_FALSE(cache->batches[0]->open());
}

/// First block that row `seen` of a sequence can see behind the sink.
int64_t ListModel::windowBegin(const ListSequence &sequence, uint32_t layer,
                               uint32_t head, int64_t seen) const {
  const uint32_t group = module.geometry.group();
  int64_t start = seen;
  for (uint32_t g = 0; g < group; ++g)
    start =
        std::min(start, moa_window_start(&module.rule(layer, head * group + g),
                                         seen, sequence.length));
  return start / kBlock;
}

/// The row whose window decides what is held after `seen` tokens.
int64_t ListModel::deciding(int64_t seen) const {
  const int64_t margin = options.prefixes ? seen % kBlock : 0;
  return std::max<int64_t>(0, seen - std::max(options.rollback, margin));
}

/// Whether a block is held after `seen` tokens, if it was until then.
bool ListModel::keeps(const ListSequence &sequence, uint32_t layer,
                      uint32_t head, int64_t block, int64_t seen) const {
  return block * kBlock < std::min<int64_t>(module.sink(layer), seen) ||
         block >= windowBegin(sequence, layer, head, deciding(seen));
}

/// Which heads write to a page that others hold too.
std::set<const ListPage *> ListHead::distinct() const {
  std::set<const ListPage *> found;
  for (const auto &page : pages)
    if (page)
      found.insert(page.get());
  return found;
}

std::vector<ListSharing> ListModel::sharingOf(const ListSequence &sequence,
                                              uint32_t layer) const {
  const ListLayer &own = sequence.layers[layer];
  auto shared = [&](const ListPage *page) {
    for (const ListSequence &other : sequences)
      if (other.real != sequence.real)
        for (const ListHead &head : other.layers[layer].heads)
          if (page && head.distinct().count(page))
            return true;
    for (const auto &[key, kept] : index)
      if (page && kept.get() == page)
        return true;
    return false;
  };
  std::vector<ListSharing> sharing;
  for (const ListHead &head : own.heads) {
    ListSharing found;
    found.newest =
        own.seen() % kBlock && shared(head.pages[own.seen() / kBlock].get());
    for (size_t block = 0; block < head.kv8.size(); ++block)
      if (head.kv8[block])
        found.kv8 = shared(head.pages[block].get());
    sharing.push_back(found);
  }
  return sharing;
}

uint64_t ListModel::wanted(const ListSequence &sequence, uint32_t layer,
                           int64_t count) const {
  ListSequence trial = sequence;
  uint64_t unused = 0;
  return advance(trial, layer, count, sharingOf(sequence, layer), unused);
}

uint64_t ListModel::freePages() const {
  std::set<const ListPage *> held;
  for (const ListSequence &sequence : sequences)
    for (const ListLayer &layer : sequence.layers)
      for (const ListHead &head : layer.heads)
        for (const auto &page : head.pages)
          if (page)
            held.insert(page.get());
  return options.maxPages ? options.maxPages - held.size() : UINT64_MAX;
}

/// Notes what begins the window for every length up to `seen`.
void ListModel::extendBegins(const ListSequence &sequence, uint32_t layer,
                             uint32_t h, ListHead &head, int64_t seen) const {
  for (int64_t t = head.begins.size(); t <= seen; ++t) {
    const int64_t sinks = blocksOf(std::min<int64_t>(module.sink(layer), t));
    const int64_t begin = std::max(
        head.begins.back(), windowBegin(sequence, layer, h, deciding(t)));
    head.begins.push_back(begin > sinks ? begin : 0);
  }
}

/// The rows were computed: new pages, copies, and what falls out of windows.
/// Adds rows to the lists; the pages that takes at once.
uint64_t ListModel::advance(ListSequence &sequence, uint32_t layer,
                            int64_t count,
                            const std::vector<ListSharing> &sharing,
                            uint64_t &brought) const {
  ListLayer &own = sequence.layers[layer];
  const int64_t before = own.seen(), seen = before + count;
  uint64_t taken = 0;
  own.lengths.resize(seen, sequence.length);
  for (uint32_t h = 0; h < own.heads.size(); ++h) {
    ListHead &head = own.heads[h];
    if (sharing[h].newest) {
      head.pages[before / kBlock] = std::make_shared<ListPage>();
      ++taken;
    }
    for (int64_t block = blocksOf(before); block < blocksOf(seen); ++block)
      head.pages.push_back(std::make_shared<ListPage>());
    extendBegins(sequence, layer, h, head, seen);
    head.kv8.resize(blocksOf(seen), false);
    const ListHead old = head;
    for (int64_t block = 0; block < blocksOf(seen); ++block)
      if (block < head.begins.back() && block * kBlock >= module.sink(layer)) {
        head.pages[block] = nullptr;
        head.kv8[block] = false;
      }
    if (isKv8(layer, h))
      taken += toKv8(layer, old, head, seen, sharing[h].kv8, brought);
    for (int64_t block = blocksOf(before); block < blocksOf(seen); ++block)
      taken += head.pages[block] && !head.kv8[block];
  }
  return taken;
}

/// Brings complete blocks behind the sink to 8 bits, two to a page; the pages
/// that takes. `shared`: others hold the page of the last one before.
uint64_t ListModel::toKv8(uint32_t layer, const ListHead &before,
                          ListHead &head, int64_t seen, bool shared,
                          uint64_t &brought) const {
  uint64_t taken = 0;
  for (int64_t block = 0; block < blocksOf(seen); ++block) {
    // The newest row that stays for sure lies in a later block.
    if (!head.pages[block] || head.kv8[block] ||
        block * kBlock < module.sink(layer) ||
        seen - options.rollback <= (block + 1) * kBlock)
      continue;
    const int64_t other = block - 1;
    const bool odd = block % 2, was = odd && before.kv8[other];
    if (was && !shared)
      head.pages[block] = before.pages[other];
    else if (odd && !was && head.kv8[other])
      head.pages[block] = head.pages[other];
    else {
      head.pages[block] = std::make_shared<ListPage>();
      ++taken;
      if (was && head.kv8[other]) {
        head.pages[other] = head.pages[block];
        ++brought;
      }
    }
    head.kv8[block] = true;
  }
  return taken;
}

void ListModel::dropTokens(ListSequence &sequence, uint32_t layer,
                           int64_t seen) {
  const Geometry &g = module.geometry;
  Tokens &tokens = sequence.layers[layer].tokens;
  tokens.q.resize(seen * g.qHeads * kDim);
  tokens.out.resize(seen * g.qHeads * kDim);
  tokens.k.resize(seen * g.kvHeads * kDim);
  tokens.v.resize(seen * g.kvHeads * kDim);
}

/// Compares some rows from `from` on with the definition.
void ListModel::checkRows(const ListSequence &sequence, uint32_t layer,
                          int64_t from, const std::vector<int64_t> &bounds,
                          const std::vector<ListHead> &before) {
  const ListLayer &own = sequence.layers[layer];
  // What was in 8 bits, and what became so but was complete already.
  std::vector<std::vector<bool>> kv8;
  for (uint32_t h = 0; h < own.heads.size(); ++h) {
    kv8.push_back(own.heads[h].kv8);
    for (int64_t block = 0; block < int64_t(kv8[h].size()); ++block)
      kv8[h][block] =
          (kv8[h][block] && (block + 1) * kBlock <= from) ||
          (block < int64_t(before[h].kv8.size()) && before[h].kv8[block]);
  }
  for (int64_t row :
       {from, from + int64_t(random() % (own.seen() - from)), own.seen() - 1})
    EXPECT_LT(difference(module, layer, own.tokens, row, row + 1,
                         sequence.length, bounds, kv8),
              1e-5)
        << "layer " << layer << " row " << row;
}

static std::vector<int64_t> boundsOf(const ListLayer &layer) {
  std::vector<int64_t> bounds;
  for (const ListHead &head : layer.heads)
    bounds.push_back(head.begins.back() * kBlock);
  return bounds;
}

void ListModel::create() {
  ListSequence sequence;
  sequence.length = 1 + random() % options.longest;
  cache->sequences.push_back(
      std::make_unique<Sequence>(*cache, module, cache->pool, sequence.length));
  sequence.real = cache->sequences.back().get();
  sequence.layers.resize(module.geometry.layers);
  for (ListLayer &layer : sequence.layers)
    layer.heads.resize(module.geometry.kvHeads);
  sequences.push_back(std::move(sequence));
  compare();
}

void ListModel::destroy(size_t index) {
  cache->destroy(*sequences[index].real);
  sequences.erase(sequences.begin() + index);
  compare();
}

void ListModel::raise(size_t index, int64_t by) {
  if (module.geometry.lengthRule == MOA_LENGTH_ROW)
    return; // There is no N to raise.
  sequences[index].length += by;
  sequences[index].real->raise(sequences[index].length);
  compare();
}

void ListModel::fork(size_t index) {
  Sequence *real = nullptr;
  Status failed = cache->fork(*sequences[index].real, real);
  ASSERT_FALSE(failed) << failed->message;
  ListSequence copy = sequences[index];
  copy.real = real;
  sequences.push_back(std::move(copy));
  compare();
}

/// Whether all keys are held that rows from `tokens` on would see, had the
/// sequence been `tokens` long and now N.
bool ListModel::canTruncate(const ListSequence &sequence,
                            int64_t tokens) const {
  bool can = true;
  for (uint32_t layer = 0; layer < sequence.layers.size(); ++layer)
    for (uint32_t h = 0; h < sequence.layers[layer].heads.size(); ++h) {
      const ListHead &head = sequence.layers[layer].heads[h];
      const int64_t first = std::max(windowBegin(sequence, layer, h, tokens),
                                     head.begins[tokens]);
      // No row is added to a block in 8 bits.
      can &= tokens == sequence.layers[layer].seen() || tokens % kBlock == 0 ||
             !head.kv8[tokens / kBlock];
      for (int64_t block = 0; block < blocksOf(tokens); ++block)
        can &= head.pages[block] != nullptr ||
               (block < first && block * kBlock >= module.sink(layer));
    }
  return can;
}

void ListModel::truncate(size_t index, int64_t tokens) {
  ListSequence &sequence = sequences[index];
  const bool can = canTruncate(sequence, tokens);
  int64_t least = sequence.layers[0].seen();
  for (const ListLayer &layer : sequence.layers)
    least = std::min(least, layer.seen());
  if (!canTruncate(sequence, least)) { // Layers have not seen as many.
    EXPECT_GT(sequence.real->leastLength(), least);
  } else {
    while (least > 0 && canTruncate(sequence, least - 1))
      --least;
    // After a call that not all layers made it may be above what is possible.
    EXPECT_GE(sequence.real->leastLength(), least);
    if (std::all_of(sequence.layers.begin(), sequence.layers.end(),
                    [&](const ListLayer &layer) {
                      return layer.seen() == sequence.layers[0].seen();
                    }))
      EXPECT_EQ(sequence.real->leastLength(), least);
  }
  Status failed = sequence.real->truncate(tokens);
  EXPECT_EQ(failed == nullptr, can)
      << "to " << tokens << (failed ? ": " + failed->message : "");
  if (failed) {
    EXPECT_EQ(failed->code, MOA_NOT_RESIDENT);
    ++truncationsRefused;
    compare();
    return;
  }
  ++truncations;
  sequence.ids.resize(std::min<size_t>(sequence.ids.size(), tokens));
  sequence.told = std::min(sequence.told, tokens);
  for (uint32_t layer = 0; layer < sequence.layers.size(); ++layer) {
    ListLayer &own = sequence.layers[layer];
    if (own.seen() == tokens)
      continue;
    own.lengths.resize(tokens);
    dropTokens(sequence, layer, tokens);
    for (ListHead &head : own.heads) {
      head.pages.resize(blocksOf(tokens));
      head.kv8.resize(blocksOf(tokens));
      head.begins.resize(tokens + 1);
      // What is missing stays missing.
      int64_t begin = 0;
      for (int64_t block = 0; block < blocksOf(tokens); ++block)
        if (!head.pages[block])
          begin = block + 1;
      head.begins.back() = begin;
    }
  }
  compare();
}

void ListModel::storeAndRestore(size_t index) {
  ListSequence copy = sequences[index];
  copy.told = 0;
  std::vector<char> bytes(snapshotBytes(*copy.real));
  Status failed = writeSnapshotMemory(*copy.real, bytes.data(), bytes.size());
  ASSERT_FALSE(failed) << failed->message;
  uint64_t pages = 0;
  for (ListLayer &layer : copy.layers)
    for (ListHead &head : layer.heads) {
      std::map<std::shared_ptr<ListPage>, std::shared_ptr<ListPage>> made;
      for (auto &page : head.pages)
        if (page) {
          auto &own = made[page];
          if (!own)
            own = std::make_shared<ListPage>();
          page = own;
        }
      pages += made.size();
    }
  const bool fits = pages <= freePages();
  failed = readSnapshotMemory(*cache, bytes.data(), bytes.size(), copy.real);
  ASSERT_EQ(failed == nullptr, fits) << (failed ? failed->message : "");
  if (failed) {
    EXPECT_EQ(failed->code, MOA_OUT_OF_PAGES) << failed->message;
    ++refusals;
  } else {
    EXPECT_EQ(copy.real->length, copy.length);
    sequences.push_back(std::move(copy));
    ++restores;
  }
  compare();
}

void ListModel::append(const std::vector<size_t> &indices,
                       const std::vector<int64_t> &counts) {
  const Geometry &g = module.geometry;
  for (uint32_t layer = 0; layer < g.layers; ++layer) {
    uint64_t pages = 0;
    std::vector<moa_attend_entry> entries;
    std::vector<std::vector<ListSharing>> sharing;
    std::vector<std::vector<int64_t>> bounds;
    for (size_t i = 0; i < indices.size(); ++i) {
      ListSequence &sequence = sequences[indices[i]];
      ListLayer &own = sequence.layers[layer];
      pages += wanted(sequence, layer, counts[i]);
      sharing.push_back(sharingOf(sequence, layer));
      bounds.push_back(boundsOf(own));
      addRows(sequence, layer, counts[i]);
      entries.push_back(own.tokens.entry(g, *sequence.real, own.seen(),
                                         own.seen() + counts[i]));
    }
    const bool fits = pages <= freePages();
    Status failed = cache->attend(layer, 1, entries.data(), entries.size());
    EXPECT_EQ(failed == nullptr, fits)
        << pages << " pages wanted, " << freePages() << " free";
    for (size_t i = 0; i < indices.size(); ++i) {
      ListSequence &sequence = sequences[indices[i]];
      const int64_t from = sequence.layers[layer].seen();
      if (failed) {
        dropTokens(sequence, layer, from);
        continue;
      }
      const std::vector<ListHead> before = sequence.layers[layer].heads;
      advance(sequence, layer, counts[i], sharing[i], kv8Brought);
      publish(sequence, layer, from / kBlock);
      checkRows(sequence, layer, from, bounds[i], before);
    }
    compare();
    if (failed) {
      EXPECT_EQ(failed->code, MOA_OUT_OF_PAGES) << failed->message;
      ++refusals;
      return;
    }
  }
}

void ListModel::batchStep(const std::vector<size_t> &indices, int64_t count,
                          bool cancel) {
  const Geometry &g = module.geometry;
  Batch &batch = *cache->batches[0]; // It remembers the steps before.
  uint64_t pages = 0;
  std::vector<Sequence *> members;
  for (size_t index : indices) {
    members.push_back(sequences[index].real);
    for (uint32_t layer = 0; layer < g.layers; ++layer)
      // A step takes the page of every block that begins in it.
      pages += wanted(sequences[index], layer, count);
  }
  const bool fits = pages <= freePages();
  Status failed = batch.begin(members.data(), members.size(), count, nullptr);
  ASSERT_EQ(failed == nullptr, fits)
      << pages << " pages wanted, " << freePages() << " free";
  if (failed) {
    EXPECT_EQ(failed->code, MOA_OUT_OF_PAGES) << failed->message;
    ++refusals;
    compare();
    return;
  }
  Sequence *fork = nullptr;
  EXPECT_TRUE(cache->fork(*members[0], fork)) << "forked in a step";
  const size_t q = g.qHeads * kDim, kv = g.kvHeads * kDim;
  std::vector<std::vector<int64_t>> bounds;
  // Given up before the first layer, behind the last or between two.
  const uint32_t layers = cancel ? random() % (g.layers + 1) : g.layers;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    std::vector<float> in[3], out(members.size() * count * q);
    for (size_t index : indices) {
      ListLayer &own = sequences[index].layers[layer];
      bounds.push_back(boundsOf(own));
      Tokens &t = own.tokens;
      addRows(sequences[index], layer, count);
      in[0].insert(in[0].end(), t.q.end() - count * q, t.q.end());
      in[1].insert(in[1].end(), t.k.end() - count * kv, t.k.end());
      in[2].insert(in[2].end(), t.v.end() - count * kv, t.v.end());
    }
    auto tensor = [&](const std::vector<float> &data,
                      size_t row) -> StepTensor {
      return {data.data(), int64_t(count * row), int64_t(row), kDim};
    };
    StepCall call;
    call.layer = layer;
    call.q = tensor(in[0], q);
    call.k = tensor(in[1], kv);
    call.v = tensor(in[2], kv);
    call.out = tensor(out, q);
    failed = batch.attend(call);
    ASSERT_FALSE(failed) << failed->message;
    for (size_t i = 0; i < indices.size(); ++i)
      std::copy_n(out.begin() + i * count * q, count * q,
                  sequences[indices[i]].layers[layer].tokens.out.end() -
                      count * q);
  }
  if (cancel)
    batch.cancel();
  else
    batch.end();
  std::vector<std::vector<ListSharing>> sharing; // Of all before any changes.
  for (uint32_t layer = 0; layer < g.layers; ++layer)
    for (size_t index : indices)
      sharing.push_back(sharingOf(sequences[index], layer));
  for (uint32_t layer = 0, at = 0; layer < g.layers; ++layer)
    for (size_t index : indices) {
      ListSequence &sequence = sequences[index];
      const int64_t from = sequence.layers[layer].seen();
      if (cancel)
        dropTokens(sequence, layer, from);
      else {
        const std::vector<ListHead> before = sequence.layers[layer].heads;
        advance(sequence, layer, count, sharing[at], kv8Brought);
        publish(sequence, layer, from / kBlock);
        checkRows(sequence, layer, from, bounds[at], before);
      }
      ++at;
    }
  compare();
}

std::vector<size_t> ListModel::someSequences() {
  std::vector<size_t> all(sequences.size());
  for (size_t i = 0; i < all.size(); ++i)
    all[i] = i;
  std::shuffle(all.begin(), all.end(), random);
  all.resize(1 + random() % std::min<size_t>(3, all.size()));
  return all;
}

const char *ListModel::step() {
  const size_t index = sequences.empty() ? 0 : random() % sequences.size();
  if (sequences.empty() ||
      (sequences.size() < options.sequences && random() % 8 == 0)) {
    if (options.prefixes && random() % 4)
      reuse();
    else
      create();
    return "create";
  }
  switch (random() % 10) {
  case 0:
    if (sequences.size() < options.sequences) {
      if (random() % 3 == 0) {
        storeAndRestore(index);
        return "store and restore";
      }
      fork(index);
      return "fork";
    }
    [[fallthrough]];
  case 1:
    if (random() % 3 == 0) {
      destroy(index);
      return "destroy";
    }
    if (options.prefixes)
      tell(index, 1 + random() % 100);
    else
      raise(index, random() % 60);
    return "raise or tell";
  case 2:
  case 3: {
    int64_t seen = INT64_MAX;
    for (const ListLayer &layer : sequences[index].layers)
      seen = std::min(seen, layer.seen());
    const int64_t rest = seen % kBlock;
    const int64_t back[] = {
        0, 1, 3, 7, 64, 100, seen, rest, rest + kBlock, rest + 2 * kBlock};
    truncate(index, seen - std::min(seen, back[random() % 10]));
    return "truncate";
  }
  default:
    break;
  }
  std::vector<size_t> members = someSequences();
  const int64_t sizes[] = {1, 1, 1, 2, 5, 63, 64, 65, 130};
  std::vector<int64_t> counts;
  bool even = true;
  for (size_t member : members) {
    counts.push_back(sizes[random() % 9]);
    int64_t most = 0;
    for (const ListLayer &layer : sequences[member].layers) {
      most = std::max(most, layer.seen());
      even &= layer.seen() == sequences[member].layers[0].seen();
    }
    if (most + counts.back() > options.longest) {
      destroy(member);
      return "destroy";
    }
  }
  if (even && random() % 2) {
    const int64_t rows = 1 + random() % 4; // One draw after the other.
    batchStep(members, rows, random() % 5 == 0);
    return "batch step";
  }
  append(members, counts);
  return "append";
}

} // namespace moa::rt::test
