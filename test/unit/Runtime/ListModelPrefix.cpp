//===- ListModelPrefix.cpp - Prefixes of plain lists ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The part of ListModel.h that reuses prefixes. Rows follow from the tokens up
// to theirs; a map from all tokens up to a page's end to the page never forgets
// anything, so in a cache that gives pages up it predicts the most.
//
//===----------------------------------------------------------------------===//

#include "ListModel.h"

#include "gtest/gtest.h"

#include <algorithm>

namespace moa::rt::test {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

/// Draws tokens until there are `count`: one for what is left of a block, of
/// two, so that many begin alike.
void ListModel::drawIds(ListSequence &sequence, int64_t count) {
  std::vector<int64_t> &ids = sequence.ids;
  while (static_cast<int64_t>(ids.size()) < count)
    ids.resize(ids.size() / kBlock * kBlock + kBlock, random() % 2);
}

/// Adds rows to a layer, random or, where prefixes are reused, those of the
/// tokens.
void ListModel::addRows(ListSequence &sequence, uint32_t layer, int64_t count) {
  Tokens &tokens = sequence.layers[layer].tokens;
  if (!options.prefixes) {
    tokens.add(module.geometry, count, random);
    return;
  }
  const int64_t seen = sequence.layers[layer].seen();
  drawIds(sequence, seen + count);
  uint32_t hash = layer;
  for (int64_t t = 0; t < seen + count; ++t) {
    hash = hash * 1000003u + static_cast<uint32_t>(sequence.ids[t]) + 1;
    if (t < seen)
      continue;
    std::mt19937 row(hash);
    tokens.add(module.geometry, 1, row);
  }
}

ListModel::PageKey ListModel::keyOf(const ListSequence &sequence,
                                    uint32_t layer, uint32_t head,
                                    int64_t block) const {
  return {layer,
          head,
          {sequence.ids.begin(), sequence.ids.begin() + (block + 1) * kBlock}};
}

/// The longest beginning of the tokens told, short of all of them, that others
/// were told or have pages of.
int64_t ListModel::common(const ListSequence &sequence) const {
  int64_t blocks = 0;
  auto compare = [&](const std::vector<int64_t> &ids, int64_t count) {
    const auto end = ids.begin() + std::min(count, sequence.told - 1);
    const int64_t same =
        std::mismatch(ids.begin(), end, sequence.ids.begin()).first -
        ids.begin();
    blocks = std::max(blocks, same / kBlock);
  };
  for (const auto &[key, page] : index)
    compare(std::get<2>(key), std::get<2>(key).size());
  for (const ListSequence &other : sequences)
    compare(other.ids, other.told / kBlock * kBlock);
  return blocks * kBlock;
}

/// The longest of these for which every page is there that is held after it.
int64_t ListModel::reusable(const ListSequence &sequence) const {
  for (int64_t blocks = common(sequence) / kBlock; blocks > 0; --blocks) {
    bool all = true;
    for (uint32_t layer = 0; layer < module.geometry.layers; ++layer)
      for (uint32_t h = 0; h < module.geometry.kvHeads; ++h)
        for (int64_t block = 0; block < blocks; ++block)
          all &= !keeps(sequence, layer, h, block, blocks * kBlock) ||
                 index.count(keyOf(sequence, layer, h, block));
    if (all)
      return blocks * kBlock;
  }
  return 0;
}

void ListModel::reuse() {
  ListSequence sequence;
  sequence.length = 1; // Means nothing under `row`.
  sequence.told = 1 + random() % (options.longest - 60);
  drawIds(sequence, sequence.told);
  cache->sequences.push_back(
      std::make_unique<Sequence>(*cache, module, cache->pool, sequence.length));
  sequence.real = cache->sequences.back().get();
  PrefixMatch match;
  Status failed =
      sequence.real->reuse(0, sequence.ids.data(), sequence.told, match);
  ASSERT_FALSE(failed) << failed->message;
  const int64_t found = match.tokens(), most = reusable(sequence);
  if (options.maxPages) {
    EXPECT_LE(found, most);
    EXPECT_LE(match.common, common(sequence));
  } else {
    EXPECT_EQ(found, most);
    EXPECT_EQ(match.common, common(sequence));
  }
  EXPECT_LE(found, match.common);
  reused += found;
  sequence.layers.resize(module.geometry.layers);
  for (uint32_t layer = 0; layer < sequence.layers.size(); ++layer) {
    ListLayer &own = sequence.layers[layer];
    addRows(sequence, layer, found);
    own.lengths.resize(found, sequence.length);
    own.heads.resize(module.geometry.kvHeads);
    for (uint32_t h = 0; h < own.heads.size(); ++h) {
      extendBegins(sequence, layer, h, own.heads[h], found);
      own.heads[h].kv8.resize(found / kBlock, false);
      for (int64_t block = 0; block < found / kBlock; ++block)
        own.heads[h].pages.push_back(
            keeps(sequence, layer, h, block, found)
                ? index.at(keyOf(sequence, layer, h, block))
                : nullptr);
    }
  }
  sequences.push_back(std::move(sequence));
  compare();
}

void ListModel::tell(size_t index, int64_t count) {
  ListSequence &sequence = sequences[index];
  const int64_t known = sequence.told / kBlock;
  drawIds(sequence, sequence.told + count);
  Status failed = sequence.real->addTokens(&sequence.ids[sequence.told], count);
  ASSERT_FALSE(failed) << failed->message;
  sequence.told += count;
  for (uint32_t layer = 0; layer < sequence.layers.size(); ++layer)
    publish(sequence, layer, known);
  compare();
}

/// Full pages whose tokens are known become everybody's; of two that are the
/// same, one stays.
void ListModel::publish(ListSequence &sequence, uint32_t layer, int64_t from) {
  ListLayer &own = sequence.layers[layer];
  const int64_t full = std::min(own.seen(), sequence.told) / kBlock;
  for (int64_t block = from; block < full; ++block)
    for (uint32_t h = 0; h < own.heads.size(); ++h) {
      std::shared_ptr<ListPage> &page = own.heads[h].pages[block];
      if (!page)
        continue;
      auto &kept =
          index.emplace(keyOf(sequence, layer, h, block), page).first->second;
      // One that nobody holds may have been given up, where pages are few; that
      // shows where this one stays with others.
      const PageId real = sequence.real->layers[layer].heads[h].page(block);
      if (options.maxPages && kept.use_count() == 1 && page.use_count() > 1 &&
          cache->pool.isShared(real))
        kept = page;
      merged += kept != page;
      page = kept;
    }
}

} // namespace moa::rt::test
