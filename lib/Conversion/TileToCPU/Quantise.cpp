//===- Quantise.cpp - Lowering of the quantise kernel ---------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Brings a block of keys and values to 8-bit codes: a pass over the rows for
// the largest magnitude, another that rounds. All rounding is to nearest even.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/abi/kernel_args.h"

using namespace mlir;
using namespace moa::cpu;

/// Largest magnitude of a code.
static constexpr float kE4M3Most = 448.0f, kInt8Most = 127.0f;
/// Least scale, so that its inverse is finite: 2^-100, as bits.
static constexpr int32_t kLeastScale = (127 - 100) << 23;

namespace {

/// Rows of keys or of values.
struct Rows {
  Value pointer, stride;
  Type type;
  int64_t dims;

  /// `lanes` elements of a row from `dim` on, as f32.
  Value load(Emitter &e, Value row, int64_t dim) const {
    Value from = e.offset(pointer, e.mul(row, stride), type);
    return e.loadVector(e.offset(from, dim, type), type);
  }
};

} // namespace

static Value splatI32(Emitter &e, int32_t value) {
  return e.splat(e.i32(value));
}
static Value bitsOf(Emitter &e, Value vector) {
  return arith::BitcastOp::create(e.b, e.loc, e.i32Vector(), vector);
}

/// The largest magnitude of all rows, as the bits of an f32: as integers NaN is
/// above infinity, so that neither is lost.
static Value largest(Emitter &e, const Rows &rows) {
  Value zero = splatI32(e, 0), magnitude = splatI32(e, 0x7fffffff);
  SmallVector<Value> most =
      e.loop(0, MOA_BLOCK_KEYS, 1, zero, [&](Value row, ValueRange old) {
        Value top = old.front();
        for (int64_t d = 0; d < rows.dims; d += e.lanes)
          top = arith::MaxSIOp::create(
              e.b, e.loc, top,
              arith::AndIOp::create(e.b, e.loc, bitsOf(e, rows.load(e, row, d)),
                                    magnitude));
        return SmallVector<Value>{top};
      });
  return vector::ReductionOp::create(e.b, e.loc, vector::CombiningKind::MAXSI,
                                     most.front());
}

/// Codes in the low byte of each lane of values within [-127, 127], plus 128.
static Value codesOfInt8(Emitter &e, Value x) {
  // A NaN becomes some code: the scale is not finite then.
  x = e.max(x, e.splat(-kInt8Most));
  Value most = e.splat(kInt8Most);
  x = e.select(e.cmpf(arith::CmpFPredicate::OLT, x, most), x, most);
  // 1.5 * 2^23 brings the rounded integer to the low bits.
  return bitsOf(e, e.addf(x, e.splat(12582912.0f + 128.0f)));
}

static Value codesOfE4M3(Emitter &e, Value x) {
  auto shift = [&](Value bits, int32_t by) -> Value {
    return arith::ShRUIOp::create(e.b, e.loc, bits, splatI32(e, by));
  };
  auto add = [&](Value bits, Value more) -> Value {
    return arith::AddIOp::create(e.b, e.loc, bits, more);
  };
  auto both = [&](Value bits, int32_t mask) -> Value {
    return arith::AndIOp::create(e.b, e.loc, bits, splatI32(e, mask));
  };
  Value sign = both(shift(bitsOf(e, x), 24), 0x80);
  Value magnitude = arith::BitcastOp::create(e.b, e.loc, e.f32Vector(),
                                             both(bitsOf(e, x), 0x7fffffff));
  Value most = e.splat(kE4M3Most);
  magnitude = e.select(e.cmpf(arith::CmpFPredicate::OLT, magnitude, most),
                       magnitude, most);
  // Three bits of the mantissa stay, the exponent's bias of 127 becomes 7.
  Value bits = bitsOf(e, magnitude);
  Value rounded =
      add(add(bits, splatI32(e, 0x7ffff)), both(shift(bits, 20), 1));
  Value normal = add(shift(rounded, 20), splatI32(e, -(120 << 3)));
  // Below 2^-6 codes count steps of 2^-9, the last place of an f32 of 2^14.
  const int32_t step = (127 + 14) << 23;
  Value small =
      add(bitsOf(e, e.addf(magnitude, e.splat(16384.0f))), splatI32(e, -step));
  Value isSmall =
      e.cmpf(arith::CmpFPredicate::OLT, magnitude, e.splat(0.015625f));
  return arith::OrIOp::create(e.b, e.loc, e.select(isSmall, small, normal),
                              sign);
}

/// Writes codes of `rows` to `codes` and their scale to `scale`.
static void quantise(Emitter &e, const Rows &rows, Value isInt8, Value codes,
                     Value scale) {
  Type f32 = e.b.getF32Type(), i8 = e.b.getI8Type(), i32 = e.b.getI32Type();
  Value amax = arith::BitcastOp::create(e.b, e.loc, f32, largest(e, rows));
  Value most = e.select(isInt8, e.f32(kInt8Most), e.f32(kE4M3Most));
  Value exact = arith::DivFOp::create(e.b, e.loc, amax, most);
  Value bits = arith::MaxSIOp::create(
      e.b, e.loc, arith::BitcastOp::create(e.b, e.loc, i32, exact),
      e.i32(kLeastScale));
  Value factor = arith::BitcastOp::create(e.b, e.loc, f32, bits);
  e.store(factor, scale);
  Value inverse =
      e.splat(arith::DivFOp::create(e.b, e.loc, e.f32(1.0f), factor));
  auto write = [&](Value (*codesOf)(Emitter &, Value)) {
    e.loop(0, MOA_BLOCK_KEYS, 1, [&](Value row) {
      Value to = e.offset(codes, e.mul(row, rows.dims), i8);
      for (int64_t d = 0; d < rows.dims; d += e.lanes) {
        Value lanes = codesOf(e, e.mulf(rows.load(e, row, d), inverse));
        lanes = arith::TruncIOp::create(e.b, e.loc,
                                        VectorType::get({e.lanes}, i8), lanes);
        LLVM::StoreOp::create(e.b, e.loc, lanes, e.offset(to, d, i8),
                              /*alignment=*/1);
      }
    });
  };
  e.ifElse(isInt8, [&] { write(codesOfInt8); }, [&] { write(codesOfE4M3); });
}

/// Brings the other half of page `kept`, and its scales, along.
static void copyKept(Emitter &e, Item &item, Value page, Value scales,
                     Value half, int64_t halfBytes) {
  Type i8 = e.b.getI8Type(), i32 = e.b.getI32Type(), f32 = e.b.getF32Type();
  Value other = arith::SubIOp::create(e.b, e.loc, e.i64(1), half);
  Value start = e.mul(other, halfBytes);
  Value from = item.pointerField(offsetof(moa_quantise_item, kept));
  Value none = LLVM::ZeroOp::create(e.b, e.loc, from.getType());
  Value has =
      LLVM::ICmpOp::create(e.b, e.loc, LLVM::ICmpPredicate::ne, from, none);
  e.ifElse(
      has,
      [&] {
        Value source = e.offset(from, start, i8);
        Value target = e.offset(page, start, i8);
        e.loop(0, halfBytes / 4, e.lanes, [&](Value word) {
          LLVM::StoreOp::create(e.b, e.loc,
                                e.loadI32Vector(e.offset(source, word, i32)),
                                e.offset(target, word, i32), /*alignment=*/4);
        });
        Value first = e.mul(other, MOA_KV8_SCALES / 2);
        Value old = e.offset(
            item.pointerField(offsetof(moa_quantise_item, kept_scales)), first,
            f32);
        Value now = e.offset(scales, first, f32);
        for (int64_t i = 0; i < MOA_KV8_SCALES / 2; ++i)
          e.store(e.load(e.offset(old, i, f32), f32), e.offset(now, i, f32));
      },
      [] {});
}

void moa::cpu::lowerQuantiseRows(Emitter &e, Value itemPointer, int64_t dims,
                                 Type type) {
  Item item(e, itemPointer);
  Type i8 = e.b.getI8Type(), f32 = e.b.getF32Type(), i64 = e.b.getI64Type();
  const int64_t codes = MOA_BLOCK_KEYS * dims;
  Value half = item.intField(offsetof(moa_quantise_item, half));
  Value isInt8 = e.equals(
      item.field(offsetof(moa_quantise_item, format), e.b.getI32Type()),
      e.i32(MOA_KV_INT8));
  Value page = item.pointerField(offsetof(moa_quantise_item, page));
  Value scales = item.pointerField(offsetof(moa_quantise_item, scales));
  copyKept(e, item, page, scales, half, 2 * codes);
  Value target = e.offset(page, e.mul(half, 2 * codes), i8);
  Value own = e.offset(scales, e.mul(half, MOA_KV8_SCALES / 2), f32);
  Rows keys = {item.pointerField(offsetof(moa_quantise_item, k)),
               item.field(offsetof(moa_quantise_item, k_stride), i64), type,
               dims};
  Rows values = {item.pointerField(offsetof(moa_quantise_item, v)),
                 item.field(offsetof(moa_quantise_item, v_stride), i64), type,
                 dims};
  quantise(e, keys, isInt8, target, own);
  quantise(e, values, isInt8, e.offset(target, codes, i8),
           e.offset(own, 1, f32));
}
