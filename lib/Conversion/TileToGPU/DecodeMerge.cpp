//===- DecodeMerge.cpp - Decode: warps, then blocks, become one -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// At the end of a share the warps' states meet in shared memory. A whole item
// is written out; a part goes to `partials`, and the block that brings the last
// part of an item adds all of them up in the order of the line, so that results
// do not depend on who comes last.
//
//===----------------------------------------------------------------------===//

#include "Decode.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

/// Parts read at a time, and the result so far: one fragment of 12. What limits
/// a merge is how often it waits for memory, and that few parts, as short steps
/// have, are read as often as many.
static constexpr int64_t kPartsAtOnce = 11;

/// The maximum of a part that is none: its weight is zero.
static constexpr float kNoPart = -3.0e38f;
/// As in DecodeStep.cpp.
static constexpr float kNoMaximum = -0x1p+100f;

/// Scales parts to their common maximum and adds them up, in their order. The
/// number of parts is a fragment's.
Decode::Part Decode::combine(ArrayRef<Part> parts) {
  SmallVector<Value> maxima;
  for (const Part &part : parts)
    maxima.push_back(part.maximum);
  Part whole;
  whole.maximum = maxima.front();
  for (Value maximum : ArrayRef(maxima).drop_front())
    whole.maximum = arith::MaxNumFOp::create(b, whole.maximum, maximum);
  Value bound = splat(2, arith::MulFOp::create(b, whole.maximum, scale));
  SmallVector<Value> weights = b.split(
      Exp2Op::create(b, b.f32s(parts.size()), b.join(maxima), scale, bound));
  for (auto [part, weight] : llvm::zip_equal(parts, weights)) {
    Value sum = arith::MulFOp::create(b, part.sum, weight);
    Value output = arith::MulFOp::create(b, part.output, splat(4, weight));
    if (!whole.sum) {
      whole.sum = sum;
      whole.output = output;
      continue;
    }
    whole.sum = arith::AddFOp::create(b, whole.sum, sum);
    whole.output = arith::AddFOp::create(b, whole.output, output);
  }
  return whole;
}

//===----------------------------------------------------------------------===//
// The block's warps
//===----------------------------------------------------------------------===//

/// What is read of the item is read here, ahead of where it is waited for:
/// registers are few while pages are computed on.
void Decode::mergeWarps(Share share, const State &state) {
  share.facts = loadFacts(opaque(share.item));
  Parts parts = loadParts(share);
  for (auto [i, columns] : llvm::enumerate(state)) {
    meet(); // What was there has been read.
    writeColumns(columns);
    meet();
    combineWarps(share, i);
  }
  Value whole = b.both(b.lessEqual(begin, share.facts.first),
                       b.lessEqual(share.facts.last, end));
  b.branch(
      whole, {}, [] { return SmallVector<Value>(); },
      [&] {
        mergeParts(share, parts);
        return SmallVector<Value>();
      });
}

/// Element e of block d of a warp's outputs is dimension 16 d + laneRow +
/// 8 * (e / 2) of column laneColumn + e % 2 of the tile; or, of woven operands,
/// 16 d + 2 laneRow + e / 2.
void Decode::writeColumns(const Columns &columns) {
  Value first = b.add(b.mul(warp, kColumns), laneColumn);
  Value place = b.offset(outputs, b.add(b.mul(first, columnBytes()),
                                        b.mul(laneRow, form.kv8 ? 8 : 4)));
  for (auto [d, block] : llvm::enumerate(columns.outputs))
    for (auto [e, element] : llvm::enumerate(b.split(block))) {
      int64_t dimension = 16 * d + (form.kv8 ? 1 : 8) * (e / 2);
      LLVM::StoreOp::create(
          b, element,
          b.offset(place, int64_t(e % 2) * columnBytes() + 4 * dimension), 4);
    }
  Value sum =
      LaneReduceOp::create(b, b.f32s(2), Reduction::Add, columns.sum, true);
  SmallVector<Value> high = b.split(columns.maximum), total = b.split(sum);
  b.ifThen(b.equal(laneRow, 0), [&] {
    for (int64_t e : {0, 1})
      LLVM::StoreOp::create(b, b.join({high[e], total[e]}),
                            b.offset(b.offset(sums, b.mul(first, 8)), 8 * e),
                            8);
  });
}

void Decode::combineWarps(const Share &share, int64_t columnTile) {
  Value whole = b.both(b.lessEqual(begin, share.facts.first),
                       b.lessEqual(share.facts.last, end));
  Value left = b.add(columnCount(), -kColumns * columnTile);
  forColumns(left, kColumns, 1, [&](Value inTile, Value quad) {
    SmallVector<Part> parts;
    for (int64_t w = 0; w < warps(); ++w) {
      Value number = b.add(inTile, w * kColumns);
      SmallVector<Value> pair = b.split(LLVM::LoadOp::create(
          b, b.f32s(2), b.offset(sums, b.mul(number, 8)), 8));
      Value output = LLVM::LoadOp::create(
          b, b.f32s(4),
          b.offset(outputs,
                   b.add(b.mul(number, columnBytes()), b.mul(quad, 16))),
          16);
      parts.push_back({pair[0], pair[1], output});
    }
    Part sum = combine(parts);
    Value column = b.add(inTile, kColumns * columnTile);
    b.branch(
        whole, {},
        [&] {
          store(share, column, quad, sum.sum, sum.output);
          return SmallVector<Value>();
        },
        [&] {
          // Slot 2 * block of an item that began in an earlier block, the one
          // behind of an item that begins in this one.
          Value slot = b.add(b.mul(block, 2),
                             b.select(b.lessEqual(begin, share.facts.first),
                                      b.i32(1), b.i32(0)));
          Value place = slotPlace(slot, column);
          LLVM::StoreOp::create(b, sum.output, b.offset(place, b.mul(quad, 16)),
                                16);
          b.ifThen(b.less(quad, b.i32(4)), [&] {
            Value pair =
                b.offset(b.offset(place, 4 * headDim()), b.mul(quad, 8));
            LLVM::StoreOp::create(b, b.join({sum.maximum, sum.sum}), pair, 8);
          });
          return SmallVector<Value>();
        });
  });
}

Value Decode::slotPlace(Value slot, Value column) {
  Value number = b.add(b.mul(slot, form.columns), column);
  return b.offset(partials, b.mul(number, partBytes()));
}

/// Divides and rounds four dimensions of a column.
void Decode::store(const Share &share, Value column, Value quad, Value sum,
                   Value output) {
  Value inverse =
      b.split(ReciprocalOp::create(b, b.f32s(2), splat(2, sum))).front();
  Value scaled = arith::MulFOp::create(b, output, splat(4, inverse));
  Value rounded =
      PackOp::create(b, b.i32s(2), scaled, TypeAttr::get(form.element));
  Value row = queryRow(share, offsetof(moa_gpu_decode_args, out),
                       share.facts.out, column);
  LLVM::StoreOp::create(b, rounded, b.offset(row, b.mul(quad, 8)), 8);
}

//===----------------------------------------------------------------------===//
// The blocks of an item
//===----------------------------------------------------------------------===//

/// Of an item that other blocks have pages of too: the block's first item or
/// its last.
Decode::Parts Decode::loadParts(const Share &share) {
  Value field = b.select(b.lessEqual(share.facts.first, begin),
                         b.i32(offsetof(moa_gpu_cut, front)),
                         b.i32(offsetof(moa_gpu_cut, back)));
  Value cut = b.element(cuts, opaque(block), sizeof(moa_gpu_cut));
  SmallVector<Value> words =
      b.split(LLVM::LoadOp::create(b, b.i32s(2), b.offset(cut, field), 8));
  return {words[0], words[1]};
}

void Decode::mergeParts(const Share &share, const Parts &parts) {
  Value counter = b.element(counters, share.item, sizeof(int32_t));
  Value leader = b.equal(b.threadId(), 0);
  meet(); // The block's part is written; one thread vouches for all.
  b.ifThen(leader, [&] {
    Value found = CountArrivalOp::create(b, b.getI32Type(), counter);
    LLVM::StoreOp::create(b, found, ticket, 4);
  });
  meet();
  Value found = LLVM::LoadOp::create(b, b.getI32Type(), ticket, 4);
  Value last = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, found,
                                     b.add(parts.count, -1));
  b.ifThen(last, [&] {
    b.ifThen(leader, [&] { LLVM::StoreOp::create(b, b.i32(0), counter, 4); });
    Value slice = b.divide(opaque(b.threadId()), threads() / slices());
    forColumns(columnCount(), form.columns, slices(),
               [&](Value column, Value quad) {
                 sumParts(share, parts, slice, column, quad);
               });
    meet();
    forColumns(columnCount(), form.columns, 1, [&](Value column, Value quad) {
      sumSlices(share, column, quad);
    });
  });
}

Value Decode::slicePlace(Value slice, Value column, Value quad) {
  Value row = b.add(b.mul(slice, form.columns), column);
  return b.offset(outputs, b.mul(b.add(b.mul(row, headDim() / 4), quad), 32));
}

/// A slice's parts follow each other. Part j of an item is of block first + j:
/// slot 2 * block + 1 of the first, where it begins, and 2 * block of the
/// others.
void Decode::sumParts(const Share &share, const Parts &parts, Value slice,
                      Value column, Value quad) {
  auto sliceStart = [&](Value number) {
    return b.divide(arith::MulIOp::create(b, parts.count, number), slices());
  };
  Value end = sliceStart(b.add(slice, 1));
  SmallVector<Value> none = {b.f32(kNoMaximum), b.f32(0), b.splat(4, 0)};
  SmallVector<Value> sum = b.loop(
      sliceStart(slice), end, b.i32(kPartsAtOnce), none,
      [&](Value number, ValueRange carried) -> SmallVector<Value> {
        SmallVector<Part> read = {{carried[0], carried[1], carried[2]}};
        for (int64_t i = 0; i < kPartsAtOnce; ++i) {
          Value own = b.add(number, i);
          Value part = b.min(own, b.add(end, -1));
          Value slot = b.add(b.mul(b.add(parts.block, part), 2),
                             b.select(b.equal(part, 0), b.i32(1), b.i32(0)));
          Value place = slotPlace(slot, column);
          SmallVector<Value> pair = b.split(LLVM::LoadOp::create(
              b, b.f32s(2), b.offset(place, 4 * headDim()), 8));
          Value output = LLVM::LoadOp::create(
              b, b.f32s(4), b.offset(place, b.mul(quad, 16)), 16);
          Value maximum = b.select(b.less(own, end), pair[0], b.f32(kNoPart));
          read.push_back({maximum, pair[1], output});
        }
        Part next = combine(read);
        return {next.maximum, next.sum, next.output};
      });
  Value place = slicePlace(slice, column, quad);
  LLVM::StoreOp::create(b, sum[2], place, 16);
  LLVM::StoreOp::create(b, b.join({sum[0], sum[1]}), b.offset(place, 16), 8);
}

void Decode::sumSlices(const Share &share, Value column, Value quad) {
  SmallVector<Part> read;
  for (int64_t slice = 0; slice < slices(); ++slice) {
    Value place = slicePlace(b.i32(slice), column, quad);
    Value output = LLVM::LoadOp::create(b, b.f32s(4), place, 16);
    SmallVector<Value> pair =
        b.split(LLVM::LoadOp::create(b, b.f32s(2), b.offset(place, 16), 8));
    read.push_back({pair[0], pair[1], output});
  }
  Part sum = read.size() == 1 ? read.front() : combine(read);
  store(share, column, quad, sum.sum, sum.output);
}
