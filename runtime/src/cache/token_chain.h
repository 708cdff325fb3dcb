//===- token_chain.h - The tokens of a sequence -----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What a sequence was told of its tokens, from the first on: full blocks as
// those of the index, and the rest.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_CACHE_TOKEN_CHAIN_H
#define MOA_RT_CACHE_TOKEN_CHAIN_H

#include "cache/prefix_index.h"

namespace moa::rt {

class TokenChain {
public:
  /// Without tokens; `index`, null for none, outlives it.
  explicit TokenChain(PrefixIndex *index, uint64_t salt = 0)
      : index(index), salt(salt) {}
  TokenChain(const TokenChain &other);
  TokenChain &operator=(const TokenChain &) = delete;
  ~TokenChain() { truncate(0); }
  void swap(TokenChain &other) noexcept;

  /// Tokens known.
  int64_t tokens() const {
    return static_cast<int64_t>(full.size()) * MOA_BLOCK_KEYS + rest;
  }
  /// Full blocks known.
  int64_t blocks() const { return static_cast<int64_t>(full.size()); }
  PrefixBlock &block(int64_t at) const { return *full[at]; }

  /// Adds tokens, or fails and changes nothing. There is an index.
  void add(const int64_t *values, size_t count);
  /// Forgets all tokens but the first `count`.
  void truncate(int64_t count) noexcept;

private:
  PrefixIndex *index;
  uint64_t salt;
  std::vector<PrefixBlock *> full; ///< The last is used by this chain.
  PrefixBlock::Tokens newest = {}; ///< Its first `rest` stand behind `full`.
  int64_t rest = 0;
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_TOKEN_CHAIN_H
