//===- Cases.cpp - The table of conformance cases -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Each case is a short function that returns scenarios; what is not said in it
// has the defaults of Scenario.
//
//===----------------------------------------------------------------------===//

#include "Cases.h"

#include <random>

#include <cmath>

using namespace moa::conformance;

std::vector<std::vector<Part>>
moa::conformance::chunks(std::initializer_list<int64_t> tokens,
                         int64_t length) {
  std::vector<std::vector<Part>> steps;
  for (int64_t count : tokens)
    steps.push_back({{0, count, length}});
  return steps;
}

/// A prompt, single tokens, a chunk over a page border, a single token.
static std::vector<std::vector<Part>> mixedChunks() {
  return chunks({150, 1, 1, 65, 1}, 300);
}

static std::vector<Scenario> promptLengths() {
  std::vector<Scenario> list;
  for (int64_t n : {1, 2, 63, 64, 65, 127, 128, 129, 500, 1000}) {
    Scenario s;
    s.steps = chunks({n}, n);
    list.push_back(s);
  }
  return list;
}

static std::vector<Scenario> decodeFromOne() {
  Scenario s;
  s.kvHeads = 1;
  for (int64_t i = 0; i < 200; ++i)
    s.steps.push_back({{0, 1, 512}});
  return {s};
}

static std::vector<Scenario> sinks() {
  std::vector<Scenario> list;
  for (int64_t sink : {0, 1, 4, 63, 65, 100, 130, 400}) {
    Scenario s;
    s.sink = sink;
    s.min = sink + 1; // Windows from 1 to 64 keys.
    s.rules = {{0, 0}, {sink + 70, 0}, {0, 0.5}, {sink + 64, 0}};
    s.steps = mixedChunks();
    list.push_back(s);
  }
  return list;
}

static std::vector<Scenario> shortWindows() {
  std::vector<Scenario> list;
  for (int64_t sink : {0, 64, 100}) {
    Scenario s;
    s.sink = sink;
    s.block = 1; // Token-exact windows of 1, 2, 63, 64, 65 and 66 keys.
    s.min = sink + 1;
    s.qHeads = 6;
    s.kvHeads = 2;
    s.rules = {{sink + 1, 0},  {sink + 2, 0},  {sink + 63, 0},
               {sink + 64, 0}, {sink + 65, 0}, {sink + 66, 0}};
    s.steps = mixedChunks();
    list.push_back(s);
  }
  return list;
}

static std::vector<Scenario> fullHeads() {
  std::vector<Scenario> list;
  for (std::vector<Rule> rules :
       {std::vector<Rule>{{0, 1}},
        std::vector<Rule>{{0, 1}, {0, 0}, {0, 0}, {1 << 20, 0}},
        std::vector<Rule>{{-1, 1}, {-64, 1}, {0, 1}, {64, 1}}}) {
    Scenario s;
    s.rules = rules;
    s.steps = mixedChunks();
    list.push_back(s);
  }
  return list;
}

static std::vector<Scenario> headDims(Dtype dtype) {
  std::vector<Scenario> list;
  for (int64_t dim : {64, 80, 96, 128, 192, 256}) {
    Scenario s;
    s.headDim = dim;
    s.dtype = dtype;
    s.steps = chunks({190, 1, 70, 1}, 400);
    list.push_back(s);
  }
  return list;
}

static std::vector<Scenario> groups() {
  std::vector<Scenario> list;
  for (int64_t group : {1, 2, 3, 4, 5, 7, 8, 16}) {
    Scenario s;
    s.kvHeads = group == 3 ? 2 : 1;
    s.qHeads = group * s.kvHeads;
    s.rules = {{0, 0.5}, {0, 0}, {64, 0.25}, {0, 1}, {-100, 0.75}};
    s.steps = chunks({130, 1, 1, 20, 1}, 300);
    list.push_back(s);
  }
  return list;
}

/// Few rows at a time, over and before page borders, with windows narrower than
/// a step beside those that see all.
static std::vector<Scenario> multiToken() {
  std::vector<Scenario> list;
  for (int64_t group : {1, 2, 3, 4, 7, 8, 16})
    for (int64_t dim : {64, 80, 128, 256}) {
      Scenario s;
      s.headDim = dim;
      s.kvHeads = group == 3 ? 2 : 1;
      s.qHeads = group * s.kvHeads;
      s.perRow = list.size() % 2;
      s.sink = list.size() % 3 * 50;
      s.block = 1;
      s.min = s.sink + 1;
      s.rules = {{0, 0.5}, {s.sink + 1, 0}, {0, 1}, {s.sink + 3, 0}, {70, 0.1}};
      // From 62 on, 126, 189, 253, 317 and 370.
      s.steps =
          chunks({62, 4, 60, 3, 60, 5, 59, 8, 56, 16, 37, 2, 1, 4, 2}, 380);
      list.push_back(s);
    }
  Scenario batch; // Other lengths, some of one row.
  batch.steps = {{{0, 62, 200}, {1, 126, 200}, {2, 1, 200}},
                 {{0, 4}, {1, 4}, {2, 4}},
                 {{2, 2}, {0, 1}, {1, 8}},
                 {{1, 3}, {2, 3}}};
  list.push_back(batch);
  return list;
}

static std::vector<Scenario> chunkSizes() {
  std::vector<Scenario> list;
  for (bool perRow : {false, true})
    for (auto sizes : {std::initializer_list<int64_t>{1, 63, 64, 65, 1, 64},
                       {65, 1, 1, 62, 1, 128, 1},
                       {64, 64, 64, 1, 63, 64, 200, 1},
                       {40, 24, 40, 88, 3, 3, 1}}) {
      Scenario s;
      s.perRow = perRow;
      s.steps = chunks(sizes, 700);
      list.push_back(s);
    }
  return list;
}

static std::vector<Scenario> rowRule() {
  std::vector<Scenario> list;
  for (int64_t block : {1, 16, 64, 100}) {
    Scenario s;
    s.perRow = true;
    s.block = block;
    s.rules = {{0, 0.5}, {-64, 0.875}, {0, 0.37}, {200, 0}};
    s.steps = chunks({333, 1, 1, 130, 1}, 1);
    list.push_back(s);
  }
  return list;
}

static std::vector<Scenario> turns() {
  Scenario budget; // Past the budget, N not raised.
  budget.steps = chunks({200, 1, 100, 1, 200, 1}, 220);
  Scenario raised; // Each turn raises N; what is gone stays gone.
  raised.rules = {{0, 0.5}, {0, 0.25}, {0, 0}, {-64, 0.75}};
  raised.steps = {{{0, 400, 450}},  {{0, 1}}, {{0, 1}},
                  {{0, 100, 700}},  {{0, 1}}, {{0, 64}},
                  {{0, 200, 1500}}, {{0, 1}}, {{0, 1, 3000}},
                  {{0, 300}},       {{0, 1}}};
  Scenario sinkless = raised;
  sinkless.sink = 0;
  sinkless.min = 1;
  return {budget, raised, sinkless};
}

static std::vector<Scenario> raggedBatch() {
  std::vector<Scenario> list;
  for (bool perRow : {false, true}) {
    Scenario s;
    s.perRow = perRow;
    s.steps = {{{0, 1, 100}, {1, 64, 200}, {2, 300, 310}},
               {{2, 1}, {0, 70}, {1, 1}, {3, 128, 128}},
               {{1, 1}, {0, 1}, {3, 1}, {2, 1}},
               {{3, 65}, {1, 192}}};
    list.push_back(s);
  }
  return list;
}

static std::vector<Scenario> layers() {
  Scenario s;
  s.layers = 3;
  s.rules = {{0, 0.5}, {0, 0.5},   {0, 0},    {0, 0},  {0, 1},
             {0, 1},   {64, 0.25}, {0, 0.75}, {-64, 1}};
  s.steps = mixedChunks();
  return {s};
}

/// Layers whose model has a window of its own beside one that has none: spans
/// below, through and above it, ends of windows in and between pages.
static std::vector<Scenario> windows() {
  std::vector<Scenario> list;
  for (bool perRow : {false, true})
    for (int64_t window : {1, 64, 100}) {
      Scenario s;
      s.layers = 3;
      s.perRow = perRow;
      s.sink = window == 64 ? 64 : 100;
      s.block = window == 1 ? 1 : 64;
      s.min = s.sink + 1;
      s.windows = {window, 0, window + 150};
      s.rules = {{0, 1}, {0, 0.25}, {s.sink + 70, 0}, {200, 0}, {0, 0.5}};
      if (window == 100)
        s.rope = Rotation{};
      s.steps = {{{0, 300, 500}, {1, 70, 200}},
                 {{0, 1}, {1, 1}},
                 {{0, 65}, {1, 58}},
                 {{0, 3}, {1, 3}},
                 {{1, 1}, {0, 1}}};
      list.push_back(s);
    }
  return list;
}

static std::vector<Scenario> poison() {
  std::vector<Scenario> list;
  for (Dtype dtype : {Dtype::F32, Dtype::F16, Dtype::BF16})
    for (double value : {double(NAN), double(INFINITY)}) {
      Scenario s;
      s.dtype = dtype;
      s.rules = {{0, 0}, {192, 0}};
      s.steps = chunks({200, 1, 1, 120, 1, 1}, 400);
      // Seen by its window's rows and gone then; rows before never see it.
      s.poison = {{Poison::Key, 0, 70, 0, value},
                  {Poison::Value, 0, 140, 1, value},
                  {Poison::Value, 0, 201, 0, value}};
      list.push_back(s);
    }
  Scenario query; // A query taints its own row and head alone.
  query.steps = chunks({100, 1, 1}, 200);
  query.poison = {{Poison::Query, 0, 30, 1, NAN},
                  {Poison::Query, 0, 100, 2, NAN}};
  list.push_back(query);
  return list;
}

static std::vector<Scenario> extremeScores() {
  std::vector<Scenario> list;
  Scenario large; // Scores are whole multiples of 128, up to about 8000.
  large.wholeMultiples = true;
  large.qMagnitude = large.kMagnitude = 32;
  // Queries are scaled first, in float: a score of 4000 then carries an error
  // of up to 1e-3, and so does the share of two keys that tie.
  large.tolerance = 1e-3;
  large.steps = mixedChunks();
  list.push_back(large);
  large.dtype = Dtype::BF16;
  large.tolerance = 0;
  list.push_back(large);
  Scenario equal;
  equal.qMagnitude = 0;
  equal.steps = mixedChunks();
  list.push_back(equal);
  Scenario level; // Equal keys: a row's scores are one number, of thousands.
  level.dtype = Dtype::F16;
  level.qHeads = level.kvHeads = 1;
  level.rules = {{0, 1}};
  level.steps = chunks({2000, 1}, 2001);
  for (int64_t position = 0; position < 2001; ++position)
    level.poison.push_back({Poison::Key, 0, position, 0, 16384});
  list.push_back(level);
  Scenario tiny; // Products of q and k are subnormal in float.
  tiny.wholeMultiples = true;
  tiny.qMagnitude = tiny.kMagnitude = 1e-20;
  tiny.steps = mixedChunks();
  list.push_back(tiny);
  return list;
}

/// Keys whose scores rise towards the first, where kernels that go down from
/// the diagonal come last: by powers of two from few to hundreds, so that a
/// row's maximum grows by little, by much, or not at all, row by row.
static std::vector<Scenario> risingScores() {
  std::vector<Scenario> list;
  for (Dtype dtype : {Dtype::F32, Dtype::F16, Dtype::BF16})
    for (int64_t dim : {64, 128, 256}) {
      Scenario s;
      s.headDim = dim;
      s.dtype = dtype;
      if (dtype == Dtype::F32) // Scores of hundreds carry errors of 1e-5.
        s.tolerance = 1e-4;
      s.rules = {{0, 1}, {0, 0.5}};
      s.steps = chunks({700, 1, 90, 1}, 800);
      for (int64_t position = 3; position < 700; position += 41)
        for (int64_t head = 0; head < s.kvHeads; ++head)
          s.poison.push_back({Poison::Key, 0, position, head,
                              256 * std::exp2(-double(position) / 64)});
      list.push_back(s);
    }
  return list;
}

static std::vector<Scenario> scales() {
  std::vector<Scenario> list;
  for (float scale : {0.0f, -0.125f, 0.5f, -1.0f, 1e-6f}) {
    Scenario s;
    s.scale = scale;
    s.steps = mixedChunks();
    list.push_back(s);
  }
  return list;
}

/// Caps that scores stay far below, reach, and exceed by far; a key that is not
/// a number, rotations, pages of 8 bits and long steps under a cap.
static std::vector<Scenario> softCaps(Dtype dtype) {
  std::vector<Scenario> list;
  for (int64_t dim : {64, 80, 128, 256})
    for (float cap : {50.0f, 2.0f, 1e6f, 0.25f}) {
      if (dim != 64 && cap != 50 && cap != 2)
        continue;
      Scenario s;
      s.dtype = dtype;
      s.headDim = dim;
      s.softCap = cap;
      s.qMagnitude = s.kMagnitude = 4; // Scores up to 20 and more.
      if (dtype == Dtype::F32)         // Scores of tens carry errors of 1e-6.
        s.tolerance = 2e-5;
      s.steps = mixedChunks();
      if (dim == 80)
        s.rope = Rotation{};
      if (dim == 128)
        s.steps = {{{0, 300, 500}, {1, 70, 200}},
                   {{0, 1}, {1, 1}},
                   {{0, 3}, {1, 3}},
                   {{1, 1}, {0, 1}}};
      if (dim == 128 && dtype != Dtype::F32)
        s.kv = {Kv::E4M3, Kv::Int8};
      if (dim == 64)
        s.poison = {{Poison::Key, 0, 70, 0, NAN},
                    {Poison::Query, 0, 30, 1, NAN}};
      if (dim == 256)
        s.windows = {100};
      list.push_back(s);
    }
  return list;
}

static std::vector<Scenario> hugeValues() {
  std::vector<Scenario> list;
  for (Dtype dtype : {Dtype::F16, Dtype::BF16}) {
    Scenario s;
    s.dtype = dtype;
    s.vMagnitude = 60000; // Sums of them pass the range of f16.
    s.steps = mixedChunks();
    list.push_back(s);
  }
  return list;
}

static std::vector<Scenario> strides() {
  std::vector<Scenario> list;
  for (Dtype dtype : {Dtype::F32, Dtype::BF16}) {
    Scenario s;
    s.dtype = dtype;
    s.steps = mixedChunks();
    s.headPadding = 8;
    list.push_back(s);
    s.rowPadding = 24;
    s.offset = 4;
    list.push_back(s);
    s.headMajor = true;
    list.push_back(s);
    s.headPadding = s.rowPadding = 0;
    s.offset = 1; // Aligned to the element alone.
    list.push_back(s);
    s.steps = {{{0, 100, 200}, {1, 1, 100}}, {{1, 70}, {0, 1}}};
    s.headMajor = false;
    s.headPadding = 3;
    list.push_back(s);
  }
  return list;
}

static std::vector<Scenario> longSequence() {
  Scenario s;
  s.kvHeads = 1;
  s.rules = {{0, 0.5}, {0, 0.125}, {512, 0}, {0, 1}};
  s.steps = chunks({2100, 1, 1, 300, 1}, 2500);
  return {s};
}

/// Both pair layouts over whole and partial heads, in prompts, chunks that are
/// kept in part, single tokens and steps of a batch.
static std::vector<Scenario> rotations(Dtype dtype) {
  struct Shape {
    int64_t headDim, dim;
  };
  std::vector<Scenario> list;
  for (bool interleaved : {false, true})
    for (Shape shape : {Shape{64, 32}, Shape{128, 128}, Shape{80, 20}}) {
      Scenario s;
      s.dtype = dtype;
      s.headDim = shape.headDim;
      s.rules = {{128, 0}, {0, 0.25}, {192, 0}, {0, 0.25}};
      s.rope = Rotation{interleaved, shape.dim, interleaved ? 5e5 : 1e4,
                        interleaved ? 1.25f : 1.0f};
      s.headPadding = interleaved ? 8 : 0;
      s.steps = {{{0, 300, 500}, {1, 70, 200}},
                 {{0, 65}, {1, 1}},
                 {{0, 1}, {1, 1}},
                 {{0, 3}, {1, 3}},
                 {{1, 1}, {0, 1}}};
      list.push_back(s);
    }
  return list;
}

/// Formats side by side, spans that keep nothing but the newest pages and all,
/// sinks that end in a page, large heads; prompts, chunks and single tokens
/// over borders.
static std::vector<Scenario> kv8(Dtype dtype,
                                 std::initializer_list<std::vector<Kv>> all) {
  std::vector<Scenario> list;
  struct Shape {
    int64_t sink, headDim, qHeads;
  };
  for (const std::vector<Kv> &formats : all)
    for (auto [sink, headDim, qHeads] :
         {Shape{0, 80, 4}, {64, 128, 6}, {100, 80, 4}, {64, 256, 4}}) {
      Scenario s;
      s.dtype = dtype;
      s.layers = formats.size() > 1 ? 2 : 1;
      s.kv = formats;
      s.sink = sink;
      s.min = sink + 1;
      s.headDim = headDim;
      s.qHeads = qHeads;
      s.rules = {{0, 1}, {0, 0.5}, {sink + 70, 0}, {0, 0.25}, {0, 0}, {200, 0}};
      s.perRow = sink == 100;
      if (sink == 100)
        s.rope = Rotation{};
      s.kMagnitude = 3;
      s.steps = {{{0, 300, 700}, {1, 130, 300}}, {{0, 20}, {1, 1}}};
      for (int i = 0; i < 3; ++i)
        s.steps.push_back({{0, 1}, {1, 1}});
      s.steps.push_back({{0, 61}, {1, 59}});
      s.steps.push_back({{0, 130}, {1, 3}});
      s.steps.push_back({{0, 3}, {1, 3}});
      list.push_back(s);
      if (s.layers == 1 || sink != 64)
        continue;
      s.windows = {100, 0};
      list.push_back(s);
    }
  return list;
}

/// Caches whose decoded rows do not depend on each other: items in few parts
/// and in many, of one page and of several, with and without 8 bits.
static std::vector<Scenario> decodeParts() {
  std::vector<Scenario> list;
  for (int64_t parts : {1, 3, 64})
    for (bool eight : {false, true}) {
      Scenario s;
      s.dtype = Dtype::BF16;
      s.decodeParts = parts;
      s.headDim = eight ? 128 : 64;
      if (eight)
        s.kv = {Kv::E4M3, Kv::Model};
      s.steps = {{{0, 1500, 1700}, {1, 65, 300}, {2, 1, 300}, {3, 700, 900}}};
      for (int i = 0; i < 3; ++i)
        s.steps.push_back({{3, 1}, {1, 1}, {0, 1}, {2, 1}});
      s.steps.push_back({{0, 4}, {2, 4}});
      s.steps.push_back({{1, 1}, {0, 5}, {2, 130}, {3, 1}});
      list.push_back(s);
    }
  return list;
}

Scenario moa::conformance::ragged(const std::function<bool(int)> &chosen,
                                  bool others) {
  Scenario s;
  s.dtype = Dtype::BF16;
  std::mt19937 lengths(1);
  std::vector<Part> prompts, ones;
  for (int i = 0; i < 64; ++i) {
    const int64_t own = 1 + lengths() % 200, other = 1 + lengths() % 200;
    if (!chosen(i) && !others)
      continue;
    prompts.push_back({i, chosen(i) ? own : other, 300});
    ones.push_back({i, 1});
  }
  s.steps = {prompts, ones, ones, ones};
  return s;
}

const std::vector<Case> &moa::conformance::cases() {
  static const std::vector<Case> all = {
      {"PromptLengths", promptLengths},
      {"DecodeFromOne", decodeFromOne},
      {"Sinks", sinks},
      {"ShortWindows", shortWindows},
      {"FullHeads", fullHeads},
      {"HeadDimsF32", [] { return headDims(Dtype::F32); }},
      {"HeadDimsF16", [] { return headDims(Dtype::F16); }},
      {"HeadDimsBF16", [] { return headDims(Dtype::BF16); }},
      {"Groups", groups},
      {"MultiToken", multiToken},
      {"ChunkSizes", chunkSizes},
      {"RowRule", rowRule},
      {"Turns", turns},
      {"RaggedBatch", raggedBatch},
      {"DecodeParts", decodeParts},
      {"Layers", layers},
      {"Windows", windows},
      {"Poison", poison},
      {"ExtremeScores", extremeScores},
      {"RisingScores", risingScores},
      {"Scales", scales},
      {"SoftCapsF32", [] { return softCaps(Dtype::F32); }},
      {"SoftCapsF16", [] { return softCaps(Dtype::F16); }},
      {"SoftCapsBF16", [] { return softCaps(Dtype::BF16); }},
      {"HugeValues", hugeValues},
      {"Strides", strides},
      {"LongSequence", longSequence},
      {"Kv8F16",
       [] { return kv8(Dtype::F16, {{Kv::Int8, Kv::Model, Kv::E4M3}}); }},
      {"Kv8BF16", [] { return kv8(Dtype::BF16, {{Kv::E4M3}, {Kv::Int8}}); }},
      {"RotationsF32", [] { return rotations(Dtype::F32); }},
      {"RotationsF16", [] { return rotations(Dtype::F16); }},
      {"RotationsBF16", [] { return rotations(Dtype::BF16); }}};
  return all;
}
