//===- ListModel.h - Sequences as plain lists -------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A cache beside a model of it: each sequence a list of all its tokens, each
// page a shared pointer. Operations are done to both, outcomes are predicted,
// and after each of them pages, sharing, contents and rows must agree.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_RUNTIME_LISTMODEL_H
#define MOA_TEST_UNIT_RUNTIME_LISTMODEL_H

#include "Reference.h"

#include <map>
#include <set>
#include <tuple>

namespace moa::rt::test {

/// A page of the model; whoever points to it holds it.
struct ListPage {};

struct ListHead {
  /// By block; null where nothing is held. Two blocks in 8 bits have one.
  std::vector<std::shared_ptr<ListPage>> pages;
  std::vector<bool> kv8; ///< By block: held in 8 bits.
  /// For every length there was: the first block held behind the sink, or 0
  /// where no block was given up.
  std::vector<int64_t> begins = {0};

  /// The pages, each once.
  std::set<const ListPage *> distinct() const;
};

struct ListLayer {
  Tokens tokens;
  std::vector<int64_t> lengths; ///< N of each row.
  std::vector<ListHead> heads;
  int64_t seen() const { return static_cast<int64_t>(lengths.size()); }
};

struct ListSequence {
  Sequence *real = nullptr;
  int64_t length = 0;
  // Where prefixes are reused: tokens of all rows so far, and perhaps more, and
  // how many of them the cache was told.
  std::vector<int64_t> ids;
  int64_t told = 0;
  std::vector<ListLayer> layers;
};

/// What a model looks like, and how random operations are drawn.
struct ListOptions {
  Shape shape;
  uint64_t maxPages = 0; ///< 0: no limit.
  int64_t rollback = 0;  ///< Tokens that can always be taken back.
  int64_t longest = 400; ///< Tokens of a sequence.
  size_t sequences = 6;  ///< At a time.
  bool prefixes = false; ///< Are reused.
};

/// Which pages of a KV head other sequences hold too.
struct ListSharing {
  bool newest = false; ///< That of the newest row, if its block is not full.
  bool kv8 = false;    ///< That of the last block in 8 bits.
};

class ListModel {
public:
  ListModel(uint32_t seed, const ListOptions &options);

  /// One random operation; its name. Failures are reported by gtest.
  const char *step();

  // The operations. Each compares cache and model when it is done.
  void create();
  void destroy(size_t index);
  /// Rows of some sequences in all layers, by a call a layer, as far as there
  /// are pages.
  void append(const std::vector<size_t> &indices,
              const std::vector<int64_t> &counts);
  /// The same by a step of a batch, which is given up if `cancel`.
  void batchStep(const std::vector<size_t> &indices, int64_t count,
                 bool cancel);
  void raise(size_t index, int64_t by);
  void fork(size_t index);
  /// Predicts whether it is possible, by the definition.
  void truncate(size_t index, int64_t tokens);

  // Where prefixes are reused (ListModelPrefix.cpp).
  /// Creates a sequence that begins with what is there; predicts how much,
  /// where nothing is given up.
  void reuse();
  /// Says which tokens a sequence has, or will have.
  void tell(size_t index, int64_t count);

  /// Stores a sequence in memory and makes another of it, as far as there are
  /// pages.
  void storeAndRestore(size_t index);

  /// Compares every page, who holds it and what is in it.
  void compare();

  Module module;
  std::mt19937 random;
  std::vector<ListSequence> sequences;
  ThreadPool threads{2};
  std::unique_ptr<CpuCache> cache;
  // Refused as predicted: calls that were short of pages, truncations.
  uint64_t refusals = 0, truncationsRefused = 0;
  uint64_t truncations = 0, restores = 0; ///< Done.
  uint64_t reused = 0, merged = 0;        ///< Tokens, pages.
  /// Blocks found in 8 bits; those that went to a page with one that others
  /// hold too.
  uint64_t kv8Blocks = 0, kv8Brought = 0;

private:
  /// A full page is known by layer, KV head and all tokens up to its end.
  using PageKey = std::tuple<uint32_t, uint32_t, std::vector<int64_t>>;

  const ListOptions options;
  std::map<PageKey, std::shared_ptr<ListPage>> index;

  int64_t windowBegin(const ListSequence &sequence, uint32_t layer,
                      uint32_t head, int64_t seen) const;
  bool keeps(const ListSequence &sequence, uint32_t layer, uint32_t head,
             int64_t block, int64_t seen) const;
  uint64_t wanted(const ListSequence &sequence, uint32_t layer,
                  int64_t count) const;
  uint64_t advance(ListSequence &sequence, uint32_t layer, int64_t count,
                   const std::vector<ListSharing> &sharing,
                   uint64_t &brought) const;
  uint64_t toKv8(uint32_t layer, const ListHead &before, ListHead &head,
                 int64_t seen, bool shared, uint64_t &brought) const;
  bool isKv8(uint32_t layer, uint32_t head) const {
    return module.kvFormat(layer, head) != MOA_KV_MODEL;
  }
  std::vector<ListSharing> sharingOf(const ListSequence &sequence,
                                     uint32_t layer) const;
  bool canTruncate(const ListSequence &sequence, int64_t tokens) const;
  uint64_t freePages() const;
  int64_t deciding(int64_t seen) const;
  void extendBegins(const ListSequence &sequence, uint32_t layer, uint32_t head,
                    ListHead &list, int64_t seen) const;
  void addRows(ListSequence &sequence, uint32_t layer, int64_t count);
  void drawIds(ListSequence &sequence, int64_t count);
  PageKey keyOf(const ListSequence &sequence, uint32_t layer, uint32_t head,
                int64_t block) const;
  int64_t common(const ListSequence &sequence) const;
  int64_t reusable(const ListSequence &sequence) const;
  void publish(ListSequence &sequence, uint32_t layer, int64_t from);
  void dropTokens(ListSequence &sequence, uint32_t layer, int64_t seen);
  void checkRows(const ListSequence &sequence, uint32_t layer, int64_t from,
                 const std::vector<int64_t> &bounds,
                 const std::vector<ListHead> &before);
  void compareHead(const ListSequence &sequence, uint32_t layer, uint32_t head,
                   std::map<const ListPage *, PageId> &names);
  void compareRows(const ListSequence &sequence, uint32_t layer, uint32_t head,
                   int64_t block, PageId page);
  void compareKv8(const ListLayer &own, uint32_t layer, uint32_t head,
                  int64_t block, PageId page);
  std::vector<size_t> someSequences();
};

} // namespace moa::rt::test

#endif // MOA_TEST_UNIT_RUNTIME_LISTMODEL_H
