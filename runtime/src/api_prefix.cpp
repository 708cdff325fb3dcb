//===- api_prefix.cpp -----------------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The C ABI of prefix reuse. No exception leaves this file.
//
//===----------------------------------------------------------------------===//

#include "moa/prefix.h"

#include "api_support.h"

using namespace moa::rt;

extern "C" {

moa_status *moa_cache_set_prefix_reuse(moa_cache *cache,
                                       const moa_prefix_options *options) {
  return guard([&]() -> Status {
    if (!cache)
      return missing("cache");
    moa_prefix_options o;
    MOA_RT_TRY(readOptions(options, o, "moa_prefix_options"));
    return cache->cache->setPrefixReuse(o.max_bytes);
  });
}

moa_status *moa_sequence_reuse(moa_sequence *sequence, uint64_t salt,
                               const int64_t *tokens, size_t count,
                               int64_t *reused, int64_t *common) {
  Span span(sequence ? unwrap(sequence)->cache.trace : nullptr,
            "sequence_reuse");
  moa_status *failed = guard([&]() -> Status {
    if (!sequence)
      return missing("sequence");
    Sequence &s = *unwrap(sequence);
    span.arg("tokens", static_cast<int64_t>(count));
    PrefixMatch match;
    MOA_RT_TRY(s.reuse(salt, tokens, count, match));
    span.arg("reused", match.tokens());
    if (reused)
      *reused = match.tokens();
    if (common)
      *common = match.common;
    return ok();
  });
  span.arg("status", moa_status_get_code(failed));
  return failed;
}

moa_status *moa_sequence_add_tokens(moa_sequence *sequence,
                                    const int64_t *tokens, size_t count) {
  return guard([&]() -> Status {
    if (!sequence)
      return missing("sequence");
    return unwrap(sequence)->addTokens(tokens, count);
  });
}

} // extern "C"
