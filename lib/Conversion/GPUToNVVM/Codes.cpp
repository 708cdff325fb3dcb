//===- Codes.cpp - Keys and values in 8 bits to NVVM ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// How codes lie in registers; what they stand for is Unpack.h's.
//
//===----------------------------------------------------------------------===//

#include "InlinePTX.h"
#include "Lowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "moa/Conversion/Unpack.h"

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

/// The operations of `Unpacker` as those of a kernel.
struct PairBuilder {
  using Value = mlir::Value;

  Value word(uint32_t bits) const {
    return arith::ConstantOp::create(
        b, b.getI32IntegerAttr(static_cast<int32_t>(bits)));
  }
  Value left(Value x, int by) const {
    return arith::ShLIOp::create(b, x, word(by));
  }
  Value right(Value x, int by) const {
    return arith::ShRUIOp::create(b, x, word(by));
  }
  Value mask(Value x, uint32_t bits) const {
    return arith::AndIOp::create(b, x, word(bits));
  }
  Value maskOr(Value x, uint32_t bits, uint32_t more) const {
    return ptx::bitwise(b, x, bits, more, (0xf0 & 0xcc) | 0xaa);
  }
  Value maskXor(Value x, uint32_t bits, uint32_t more) const {
    return ptx::bitwise(b, x, bits, more, (0xf0 & 0xcc) ^ 0xaa);
  }
  Value permute(Value x, Value y, uint32_t places) const {
    return NVVM::PermuteOp::create(b, b.getI32Type(), x, y, word(places),
                                   NVVM::PermuteMode::DEFAULT);
  }
  Value fma(Value x, uint32_t y, Value z) const {
    auto floats = [&](Value bits) -> Value {
      return LLVM::BitcastOp::create(b, VectorType::get({2}, type), bits);
    };
    Value sum = LLVM::FMAOp::create(b, floats(x), floats(word(y)), floats(z));
    return LLVM::BitcastOp::create(b, b.getI32Type(), sum);
  }

  ImplicitLocOpBuilder &b;
  FloatType type;
};

} // namespace

void KernelLowering::lowerUnpack(UnpackOp op) {
  auto type = cast<FloatType>(op.getType());
  Unpacker<PairBuilder> unpacker({b, type}, type.isBF16());
  SmallVector<Value> pairs;
  for (Value codes : split(op.getCodes()))
    for (bool odd : {false, true})
      pairs.push_back(op.getCode() == Code::E4M3 ? unpacker.e4m3(codes, odd)
                                                 : unpacker.int8(codes, odd));
  op.getPairs().replaceAllUsesWith(join(pairs, b.getI32Type()));
}
