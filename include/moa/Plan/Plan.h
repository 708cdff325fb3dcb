//===- Plan.h - Span plans: read, check, write, measure ---------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A plan gives every query head of every layer its span rule. This library
// reads the published two-key files and `moa-plan/1`, refuses what is wrong
// with file, line and key, and computes the exact size of the KV cache.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_PLAN_PLAN_H
#define MOA_PLAN_PLAN_H

#include "moa/abi/kernel_args.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include <array>
#include <optional>
#include <string>
#include <vector>

namespace moa::plan {

/// Largest magnitude of alpha that a plan may hold, in tokens.
constexpr int64_t kMaxAlpha = int64_t(1) << 40;
/// Largest sink, rounding block and minimum span, in tokens.
constexpr int64_t kMaxSpanParameter = int64_t(1) << 20;
/// Least and largest soft cap of scores.
constexpr double kMinSoftCap = 0x1p-20, kMaxSoftCap = 0x1p20;
/// Longest sequence that anything here is asked about, in tokens.
constexpr int64_t kMaxLength = int64_t(1) << 30;

/// A refusal: where it is and what is wrong there. Printed as
/// `file:line: key/path: expected .., found ..; cure`.
class PlanError : public llvm::ErrorInfo<PlanError> {
public:
  static char ID;

  std::string file;    ///< As passed to parsePlan.
  unsigned line = 0;   ///< From 1; 0 where no line can be named.
  unsigned column = 0; ///< From 1; only for what is not JSON, else 0.
  std::string key;     ///< `alphas/3/2`; empty for the whole file.
  std::string message; ///< "expected .., found ..".
  std::string cure;    ///< What to do about it; may be empty.

  void log(llvm::raw_ostream &os) const override;
  std::error_code convertToErrorCode() const override;
};

/// What all rules of a plan share, but that layers whose model has a window of
/// its own have no sink (see moa_span_most).
struct SpanParams {
  int64_t sink = 64;  ///< Tokens; counted in every span.
  int64_t block = 64; ///< Spans are rounded up to a multiple of this, tokens.
  int64_t min = 128;  ///< Least span, tokens; above `sink`.
  int32_t lengthRule = MOA_LENGTH_REQUEST; ///< Which N: MOA_LENGTH_*.
};

/// The model that a plan says it was made for; each field where it is stated.
struct PlanModel {
  std::optional<std::string> name, architecture;
  std::optional<int64_t> layers, qHeads, kvHeads, headDim;
  std::optional<int64_t> maxPosition; ///< Tokens.
};

/// A model to be compiled for.
struct ModelShape {
  int64_t layers = 0;
  int64_t qHeads = 0;
  int64_t kvHeads = 0;
  int64_t headDim = 0;   ///< Elements.
  int64_t maxLength = 0; ///< Longest sequence, tokens.
  /// Scores s are softCap * tanh(s / softCap); 0 where they stay as they are.
  float softCap = 0;

  /// Query heads of one KV head.
  int64_t group() const { return qHeads / kvHeads; }
};

/// A plan that passed every check. Value type.
struct Plan {
  int64_t layers = 0;
  int64_t qHeads = 0;
  std::vector<moa_span_rule> rules; ///< layers * qHeads, layer-major.
  SpanParams span;
  /// What KV heads keep of complete pages, MOA_KV_*: [layers][kvColumns], or
  /// [layers] for all KV heads alike with kvColumns = 0; empty where the plan
  /// says nothing and all keep the model's type.
  std::vector<uint8_t> kvFormats;
  int64_t kvColumns = 0;
  PlanModel model;
  /// Shortest and longest length that the plan was made for, tokens.
  std::optional<std::array<int64_t, 2>> valid;
  /// A two-key file: everything but alphas and betas is a default.
  bool legacy = false;
  /// Faults that do not stop the plan from being used, one line each.
  std::vector<std::string> warnings;
  /// Canonical text: the whole document, unknown keys included, as JSON with
  /// sorted keys, no spaces, floats in their shortest round-trip form (alphas
  /// and betas always as floats), and a newline at the end.
  std::string canonical;

  const moa_span_rule &rule(int64_t layer, int64_t qHead) const {
    return rules[layer * qHeads + qHead];
  }
  /// The rules of one layer, one per query head.
  llvm::ArrayRef<moa_span_rule> layerRules(int64_t layer) const {
    return llvm::ArrayRef(rules).slice(layer * qHeads, qHeads);
  }
  /// MOA_KV_* of one KV head of one layer.
  uint8_t kvFormat(int64_t layer, int64_t kvHead) const {
    if (kvFormats.empty())
      return MOA_KV_MODEL;
    return kvFormats[kvColumns ? layer * kvColumns + kvHead : layer];
  }
  /// Whether some KV head of a layer keeps pages in 8 bits.
  bool hasKv8(int64_t layer) const;
  /// Whether one of any layer does.
  bool hasKv8() const;
  /// SHA-256 of `canonical`: the plan id.
  std::array<uint8_t, 32> id() const;
  /// The plan id as 64 lower-case hexadecimal digits.
  std::string idText() const;
};

/// Reads and checks a plan. `fileName` is only used in messages.
llvm::Expected<Plan> parsePlan(llvm::StringRef text, llvm::StringRef fileName);

/// Reads and checks the plan in a file.
llvm::Expected<Plan> loadPlan(llvm::StringRef path);

/// A plan with the same rule in every head: (0, 1) is dense, (w, 0) is a sink
/// and a window. `alpha` in tokens.
llvm::Expected<Plan> makeUniformPlan(int64_t layers, int64_t qHeads,
                                     int64_t alpha, double beta,
                                     const SpanParams &span = SpanParams());

/// Whether kernels exist for heads of `dim` elements.
bool isSupportedHeadDim(int64_t dim);

/// Whether kernels exist for a soft cap of `cap`, which is not 0.
bool isSoftCap(double cap);

/// Checks that a model can be served at all: sizes, groups, head dimension.
/// `name` (a file, or how the shape was given) is only used in messages.
llvm::Error checkModelShape(const ModelShape &model, llvm::StringRef name);

/// Checks that the plan is one for this model.
llvm::Error checkAgainstModel(const Plan &plan, const ModelShape &model,
                              llvm::StringRef fileName);

/// What to tell a user who runs the plan at length `n`, one line each: `n`
/// outside the valid range, spans that were clipped to `n` or to the minimum.
std::vector<std::string> lengthWarnings(const Plan &plan, int64_t n);

/// Bytes of pages that one sequence of length rule `n` holds over all layers
/// after `seen` tokens. Exact: what the runtime allocates.
int64_t kvBytes(const Plan &plan, const ModelShape &model, int64_t elementBytes,
                int64_t n, int64_t seen);

/// Bytes of whole pages that a dense cache holds after `seen` tokens.
int64_t denseKvBytes(const ModelShape &model, int64_t elementBytes,
                     int64_t seen);

/// Mean over query heads of span(n) / n, each at most 1.
double queryDensity(const Plan &plan, int64_t n);

/// Mean over KV heads of the largest span(n) / n of the group, each at most 1.
/// `kvHeads` divides the plan's query heads.
double kvDensity(const Plan &plan, int64_t kvHeads, int64_t n);

} // namespace moa::plan

#endif // MOA_PLAN_PLAN_H
