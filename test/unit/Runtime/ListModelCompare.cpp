//===- ListModelCompare.cpp - A cache beside its plain lists --------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Compares pages, what is in them and who holds them.
//
//===----------------------------------------------------------------------===//

#include "ListModel.h"

#include "gtest/gtest.h"

#include <algorithm>
#include <cmath>

namespace moa::rt::test {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

void ListModel::compareHead(const ListSequence &sequence, uint32_t layer,
                            uint32_t head,
                            std::map<const ListPage *, PageId> &names) {
  const ListLayer &own = sequence.layers[layer];
  const ListHead &list = own.heads[head];
  const HeadPages &real = sequence.real->layers[layer].heads[head];
  EXPECT_EQ(real.firstResident(), list.begins.back() * kBlock);
  const int64_t blocks = static_cast<int64_t>(list.pages.size());
  for (int64_t block = 0; block < std::max<int64_t>(blocks, real.pages.size());
       ++block) {
    const ListPage *page = block < blocks ? list.pages[block].get() : nullptr;
    ASSERT_EQ(real.page(block) != kNoPage, page != nullptr)
        << "layer " << layer << " KV head " << head << " block " << block
        << " of " << own.seen() << " tokens";
    if (!page)
      continue;
    auto [known, isNew] = names.insert({page, real.page(block)});
    ASSERT_EQ(known->second, real.page(block)) << "shared otherwise";
    ASSERT_EQ(real.isKv8(block), list.kv8[block]) << "block " << block;
    if (list.kv8[block])
      compareKv8(own, layer, head, block, real.page(block));
    else
      compareRows(sequence, layer, head, block, real.page(block));
    if (testing::Test::HasFatalFailure())
      return;
  }
}

/// A page of one block, row by row.
void ListModel::compareRows(const ListSequence &sequence, uint32_t layer,
                            uint32_t head, int64_t block, PageId page) {
  const ListLayer &own = sequence.layers[layer];
  const auto *k = reinterpret_cast<const float *>(cache->pool.data(page));
  const float *v = k + kBlock * kDim;
  for (int64_t t = 0; t < kBlock; ++t) {
    const int64_t token = block * kBlock + t;
    const size_t at = (token * module.geometry.kvHeads + head) * size_t(kDim);
    for (uint32_t d = 0; d < kDim; ++d) {
      if (token < own.seen()) {
        ASSERT_EQ(k[t * kDim + d], own.tokens.k[at + d]) << "key " << token;
        ASSERT_EQ(v[t * kDim + d], own.tokens.v[at + d]) << "value " << token;
      } else if (!sequence.real->layers[layer].dirtyTail) {
        ASSERT_EQ(k[t * kDim + d], 0) << "behind the end, key " << token;
        ASSERT_EQ(v[t * kDim + d], 0) << "behind the end, value " << token;
      }
    }
  }
}

/// Half of a page in 8 bits, code by code, and its scales.
void ListModel::compareKv8(const ListLayer &own, uint32_t layer, uint32_t head,
                           int64_t block, PageId page) {
  const Geometry &g = module.geometry;
  const int64_t stride = int64_t(g.kvHeads) * kDim, half = block % 2;
  ++kv8Blocks;
  for (int64_t part : {0, 1}) {
    const auto &tokens = part ? own.tokens.v : own.tokens.k;
    const float *rows = &tokens[block * kBlock * stride + head * kDim];
    const Codes codes(rows, stride, module.kvFormat(layer, head));
    ASSERT_EQ(cache->pool.scales(page)[half * 2 + part], codes.scale);
    const auto *found =
        reinterpret_cast<const uint8_t *>(cache->pool.data(page)) +
        (half * 2 + part) * g.codeBytes();
    for (int64_t i = 0; i < kBlock * int64_t(kDim); ++i)
      ASSERT_EQ(found[i], codes.code(rows[i / kDim * stride + i % kDim]))
          << "layer " << layer << " KV head " << head << " block " << block
          << (part ? " value " : " key ") << i;
  }
}

void ListModel::compare() {
  std::map<const ListPage *, PageId> names;
  uint64_t references = 0;
  ASSERT_EQ(cache->sequences.size(), sequences.size());
  for (const ListSequence &sequence : sequences) {
    uint64_t held = 0;
    for (uint32_t layer = 0; layer < module.geometry.layers; ++layer) {
      ASSERT_EQ(sequence.real->layers[layer].seen,
                sequence.layers[layer].seen());
      for (uint32_t h = 0; h < module.geometry.kvHeads; ++h) {
        compareHead(sequence, layer, h, names);
        if (testing::Test::HasFatalFailure())
          return;
        held += sequence.layers[layer].heads[h].distinct().size();
      }
    }
    EXPECT_EQ(sequence.real->pagesHeld(), held);
    references += held;
  }
  uint64_t shared = 0;
  std::set<PageId> held;
  for (const auto &[page, id] : names) {
    shared += cache->pool.isShared(id);
    ASSERT_TRUE(held.insert(id).second) << "page " << id << " has two meanings";
  }
  EXPECT_EQ(cache->pool.used(), names.size());
  EXPECT_EQ(cache->pool.shared(), shared);
  EXPECT_EQ(cache->pool.referenced(), references);
  if (options.prefixes && !options.maxPages) {
    EXPECT_EQ(cache->counters.prefix_pages_merged, merged);
    EXPECT_EQ(cache->prefixes->kept(), this->index.size());
  }
  // What is free may hold anything.
  const PageId most = held.empty() ? 0 : *held.rbegin();
  for (PageId page = 0; page < most; ++page)
    if (!held.count(page) &&
        !(options.prefixes && cache->prefixes->keeps(page)))
      std::fill_n(reinterpret_cast<float *>(cache->pool.data(page)),
                  2 * kBlock * kDim, NAN);
}

} // namespace moa::rt::test
