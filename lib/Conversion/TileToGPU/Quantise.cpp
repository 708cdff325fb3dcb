//===- Quantise.cpp - Blocks to 8-bit codes and back ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One block of threads an item: a pass over keys and values for their largest
// magnitudes, another that rounds, to the same codes as on a CPU. The way back
// is one pass.
//
//===----------------------------------------------------------------------===//

#include "Builder.h"
#include "Kernels.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/abi/gpu_args.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

namespace {

constexpr int64_t kThreads = 256, kRegisters = 64, kWarps = kThreads / 32;
/// Elements that a thread takes at a time: 16 bytes of them.
constexpr int64_t kPiece = 8;
/// Largest magnitude of a code.
constexpr float kE4M3Most = 448.0f, kInt8Most = 127.0f;
/// Least scale, so that its inverse is finite: 2^-100, as bits.
constexpr int32_t kLeastScale = (127 - 100) << 23;

class Quantise {
public:
  Quantise(OpBuilder &builder, Location loc, const KernelForm &form)
      : b(loc, builder), form(form) {}
  LLVM::LLVMFuncOp build(StringRef name);

private:
  /// Keys or values of the item.
  struct Rows {
    Value base, stride; ///< Of elements; bytes between rows, i64.
    Value codes, scale; ///< Their places.
  };

  void takeItem(Value item);
  void forward();
  void back();
  void copyKept();
  void write(const Rows &rows, Value scale, Value (Quantise::*codesOf)(Value));
  Value codesOfInt8(Value x);
  Value codesOfE4M3(Value x);
  Value valuesOfInt8(Value codes);
  Value valuesOfE4M3(Value codes);
  void unpack(const Rows &rows, Value (Quantise::*valuesOf)(Value));

  /// Calls `body` with the number of each of the thread's pieces.
  void forPieces(llvm::function_ref<void(Value)> body);
  Value source(const Rows &rows, Value piece);
  Value largest(Value most, Value place);
  Value scaleOf(Value largest);
  Value field(size_t offset, Type type) {
    return b.loadField(item, static_cast<int64_t>(offset), type);
  }
  Value offset(Value base, Value bytes) { return b.offset(base, bytes); }

  // On vectors of a piece.
  VectorType of(Type element) { return VectorType::get({kPiece}, element); }
  Value integers(int32_t value) {
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(b.i32s(kPiece), value));
  }
  Value floats(float value) { return b.splat(kPiece, value); }
  Value splat(Value value) {
    return vector::BroadcastOp::create(b, of(value.getType()), value);
  }
  Value bits(Value x) { return arith::BitcastOp::create(b, b.i32s(kPiece), x); }
  Value mask(Value x, int32_t bits) {
    return arith::AndIOp::create(b, x, integers(bits));
  }
  Value below(Value x, Value y) {
    return arith::CmpFOp::create(b, arith::CmpFPredicate::OLT, x, y);
  }

  KernelBuilder b;
  const KernelForm &form;
  Value item, shared;
  Rows both[2]; ///< Keys, then values.
  Value half, isInt8, page, scales;
};

} // namespace

//===----------------------------------------------------------------------===//
// Where things are
//===----------------------------------------------------------------------===//

void Quantise::takeItem(Value place) {
  item = place;
  const Type pointer = b.globalPointer(), i64 = b.getI64Type();
  const int64_t codes = MOA_BLOCK_KEYS * form.headDim;
  half = field(offsetof(moa_quantise_item, half), b.getI32Type());
  isInt8 = b.equal(field(offsetof(moa_quantise_item, format), b.getI32Type()),
                   MOA_KV_INT8);
  page = field(offsetof(moa_quantise_item, page), pointer);
  scales = field(offsetof(moa_quantise_item, scales), pointer);
  Value own = offset(page, b.mul(half, 2 * codes));
  Value ownScales = offset(scales, b.mul(half, 4 * MOA_KV8_SCALES / 2));
  Value two = arith::ConstantOp::create(b, b.getI64IntegerAttr(2));
  auto rows = [&](size_t base, size_t stride, int64_t number) -> Rows {
    return {field(base, pointer),
            arith::MulIOp::create(b, field(stride, i64), two),
            b.offset(own, number * codes), b.offset(ownScales, 4 * number)};
  };
  both[0] = rows(offsetof(moa_quantise_item, k),
                 offsetof(moa_quantise_item, k_stride), 0);
  both[1] = rows(offsetof(moa_quantise_item, v),
                 offsetof(moa_quantise_item, v_stride), 1);
}

void Quantise::forPieces(llvm::function_ref<void(Value)> body) {
  b.loop(b.threadId(), b.i32(MOA_BLOCK_KEYS * form.headDim / kPiece),
         b.i32(kThreads), {}, [&](Value piece, ValueRange) {
           body(piece);
           return SmallVector<Value>();
         });
}

/// Where a piece of elements is.
Value Quantise::source(const Rows &rows, Value piece) {
  const int64_t inRow = form.headDim / kPiece;
  Value row =
      arith::MulIOp::create(b, b.wide(b.divide(piece, inRow)), rows.stride);
  return b.offset(offset(rows.base, row), b.mul(b.remainder(piece, inRow), 16));
}

//===----------------------------------------------------------------------===//
// To codes
//===----------------------------------------------------------------------===//

/// The largest of all threads' `most`, by way of the warps' words at `place`.
Value Quantise::largest(Value most, Value place) {
  most = NVVM::ReduxOp::create(b, b.getI32Type(), most, NVVM::ReduxKind::UMAX,
                               b.i32(-1));
  Value warp = b.shift(b.threadId(), 5);
  b.ifThen(b.equal(b.bitAnd(b.threadId(), 31), 0), [&] {
    LLVM::StoreOp::create(b, most, b.offset(place, b.mul(warp, 4)), 4);
  });
  BarrierOp::create(b, BarrierAction::Sync, b.i32(1), kThreads);
  Value whole;
  for (int64_t w = 0; w < kWarps; ++w) {
    Value own = LLVM::LoadOp::create(b, b.getI32Type(),
                                     b.offset(place, int64_t(4 * w)), 4);
    whole = whole ? b.max(whole, own) : own;
  }
  return whole;
}

/// Of the bits of a magnitude of the model's type: as integers NaN is above
/// infinity, so that neither is lost.
Value Quantise::scaleOf(Value magnitude) {
  Type f32 = b.getF32Type();
  Value value;
  if (form.element.isBF16()) {
    value = arith::BitcastOp::create(
        b, f32, arith::ShLIOp::create(b, magnitude, b.i32(16)));
  } else {
    Value narrow = arith::TruncIOp::create(b, b.getI16Type(), magnitude);
    Value half = arith::BitcastOp::create(b, b.getF16Type(), narrow);
    value = arith::ExtFOp::create(b, f32, half);
  }
  Value most = b.select(isInt8, b.f32(kInt8Most), b.f32(kE4M3Most));
  Value exact = arith::DivFOp::create(b, value, most);
  Value least = b.max(arith::BitcastOp::create(b, b.getI32Type(), exact),
                      b.i32(kLeastScale));
  return arith::BitcastOp::create(b, f32, least);
}

/// Codes in the low byte of each integer, of values within [-127, 127].
Value Quantise::codesOfInt8(Value x) {
  // A NaN becomes some code: the scale is not finite then.
  x = arith::MaxNumFOp::create(b, x, floats(-kInt8Most));
  Value most = floats(kInt8Most);
  x = arith::SelectOp::create(b, below(x, most), x, most);
  // 1.5 * 2^23 brings the rounded integer to the low bits.
  return bits(arith::AddFOp::create(b, x, floats(12582912.0f + 128.0f)));
}

Value Quantise::codesOfE4M3(Value x) {
  auto shift = [&](Value value, int32_t by) -> Value {
    return arith::ShRUIOp::create(b, value, integers(by));
  };
  auto add = [&](Value value, Value more) -> Value {
    return arith::AddIOp::create(b, value, more);
  };
  Value sign = mask(shift(bits(x), 24), 0x80);
  Value magnitude =
      arith::BitcastOp::create(b, b.f32s(kPiece), mask(bits(x), 0x7fffffff));
  Value most = floats(kE4M3Most);
  magnitude =
      arith::SelectOp::create(b, below(magnitude, most), magnitude, most);
  // Three bits of the mantissa stay, the exponent's bias of 127 becomes 7.
  Value exact = bits(magnitude);
  Value rounded = add(add(exact, integers(0x7ffff)), mask(shift(exact, 20), 1));
  Value normal = add(shift(rounded, 20), integers(-(120 << 3)));
  // Below 2^-6 codes count steps of 2^-9, the last place of an f32 of 2^14.
  Value small = add(bits(arith::AddFOp::create(b, magnitude, floats(16384.0f))),
                    integers(-((127 + 14) << 23)));
  Value isSmall = below(magnitude, floats(0.015625f));
  return arith::OrIOp::create(
      b, arith::SelectOp::create(b, isSmall, small, normal), sign);
}

void Quantise::write(const Rows &rows, Value scale,
                     Value (Quantise::*codesOf)(Value)) {
  Value inverse = splat(arith::DivFOp::create(b, b.f32(1.0f), scale));
  forPieces([&](Value piece) {
    Value loaded =
        LLVM::LoadOp::create(b, of(form.element), source(rows, piece), 16);
    Value x = arith::MulFOp::create(
        b, arith::ExtFOp::create(b, b.f32s(kPiece), loaded), inverse);
    Value codes =
        arith::TruncIOp::create(b, of(b.getI8Type()), (this->*codesOf)(x));
    LLVM::StoreOp::create(b, codes, offset(rows.codes, b.mul(piece, kPiece)),
                          kPiece);
  });
}

/// Brings the other half of page `kept`, and its scales, along.
void Quantise::copyKept() {
  Value kept = field(offsetof(moa_quantise_item, kept), b.globalPointer());
  Value has = LLVM::ICmpOp::create(b, LLVM::ICmpPredicate::ne, kept,
                                   LLVM::ZeroOp::create(b, kept.getType()));
  b.ifThen(has, [&] {
    const int64_t bytes = 2 * MOA_BLOCK_KEYS * form.headDim;
    Value other = b.sub(b.i32(1), half);
    Value start = b.mul(other, bytes);
    forPieces([&](Value piece) {
      Value place = b.add(start, b.mul(piece, 16));
      Value loaded =
          LLVM::LoadOp::create(b, b.i32s(4), offset(kept, place), 16);
      LLVM::StoreOp::create(b, loaded, offset(page, place), 16);
    });
    b.ifThen(b.equal(b.threadId(), 0), [&] {
      Value place = b.mul(other, 4 * MOA_KV8_SCALES / 2);
      Value old =
          field(offsetof(moa_quantise_item, kept_scales), b.globalPointer());
      Value loaded = LLVM::LoadOp::create(b, b.i32s(2), offset(old, place), 8);
      LLVM::StoreOp::create(b, loaded, offset(scales, place), 8);
    });
  });
}

void Quantise::forward() {
  SmallVector<Value> most = {b.i32(0), b.i32(0)};
  most = b.loop(b.threadId(), b.i32(MOA_BLOCK_KEYS * form.headDim / kPiece),
                b.i32(kThreads), most, [&](Value piece, ValueRange before) {
                  SmallVector<Value> next;
                  for (size_t i = 0; i < 2; ++i) {
                    Value loaded = LLVM::LoadOp::create(
                        b, b.i32s(4), source(both[i], piece), 16);
                    Value most = before[i];
                    for (Value pair : b.split(loaded)) {
                      most = b.max(most, b.bitAnd(pair, 0x7fff));
                      most = b.max(most, b.bitAnd(b.shift(pair, 16), 0x7fff));
                    }
                    next.push_back(most);
                  }
                  return next;
                });
  for (int64_t i = 0; i < 2; ++i) {
    const Rows &rows = both[i];
    Value scale = scaleOf(largest(most[i], b.offset(shared, 4 * kWarps * i)));
    b.ifThen(b.equal(b.threadId(), 0),
             [&] { LLVM::StoreOp::create(b, scale, rows.scale, 4); });
    b.branch(
        isInt8, {},
        [&] {
          write(rows, scale, &Quantise::codesOfInt8);
          return SmallVector<Value>();
        },
        [&] {
          write(rows, scale, &Quantise::codesOfE4M3);
          return SmallVector<Value>();
        });
  }
  copyKept();
}

//===----------------------------------------------------------------------===//
// Back
//===----------------------------------------------------------------------===//

Value Quantise::valuesOfInt8(Value codes) {
  Value wide = arith::ExtUIOp::create(b, b.i32s(kPiece), codes);
  return arith::SIToFPOp::create(
      b, b.f32s(kPiece), arith::AddIOp::create(b, wide, integers(-128)));
}

/// A code's bits in an f16 are its value less 2^8, the difference of the
/// exponents' biases.
Value Quantise::valuesOfE4M3(Value codes) {
  Value wide = arith::ExtUIOp::create(b, b.i32s(kPiece), codes);
  auto left = [&](Value x, int32_t by) -> Value {
    return arith::ShLIOp::create(b, x, integers(by));
  };
  Value halves =
      arith::TruncIOp::create(b, of(b.getI16Type()),
                              arith::OrIOp::create(b, left(mask(wide, 0x80), 8),
                                                   left(mask(wide, 0x7f), 7)));
  Value bits = arith::BitcastOp::create(b, of(b.getF16Type()), halves);
  Value small = arith::ExtFOp::create(b, b.f32s(kPiece), bits);
  return arith::MulFOp::create(b, small, floats(256.0f));
}

void Quantise::unpack(const Rows &rows, Value (Quantise::*valuesOf)(Value)) {
  Value scale = splat(LLVM::LoadOp::create(b, b.getF32Type(), rows.scale, 4));
  forPieces([&](Value piece) {
    Value codes = LLVM::LoadOp::create(
        b, of(b.getI8Type()), offset(rows.codes, b.mul(piece, kPiece)), kPiece);
    Value x = arith::MulFOp::create(b, (this->*valuesOf)(codes), scale);
    LLVM::StoreOp::create(b, arith::TruncFOp::create(b, of(form.element), x),
                          source(rows, piece), 16);
  });
}

void Quantise::back() {
  for (const Rows &rows : both)
    b.branch(
        isInt8, {},
        [&] {
          unpack(rows, &Quantise::valuesOfInt8);
          return SmallVector<Value>();
        },
        [&] {
          unpack(rows, &Quantise::valuesOfE4M3);
          return SmallVector<Value>();
        });
}

LLVM::LLVMFuncOp Quantise::build(StringRef name) {
  MLIRContext *ctx = b.getContext();
  LLVM::LLVMFuncOp function =
      b.itemKernel(name, LaunchAttr::get(ctx, kThreads, kRegisters, 0, 0));
  OpBuilder::InsertionGuard guard(b);
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToStart(entry);
  shared =
      ScratchOp::create(b, LLVM::LLVMPointerType::get(ctx, 3), 2 * kWarps * 4);
  takeItem(
      b.element(entry->getArgument(0), b.blockId(), sizeof(moa_quantise_item)));
  b.branch(
      b.equal(field(offsetof(moa_quantise_item, back), b.getI32Type()), 0), {},
      [&] {
        forward();
        return SmallVector<Value>();
      },
      [&] {
        back();
        return SmallVector<Value>();
      });
  LLVM::ReturnOp::create(b, ValueRange{});
  return function;
}

LLVM::LLVMFuncOp moa::gpu::buildQuantise(OpBuilder &builder, Location loc,
                                         StringRef name,
                                         const KernelForm &form) {
  return Quantise(builder, loc, form).build(name);
}
