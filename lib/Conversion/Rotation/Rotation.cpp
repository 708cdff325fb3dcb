//===- Rotation.cpp - Vector code of rotary embeddings --------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Rotation.h, line by line that of moa_rope_angle.
//
//===----------------------------------------------------------------------===//

#include "moa/Conversion/Rotation.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/abi/rope.h"

using namespace mlir;
using namespace moa;

namespace {

/// Constants and arithmetic of one width.
struct Lanes {
  ImplicitLocOpBuilder &b;
  const int64_t count;

  VectorType of(Type type) const { return VectorType::get({count}, type); }
  Value f32(float value) const {
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(of(b.getF32Type()), value));
  }
  Value i32(int32_t value) const {
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(of(b.getI32Type()), value));
  }
  Value splat(Value scalar) const {
    return vector::BroadcastOp::create(b, of(scalar.getType()), scalar);
  }
  Value bits(Value vector, Type type) const {
    return arith::BitcastOp::create(b, of(type), vector);
  }
  /// `value` with its sign changed where bit 1 of `number` is set.
  Value negate(Value value, Value number) const {
    Value sign = arith::ShLIOp::create(
        b, arith::AndIOp::create(b, number, i32(2)), i32(30));
    return bits(arith::XOrIOp::create(b, bits(value, b.getI32Type()), sign),
                b.getF32Type());
  }
  Value polynomial(ArrayRef<float> terms, Value w) const {
    Value sum = f32(terms.back());
    for (float term : llvm::reverse(terms.drop_back()))
      sum = vector::FMAOp::create(b, sum, w, f32(term));
    return sum;
  }
};

} // namespace

static int64_t lanesOf(Value vector) {
  return cast<VectorType>(vector.getType()).getNumElements();
}

Rotation moa::rotationOf(ImplicitLocOpBuilder &b, Value turns, Value position,
                         Value scale) {
  const float sinTerms[] = MOA_ROPE_SIN, cosTerms[] = MOA_ROPE_COS;
  const Lanes v{b, lanesOf(turns)};
  Type f32 = b.getF32Type();
  Value angle = arith::MulIOp::create(b, turns, v.splat(position));
  Value upper = v.splat(
      arith::ConstantOp::create(b, b.getI64IntegerAttr(32)).getResult());
  Value phase = arith::TruncIOp::create(
      b, v.of(b.getI32Type()), arith::ShRUIOp::create(b, angle, upper));
  Value quarter = arith::ShRUIOp::create(
      b, arith::AddIOp::create(b, phase, v.i32(1 << 29)), v.i32(30));
  Value rest = arith::SubIOp::create(
      b, phase, arith::ShLIOp::create(b, quarter, v.i32(30)));
  Value u = arith::MulFOp::create(
      b, arith::SIToFPOp::create(b, v.of(f32), rest), v.f32(0x1p-30f));
  Value w = arith::MulFOp::create(b, u, u);
  Value sine = arith::MulFOp::create(b, v.polynomial(sinTerms, w), u);
  Value cosine =
      vector::FMAOp::create(b, v.polynomial(cosTerms, w), w, v.f32(1));
  Value odd = arith::CmpIOp::create(b, arith::CmpIPredicate::ne,
                                    arith::AndIOp::create(b, quarter, v.i32(1)),
                                    v.i32(0));
  Value x = arith::SelectOp::create(b, odd, sine, cosine);
  Value y = arith::SelectOp::create(b, odd, cosine, sine);
  Value next = arith::AddIOp::create(b, quarter, v.i32(1));
  Value factor = v.splat(scale);
  return {arith::MulFOp::create(b, v.negate(x, next), factor),
          arith::MulFOp::create(b, v.negate(y, quarter), factor)};
}

std::pair<Value, Value> moa::rotate(ImplicitLocOpBuilder &b,
                                    const Rotation &rotation, Value x,
                                    Value y) {
  Value minus = arith::NegFOp::create(b, rotation.sine);
  Value first = vector::FMAOp::create(
      b, y, minus, arith::MulFOp::create(b, x, rotation.cosine));
  Value second = vector::FMAOp::create(
      b, x, rotation.sine, arith::MulFOp::create(b, y, rotation.cosine));
  return {first, second};
}

Value moa::rotateInterleaved(ImplicitLocOpBuilder &b, const Rotation &rotation,
                             Value pairs) {
  const int64_t count = lanesOf(rotation.cosine);
  SmallVector<int64_t> even, odd, together;
  for (int64_t i = 0; i < count; ++i) {
    even.push_back(2 * i);
    odd.push_back(2 * i + 1);
    together.append({i, count + i});
  }
  Value x = vector::ShuffleOp::create(b, pairs, pairs, even);
  Value y = vector::ShuffleOp::create(b, pairs, pairs, odd);
  auto [first, second] = rotate(b, rotation, x, y);
  return vector::ShuffleOp::create(b, first, second, together);
}
