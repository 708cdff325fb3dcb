//===- Emitter.cpp - Terse emission of vector code ------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Emitter.h. The polynomial of exp2 and the rounding to bf16
// are spelt out here, so that results do not depend on a math library.
//
//===----------------------------------------------------------------------===//

#include "Emitter.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/Conversion/SoftCap.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace moa::cpu;

Value Emitter::i64(int64_t value) {
  return arith::ConstantOp::create(b, loc, b.getI64IntegerAttr(value));
}
Value Emitter::i32(int32_t value) {
  return arith::ConstantOp::create(b, loc, b.getI32IntegerAttr(value));
}
Value Emitter::f32(float value) {
  return arith::ConstantOp::create(b, loc, b.getF32FloatAttr(value));
}
Value Emitter::add(Value lhs, Value rhs) {
  return b.createOrFold<arith::AddIOp>(loc, lhs, rhs);
}
Value Emitter::add(Value lhs, int64_t rhs) {
  return rhs == 0 ? lhs : add(lhs, i64(rhs));
}
Value Emitter::mul(Value lhs, Value rhs) {
  return b.createOrFold<arith::MulIOp>(loc, lhs, rhs);
}
Value Emitter::mul(Value lhs, int64_t rhs) {
  return rhs == 1 ? lhs : mul(lhs, i64(rhs));
}
Value Emitter::min(Value lhs, Value rhs) {
  return arith::MinSIOp::create(b, loc, lhs, rhs);
}
Value Emitter::toI64(Value value) {
  return arith::ExtSIOp::create(b, loc, b.getI64Type(), value);
}
Value Emitter::toI32(Value value) {
  return arith::TruncIOp::create(b, loc, b.getI32Type(), value);
}

Value Emitter::equals(Value lhs, Value rhs) {
  return arith::CmpIOp::create(b, loc, arith::CmpIPredicate::eq, lhs, rhs);
}

Value Emitter::offset(Value pointer, Value elements, Type type) {
  return LLVM::GEPOp::create(b, loc, pointer.getType(), type, pointer,
                             ValueRange{elements});
}
Value Emitter::offset(Value pointer, int64_t elements, Type type) {
  if (elements == 0)
    return pointer;
  return LLVM::GEPOp::create(
      b, loc, pointer.getType(), type, pointer,
      ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(elements)});
}
Value Emitter::load(Value pointer, Type type) {
  return LLVM::LoadOp::create(b, loc, type, pointer,
                              type.getIntOrFloatBitWidth() / 8);
}
void Emitter::store(Value value, Value pointer) {
  LLVM::StoreOp::create(b, loc, value, pointer,
                        value.getType().getIntOrFloatBitWidth() / 8);
}

Value Emitter::loadVector(Value pointer, Type type) {
  auto vector = VectorType::get({lanes}, type);
  Value value = LLVM::LoadOp::create(b, loc, vector, pointer,
                                     type.getIntOrFloatBitWidth() / 8);
  if (type.isF32())
    return value;
  return arith::ExtFOp::create(b, loc, f32Vector(), value);
}
Value Emitter::loadE4M3(Value pointer) {
  // Shifted so, the sign-extended bits are those of an f16, less bit 14; its
  // exponent's bias is larger by 8. The conversion heeds no mode for denormals.
  auto wide = VectorType::get({lanes}, b.getI16Type());
  auto constant = [&](int16_t value) -> Value {
    return arith::ConstantOp::create(
        b, loc, DenseElementsAttr::get(wide, b.getI16IntegerAttr(value)));
  };
  Value code =
      LLVM::LoadOp::create(b, loc, VectorType::get({lanes}, b.getI8Type()),
                           pointer, /*alignment=*/1);
  Value bits = arith::ShLIOp::create(
      b, loc, arith::ExtSIOp::create(b, loc, wide, code), constant(7));
  bits = arith::AndIOp::create(b, loc, bits, constant(int16_t(0xbf80)));
  Value half = arith::BitcastOp::create(
      b, loc, VectorType::get({lanes}, b.getF16Type()), bits);
  return arith::ExtFOp::create(b, loc, f32Vector(), half);
}
Value Emitter::loadInt8(Value pointer) {
  Value code =
      LLVM::LoadOp::create(b, loc, VectorType::get({lanes}, b.getI8Type()),
                           pointer, /*alignment=*/1);
  code = arith::ExtUIOp::create(b, loc, i32Vector(), code);
  Value value = arith::SIToFPOp::create(b, loc, f32Vector(), code);
  return subf(value, splat(128.0f));
}
Value Emitter::loadI32Vector(Value pointer) {
  return LLVM::LoadOp::create(b, loc, i32Vector(), pointer, /*alignment=*/4);
}

void Emitter::storeVector(Value vector, Value pointer, Type type) {
  unsigned align = type.getIntOrFloatBitWidth() / 8;
  if (type.isF16()) {
    vector =
        arith::TruncFOp::create(b, loc, VectorType::get({lanes}, type), vector);
  } else if (type.isBF16()) {
    // Round to nearest even in integers: add half of the last place kept, less
    // one when that place is even. NaN keeps its upper half, made quiet.
    auto splatI32 = [&](int32_t value) -> Value {
      return vector::BroadcastOp::create(b, loc, i32Vector(), i32(value));
    };
    Value bits = arith::BitcastOp::create(b, loc, i32Vector(), vector);
    Value high = arith::ShRUIOp::create(b, loc, bits, splatI32(16));
    Value odd = arith::AndIOp::create(b, loc, high, splatI32(1));
    Value rounded = arith::AddIOp::create(
        b, loc, arith::AddIOp::create(b, loc, bits, splatI32(0x7fff)), odd);
    rounded = arith::ShRUIOp::create(b, loc, rounded, splatI32(16));
    Value quiet = arith::OrIOp::create(b, loc, high, splatI32(0x40));
    Value isNaN = cmpf(arith::CmpFPredicate::UNO, vector, vector);
    Value kept = select(isNaN, quiet, rounded);
    vector = arith::TruncIOp::create(
        b, loc, VectorType::get({lanes}, b.getI16Type()), kept);
  }
  LLVM::StoreOp::create(b, loc, vector, pointer, align);
}

Value Emitter::loadSplat(Value pointer) {
  return splat(load(pointer, b.getF32Type()));
}

Value Emitter::splat(Value scalar) {
  return vector::BroadcastOp::create(
      b, loc, VectorType::get({lanes}, scalar.getType()), scalar);
}
Value Emitter::fma(Value x, Value y, Value z) {
  return vector::FMAOp::create(b, loc, x, y, z);
}
Value Emitter::mulf(Value lhs, Value rhs) {
  return arith::MulFOp::create(b, loc, lhs, rhs);
}
Value Emitter::subf(Value lhs, Value rhs) {
  return arith::SubFOp::create(b, loc, lhs, rhs);
}
Value Emitter::addf(Value lhs, Value rhs) {
  return arith::AddFOp::create(b, loc, lhs, rhs);
}
Value Emitter::cmpf(arith::CmpFPredicate predicate, Value lhs, Value rhs) {
  return arith::CmpFOp::create(b, loc, predicate, lhs, rhs);
}
Value Emitter::select(Value condition, Value yes, Value no) {
  return arith::SelectOp::create(b, loc, condition, yes, no);
}
Value Emitter::max(Value lhs, Value rhs) {
  return select(cmpf(arith::CmpFPredicate::OGT, lhs, rhs), lhs, rhs);
}

/// Reassociation is allowed: the tree is fixed by the instruction selection,
/// so results are still the same from run to run.
static Value reduce(Emitter &e, vector::CombiningKind kind, Value vector) {
  return vector::ReductionOp::create(e.b, e.loc, kind, vector,
                                     arith::FastMathFlags::reassoc);
}
Value Emitter::sumLanes(Value vector) {
  return reduce(*this, vector::CombiningKind::ADD, vector);
}
Value Emitter::maxLanes(Value vector) {
  return reduce(*this, vector::CombiningKind::MAXNUMF, vector);
}
Value Emitter::lane0(Value vector) {
  return vector::ExtractOp::create(b, loc, vector, /*position=*/0);
}

Value Emitter::exp2(Value x) {
  // Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits; with the
  // exponent bias added too, a shift alone makes 2^n of them.
  Value magic = splat(12582912.0f + 127.0f);
  Value shifted = addf(x, magic);
  Value fraction = subf(x, subf(shifted, magic));
  // Minimax for 2^f on [-1/2, 1/2] in relative error (7.5e-8 before rounding).
  const float coefficients[] = {1.3276472454890609e-3f, 9.675540961325169e-3f,
                                5.550713092088699e-2f,  2.4022120237350464e-1f,
                                6.931469440460205e-1f,  1.0000001192092896f};
  Value power = splat(coefficients[0]);
  for (float c : llvm::drop_begin(coefficients))
    power = fma(power, fraction, splat(c));
  Value bits = arith::BitcastOp::create(b, loc, i32Vector(), shifted);
  Value exponent = arith::ShLIOp::create(
      b, loc, bits, vector::BroadcastOp::create(b, loc, i32Vector(), i32(23)));
  Value scale = arith::BitcastOp::create(b, loc, f32Vector(), exponent);
  Value result = mulf(power, scale);
  Value tiny = cmpf(arith::CmpFPredicate::OLT, x, splat(-126.0f));
  return select(tiny, zero(), result);
}

Value Emitter::tanh(Value x) {
  ImplicitLocOpBuilder located(loc, b);
  return tanhOf(located, x);
}

SmallVector<Value> Emitter::transpose(ArrayRef<Value> rows) {
  // log2(lanes) perfect-shuffle stages, each interleaving the two halves.
  SmallVector<Value> current(rows);
  const int64_t half = lanes / 2;
  for (unsigned stage = 0, n = llvm::Log2_64(lanes); stage < n; ++stage) {
    SmallVector<Value> next;
    for (int64_t i = 0; i < half; ++i) {
      for (int64_t start : {int64_t(0), half}) {
        SmallVector<int64_t> mask;
        for (int64_t k = 0; k < half; ++k) {
          mask.push_back(start + k);
          mask.push_back(lanes + start + k);
        }
        next.push_back(vector::ShuffleOp::create(b, loc, current[i],
                                                 current[i + half], mask));
      }
    }
    current = std::move(next);
  }
  return current;
}

/// Joins two vectors of 16-bit integers to 32-bit lanes.
static Value joinHalves(Emitter &e, Value low, Value high) {
  Value wideLow = arith::ExtUIOp::create(e.b, e.loc, e.i32Vector(), low);
  Value wideHigh = arith::ExtUIOp::create(e.b, e.loc, e.i32Vector(), high);
  Value shift =
      vector::BroadcastOp::create(e.b, e.loc, e.i32Vector(), e.i32(16));
  Value joined = arith::OrIOp::create(
      e.b, e.loc, wideLow, arith::ShLIOp::create(e.b, e.loc, wideHigh, shift));
  return arith::BitcastOp::create(e.b, e.loc, e.f32Vector(), joined);
}

Value Emitter::packPairs(Value first, Value second) {
  auto halves = [&](Value vector) -> Value {
    Value rounded = arith::TruncFOp::create(
        b, loc, VectorType::get({lanes}, b.getBF16Type()), vector);
    return arith::BitcastOp::create(
        b, loc, VectorType::get({lanes}, b.getI16Type()), rounded);
  };
  return joinHalves(*this, halves(first), halves(second));
}

Value Emitter::interleaveBF16(Value first, Value second) {
  auto halves = VectorType::get({lanes}, b.getI16Type());
  return joinHalves(*this, LLVM::LoadOp::create(b, loc, halves, first, 2),
                    LLVM::LoadOp::create(b, loc, halves, second, 2));
}

Value Emitter::dotPairs(Value x, Value y, Value sum) {
  auto type = VectorType::get({2 * lanes}, b.getBF16Type());
  Value a = LLVM::BitcastOp::create(b, loc, type, x);
  Value c = LLVM::BitcastOp::create(b, loc, type, y);
  return LLVM::CallIntrinsicOp::create(
             b, loc, f32Vector(),
             b.getStringAttr("llvm.x86.avx512bf16.dpbf16ps.512"),
             ValueRange{sum, a, c})
      .getResult(0);
}

void Emitter::ifElse(Value condition, llvm::function_ref<void()> yes,
                     llvm::function_ref<void()> no) {
  auto branch = scf::IfOp::create(b, loc, condition, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(branch.thenBlock());
  yes();
  b.setInsertionPointToStart(branch.elseBlock());
  no();
}

void Emitter::loop(Value begin, Value end, int64_t step,
                   llvm::function_ref<void(Value)> body) {
  auto loop = scf::ForOp::create(b, loc, begin, end, i64(step));
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(loop.getBody()->getTerminator());
  body(loop.getInductionVar());
}

SmallVector<Value>
Emitter::loop(int64_t begin, int64_t end, int64_t step, ArrayRef<Value> init,
              llvm::function_ref<SmallVector<Value>(Value, ValueRange)> body) {
  auto loop = scf::ForOp::create(b, loc, i64(begin), i64(end), i64(step), init);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(loop.getBody());
  SmallVector<Value> next =
      body(loop.getInductionVar(), loop.getRegionIterArgs());
  scf::YieldOp::create(b, loc, next);
  return SmallVector<Value>(loop.getResults());
}
