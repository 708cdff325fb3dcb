//===- RowLanes.cpp - Attention with query rows along lanes ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Prefill: 64 rows run along vector lanes, scores and outputs are kept
// transposed. Keys and values are then the broadcast operand of both products,
// read in the order they lie in memory, and the softmax works lane by lane.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/abi/kernel_args.h"
#include <limits>
#include <numeric>

using namespace mlir;
using namespace moa;
using namespace moa::cpu;

namespace {

/// Scratch layout, all f32. A panel is `width` rows: as many vectors as one
/// register tile is wide.
///   queries [panel][dims][width], scores [panel][64][width],
///   output [panel][dims][width], maximum, sum and rescale [rows].
class RowLanes final : public AttentionLowering {
public:
  RowLanes(Emitter &e, const CpuChip &chip, Value item, Scratch &scratch,
           int64_t rows, int64_t dims, Type element, bool kv8)
      : AttentionLowering(e, chip, item, scratch, rows, dims, element, kv8),
        pairs(chip.bf16Dot && element.isBF16() && !kv8),
        vectors(chip.vectorRegisters >= 32 ? 4 : 2), width(vectors * e.lanes),
        panels((rows + width - 1) / width),
        tileRows(chip.vectorRegisters >= 32 ? 6 : 4) {
    queries = scratch.take(e, panels * dims * width);
    scoreTile = scratch.take(e, panels * kKeys * width);
    output = scratch.take(e, panels * dims * width);
    maximum = scratch.take(e, panels * width);
    sum = scratch.take(e, panels * width);
    rescale = scratch.take(e, panels * width);
    staging = scratch.take(e, kKeys * dims);
  }

  void loadQueries() override;
  void init() override;
  void scores(const BlockTile &keys) override;
  void softCap(float cap) override {
    capScores(scoreTile, panels * kKeys * width, cap);
  }
  void mask(tile::MaskClass classes, Value block) override;
  void softmaxStep(bool skipZero) override;
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
  /// The tile as dense f32, scaled, copied to scratch unless it is f32 already.
  Buffer widen(const BlockTile &tile);
  /// The values of keys 2k and 2k + 1 in pairs: [32][dims], copied to scratch.
  Buffer interleave(const Buffer &tile);
  /// Calls `body(first, count)` for runs of `tileRows` that cover [0, total).
  void forRuns(int64_t total, llvm::function_ref<void(Value, int64_t)> body);

  /// Products of bf16 pairs by vdpbf16ps: queries are packed in pairs of dims,
  /// probabilities and values, in blocks seen whole, in pairs of keys.
  const bool pairs;
  const int64_t vectors; ///< Vectors of a register tile, along rows.
  const int64_t width;   ///< Rows of a panel.
  const int64_t panels;
  const int64_t tileRows; ///< Rows of a register tile: keys or dims.
  Value queries, scoreTile, output, maximum, sum, rescale, staging;
  /// Goes into the queries, or into the scores where queries stay bf16:
  /// rounding a scaled query would add its error to every score.
  Value scale;
};

} // namespace

void RowLanes::loadQueries() {
  Value q = item.pointerField(offsetof(moa_work_item, q));
  Value stride =
      item.field(offsetof(moa_work_item, q_stride), e.b.getI64Type());
  scale = e.splat(item.field(offsetof(moa_work_item, scale_log2), f32()));
  Value last = e.add(item.intField(offsetof(moa_work_item, rows)), -1);
  e.loop(0, panels * width, e.lanes, [&](Value row) {
    SmallVector<Value> pointers;
    for (int64_t i = 0; i < e.lanes; ++i)
      pointers.push_back(
          e.offset(q, e.mul(e.min(e.add(row, i), last), stride), element));
    // Panel and place inside it, from the row.
    Value panel = arith::DivUIOp::create(e.b, e.loc, row, e.i64(width));
    Value place = arith::RemUIOp::create(e.b, e.loc, row, e.i64(width));
    Value base = at(queries, e.add(e.mul(panel, dims * width), place));
    e.loop(0, dims, e.lanes, [&](Value dim) {
      SmallVector<Value> block;
      for (Value pointer : pointers) {
        Value q = e.loadVector(e.offset(pointer, dim, element), element);
        block.push_back(pairs ? q : e.mulf(q, scale));
      }
      block = e.transpose(block);
      if (pairs)
        for (int64_t i = 0; i < e.lanes / 2; ++i)
          block[i] = e.packPairs(block[2 * i], block[2 * i + 1]);
      int64_t step = pairs ? 2 : 1;
      Value first = arith::DivUIOp::create(e.b, e.loc, dim, e.i64(step));
      Value target = at(base, e.mul(first, width));
      for (int64_t i = 0; i < e.lanes / step; ++i)
        storeF32(block[i], at(target, i * width));
    });
  });
}

void RowLanes::init() {
  Value none = e.splat(kNoMaximum), zero = e.zero();
  e.loop(0, panels * width, e.lanes, [&](Value row) {
    storeF32(none, at(maximum, row));
    storeF32(zero, at(sum, row));
  });
  e.loop(0, panels * dims * width, e.lanes,
         [&](Value i) { storeF32(zero, at(output, i)); });
}

Buffer RowLanes::widen(const BlockTile &tile) {
  if (element.isF32())
    return tile.rows;
  forFormats(tile, [&](const Buffer &rows) {
    Value scale = rows.scale ? e.splat(rows.scale) : Value();
    e.loop(0, kKeys, 1, [&](Value key) {
      Value from =
          e.offset(rows.pointer, e.mul(key, rows.stride), rows.element);
      Value to = at(staging, e.mul(key, dims));
      for (int64_t d = 0; d < dims; d += e.lanes) {
        Value wide = rows.load(e, e.offset(from, d, rows.element));
        storeF32(scale ? e.mulf(wide, scale) : wide, at(to, d));
      }
    });
  });
  return {staging, e.i64(dims), f32()};
}

Buffer RowLanes::interleave(const Buffer &tile) {
  e.loop(0, kKeys / 2, 1, [&](Value pair) {
    Value even = e.offset(tile.pointer, e.mul(e.mul(pair, 2), tile.stride),
                          tile.element);
    Value odd = e.offset(even, tile.stride, tile.element);
    Value to = at(staging, e.mul(pair, dims));
    for (int64_t d = 0; d < dims; d += e.lanes)
      storeF32(e.interleaveBF16(e.offset(even, d, tile.element),
                                e.offset(odd, d, tile.element)),
               at(to, d));
  });
  return {staging, e.i64(dims), f32()};
}

void RowLanes::forRuns(int64_t total,
                       llvm::function_ref<void(Value, int64_t)> body) {
  int64_t whole = total / tileRows * tileRows;
  e.loop(0, whole, tileRows, [&](Value first) { body(first, tileRows); });
  if (whole < total)
    body(e.i64(whole), total - whole);
}

void RowLanes::scores(const BlockTile &tile) {
  // A pair of bf16 moves as one f32, so the loops are the same.
  Buffer keys = pairs ? tile.rows : widen(tile);
  int64_t steps = pairs ? dims / 2 : dims;
  forRuns(kKeys, [&](Value first, int64_t count) {
    SmallVector<Value> rowsOf;
    for (int64_t m = 0; m < count; ++m)
      rowsOf.push_back(e.offset(
          keys.pointer, e.mul(e.add(first, m), keys.stride), keys.element));
    for (int64_t panel = 0; panel < panels; ++panel) {
      Value q = at(queries, panel * dims * width);
      SmallVector<Value> acc(count * vectors, e.zero());
      acc = e.loop(0, steps, 1, acc, [&](Value dim, ValueRange old) {
        SmallVector<Value> next(old), b;
        Value row = at(q, e.mul(dim, width));
        for (int64_t v = 0; v < vectors; ++v)
          b.push_back(loadF32(at(row, v * e.lanes)));
        for (int64_t m = 0; m < count; ++m) {
          Value a = e.loadSplat(at(rowsOf[m], dim));
          for (int64_t v = 0; v < vectors; ++v)
            next[m * vectors + v] =
                pairs ? e.dotPairs(a, b[v], old[m * vectors + v])
                      : e.fma(a, b[v], old[m * vectors + v]);
        }
        return next;
      });
      Value target =
          at(at(scoreTile, panel * kKeys * width), e.mul(first, width));
      for (auto [i, vector] : llvm::enumerate(acc))
        storeF32(pairs ? e.mulf(vector, scale) : vector,
                 at(target, i * e.lanes));
    }
  });
}

void RowLanes::mask(tile::MaskClass classes, Value block) {
  auto has = [&](tile::MaskClass c) { return bitEnumContainsAll(classes, c); };
  auto compare = [&](arith::CmpIPredicate predicate, Value l,
                     Value r) -> Value {
    return arith::CmpIOp::create(e.b, e.loc, predicate, l, r);
  };
  auto splatI32 = [&](Value scalar) { return e.splat(scalar); };
  Value starts = item.pointerField(offsetof(moa_work_item, starts));
  Value position = e.toI32(item.intField(offsetof(moa_work_item, position)));
  Value sink = e.toI32(item.intField(offsetof(moa_work_item, sink)));
  Value none = e.splat(-std::numeric_limits<float>::infinity());
  SmallVector<int32_t> iota(e.lanes);
  std::iota(iota.begin(), iota.end(), 0);
  Value lane = arith::ConstantOp::create(
      e.b, e.loc, DenseElementsAttr::get(e.i32Vector(), ArrayRef(iota)));
  Value firstKey = e.mul(block, kKeys);
  for (int64_t panel = 0; panel < panels; ++panel) {
    e.loop(0, width, e.lanes, [&](Value place) {
      Value row = e.add(place, panel * width);
      Value start = e.loadI32Vector(e.offset(starts, row, e.b.getI32Type()));
      Value rowPosition = arith::AddIOp::create(
          e.b, e.loc, lane,
          splatI32(arith::AddIOp::create(e.b, e.loc, position, e.toI32(row))));
      Value column = at(at(scoreTile, panel * kKeys * width), place);
      e.loop(0, kKeys, 1, [&](Value k) {
        Value key = e.toI32(e.add(firstKey, k));
        Value keys = splatI32(key);
        // Window and sink are one term: a key is left of a window or in it.
        Value seen;
        if (has(tile::MaskClass::Window))
          seen = compare(arith::CmpIPredicate::sge, keys, start);
        if (has(tile::MaskClass::Sink)) {
          Value inSink =
              splatI32(compare(arith::CmpIPredicate::slt, key, sink));
          seen = seen ? Value(arith::OrIOp::create(e.b, e.loc, seen, inSink))
                      : inSink;
        }
        if (has(tile::MaskClass::Causal)) {
          Value causal = compare(arith::CmpIPredicate::sle, keys, rowPosition);
          seen = seen ? Value(arith::AndIOp::create(e.b, e.loc, seen, causal))
                      : causal;
        }
        Value pointer = at(column, e.mul(k, width));
        storeF32(e.select(seen, loadF32(pointer), none), pointer);
      });
    });
  }
}

void RowLanes::softmaxStep(bool skipZero) {
  for (int64_t panel = 0; panel < panels; ++panel) {
    Value tile = at(scoreTile, panel * kKeys * width);
    auto perRow = [&](Value base, int64_t v) {
      return at(base, panel * width + v * e.lanes);
    };
    SmallVector<Value> old;
    for (int64_t v = 0; v < vectors; ++v)
      old.push_back(loadF32(perRow(maximum, v)));
    SmallVector<Value> top =
        e.loop(0, kKeys, 4, old, [&](Value key, ValueRange carried) {
          SmallVector<Value> next;
          for (int64_t v = 0; v < vectors; ++v) {
            Value s[4];
            for (int64_t k = 0; k < 4; ++k)
              s[k] = loadF32(
                  at(at(tile, e.mul(key, width)), k * width + v * e.lanes));
            next.push_back(
                e.max(e.max(e.max(s[0], s[1]), e.max(s[2], s[3])), carried[v]));
          }
          return next;
        });
    SmallVector<Value> sums;
    for (int64_t v = 0; v < vectors; ++v) {
      Value factor = e.exp2(e.subf(old[v], top[v]));
      storeF32(top[v], perRow(maximum, v));
      storeF32(factor, perRow(rescale, v));
      sums.push_back(e.mulf(loadF32(perRow(sum, v)), factor));
    }
    // Pairs of keys are packed in place: their row lies at or before both.
    int64_t step = pairs && !skipZero ? 2 : 1;
    sums = e.loop(0, kKeys, step, sums, [&](Value key, ValueRange carried) {
      SmallVector<Value> next;
      Value from = at(tile, e.mul(key, width));
      Value row = arith::DivUIOp::create(e.b, e.loc, key, e.i64(step));
      Value to = at(tile, e.mul(row, width));
      for (int64_t v = 0; v < vectors; ++v) {
        Value p = e.exp2(e.subf(loadF32(at(from, v * e.lanes)), top[v]));
        Value total = e.addf(carried[v], p);
        if (step == 2) {
          Value q =
              e.exp2(e.subf(loadF32(at(from, width + v * e.lanes)), top[v]));
          total = e.addf(total, q);
          p = e.packPairs(p, q);
        }
        storeF32(p, at(to, v * e.lanes));
        next.push_back(total);
      }
      return next;
    });
    for (int64_t v = 0; v < vectors; ++v)
      storeF32(sums[v], perRow(sum, v));
  }
}

void RowLanes::accumulate(const BlockTile &tile, bool skipZero) {
  bool paired = pairs && !skipZero;
  Buffer values = paired ? interleave(tile.rows) : widen(tile);
  int64_t steps = paired ? kKeys / 2 : kKeys;
  forRuns(dims, [&](Value first, int64_t count) {
    for (int64_t panel = 0; panel < panels; ++panel) {
      Value p = at(scoreTile, panel * kKeys * width);
      Value target = at(at(output, panel * dims * width), e.mul(first, width));
      SmallVector<Value> factor, acc;
      for (int64_t v = 0; v < vectors; ++v)
        factor.push_back(loadF32(at(rescale, panel * width + v * e.lanes)));
      for (int64_t i = 0; i < count * vectors; ++i)
        acc.push_back(
            e.mulf(loadF32(at(target, i * e.lanes)), factor[i % vectors]));
      acc = e.loop(0, steps, 1, acc, [&](Value key, ValueRange old) {
        SmallVector<Value> next(old), b, touched;
        Value row = at(p, e.mul(key, width));
        for (int64_t v = 0; v < vectors; ++v) {
          b.push_back(loadF32(at(row, v * e.lanes)));
          if (skipZero)
            touched.push_back(
                e.cmpf(arith::CmpFPredicate::UNE, b[v], e.zero()));
        }
        Value source =
            at(values.pointer, e.add(e.mul(key, values.stride), first));
        for (int64_t m = 0; m < count; ++m) {
          Value a = e.loadSplat(at(source, m));
          for (int64_t v = 0; v < vectors; ++v) {
            int64_t i = m * vectors + v;
            next[i] =
                paired ? e.dotPairs(a, b[v], old[i]) : e.fma(a, b[v], old[i]);
            if (skipZero)
              next[i] = e.select(touched[v], next[i], old[i]);
          }
        }
        return next;
      });
      for (auto [i, vector] : llvm::enumerate(acc))
        storeF32(vector, at(target, i * e.lanes));
    }
  });
}

void RowLanes::store() {
  Value out = item.pointerField(offsetof(moa_work_item, out));
  Value stride =
      item.field(offsetof(moa_work_item, out_stride), e.b.getI64Type());
  Value valid = item.intField(offsetof(moa_work_item, rows));
  // The queries' scratch is free by now: it takes `lanes` rows, untransposed.
  e.loop(0, panels * width, e.lanes, [&](Value row) {
    Value panel = arith::DivUIOp::create(e.b, e.loc, row, e.i64(width));
    Value place = arith::RemUIOp::create(e.b, e.loc, row, e.i64(width));
    Value base = at(output, e.add(e.mul(panel, dims * width), place));
    Value inverse =
        arith::DivFOp::create(e.b, e.loc, e.splat(1.0f), loadF32(at(sum, row)));
    e.loop(0, dims, e.lanes, [&](Value dim) {
      SmallVector<Value> block;
      for (int64_t i = 0; i < e.lanes; ++i)
        block.push_back(e.mulf(
            loadF32(at(at(base, e.mul(dim, width)), i * width)), inverse));
      block = e.transpose(block);
      for (auto [i, vector] : llvm::enumerate(block))
        storeF32(vector, at(at(queries, dim), i * dims));
    });
    Value end = e.min(valid, e.add(row, e.lanes));
    e.loop(row, end, 1, [&](Value r) {
      Value from =
          at(queries, e.mul(arith::SubIOp::create(e.b, e.loc, r, row), dims));
      Value to = e.offset(out, e.mul(r, stride), element);
      for (int64_t d = 0; d < dims; d += e.lanes)
        e.storeVector(loadF32(at(from, d)), e.offset(to, d, element), element);
    });
  });
}

std::unique_ptr<AttentionLowering>
moa::cpu::createRowLanes(Emitter &e, const CpuChip &chip, Value item,
                         Scratch &scratch, int64_t rows, int64_t dims,
                         Type element, bool kv8) {
  return std::make_unique<RowLanes>(e, chip, item, scratch, rows, dims, element,
                                    kv8);
}
