//===- DecodeCodes.cpp - Decode: pages in 8 bits --------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A kernel that takes 8-bit codes asks of each page what it has. Codes become
// elements in registers, exactly; the scale of keys multiplies their scores,
// that of values what they add to the outputs. Operands are woven (see the
// dialect), those of pages in the model's type too, so that both meet in the
// same registers of queries and outputs.
//
//===----------------------------------------------------------------------===//

#include "Decode.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

/// Whether a table's entry is of a block in 8 bits.
Value Decode::hasCodes(Value place) {
  return b.lessEqual(b.i32(1 << MOA_GPU_CODES_SHIFT), place);
}

/// The page that such a block is in.
Value Decode::pageOf(Value place) {
  return b.bitAnd(b.shift(place, 1), MOA_GPU_CODES_PAGES - 1);
}

/// `scales` are those of its page, as i32: of keys and of values, by half.
Decode::Codes Decode::codesOf(Value place, ValueRange scales) {
  Codes codes;
  codes.any = hasCodes(place);
  codes.int8 = b.lessEqual(b.i32(MOA_KV_INT8 << MOA_GPU_CODES_SHIFT), place);
  Value second = b.equal(b.bitAnd(place, 1), 1);
  auto scaleOf = [&](size_t number) {
    Value own =
        b.select(second, scales[MOA_KV8_SCALES / 2 + number], scales[number]);
    own = arith::BitcastOp::create(b, b.getF32Type(), own);
    return b.select(codes.any, own, b.f32(1));
  };
  codes.keyScale = scaleOf(0);
  codes.valueScale = scaleOf(1);
  return codes;
}

/// Left operands of 16 columns each, from codes of 32 columns from `column` on:
/// one or two, as the head size is.
SmallVector<Value> Decode::unpackedBlocks(const Half &half, int64_t column,
                                          bool transposed, Code code) {
  SharedType type = cast<SharedType>(half.tile.getType()).codes();
  Value tile = AsCodesOp::create(b, type, half.tile);
  Value loaded =
      LoadMatrixOp::create(b, b.i32s(4), tile, b.add(warpRow, half.row), column,
                           transposed, /*right=*/false);
  SmallVector<Value> pairs =
      b.split(UnpackOp::create(b, b.i32s(8), loaded, code, form.element));
  // Matrices are rows 0-7 and 8-15 of 16 columns, then of the next 16; or,
  // transposed, 16 columns and the next of rows 0-7, then of 8-15. Of each,
  // even columns come first.
  static constexpr int64_t kOrder[2][8] = {{0, 2, 1, 3, 4, 6, 5, 7},
                                           {0, 1, 4, 5, 2, 3, 6, 7}};
  SmallVector<Value> blocks;
  for (int64_t first : {0, 4}) {
    SmallVector<Value> own;
    for (int64_t i = first; i < first + 4; ++i)
      own.push_back(pairs[kOrder[transposed][i]]);
    if (column + 4 * first < headDim())
      blocks.push_back(b.join(own));
  }
  return blocks;
}

/// Scores of the warp's 16 keys before their scale.
SmallVector<Value> Decode::codeScores(const Half &keys, Code code) {
  SmallVector<Value> blocks; // Two are unpacked at a time.
  return sumScores([&](int64_t k) {
    if (k % 2 == 0)
      blocks = unpackedBlocks(keys, 16 * k, false, code);
    return blocks[k % 2];
  });
}

SmallVector<Value> Decode::scoresOf(const Half &keys, const Codes &codes) {
  const SmallVector<Type> types(columnTiles(), b.f32s(4));
  SmallVector<Value> scores = b.branch(
      codes.any, types,
      [&] {
        return b.branch(
            codes.int8, types, [&] { return codeScores(keys, Code::Int8); },
            [&] { return codeScores(keys, Code::E4M3); });
      },
      [&] { return scoresOf(keys); });
  Value scales = splat(4, codes.keyScale);
  for (Value &score : scores)
    score = arith::MulFOp::create(b, score, scales);
  return scores;
}

/// What multiplies the products of values, for each column of a thread: the
/// scale, but nothing of a page of which the column sees no key. A scale that
/// is not finite is that of those alone who see some.
SmallVector<Value> Decode::factorsOf(Value firstKey, const Codes &codes,
                                     bool whole) {
  SmallVector<Value> factors;
  for (int64_t i = 0; i < columnTiles(); ++i) {
    if (whole) {
      factors.push_back(splat(2, codes.valueScale));
      continue;
    }
    SmallVector<Value> pair;
    for (int64_t c : {0, 1}) {
      Value start = c ? windowStarts[i].second : windowStarts[i].first;
      Value column = b.add(laneColumn, kColumns * i + c);
      Value sees =
          b.both(b.less(firstKey, endOf(column)),
                 b.either(b.less(start, b.add(firstKey, MOA_BLOCK_KEYS)),
                          b.less(firstKey, sink)));
      pair.push_back(b.select(sees, codes.valueScale, b.f32(0)));
    }
    factors.push_back(b.join(pair));
  }
  return factors;
}

/// Outputs of all column tiles, one behind the other.
SmallVector<Value> Decode::codeOutputs(const Half &values,
                                       ArrayRef<Value> probabilities,
                                       const State &state,
                                       ArrayRef<Value> factors, Code code) {
  SmallVector<Value> wide;
  for (Value pair : factors) {
    SmallVector<Value> two = b.split(pair);
    wide.push_back(b.join({two[0], two[1], two[0], two[1]}));
  }
  const int64_t size = headDim() / 16;
  SmallVector<Value> outputs(columnTiles() * size);
  for (int64_t column = 0; column < headDim(); column += 32)
    for (auto [n, block] :
         llvm::enumerate(unpackedBlocks(values, column, true, code)))
      for (auto [i, columns] : llvm::enumerate(state)) {
        const int64_t d = column / 16 + int64_t(n);
        Value product =
            MultiplyOp::create(b, b.f32s(4), block, probabilities[i],
                               b.splat(4, 0), TypeAttr::get(form.element));
        outputs[i * size + d] =
            LLVM::FMAOp::create(b, product, wide[i], columns.outputs[d]);
      }
  return outputs;
}

void Decode::addValues(const Half &values, ArrayRef<Value> probabilities,
                       State &state, const Codes &codes,
                       ArrayRef<Value> factors) {
  const int64_t size = headDim() / 16;
  const SmallVector<Type> types(columnTiles() * size, b.f32s(4));
  auto fromCodes = [&](Code code) {
    return codeOutputs(values, probabilities, state, factors, code);
  };
  SmallVector<Value> outputs = b.branch(
      codes.any, types,
      [&] {
        return b.branch(
            codes.int8, types, [&] { return fromCodes(Code::Int8); },
            [&] { return fromCodes(Code::E4M3); });
      },
      [&] {
        State next = state;
        addValues(values, probabilities, next);
        SmallVector<Value> outputs;
        for (const Columns &columns : next)
          outputs.append(columns.outputs);
        return outputs;
      });
  for (auto [i, columns] : llvm::enumerate(state))
    for (int64_t d = 0; d < size; ++d)
      columns.outputs[d] = outputs[i * size + d];
}
