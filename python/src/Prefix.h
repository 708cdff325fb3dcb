//===- Prefix.h - Prefix reuse, for Python ----------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Thin over moa/prefix.h: methods of the classes Cache and Sequence, whose
// objects have a `handle` of the C ABI.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_PYTHON_PREFIX_H
#define MOA_PYTHON_PREFIX_H

#include "moa/prefix.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>
#include <vector>

/// Adds the methods; `check` raises what a status says.
template <typename Cache, typename Sequence>
void bindPrefix(nanobind::module_ &m, void (*check)(moa_status *)) {
  namespace nb = nanobind;
  auto add = [](nb::handle to, const char *name, auto function,
                const auto &...extra) {
    nb::setattr(to, name,
                nb::cpp_function(function, nb::name(name), nb::scope(to),
                                 nb::is_method(), extra...));
  };
  add(
      m.attr("Cache"), "set_prefix_reuse",
      [check](Cache &cache, uint64_t maxBytes) {
        moa_prefix_options options = {sizeof(options), maxBytes};
        check(moa_cache_set_prefix_reuse(cache.handle, &options));
      },
      nb::arg("max_bytes") = 0,
      "Keeps full pages of sequences whose tokens are known, for others that "
      "begin with the same: at most max_bytes beyond what sequences hold, 0 "
      "for the cache's limit. Under the length rule row alone, before the "
      "cache's first sequence. See moa_cache_set_prefix_reuse.");
  add(
      m.attr("Sequence"), "reuse",
      [check](Sequence &sequence, const std::vector<int64_t> &tokens,
              uint64_t salt) {
        int64_t reused = 0, common = 0;
        check(moa_sequence_reuse(sequence.handle, salt, tokens.data(),
                                 tokens.size(), &reused, &common));
        return std::make_tuple(reused, common);
      },
      nb::arg("tokens"), nb::arg("salt") = 0,
      "Begins a new sequence with the longest prefix of its tokens whose pages "
      "are there: (tokens it has then seen, tokens that others have too). Feed "
      "the rows behind the first; a call that ends at the second lets others "
      "begin there. Sequences of different salts share nothing. See "
      "moa_sequence_reuse.");
  add(
      m.attr("Sequence"), "add_tokens",
      [check](Sequence &sequence, const std::vector<int64_t> &tokens) {
        check(moa_sequence_add_tokens(sequence.handle, tokens.data(),
                                      tokens.size()));
      },
      nb::arg("tokens"),
      "Says which tokens follow the known ones, before or after their rows are "
      "fed. See moa_sequence_add_tokens.");
}

#endif // MOA_PYTHON_PREFIX_H
