//===- PlanJsonLayers.cpp - What a plan says of each layer ----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Beside the rules of its heads: the window of the model's own, and what its KV
// heads keep.
//
//===----------------------------------------------------------------------===//

#include "PlanReader.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/Support/FormatVariadic.h"

using namespace moa::plan;
using llvm::Error;
using llvm::formatv;
using llvm::Twine;
using nlohmann::json;

/// span/window: for each layer the model's own window, or null. There spans are
/// bounded by it, and the sink, which it hides, is none.
Error Reader::windows(json *in) {
  json *rows = in ? member(*in, "window") : nullptr;
  if (!rows)
    return Error::success();
  if (!rows->is_array() || int64_t(rows->size()) != plan.layers)
    return refuse(
        "span/window",
        formatv("an array of {0} layers, as alphas has", plan.layers).str(),
        describe(rows),
        "leave the key out if no layer has a window of its own");
  for (auto [layer, window] : llvm::enumerate(*rows)) {
    if (window.is_null())
      continue;
    if (!window.is_number_integer() || window < 1 || window > MOA_MOST_WINDOW)
      return refuse(
          formatv("span/window/{0}", layer).str(),
          formatv("null or an integer from 1 to {0}", int64_t(MOA_MOST_WINDOW))
              .str(),
          describe(&window), "the window counts tokens, the query's own too");
    for (int64_t head = 0; head < plan.qHeads; ++head) {
      moa_span_rule &rule = plan.rules[layer * plan.qHeads + head];
      rule.sink = 0;
      rule.length_rule += MOA_SPAN_MOST(window.get<int32_t>());
    }
  }
  return Error::success();
}

/// One format, for the next KV head.
Error Reader::kvFormat(const Twine &path, json &value) {
  if (value.is_number_integer() && value == 16)
    plan.kvFormats.push_back(MOA_KV_MODEL);
  else if (value == "e4m3")
    plan.kvFormats.push_back(MOA_KV_E4M3);
  else if (value == "int8")
    plan.kvFormats.push_back(MOA_KV_INT8);
  else
    return refuse(path, "16, \"e4m3\" or \"int8\"", describe(&value),
                  "a KV head keeps complete pages in the model's 16 bits or in "
                  "8");
  return Error::success();
}

/// kv/format: one format for all, or a row per layer with one per KV head.
Error Reader::kvFormats(json &in) {
  json *format = member(in, "format");
  if (!format)
    return Error::success();
  const char *cure = "give one format for all, or one row per layer with one "
                     "format per KV head";
  if (!format->is_array()) {
    for (int64_t layer = 0; layer < plan.layers; ++layer)
      if (Error e = kvFormat("kv/format", *format))
        return e;
    return Error::success();
  }
  if (int64_t(format->size()) != plan.layers)
    return refuse("kv/format",
                  formatv("{0} layers, as alphas has", plan.layers).str(),
                  Twine(unsigned(format->size())), cure);
  for (auto [layer, row] : llvm::enumerate(*format)) {
    std::string path = formatv("kv/format/{0}", layer);
    int64_t heads = row.is_array() ? row.size() : 0;
    if (!heads || plan.qHeads % heads)
      return refuse(path,
                    formatv("an array of KV heads, a divisor of the {0} query "
                            "heads",
                            plan.qHeads)
                        .str(),
                    describe(&row), cure);
    if (!plan.kvColumns)
      plan.kvColumns = plan.model.kvHeads.value_or(heads);
    if (heads != plan.kvColumns)
      return refuse(
          path,
          formatv("{0} KV heads, as {1} has", plan.kvColumns,
                  plan.model.kvHeads ? "model/kv_heads" : "kv/format/0")
              .str(),
          Twine(unsigned(heads)), cure);
    for (auto [head, value] : llvm::enumerate(row))
      if (Error e = kvFormat(formatv("{0}/{1}", path, head).str(), value))
        return e;
  }
  return Error::success();
}

Error Reader::kv() {
  json *in;
  if (Error e = section("kv", in))
    return e;
  if (in)
    if (Error e = kvFormats(*in))
      return e;
  std::string policy;
  if (Error e = choice(in, "kv", "policy", {"group-max", "per-query-head"},
                       policy, "a KV head keeps the longest span of its group"))
    return e;
  int64_t most = 0;
  if (Error e = integer(in, "kv", "rules_per_layer", 1, kMaxSize, most,
                        "leave the key out for no limit"))
    return e;
  for (int64_t layer = 0; most && layer < plan.layers; ++layer) {
    std::vector<std::pair<int64_t, double>> distinct;
    for (const moa_span_rule &rule : plan.layerRules(layer))
      distinct.push_back({rule.alpha, rule.beta});
    llvm::sort(distinct);
    distinct.erase(llvm::unique(distinct), distinct.end());
    if (int64_t(distinct.size()) > most)
      return refuse(formatv("alphas/{0}", layer).str(),
                    formatv("at most {0} different rules in a layer, as "
                            "kv/rules_per_layer says",
                            most)
                        .str(),
                    Twine(unsigned(distinct.size())),
                    "raise kv/rules_per_layer or plan again");
  }
  return Error::success();
}
