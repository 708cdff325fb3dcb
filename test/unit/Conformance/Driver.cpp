//===- Driver.cpp - Compiles, runs and compares a scenario ----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Outputs are filled with 0xFF before every call; afterwards every row that
// was asked for is compared and every other byte must be 0xFF still.
//
//===----------------------------------------------------------------------===//

#include "Scenario.h"

#include "gtest/gtest.h"
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <unistd.h>

using namespace moa::conformance;
namespace fs = std::filesystem;

namespace {

const char *nameOf(Dtype dtype) {
  return dtype == Dtype::F32 ? "f32" : dtype == Dtype::F16 ? "f16" : "bf16";
}

double toleranceOf(const Scenario &s) {
  if (s.tolerance > 0)
    return s.tolerance;
  return s.dtype == Dtype::F32 ? 1e-5 : s.dtype == Dtype::F16 ? 2e-3 : 8e-3;
}

std::string planText(const Scenario &s) {
  std::ostringstream alphas, betas;
  alphas.precision(17);
  betas.precision(17);
  for (int64_t layer = 0; layer < s.layers; ++layer) {
    const char *open = layer ? ",[" : "[";
    alphas << open;
    betas << open;
    for (int64_t head = 0; head < s.qHeads; ++head) {
      Rule rule = s.rule(layer, head);
      alphas << (head ? "," : "") << rule.alpha;
      betas << (head ? "," : "") << rule.beta;
    }
    alphas << ']';
    betas << ']';
  }
  std::ostringstream plan;
  const char *names[] = {"16", "\"e4m3\"", "\"int8\""};
  plan << '{';
  if (!s.kv.empty())
    plan << "\"kv\":{\"format\":[";
  for (int64_t i = 0; !s.kv.empty() && i < s.layers * s.kvHeads; ++i)
    plan << (i % s.kvHeads ? ","
             : i           ? "],["
                           : "[")
         << names[int(s.kvFormat(i / s.kvHeads, i % s.kvHeads))];
  if (!s.kv.empty())
    plan << "]]},";
  plan << "\"format\":\"moa-plan\",\"version\":1,\"alphas\":[" << alphas.str()
       << "],\"betas\":[" << betas.str() << "],\"span\":{\"sink\":" << s.sink
       << ",\"block\":" << s.block << ",\"min\":" << s.min << ",\"length\":\""
       << (s.perRow ? "row" : "request") << '"';
  for (int64_t layer = 0; layer < int64_t(s.windows.size()); ++layer)
    plan << (layer ? "," : ",\"window\":[")
         << (s.windows[layer] ? std::to_string(s.windows[layer]) : "null");
  plan << (s.windows.empty() ? "}}\n" : "]}}\n");
  return plan.str();
}

/// Where artifacts of this very compiler are kept between test processes.
fs::path artifactFolder(const fs::path &compiler) {
  auto built = fs::last_write_time(compiler).time_since_epoch().count();
  fs::path folder = compiler.parent_path().parent_path() / "conformance" /
                    std::to_string(built);
  fs::create_directories(folder);
  return folder;
}

/// One tensor of a call in the scenario's layout, between guard bytes.
class Tensor {
public:
  Tensor(const Scenario &s, int64_t tokens, int64_t heads)
      : bytes(elementBytes(s.dtype)) {
    int64_t head = s.headDim + s.headPadding;
    if (s.headMajor)
      strides = {head, head * tokens + s.rowPadding};
    else
      strides = {head * heads + s.rowPadding, head};
    first = kGuard + s.offset;
    int64_t last = strides.row * (tokens - 1) + strides.head * (heads - 1);
    data.assign((first + last + s.headDim + kGuard) * bytes, '\xff');
  }

  char *at(int64_t token, int64_t head) {
    return data.data() +
           (first + token * strides.row + head * strides.head) * bytes;
  }

  Buffer buffer() { return {data.data(), data.size()}; }

  Strides strides;
  std::vector<char> data;

private:
  static constexpr int64_t kGuard = 64;
  int64_t bytes, first;
};

/// One part of a step with its tensors.
struct Call {
  Call(const Scenario &s, const Part &part)
      : part(part), q(s, part.tokens, s.qHeads), k(s, part.tokens, s.kvHeads),
        v(s, part.tokens, s.kvHeads), out(s, part.tokens, s.qHeads) {}
  Part part;
  Tensor q, k, v, out;
};

class Run {
public:
  Run(const Scenario &scenario, Backend &backend)
      : s(scenario), backend(backend) {}

  Outputs run();

private:
  struct Sequence {
    int handle = -1;
    int64_t length = 0, seen = 0;
    bool raised = false;
    std::vector<Reference> references; ///< One per layer.
  };

  void begin(const Part &part);
  void fill(Call &call, int64_t layer);
  void step(const std::vector<Part> &parts, int64_t layer);
  int64_t kv8End(const Call &call, int64_t layer, int64_t kvHead);
  void compare(Call &call, int64_t layer, const std::vector<int64_t> &resident);
  void compareRotated(Call &call, int64_t layer);
  void compareRow(const std::vector<double> &expected, const char *found,
                  const std::string &where);

  const Scenario &s;
  Backend &backend;
  std::map<int, Sequence> sequences;
  Outputs outputs;
};

/// Creates a sequence or raises its length.
void Run::begin(const Part &part) {
  Sequence &sequence = sequences[part.sequence];
  if (sequence.handle < 0) {
    sequence.length = part.length ? part.length : part.tokens;
    sequence.handle = backend.createSequence(sequence.length);
    ASSERT_GE(sequence.handle, 0);
    for (int64_t layer = 0; layer < s.layers; ++layer)
      sequence.references.emplace_back(s, layer, part.sequence);
  } else if (part.length > sequence.length) {
    ASSERT_EQ(backend.setLength(sequence.handle, part.length), "");
    sequence.length = part.length;
    sequence.raised = true;
  }
}

void Run::fill(Call &call, int64_t layer) {
  int64_t first = sequences[call.part.sequence].seen;
  auto put = [&](Tensor &tensor, Poison::Where where, int64_t heads) {
    for (int64_t token = 0; token < call.part.tokens; ++token)
      for (int64_t head = 0; head < heads; ++head) {
        std::vector<double> row =
            inputRow(s, where, layer, call.part.sequence, first + token, head);
        char *to = tensor.at(token, head);
        for (double value : row) {
          store(value, s.dtype, to);
          to += elementBytes(s.dtype);
        }
      }
  };
  put(call.q, Poison::Query, s.qHeads);
  put(call.k, Poison::Key, s.kvHeads);
  put(call.v, Poison::Value, s.kvHeads);
}

void Run::compareRow(const std::vector<double> &expected, const char *found,
                     const std::string &where) {
  double difference = 0, norm = 0;
  for (size_t d = 0; d < expected.size(); ++d) {
    double got = load(found + d * elementBytes(s.dtype), s.dtype);
    char bytes[4];
    store(expected[d], s.dtype, bytes);
    double rounded = load(bytes, s.dtype);
    if (!std::isfinite(rounded) || !std::isfinite(got)) {
      bool same = std::isnan(rounded) ? std::isnan(got) : rounded == got;
      ASSERT_TRUE(same) << where << ", element " << d << ": expected "
                        << rounded << ", found " << got;
      continue;
    }
    difference += (got - expected[d]) * (got - expected[d]);
    norm += expected[d] * expected[d];
  }
  // Rows whose values cancel are measured against the values' size.
  double floor = 1e-2 * s.vMagnitude;
  double scale = std::max(std::sqrt(norm), floor);
  ASSERT_LE(std::sqrt(difference), toleranceOf(s) * scale)
      << where << ": relative error " << std::sqrt(difference) / scale;
}

/// Blocks below are seen in 8 bits by the rows of a call that was made: those
/// that were complete when it came, the last of them only if it stays.
int64_t Run::kv8End(const Call &call, int64_t layer, int64_t kvHead) {
  const Sequence &sequence = sequences[call.part.sequence];
  const int64_t whole = sequence.seen / 64;
  if (sequence.seen % 64 || whole == 0)
    return whole;
  const int64_t first =
      backend.firstResident(sequence.handle, uint32_t(layer), uint32_t(kvHead));
  return first <= (whole - 1) * 64 ? whole : whole - 1;
}

void Run::compare(Call &call, int64_t layer,
                  const std::vector<int64_t> &resident) {
  Sequence &sequence = sequences[call.part.sequence];
  std::string &all = outputs[{layer, call.part.sequence}];
  const size_t bytes = s.headDim * elementBytes(s.dtype);
  std::vector<int64_t> kept;
  for (int64_t kv = 0; kv < s.kvHeads; ++kv)
    kept.push_back(kv8End(call, layer, kv));
  const bool rounded = backend.roundsCodes(call.part.tokens);
  for (int64_t token = 0; token < call.part.tokens; ++token)
    for (int64_t head = 0; head < s.qHeads; ++head) {
      char *found = call.out.at(token, head);
      std::ostringstream where;
      where << "layer " << layer << " sequence " << call.part.sequence
            << " row " << sequence.seen + token << " head " << head;
      compareRow(sequence.references[layer].row(
                     sequence.seen + token, head, sequence.length,
                     resident[head / s.group()], kept[head / s.group()],
                     rounded),
                 found, where.str());
      if (testing::Test::HasFatalFailure())
        return;
      all.append(found, bytes);
      std::memset(found, 0xff, bytes);
    }
  for (size_t i = 0; i < call.out.data.size(); ++i)
    ASSERT_EQ(call.out.data[i], '\xff')
        << "byte " << i << " outside the output rows was written";
}

/// Queries and keys that the call has rotated where they lie: what a rounding
/// to the element type leaves, and 3e-7 of the row before it.
void Run::compareRotated(Call &call, int64_t layer) {
  const double half = s.dtype == Dtype::F32   ? 0
                      : s.dtype == Dtype::F16 ? 0x1p-11
                                              : 0x1p-8;
  const int64_t first = sequences[call.part.sequence].seen;
  auto check = [&](Tensor &tensor, Poison::Where where, int64_t heads) {
    for (int64_t token = 0; token < call.part.tokens; ++token)
      for (int64_t head = 0; head < heads; ++head) {
        std::vector<double> row = rotated(
            s,
            inputRow(s, where, layer, call.part.sequence, first + token, head),
            first + token);
        double norm = 0;
        for (double value : row)
          norm += value * value;
        for (size_t d = 0; d < row.size(); ++d) {
          double got =
              load(tensor.at(token, head) + d * elementBytes(s.dtype), s.dtype);
          ASSERT_LE(std::abs(got - row[d]),
                    half * std::abs(row[d]) + 3e-7 * std::sqrt(norm))
              << (where == Poison::Key ? "key" : "query") << " head " << head
              << " at position " << first + token << ", element " << d;
        }
      }
  };
  check(call.q, Poison::Query, s.qHeads);
  check(call.k, Poison::Key, s.kvHeads);
}

void Run::step(const std::vector<Part> &parts, int64_t layer) {
  std::vector<Call> calls;
  for (const Part &part : parts) {
    calls.emplace_back(s, part);
    fill(calls.back(), layer);
  }
  std::vector<Entry> entries;
  std::vector<std::vector<int64_t>> resident;
  for (Call &call : calls) {
    int handle = sequences[call.part.sequence].handle;
    entries.push_back({handle,
                       call.part.tokens,
                       call.q.at(0, 0),
                       call.k.at(0, 0),
                       call.v.at(0, 0),
                       call.out.at(0, 0),
                       call.q.strides,
                       call.k.strides,
                       {call.q.buffer(), call.k.buffer(), call.v.buffer(),
                        call.out.buffer()}});
    resident.emplace_back();
    for (int64_t kv = 0; kv < s.kvHeads; ++kv)
      resident.back().push_back(
          backend.firstResident(handle, uint32_t(layer), uint32_t(kv)));
  }
  ASSERT_EQ(
      backend.attend(uint32_t(layer), s.scale ? &*s.scale : nullptr, entries),
      "");
  for (size_t i = 0; i < calls.size(); ++i) {
    if (s.rope)
      compareRotated(calls[i], layer);
    compare(calls[i], layer, resident[i]);
    if (testing::Test::HasFatalFailure())
      return;
  }
}

Outputs Run::run() {
  for (size_t index = 0; index < s.steps.size(); ++index) {
    SCOPED_TRACE("step " + std::to_string(index));
    for (const Part &part : s.steps[index])
      begin(part);
    for (int64_t layer = 0; layer < s.layers; ++layer) {
      if (testing::Test::HasFatalFailure())
        return outputs;
      step(s.steps[index], layer);
    }
    for (const Part &part : s.steps[index]) {
      Sequence &sequence = sequences[part.sequence];
      sequence.seen += part.tokens;
      uint64_t held = backend.bytesHeld(sequence.handle);
      uint64_t exact = backend.bytesExpected(sequence.length, sequence.seen);
      if (sequence.raised)
        EXPECT_LE(held, exact);
      else
        EXPECT_EQ(held, exact);
    }
  }
  for (auto &[number, sequence] : sequences)
    backend.destroySequence(sequence.handle);
  EXPECT_EQ(backend.pagesUsed(), 0u) << "pages not returned";
  return outputs;
}

} // namespace

const char *moa::conformance::givenArtifacts() {
  return std::getenv("MOA_CONFORMANCE_ARTIFACTS");
}

std::string moa::conformance::compileScenario(const Scenario &s,
                                              int64_t maxLength,
                                              const std::string &target) {
  std::string plan = planText(s);
  std::ostringstream options;
  options << " --model layers=" << s.layers << ",q_heads=" << s.qHeads
          << ",kv_heads=" << s.kvHeads << ",head_dim=" << s.headDim
          << (s.softCap ? ",soft_cap=" + std::to_string(s.softCap) : "")
          << " --max-length " << maxLength << " --dtype " << nameOf(s.dtype)
          << " --target " << target;
  if (s.rope)
    options << " --rope " << (s.rope->interleaved ? "interleaved:" : "half:")
            << s.rope->dim;
  size_t key = std::hash<std::string>()(plan + options.str());
  fs::path compiler = MOA_TEST_COMPILER, base;
  const char *given = givenArtifacts();
  const bool compiles = fs::exists(compiler);
  if (given || compiles)
    base = (given ? fs::path(given) : artifactFolder(compiler)) /
           std::to_string(key);
  std::string artifact = base.string() + ".moa";
  if (fs::exists(artifact))
    return artifact;
  if (!compiles) {
    ADD_FAILURE() << "expected a built moa-compile at " << compiler
                  << (given ? ", or the artifact " + artifact : "");
    return "";
  }
  // Written beside and renamed, as several tests may run at a time.
  std::string own = base.string() + "-" + std::to_string(getpid());
  std::ofstream(own + ".json") << plan;
  std::string command = "\"" + compiler.string() + "\" \"" + own + ".json\"" +
                        options.str() + " -o \"" + own + ".moa\" 2>\"" + own +
                        ".log\"";
  if (std::system(command.c_str()) != 0) {
    std::ifstream log(own + ".log");
    ADD_FAILURE() << command << "\n" << log.rdbuf();
    return "";
  }
  fs::rename(own + ".moa", artifact);
  fs::remove(own + ".json");
  fs::remove(own + ".log");
  return artifact;
}

Outputs moa::conformance::runScenario(const Scenario &scenario,
                                      Backend &backend) {
  return Run(scenario, backend).run();
}

const char *moa::conformance::reasonAgainstOnCuda(const Scenario &s) {
  if (s.scale && !(*s.scale > 0))
    return "GPU kernels scale behind the maximum, which asks for a scale above "
           "0";
  const int64_t piece = 16 / elementBytes(s.dtype);
  if (s.headPadding % piece || s.rowPadding % piece || s.offset % piece)
    return "copies on the device take multiples of 16 bytes";
  for (const Poison &p : s.poison)
    if (p.where == Poison::Value)
      return "a value that is not finite may reach rows of its tile that do "
             "not see it: weights are masked, values are not selected";
  return nullptr;
}
