//===- Scenario.h - A run and what it must give -----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A scenario says which rules, shapes, calls and inputs; the driver compiles
// its plan, runs it on a back end and compares every row with float64.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_CONFORMANCE_SCENARIO_H
#define MOA_TEST_UNIT_CONFORMANCE_SCENARIO_H

#include "Backend.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace moa::conformance {

enum class Dtype { F32, F16, BF16 };

/// As plans name them: 16, "e4m3", "int8".
enum class Kv { Model, E4M3, Int8 };

/// One rule: span = alpha + beta * N.
struct Rule {
  int64_t alpha;
  double beta;
};

/// One sequence's part of a step. `length` is N at creation; a later, larger
/// one raises it; 0 leaves it.
struct Part {
  int sequence;
  int64_t tokens;
  int64_t length = 0;
};

/// A special value at one position of one sequence, in all layers.
struct Poison {
  enum Where { Query, Key, Value } where;
  int sequence;
  int64_t position;
  int64_t head; ///< Query head or KV head.
  double value;
};

struct Scenario {
  // The model.
  int64_t layers = 1, qHeads = 4, kvHeads = 2, headDim = 64;
  Dtype dtype = Dtype::F32;
  // The plan; rule of layer l, head h: rules[(l * qHeads + h) % size].
  std::vector<Rule> rules = {{0, 0.5}, {0, 0.25}, {128, 0}, {0, 1}};
  int64_t sink = 64, block = 64, min = 128;
  /// Of each layer the model's own window, or 0; none: no layer has one.
  std::vector<int64_t> windows;
  /// What KV heads keep of complete pages; of layer l, KV head h: kv[(l *
  /// kvHeads
  /// + h) % size]. None: all keep the element type.
  std::vector<Kv> kv;
  bool perRow = false; ///< Length rule `row`.
  // The calls: each step is one call a layer.
  std::vector<std::vector<Part>> steps;
  int64_t decodeParts = 0; ///< Of the cache.
  std::optional<float> scale;
  float softCap = 0;            ///< Of the model; 0: none.
  std::optional<Rotation> rope; ///< Queries and keys come without it.
  // The inputs: uniform in +-magnitude, or whole multiples of it.
  double qMagnitude = 1, kMagnitude = 1, vMagnitude = 1;
  bool wholeMultiples = false; ///< q and k from {-1, 0, 1} * magnitude.
  std::vector<Poison> poison;
  uint64_t seed = 1;
  // The layout of all tensors.
  int64_t headPadding = 0; ///< Elements behind each head.
  int64_t rowPadding = 0;  ///< Elements behind each row.
  bool headMajor = false;  ///< [head][token] instead of [token][head].
  int64_t offset = 0;      ///< Elements before row 0.
  double tolerance = 0;    ///< By row norm; 0 = that of the element type.

  Rule rule(int64_t layer, int64_t head) const {
    return rules[(layer * qHeads + head) % rules.size()];
  }
  int64_t window(int64_t layer) const {
    return windows.empty() ? 0 : windows[layer];
  }
  /// A window of the model's own hides the sink.
  int64_t sinkOf(int64_t layer) const { return window(layer) ? 0 : sink; }
  Kv kvFormat(int64_t layer, int64_t kvHead) const {
    return kv.empty() ? Kv::Model : kv[(layer * kvHeads + kvHead) % kv.size()];
  }
  int64_t group() const { return qHeads / kvHeads; }
};

/// The output rows as bytes, by layer and sequence: [position][head][D].
using Outputs = std::map<std::pair<int64_t, int>, std::string>;

/// An existing folder that the environment names for artifacts, or null. Where
/// there is no GPU, tests of one compile what they would run into it; where
/// there is no compiler, they find it there.
const char *givenArtifacts();

/// Compiles the plan of a scenario for a target of moa-compile; the artifact's
/// path, or a test failure and an empty path. Equal plans and shapes are
/// compiled once.
std::string compileScenario(const Scenario &scenario,
                            int64_t maxLength = 1 << 20,
                            const std::string &target = "cpu");

/// Why the CUDA back end refuses a scenario, or does not promise its numbers;
/// null if it runs it.
const char *reasonAgainstOnCuda(const Scenario &scenario);

/// Runs a scenario on an open back end with fresh sequences, which it destroys
/// at the end, and compares with the reference. Differences are test failures.
Outputs runScenario(const Scenario &scenario, Backend &backend);

// Below: reference.cpp, used by the driver.

/// Bytes of an element.
int64_t elementBytes(Dtype dtype);
/// Rounds to the element type and stores it.
void store(double value, Dtype dtype, void *to);
double load(const void *from, Dtype dtype);

/// The values of one row of q, k or v of one head, already rounded.
std::vector<double> inputRow(const Scenario &scenario, Poison::Where tensor,
                             int64_t layer, int sequence, int64_t position,
                             int64_t head);

/// A row of q or k as the scenario's rotation makes it, in float64.
std::vector<double> rotated(const Scenario &scenario, std::vector<double> row,
                            int64_t position);

/// Rows of one sequence and layer, in float64, given one after the other.
class Reference {
public:
  Reference(const Scenario &scenario, int64_t layer, int sequence)
      : scenario(scenario), layer(layer), sequence(sequence),
        keys(scenario.kvHeads), values(scenario.kvHeads),
        kept{Kept(scenario.kvHeads), Kept(scenario.kvHeads)},
        running(scenario.qHeads) {}

  /// Output of `head` at the next position, with spans at length `n` and
  /// nothing visible between the sink and `firstResident`. Blocks of 64 behind
  /// the sink and below `kv8End` are seen as their KV head keeps them,
  /// `rounded` to the element type or not. Call it for heads 0 .. qHeads - 1 in
  /// order, then the next position.
  std::vector<double> row(int64_t position, int64_t head, int64_t n,
                          int64_t firstResident, int64_t kv8End, bool rounded);

private:
  using Rows = std::vector<std::vector<double>>; ///< [j][d].
  /// What 8 bits keep.
  struct Kept {
    explicit Kept(int64_t kvHeads) : keys(kvHeads), values(kvHeads) {}
    std::vector<Rows> keys, values; ///< [kv].
  };
  void keep(int64_t kvHead, int64_t block);

  const Scenario &scenario;
  int64_t layer;
  int sequence;
  std::vector<Rows> keys, values; ///< [kv].
  Kept kept[2];                   ///< As it is, and rounded.
  std::vector<int64_t> running;   ///< Largest window start yet, by head.
};

} // namespace moa::conformance

#endif // MOA_TEST_UNIT_CONFORMANCE_SCENARIO_H
