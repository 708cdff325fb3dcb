//===- token_chain.cpp - The tokens of a sequence -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of token_chain.h.
//
//===----------------------------------------------------------------------===//

#include "cache/token_chain.h"

#include <algorithm>

namespace moa::rt {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

TokenChain::TokenChain(const TokenChain &other)
    : index(other.index), salt(other.salt), full(other.full),
      newest(other.newest), rest(other.rest) {
  if (!full.empty())
    ++full.back()->users;
}

void TokenChain::swap(TokenChain &other) noexcept {
  std::swap(index, other.index);
  std::swap(salt, other.salt);
  full.swap(other.full);
  std::swap(newest, other.newest);
  std::swap(rest, other.rest);
}

void TokenChain::add(const int64_t *values, size_t count) {
  const int64_t before = tokens();
  full.reserve((before + static_cast<int64_t>(count)) / kBlock);
  try {
    while (count) {
      const size_t part = std::min<size_t>(count, kBlock - rest);
      std::copy_n(values, part, newest.begin() + rest);
      rest += static_cast<int64_t>(part);
      values += part;
      count -= part;
      if (rest < kBlock)
        break;
      PrefixBlock *last = full.empty() ? nullptr : full.back();
      full.push_back(index->use(last, salt, newest));
      rest = 0;
      if (last)
        index->leave(last);
    }
  } catch (...) {
    truncate(before);
    throw;
  }
}

void TokenChain::truncate(int64_t count) noexcept {
  if (count >= tokens())
    return;
  const int64_t kept = count / kBlock;
  rest = count % kBlock;
  if (kept == blocks())
    return;
  newest = full[kept]->tokens;
  PrefixBlock *last = full.back();
  full.resize(kept);
  if (kept)
    ++full.back()->users;
  index->leave(last);
}

} // namespace moa::rt
