//===- Plan.cpp - Sizes, densities and checks of a plan -------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Everything here follows from the rules through the functions of the span
// header; no arithmetic on spans is repeated.
//
//===----------------------------------------------------------------------===//

#include "moa/Plan/Plan.h"

#include "moa/abi/kernel_args.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/SHA256.h"
#include "llvm/Support/raw_ostream.h"
#include <algorithm>

using namespace moa::plan;
using llvm::Error;
using llvm::StringRef;

char PlanError::ID = 0;

void PlanError::log(llvm::raw_ostream &os) const {
  os << file << ':';
  if (line)
    os << line << ':';
  if (column)
    os << column << ':';
  if (!key.empty())
    os << ' ' << key << ':';
  os << ' ' << message;
  if (!cure.empty())
    os << "; " << cure;
}

std::error_code PlanError::convertToErrorCode() const {
  return llvm::inconvertibleErrorCode();
}

bool Plan::hasKv8(int64_t layer) const {
  for (int64_t head = 0; head < std::max<int64_t>(1, kvColumns); ++head)
    if (kvFormat(layer, head) != MOA_KV_MODEL)
      return true;
  return false;
}

bool Plan::hasKv8() const {
  return llvm::any_of(kvFormats, [](uint8_t f) { return f != MOA_KV_MODEL; });
}

std::array<uint8_t, 32> Plan::id() const {
  return llvm::SHA256::hash(llvm::ArrayRef(
      reinterpret_cast<const uint8_t *>(canonical.data()), canonical.size()));
}

std::string Plan::idText() const {
  return llvm::toHex(id(), /*LowerCase=*/true);
}

//===----------------------------------------------------------------------===//
// Models
//===----------------------------------------------------------------------===//

static Error refuse(StringRef file, StringRef key, const llvm::Twine &message,
                    const llvm::Twine &cure) {
  PlanError error;
  error.file = file.str();
  error.key = key.str();
  error.message = message.str();
  error.cure = cure.str();
  return llvm::make_error<PlanError>(std::move(error));
}

bool moa::plan::isSupportedHeadDim(int64_t dim) {
  return llvm::is_contained({64, 80, 96, 128, 192, 256}, dim);
}

bool moa::plan::isSoftCap(double cap) {
  return cap >= kMinSoftCap && cap <= kMaxSoftCap;
}

Error moa::plan::checkModelShape(const ModelShape &model, StringRef name) {
  const std::pair<const char *, int64_t> sizes[] = {
      {"layers", model.layers},
      {"q_heads", model.qHeads},
      {"kv_heads", model.kvHeads},
      {"max_length", model.maxLength}};
  for (auto [key, value] : sizes) {
    int64_t most = StringRef(key) == "max_length" ? kMaxLength : 1 << 16;
    if (value < 1 || value > most)
      return refuse(name, key,
                    llvm::formatv("expected 1 to {0}, found {1}", most, value),
                    "state the model's own number");
  }
  if (model.qHeads % model.kvHeads)
    return refuse(name, "kv_heads",
                  llvm::formatv("expected a divisor of q_heads = {0}, found "
                                "{1}",
                                model.qHeads, model.kvHeads),
                  "each KV head serves the same number of query heads");
  if (model.group() > MOA_MAX_GROUP)
    return refuse(name, "kv_heads",
                  llvm::formatv("expected at most {0} query heads for each KV "
                                "head, found {1} / {2} = {3}",
                                MOA_MAX_GROUP, model.qHeads, model.kvHeads,
                                model.group()),
                  "this model cannot be compiled yet");
  if (!isSupportedHeadDim(model.headDim))
    return refuse(name, "head_dim",
                  llvm::formatv("expected 64, 80, 96, 128, 192 or 256, found "
                                "{0}",
                                model.headDim),
                  "kernels exist for these head dimensions only");
  if (model.softCap && !isSoftCap(model.softCap))
    return refuse(name, "soft_cap",
                  llvm::formatv("expected a number from 2^-20 to 2^20, found "
                                "{0}",
                                model.softCap),
                  "leave it out where scores have no cap");
  return Error::success();
}

Error moa::plan::checkAgainstModel(const Plan &plan, const ModelShape &model,
                                   StringRef fileName) {
  const char *cure = "use the plan that was made for this model";
  if (plan.layers != model.layers)
    return refuse(fileName, "alphas",
                  llvm::formatv("expected {0} layers, as the model has, found "
                                "{1}",
                                model.layers, plan.layers),
                  cure);
  if (plan.qHeads != model.qHeads)
    return refuse(fileName, "alphas/0",
                  llvm::formatv("expected {0} query heads, as the model has, "
                                "found {1}",
                                model.qHeads, plan.qHeads),
                  cure);
  const std::tuple<const char *, std::optional<int64_t>, int64_t> stated[] = {
      {"model/kv_heads", plan.model.kvHeads, model.kvHeads},
      {"model/head_dim", plan.model.headDim, model.headDim}};
  for (auto [key, found, expected] : stated)
    if (found && *found != expected)
      return refuse(fileName, key,
                    llvm::formatv("expected {0}, as the model has, found {1}",
                                  expected, *found),
                    cure);
  if (plan.kvColumns && plan.kvColumns != model.kvHeads)
    return refuse(fileName, "kv/format/0",
                  llvm::formatv("expected {0} KV heads, as the model has, "
                                "found {1}",
                                model.kvHeads, plan.kvColumns),
                  cure);
  return Error::success();
}

//===----------------------------------------------------------------------===//
// Lengths, sizes, densities
//===----------------------------------------------------------------------===//

std::vector<std::string> moa::plan::lengthWarnings(const Plan &plan,
                                                   int64_t n) {
  std::vector<std::string> warnings;
  auto warn = [&](auto &&text) { warnings.push_back(text.str()); };
  if (plan.valid && (n < (*plan.valid)[0] || n > (*plan.valid)[1]))
    warn(llvm::formatv("length {0} is outside the plan's valid range {1} to "
                       "{2}: quality is not known there",
                       n, (*plan.valid)[0], (*plan.valid)[1]));
  int64_t above = 0, floored = 0;
  for (const moa_span_rule &rule : plan.rules) {
    int64_t raw = moa_span_raw(&rule, n);
    above += raw > n;
    floored += raw < rule.min_span && raw < n;
  }
  if (above)
    warn(llvm::formatv("at length {0} the rules of {1} of {2} heads exceed the "
                       "length and are clipped to it",
                       n, above, plan.rules.size()));
  if (floored)
    warn(llvm::formatv("at length {0} the rules of {1} of {2} heads fall below "
                       "the minimum span {3}, which decides",
                       n, floored, plan.rules.size(), plan.span.min));
  return warnings;
}

int64_t moa::plan::kvBytes(const Plan &plan, const ModelShape &model,
                           int64_t elementBytes, int64_t n, int64_t seen) {
  int64_t pages = 0;
  for (int64_t layer = 0; layer < plan.layers; ++layer) {
    for (int64_t kv = 0; kv < model.kvHeads; ++kv) {
      int64_t start = seen;
      for (const moa_span_rule &rule :
           plan.layerRules(layer).slice(kv * model.group(), model.group()))
        start = std::min(start, moa_window_start(&rule, seen, n));
      moa_resident resident =
          moa_resident_pages(seen, start, plan.rule(layer, 0).sink);
      if (plan.kvFormat(layer, kv) != MOA_KV_MODEL)
        resident = moa_resident_kv8(resident, seen);
      pages += moa_resident_count(&resident);
    }
  }
  return pages * moa_page_bytes(model.headDim, elementBytes);
}

int64_t moa::plan::denseKvBytes(const ModelShape &model, int64_t elementBytes,
                                int64_t seen) {
  moa_resident resident = moa_resident_pages(seen, 0, 0);
  return model.layers * model.kvHeads * moa_resident_count(&resident) *
         moa_page_bytes(model.headDim, elementBytes);
}

double moa::plan::queryDensity(const Plan &plan, int64_t n) {
  return kvDensity(plan, plan.qHeads, n);
}

double moa::plan::kvDensity(const Plan &plan, int64_t kvHeads, int64_t n) {
  int64_t group = plan.qHeads / kvHeads;
  // Whole tokens are summed, so that the order of heads does not matter.
  int64_t tokens = 0;
  for (size_t first = 0; first < plan.rules.size(); first += group) {
    int64_t largest = 0;
    for (int64_t head = 0; head < group; ++head)
      largest = std::max(largest, moa_span(&plan.rules[first + head], n));
    tokens += std::min(largest, n);
  }
  return double(tokens) / (double(n) * double(plan.layers * kvHeads));
}
