//===- DimLanes.cpp - Attention with the head size along lanes ------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Decode: one row of each head of a group. Keys and values stream through
// registers once for the whole group; every head keeps its own softmax.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/abi/kernel_args.h"
#include <algorithm>
#include <limits>
#include <numeric>

using namespace mlir;
using namespace moa;
using namespace moa::cpu;

namespace {

/// Scratch layout, all f32: queries [heads][dims], scores [heads][64], output
/// [heads][dims], maximum, sum and rescale [heads].
class DimLanes final : public AttentionLowering {
public:
  DimLanes(Emitter &e, const CpuChip &chip, Value item, Scratch &scratch,
           int64_t rows, int64_t dims, Type element, bool kv8)
      : AttentionLowering(e, chip, item, scratch, rows, dims, element, kv8) {
    queries = scratch.take(e, rows * dims);
    scoreTile = scratch.take(e, rows * kKeys);
    output = scratch.take(e, rows * dims);
    maximum = scratch.take(e, rows);
    sum = scratch.take(e, rows);
    rescale = scratch.take(e, rows);
  }

  void loadQueries() override;
  void init() override;
  void scores(const BlockTile &keys) override;
  void softCap(float cap) override { capScores(scoreTile, rows * kKeys, cap); }
  void mask(tile::MaskClass classes, Value block) override;
  void softmaxStep(bool) override;
  void accumulate(const BlockTile &values, bool skipZero) override;
  void store() override;

private:
  static constexpr int64_t kKeys = MOA_BLOCK_KEYS;

  Type f32() { return e.b.getF32Type(); }
  Value at(Value base, Value elements) {
    return e.offset(base, elements, f32());
  }
  Value at(Value base, int64_t elements) {
    return e.offset(base, elements, f32());
  }
  Value loadF32(Value pointer) { return e.loadVector(pointer, f32()); }
  void storeF32(Value vector, Value pointer) {
    e.storeVector(vector, pointer, f32());
  }

  void scoresOf(const Buffer &keys);
  void accumulateOf(const Buffer &values, bool skipZero);
  /// One register tile: `heads` from `first` by `vectors` from `dim`.
  void accumulateTile(const Buffer &values, bool skipZero, int64_t first,
                      int64_t heads, Value dim, int64_t vectors);

  Value queries, scoreTile, output, maximum, sum, rescale;
};

} // namespace

void DimLanes::loadQueries() {
  Value q = item.pointerField(offsetof(moa_work_item, q));
  Value stride =
      item.field(offsetof(moa_work_item, q_stride), e.b.getI64Type());
  Value scale = e.splat(item.field(offsetof(moa_work_item, scale_log2), f32()));
  e.loop(0, rows, 1, [&](Value h) {
    Value from = e.offset(q, e.mul(stride, h), element);
    Value to = at(queries, e.mul(h, dims));
    for (int64_t d = 0; d < dims; d += e.lanes)
      storeF32(e.mulf(e.loadVector(e.offset(from, d, element), element), scale),
               at(to, d));
  });
}

void DimLanes::init() {
  e.loop(0, rows, 1, [&](Value h) {
    e.store(e.f32(kNoMaximum), at(maximum, h));
    e.store(e.f32(0.0f), at(sum, h));
  });
  e.loop(0, rows * dims, e.lanes,
         [&](Value i) { storeF32(e.zero(), at(output, i)); });
}

void DimLanes::scores(const BlockTile &keys) {
  forFormats(keys, [&](const Buffer &rows) { scoresOf(rows); });
}

void DimLanes::scoresOf(const Buffer &keys) {
  // As many heads at once as leave registers for the keys.
  int64_t together = std::min(rows, chip.vectorRegisters / 2);
  for (int64_t first = 0; first < rows; first += together) {
    int64_t heads = std::min(together, rows - first);
    e.loop(0, kKeys, 1, [&](Value key) {
      Value row = e.offset(keys.pointer, e.mul(key, keys.stride), keys.element);
      SmallVector<Value> acc(heads, e.zero());
      auto step = [&](Value d, ValueRange old) {
        SmallVector<Value> next;
        Value k = keys.load(e, e.offset(row, d, keys.element));
        for (int64_t h = 0; h < heads; ++h) {
          Value q = loadF32(at(at(queries, (first + h) * dims), d));
          next.push_back(e.fma(k, q, old[h]));
        }
        return next;
      };
      // Small bodies are written out; large ones stay a loop.
      if (heads * dims / e.lanes <= 64) {
        for (int64_t d = 0; d < dims; d += e.lanes)
          acc = step(e.i64(d), acc);
      } else {
        acc = e.loop(0, dims, e.lanes, acc, step);
      }
      for (int64_t h = 0; h < heads; ++h) {
        Value score = e.sumLanes(acc[h]);
        e.store(keys.scale ? e.mulf(score, keys.scale) : score,
                at(at(scoreTile, (first + h) * kKeys), key));
      }
    });
  }
}

void DimLanes::mask(tile::MaskClass classes, Value block) {
  auto has = [&](tile::MaskClass c) { return bitEnumContainsAll(classes, c); };
  auto compare = [&](arith::CmpIPredicate predicate, Value l,
                     Value r) -> Value {
    return arith::CmpIOp::create(e.b, e.loc, predicate, l, r);
  };
  Value starts = item.pointerField(offsetof(moa_work_item, starts));
  Value position =
      e.splat(e.toI32(item.intField(offsetof(moa_work_item, position))));
  Value sink = e.splat(e.toI32(item.intField(offsetof(moa_work_item, sink))));
  Value none = e.splat(-std::numeric_limits<float>::infinity());
  SmallVector<int32_t> iota(e.lanes);
  std::iota(iota.begin(), iota.end(), 0);
  Value lane = arith::ConstantOp::create(
      e.b, e.loc, DenseElementsAttr::get(e.i32Vector(), ArrayRef(iota)));
  e.loop(0, kKeys, e.lanes, [&](Value k) {
    Value first = e.toI32(e.add(e.mul(block, kKeys), k));
    Value keys = arith::AddIOp::create(e.b, e.loc, e.splat(first), lane);
    e.loop(0, rows, 1, [&](Value h) {
      Value start = e.splat(
          e.load(e.offset(starts, h, e.b.getI32Type()), e.b.getI32Type()));
      Value seen;
      if (has(tile::MaskClass::Window))
        seen = compare(arith::CmpIPredicate::sge, keys, start);
      if (has(tile::MaskClass::Sink)) {
        Value inSink = compare(arith::CmpIPredicate::slt, keys, sink);
        seen = seen ? Value(arith::OrIOp::create(e.b, e.loc, seen, inSink))
                    : inSink;
      }
      if (has(tile::MaskClass::Causal)) {
        Value causal = compare(arith::CmpIPredicate::sle, keys, position);
        seen = seen ? Value(arith::AndIOp::create(e.b, e.loc, seen, causal))
                    : causal;
      }
      Value pointer = at(at(scoreTile, e.mul(h, kKeys)), k);
      storeF32(e.select(seen, loadF32(pointer), none), pointer);
    });
  });
}

void DimLanes::softmaxStep(bool) {
  e.loop(0, rows, 1, [&](Value h) {
    Value base = at(scoreTile, e.mul(h, kKeys));
    SmallVector<Value> tile;
    for (int64_t k = 0; k < kKeys; k += e.lanes)
      tile.push_back(loadF32(at(base, k)));
    Value top = tile.front();
    for (Value scores : llvm::drop_begin(tile))
      top = e.max(top, scores);
    Value old = e.loadSplat(at(maximum, h));
    // Every lane of `old` holds the same value, so it joins before the
    // reduction.
    top = e.splat(e.maxLanes(e.max(top, old)));
    Value factor = e.exp2(e.subf(old, top));
    Value total;
    for (auto [i, scores] : llvm::enumerate(tile)) {
      Value p = e.exp2(e.subf(scores, top));
      storeF32(p, at(base, i * e.lanes));
      total = total ? e.addf(total, p) : p;
    }
    Value before = e.load(at(sum, h), f32());
    Value scaled = e.mulf(before, e.lane0(factor));
    e.store(e.addf(scaled, e.sumLanes(total)), at(sum, h));
    e.store(e.lane0(top), at(maximum, h));
    e.store(e.lane0(factor), at(rescale, h));
  });
}

void DimLanes::accumulate(const BlockTile &values, bool skipZero) {
  forFormats(values, [&](const Buffer &rows) { accumulateOf(rows, skipZero); });
}

void DimLanes::accumulateOf(const Buffer &values, bool skipZero) {
  // A register tile is some heads by as many vectors of dims as fit beside.
  int64_t half = chip.vectorRegisters / 2;
  int64_t together = std::min(rows, half);
  int64_t vectors = std::clamp<int64_t>(half / together, 1, 4);
  int64_t step = vectors * e.lanes, whole = dims / step * step;
  for (int64_t first = 0; first < rows; first += together) {
    int64_t heads = std::min(together, rows - first);
    e.loop(0, whole, step, [&](Value dim) {
      accumulateTile(values, skipZero, first, heads, dim, vectors);
    });
    if (whole < dims)
      accumulateTile(values, skipZero, first, heads, e.i64(whole),
                     (dims - whole) / e.lanes);
  }
}

void DimLanes::accumulateTile(const Buffer &values, bool skipZero,
                              int64_t first, int64_t heads, Value dim,
                              int64_t vectors) {
  auto place = [&](int64_t h, int64_t v) {
    return at(at(output, dim), (first + h) * dims + v * e.lanes);
  };
  SmallVector<Value> acc;
  for (int64_t h = 0; h < heads; ++h) {
    Value factor = e.loadSplat(at(rescale, first + h));
    for (int64_t v = 0; v < vectors; ++v)
      acc.push_back(e.mulf(loadF32(place(h, v)), factor));
  }
  Value scale = values.scale ? e.splat(values.scale) : Value();
  acc = e.loop(0, kKeys, 1, acc, [&](Value key, ValueRange old) {
    SmallVector<Value> next, b;
    Value row = e.offset(
        e.offset(values.pointer, e.mul(key, values.stride), values.element),
        dim, values.element);
    for (int64_t v = 0; v < vectors; ++v)
      b.push_back(values.load(e, e.offset(row, v * e.lanes, values.element)));
    for (int64_t h = 0; h < heads; ++h) {
      Value p = e.loadSplat(at(at(scoreTile, (first + h) * kKeys), key));
      Value weight = scale ? e.mulf(p, scale) : p;
      for (int64_t v = 0; v < vectors; ++v) {
        Value before = old[h * vectors + v];
        Value after = e.fma(weight, b[v], before);
        if (skipZero)
          after = e.select(e.cmpf(arith::CmpFPredicate::UNE, p, e.zero()),
                           after, before);
        next.push_back(after);
      }
    }
    return next;
  });
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t v = 0; v < vectors; ++v)
      storeF32(acc[h * vectors + v], place(h, v));
}

void DimLanes::store() {
  Value partial = item.pointerField(offsetof(moa_work_item, partial));
  e.loop(0, rows, 1, [&](Value h) {
    Value from = at(output, e.mul(h, dims));
    Value to = at(partial, e.mul(h, dims + 2));
    for (int64_t d = 0; d < dims; d += e.lanes)
      storeF32(loadF32(at(from, d)), at(to, d));
    e.store(e.load(at(maximum, h), f32()), at(to, dims));
    e.store(e.load(at(sum, h), f32()), at(to, dims + 1));
  });
}

std::unique_ptr<AttentionLowering>
moa::cpu::createDimLanes(Emitter &e, const CpuChip &chip, Value item,
                         Scratch &scratch, int64_t rows, int64_t dims,
                         Type element, bool kv8) {
  return std::make_unique<DimLanes>(e, chip, item, scratch, rows, dims, element,
                                    kv8);
}
