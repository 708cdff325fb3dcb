//===- Codes.cpp - Keys and values in 8 bits to NVVM ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Codes become 16-bit floats by integer arithmetic on the pairs of even and of
// odd bytes of a register, and one multiplication or addition: all of it exact,
// and the same on every GPU from sm_80 on.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"

using namespace mlir;
using namespace moa::gpu;

void KernelLowering::lowerAsCodes(AsCodesOp op) {
  lowered[op.getCodes()] = lowered[op.getTile()];
}

void KernelLowering::lowerCopyWords(CopyWordsOp op) {
  NVVM::CpAsyncBulkGlobalToSharedClusterOp::create(
      b, lastWords[op.getFull()], op.getSource(), lowered[op.getFull()],
      i32(16), Value(), Value());
}

/// The lower or upper halves of two pairs, as a pair.
Value KernelLowering::halves(Value low, Value high, bool upper) {
  return NVVM::PermuteOp::create(b, b.getI32Type(), low, high,
                                 i32(upper ? 0x7632 : 0x5410),
                                 NVVM::PermuteMode::DEFAULT);
}

void KernelLowering::lowerWeave(WeaveOp op) {
  SmallVector<Value> pairs = split(op.getPairs());
  op.getWoven().replaceAllUsesWith(join(
      {halves(pairs[0], pairs[1], false), halves(pairs[0], pairs[1], true)},
      b.getI32Type()));
}

/// Lane 4 r + l of the warp has rows r and r + 8 of the operand. They are rows
/// of the tile, of which it reads four columns; or two columns of it each,
/// which it reads together, in rows 2 l, 2 l + 1 and 8 behind.
void KernelLowering::lowerLoadWoven(LoadWovenOp op) {
  SharedType tile = op.getTile().getType();
  Value lane = bitAnd(threadId(), 31);
  Value outer = shift(lane, 2), inner = bitAnd(lane, 3);
  const int64_t bytes = op.getColumn() * tile.getElementBytes();
  Value base =
      offset(lowered[op.getTile()],
             add(mul(op.getRow(), 128), bytes / 128 * tile.getPanelBytes()));
  // `inRow` are bytes behind those of `column`: in two chunks of 16.
  auto place = [&](Value row, Value inRow) {
    Value chunk = arith::XOrIOp::create(
        b, add(shift(inRow, 4), bytes % 128 / 16), bitAnd(row, 7));
    return offset(base,
                  add(add(mul(row, 128), mul(chunk, 16)), bitAnd(inRow, 15)));
  };
  SmallVector<Value> block(4);
  if (!op.getTransposed()) {
    for (int64_t half : {0, 1}) {
      Value pairs =
          LLVM::LoadOp::create(b, VectorType::get({2}, b.getI32Type()),
                               place(add(outer, 8 * half), mul(inner, 8)), 8);
      SmallVector<Value> both = split(pairs);
      block[half] = halves(both[0], both[1], false);
      block[half + 2] = halves(both[0], both[1], true);
    }
  } else {
    for (int64_t half : {0, 1}) {
      SmallVector<Value> rows;
      for (int64_t next : {0, 1})
        rows.push_back(LLVM::LoadOp::create(
            b, b.getI32Type(),
            place(add(mul(inner, 2), 8 * half + next), mul(outer, 4)), 4));
      block[2 * half] = halves(rows[0], rows[1], false);
      block[2 * half + 1] = halves(rows[0], rows[1], true);
    }
  }
  op.getBlock().replaceAllUsesWith(join(block, b.getI32Type()));
}

namespace {

/// Unpacks one register at a time.
class Unpacker {
public:
  Unpacker(ImplicitLocOpBuilder &b, FloatType type)
      : b(b), isBF16(type.isBF16()), pair(VectorType::get({2}, type)) {}

  /// Bytes 0 and 2 of `codes`, or 1 and 3.
  Value e4m3(Value codes, bool odd) const;
  Value int8(Value codes, bool odd) const;

private:
  Value word(uint32_t value) const {
    return arith::ConstantOp::create(
        b, b.getI32IntegerAttr(static_cast<int32_t>(value)));
  }
  Value both(Value x, uint32_t mask) const {
    return arith::AndIOp::create(b, x, word(mask));
  }
  Value floats(Value x) const { return LLVM::BitcastOp::create(b, pair, x); }
  /// x * y + z, where `y` and `z` are bits of a pair of floats.
  Value fma(Value x, uint32_t y, Value z) const {
    Value sum = LLVM::FMAOp::create(b, floats(x), floats(word(y)), floats(z));
    return LLVM::BitcastOp::create(b, b.getI32Type(), sum);
  }

  ImplicitLocOpBuilder &b;
  const bool isBF16;
  const VectorType pair;
};

} // namespace

/// The code's exponent and mantissa go to the lowest places of the exponent and
/// the highest of the mantissa: that is its value less the difference of the
/// exponents' biases, subnormal codes too.
Value Unpacker::e4m3(Value codes, bool odd) const {
  // Bits that the mantissa has more than a code's 3, and 2 to the power of 127
  // - 7, or 15 - 7.
  const int shift = (isBF16 ? 7 : 10) - 3;
  const uint32_t mask = 0x7f007fu << shift;
  const uint32_t factor = isBF16 ? 0x7b807b80 : 0x5c005c00;
  Value sign = codes, magnitude;
  if (odd) {
    magnitude = arith::ShRUIOp::create(b, codes, word(8 - shift));
  } else {
    sign = arith::ShLIOp::create(b, codes, word(8));
    magnitude = arith::ShLIOp::create(b, codes, word(shift));
  }
  Value bits =
      arith::OrIOp::create(b, both(sign, 0x80008000), both(magnitude, mask));
  return fma(bits, factor, word(0x80008000));
}

/// A number in the lowest places of a mantissa, less what is behind it.
Value Unpacker::int8(Value codes, bool odd) const {
  if (odd)
    codes = arith::ShRUIOp::create(b, codes, word(8));
  if (!isBF16) // 1024 + code - 1152.
    return fma(
        arith::OrIOp::create(b, both(codes, 0x00ff00ff), word(0x64006400)),
        0x3c003c00, word(0xe480e480));
  // The mantissa has room for 7 bits: 128 + those, less 128 where the eighth is
  // set, or 256.
  Value low =
      arith::OrIOp::create(b, both(codes, 0x007f007f), word(0x43004300));
  Value less =
      arith::XOrIOp::create(b, both(codes, 0x00800080), word(0x43804380));
  return fma(less, 0xbf80bf80, low);
}

void KernelLowering::lowerUnpack(UnpackOp op) {
  const Unpacker unpacker(b, cast<FloatType>(op.getType()));
  SmallVector<Value> pairs;
  for (Value codes : split(op.getCodes()))
    for (bool odd : {false, true})
      pairs.push_back(op.getCode() == Code::E4M3 ? unpacker.e4m3(codes, odd)
                                                 : unpacker.int8(codes, odd));
  op.getPairs().replaceAllUsesWith(join(pairs, b.getI32Type()));
}
