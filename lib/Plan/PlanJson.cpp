//===- PlanJson.cpp - Plan files ------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// From a JSON document to a checked plan. Each check names the key path, what
// was expected, what was found, and the cure; the line is looked up afterwards.
//
//===----------------------------------------------------------------------===//

#include "PlanReader.h"

#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/raw_ostream.h"
#include <cmath>

using namespace moa::plan;
using llvm::Error;
using llvm::Expected;
using llvm::formatv;
using llvm::StringRef;
using llvm::Twine;
using nlohmann::json;

/// How far a density in a file may be from the recomputed one.
static constexpr double kDensityTolerance = 1e-3;

std::string moa::plan::describe(const json *value) {
  if (!value)
    return "none";
  if (value->is_array())
    return formatv("an array of {0}", value->size());
  if (value->is_object())
    return "an object";
  std::string text = canonicalText(*value);
  text.pop_back();
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

Error Reader::refuse(const Twine &key, const Twine &expected,
                     const Twine &found, const Twine &cure) const {
  PlanError error;
  error.file = file.str();
  error.key = key.str();
  error.line = lineOfKey(text, error.key);
  error.message = ("expected " + expected + ", found " + found).str();
  error.cure = cure.str();
  return llvm::make_error<PlanError>(std::move(error));
}

json *Reader::member(json &object, StringRef name) {
  auto it = object.find(name.str());
  return it == object.end() ? nullptr : &*it;
}

Error Reader::section(StringRef name, json *&section) {
  section = member(document, name);
  if (section && !section->is_object())
    return refuse(name, "an object", describe(section),
                  "leave the key out to take its defaults");
  return Error::success();
}

Error Reader::integer(json *in, StringRef path, StringRef key, int64_t low,
                      int64_t high, int64_t &value, StringRef cure) {
  json *found = in ? member(*in, key) : nullptr;
  if (!found)
    return Error::success();
  double number = found->is_number() ? found->get<double>() : NAN;
  if (!(number >= double(low) && number <= double(high)) ||
      number != std::floor(number))
    return refuse(path + "/" + key,
                  formatv("an integer from {0} to {1}", low, high).str(),
                  describe(found), cure);
  value = int64_t(number);
  return Error::success();
}

Error Reader::optionalInteger(json *in, StringRef path, StringRef key,
                              std::optional<int64_t> &value) {
  int64_t number = 0;
  if (Error e = integer(in, path, key, 1, kMaxLength, number,
                        "leave the key out if it is not known"))
    return e;
  if (number)
    value = number;
  return Error::success();
}

Error Reader::choice(json *in, StringRef path, StringRef key,
                     llvm::ArrayRef<StringRef> choices, std::string &value,
                     StringRef cure) {
  json *found = in ? member(*in, key) : nullptr;
  if (!found)
    return Error::success();
  if (found->is_string() &&
      llvm::is_contained(choices, StringRef(found->get_ref<std::string &>()))) {
    value = found->get<std::string>();
    return Error::success();
  }
  return refuse(path + "/" + key, "\"" + llvm::join(choices, "\" or \"") + "\"",
                describe(found), cure);
}

/// Legacy or moa-plan/1.
Error Reader::format() {
  if (!document.is_object())
    return refuse("", "an object with keys alphas and betas",
                  describe(&document), "pass a plan file");
  json *format = member(document, "format");
  json *version = member(document, "version");
  if (!format) {
    for (StringRef key : {"version", "span", "mask", "model", "kv"})
      if (member(document, key))
        return refuse("format", "\"moa-plan\" beside '" + key + "'", "none",
                      "add \"format\": \"moa-plan\", \"version\": 1, or keep "
                      "only alphas and betas");
    plan.legacy = true;
    return Error::success();
  }
  if (*format != "moa-plan")
    return refuse("format", "\"moa-plan\"", describe(format),
                  "leave the key out for a file of alphas and betas alone");
  if (!version || !version->is_number_integer() || *version != 1)
    return refuse("version", "1", describe(version),
                  "a newer version needs a newer compiler");
  return Error::success();
}

/// One of the two matrices: equal rows of numbers.
Error Reader::matrix(StringRef key, std::vector<double> &values) {
  json *rows = member(document, key);
  const char *cure = "both keys hold one row per layer, one number per query "
                     "head";
  if (!rows || !rows->is_array() || rows->empty() || rows->size() > kMaxSize)
    return refuse(key, formatv("an array of 1 to {0} layers", kMaxSize).str(),
                  describe(rows), cure);
  bool first = plan.layers == 0;
  if (first)
    plan.layers = rows->size();
  if (int64_t(rows->size()) != plan.layers)
    return refuse(key, formatv("{0} layers, as alphas has", plan.layers).str(),
                  Twine(unsigned(rows->size())), cure);
  for (auto [layer, row] : llvm::enumerate(*rows)) {
    std::string path = formatv("{0}/{1}", key, layer);
    if (!row.is_array() || row.empty() || row.size() > kMaxSize)
      return refuse(path,
                    formatv("an array of 1 to {0} query heads", kMaxSize).str(),
                    describe(&row), cure);
    if (!plan.qHeads)
      plan.qHeads = row.size();
    if (int64_t(row.size()) != plan.qHeads)
      return refuse(
          path, formatv("{0} query heads, as alphas/0 has", plan.qHeads).str(),
          Twine(unsigned(row.size())), cure);
    for (auto [head, value] : llvm::enumerate(row)) {
      if (!value.is_number())
        return refuse(formatv("{0}/{1}", path, head).str(), "a finite number",
                      describe(&value), "JSON has no NaN and no Infinity");
      values.push_back(value.get<double>());
    }
  }
  return Error::success();
}

/// alphas and betas into rules; writes them back as the canonical floats.
Error Reader::rules() {
  std::vector<double> alphas, betas;
  if (Error e = matrix("alphas", alphas))
    return e;
  if (Error e = matrix("betas", betas))
    return e;
  for (size_t i = 0; i < alphas.size(); ++i) {
    std::string where = formatv("{0}/{1}", i / plan.qHeads, i % plan.qHeads);
    double alpha = alphas[i], beta = betas[i];
    json &alphaJson = document["alphas"][i / plan.qHeads][i % plan.qHeads];
    json &betaJson = document["betas"][i / plan.qHeads][i % plan.qHeads];
    if (std::fabs(alpha) > double(kMaxAlpha))
      return refuse("alphas/" + where,
                    formatv("-{0} to {0} tokens", kMaxAlpha).str(),
                    describe(&alphaJson), "alpha counts tokens");
    if (std::fabs(alpha - std::nearbyint(alpha)) > 1e-6)
      return refuse("alphas/" + where, "a whole number of tokens",
                    describe(&alphaJson), "round it");
    if (!(beta >= 0 && beta <= 1))
      return refuse("betas/" + where, "0 to 1", describe(&betaJson),
                    "beta is a share of the length");
    moa_span_rule rule = {};
    rule.alpha = std::llround(alpha);
    rule.beta = beta == 0 ? 0 : beta; // No negative zero.
    plan.rules.push_back(rule);
    alphaJson = double(rule.alpha);
    betaJson = rule.beta;
  }
  return Error::success();
}

Error Reader::span() {
  json *in;
  if (Error e = section("span", in))
    return e;
  SpanParams &span = plan.span;
  std::string round, length = "request";
  if (Error e = integer(in, "span", "sink", 0, kMaxSpanParameter, span.sink,
                        "sink counts tokens; 0 means none"))
    return e;
  if (Error e = integer(in, "span", "block", 1, kMaxSpanParameter, span.block,
                        "spans are rounded up to a multiple of it"))
    return e;
  if (Error e = integer(in, "span", "min", 1, kMaxSpanParameter, span.min,
                        "a row sees at least itself beside the sink"))
    return e;
  if (span.min <= span.sink)
    return refuse(
        "span/min", formatv("more than the sink of {0}", span.sink).str(),
        Twine(span.min), "a row sees at least itself beside the sink");
  if (json *includes = in ? member(*in, "includes_sink") : nullptr)
    if (*includes != true)
      return refuse("span/includes_sink", "true", describe(includes),
                    "add the sink to every alpha");
  if (Error e = choice(in, "span", "round", {"up"}, round,
                       "spans are rounded up to whole blocks"))
    return e;
  if (Error e =
          choice(in, "span", "length", {"prompt+max_new", "request", "row"},
                 length, "see the length rules: per request or per row"))
    return e;
  span.lengthRule = length == "row" ? MOA_LENGTH_ROW : MOA_LENGTH_REQUEST;
  if (json *valid = in ? member(*in, "valid") : nullptr) {
    auto good = [](json &v) {
      return v.is_number_integer() && v >= 1 && v <= kMaxLength;
    };
    if (!valid->is_array() || valid->size() != 2 || !good((*valid)[0]) ||
        !good((*valid)[1]) || (*valid)[0] > (*valid)[1])
      return refuse(
          "span/valid", "[shortest, longest] length in tokens",
          valid->is_array()
              ? StringRef(canonicalText(*valid)).trim().take_front(60).str()
              : describe(valid),
          "leave the key out if it is not known");
    plan.valid = {(*valid)[0].get<int64_t>(), (*valid)[1].get<int64_t>()};
  }
  for (moa_span_rule &rule : plan.rules) {
    rule.sink = span.sink;
    rule.min_span = span.min;
    rule.round_to = span.block;
    rule.length_rule = span.lengthRule;
  }
  return windows(in);
}

Error Reader::mask() {
  json *in;
  if (Error e = section("mask", in))
    return e;
  std::string band = "token", unused;
  if (Error e = choice(in, "mask", "band", {"token", "block"}, band,
                       "masks are exact to the token"))
    return e;
  if (band == "block")
    plan.warnings.push_back(
        formatv("{0}: mask/band is \"block\", masks here are exact to the "
                "token: a prefill row sees up to {1} keys more",
                file, plan.span.block - 1));
  if (Error e = choice(in, "mask", "prefill", {"sparse"}, unused,
                       "every phase obeys the same mask"))
    return e;
  return choice(in, "mask", "positions", {"absolute"}, unused,
                "keys are stored rotated at their absolute position");
}

Error Reader::model() {
  json *in;
  if (Error e = section("model", in))
    return e;
  PlanModel &model = plan.model;
  const std::pair<const char *, std::optional<std::string> *> texts[] = {
      {"name", &model.name}, {"architecture", &model.architecture}};
  for (auto [key, value] : texts) {
    json *found = in ? member(*in, key) : nullptr;
    if (found && !found->is_string())
      return refuse(Twine("model/") + key, "a text", describe(found),
                    "leave the key out if it is not known");
    if (found)
      *value = found->get<std::string>();
  }
  const std::pair<const char *, std::optional<int64_t> *> sizes[] = {
      {"layers", &model.layers},
      {"q_heads", &model.qHeads},
      {"kv_heads", &model.kvHeads},
      {"head_dim", &model.headDim},
      {"max_position", &model.maxPosition}};
  for (auto [key, value] : sizes)
    if (Error e = optionalInteger(in, "model", key, *value))
      return e;
  if (model.layers && *model.layers != plan.layers)
    return refuse("model/layers",
                  formatv("{0}, as alphas has", plan.layers).str(),
                  Twine(*model.layers), "one row of alphas per layer");
  if (model.qHeads && *model.qHeads != plan.qHeads)
    return refuse("model/q_heads",
                  formatv("{0}, as alphas/0 has", plan.qHeads).str(),
                  Twine(*model.qHeads), "one alpha per query head");
  if (model.kvHeads && plan.qHeads % *model.kvHeads)
    return refuse(
        "model/kv_heads",
        formatv("a divisor of the {0} query heads", plan.qHeads).str(),
        Twine(*model.kvHeads),
        "each KV head serves the same number of query heads");
  if (plan.valid && model.maxPosition && (*plan.valid)[1] > *model.maxPosition)
    plan.warnings.push_back(
        formatv("{0}: span/valid reaches {1}, beyond model/max_position {2}",
                file, (*plan.valid)[1], *model.maxPosition));
  return Error::success();
}

/// Calls `each` for the members of an object whose keys are lengths.
Error Reader::lengths(
    StringRef path, json &object,
    llvm::function_ref<Error(StringRef, int64_t, json &)> each) {
  for (auto &[key, value] : object.items()) {
    int64_t n;
    if (StringRef(key).getAsInteger(10, n) || n < 1 || n > kMaxLength)
      return refuse(path + "/" + key,
                    formatv("a length from 1 to {0} as key", kMaxLength).str(),
                    "\"" + key + "\"", "keys are total lengths in tokens");
    if (Error e = each((path + "/" + key).str(), n, value))
      return e;
  }
  return Error::success();
}

Error Reader::budget() {
  json *in;
  if (Error e = section("budget", in))
    return e;
  std::string on = "query";
  if (Error e = choice(in, "budget", "on", {"kv", "query"}, on,
                       "a budget bounds one of the two densities"))
    return e;
  json *bounds = in ? member(*in, "bounds") : nullptr;
  if (!bounds)
    return Error::success();
  if (!bounds->is_object())
    return refuse("budget/bounds", "an object of length: density",
                  describe(bounds), "leave the key out for no budget");
  return lengths(
      "budget/bounds", *bounds,
      [&](StringRef path, int64_t n, json &bound) -> Error {
        if (!bound.is_number() || bound <= 0 || bound > 1)
          return refuse(path, "a density above 0, at most 1", describe(&bound),
                        "1 is the dense cache");
        if (on == "kv" && !plan.model.kvHeads)
          return Error::success();
        double real = on == "kv" ? kvDensity(plan, *plan.model.kvHeads, n)
                                 : queryDensity(plan, n);
        if (real > bound.get<double>() + kDensityTolerance)
          plan.warnings.push_back(
              formatv("{0}: {1}: the plan's {2} density is {3:F3}, above its "
                      "budget {4:F3}",
                      file, path, on, real, bound.get<double>()));
        return Error::success();
      });
}

Error Reader::densityAt(StringRef path, int64_t n, json &at) {
  if (!at.is_object())
    return refuse(path, "an object with query and kv", describe(&at),
                  "densities are derived; leave them out");
  for (StringRef key : {"query", "kv"}) {
    json *found = member(at, key);
    if (!found)
      continue;
    if (key == "kv" && !plan.model.kvHeads) {
      plan.warnings.push_back(formatv(
          "{0}: {1}/kv cannot be checked without model/kv_heads", file, path));
      continue;
    }
    double real = key == "kv" ? kvDensity(plan, *plan.model.kvHeads, n)
                              : queryDensity(plan, n);
    if (!found->is_number() ||
        std::fabs(found->get<double>() - real) > kDensityTolerance)
      return refuse(path + "/" + key,
                    formatv("{0:F4}, as alphas and betas give", real).str(),
                    describe(found),
                    "the rules were changed after the plan was made; leave "
                    "the densities out or plan again");
  }
  return Error::success();
}

Error Reader::density() {
  json *in;
  if (Error e = section("density", in))
    return e;
  if (!in)
    return Error::success();
  return lengths("density", *in, [&](StringRef path, int64_t n, json &at) {
    return densityAt(path, n, at);
  });
}

Expected<Plan> Reader::read() {
  if (Error e = format())
    return std::move(e);
  if (Error e = rules())
    return std::move(e);
  for (auto part : {&Reader::span, &Reader::mask, &Reader::model, &Reader::kv,
                    &Reader::budget, &Reader::density})
    if (Error e = (this->*part)())
      return std::move(e);
  json *unused;
  for (StringRef name : {"scores", "provenance"})
    if (Error e = section(name, unused))
      return std::move(e);
  plan.canonical = canonicalText(document);
  return std::move(plan);
}

Expected<Plan> moa::plan::parsePlan(StringRef text, StringRef fileName) {
  Expected<json> document = readJson(text, fileName);
  if (!document)
    return document.takeError();
  return Reader(*document, text, fileName).read();
}

Expected<Plan> moa::plan::loadPlan(StringRef path) {
  auto buffer = llvm::MemoryBuffer::getFile(path);
  if (!buffer) {
    PlanError error;
    error.file = path.str();
    error.message =
        "expected a readable plan file, found: " + buffer.getError().message();
    return llvm::make_error<PlanError>(std::move(error));
  }
  return parsePlan((*buffer)->getBuffer(), path);
}
