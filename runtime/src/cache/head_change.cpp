//===- head_change.cpp - What becomes of a KV head's pages ----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of head_change.h.
//
//===----------------------------------------------------------------------===//

#include "cache/head_change.h"

#include <algorithm>

namespace moa::rt {

Kv8Blocks::Kv8Blocks(const moa_resident &before, const moa_resident &next)
    : begin(std::max(before.kv8_end, next.window_begin)), end(next.kv8_end) {
  joins = begin < end && begin % 2 == 1 && begin - 1 >= before.window_begin &&
          begin - 1 < before.kv8_end;
}

int64_t fullPagesFrom(const moa_resident &resident, int64_t block) {
  const int64_t begin = moa_resident_full_begin(&resident);
  return std::max<int64_t>(0, resident.sink_pages - block) +
         std::max<int64_t>(0, resident.window_end - std::max(begin, block));
}

int64_t newPagesOf(const moa_resident &before, const moa_resident &next,
                   int64_t begun) {
  return fullPagesFrom(next, begun) + Kv8Blocks(before, next).pages();
}

HeadChange::HeadChange(const Sequence &sequence, uint32_t layer,
                       uint32_t kvHead, int64_t tokens)
    : past(sequence.layers[layer].seen) {
  const HeadPages &head = sequence.layers[layer].heads[kvHead];
  next = sequence.after(layer, kvHead, tokens, &start);
  copies = sequence.sharesNewest(layer, kvHead);
  // What is kept of the blocks begun before has its pages.
  fullPages = fullPagesFrom(next, begun());
  kv8 = Kv8Blocks(head.resident, next);
  if (kv8.joins && sequence.pool.isShared(head.pages[kv8.begin - 1])) {
    kv8.joins = false;
    brings = kv8.begin - 1 >= next.window_begin;
  }
}

void HeadChange::apply(HeadPages &head, PagePool &pool, const PageId *fresh,
                       int64_t total) const noexcept {
  auto replace = [&](int64_t block, PageId page) {
    const PageId old = head.drop(block);
    if (old != kNoPage)
      pool.release(old);
    head.pages[block] = page;
  };
  const moa_resident before = head.resident;
  head.resident = next;
  if (copies)
    replace(begun() - 1, fresh[0]);
  size_t taken = copies;
  for (int64_t block = begun(); block < blocksOf(total); ++block)
    if (head.keeps(block) && !head.isKv8(block))
      head.pages[block] = fresh[taken++];
  for (int64_t block = kv8.begin; block < kv8.end; ++block)
    replace(block, kv8Page(head, fresh, block));
  if (brings)
    replace(kv8.begin - 1, head.pages[kv8.begin]);
  const int64_t passed = std::min<int64_t>(begun(), next.window_begin);
  for (int64_t block = before.window_begin; block < passed; ++block)
    if (!head.keeps(block))
      replace(block, kNoPage);
}

} // namespace moa::rt
