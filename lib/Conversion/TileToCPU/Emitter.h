//===- Emitter.h - Terse emission of vector code ----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A builder for straight vector code over raw pointers: addresses, loads with
// conversion to f32, loops, our exp2, transposes. It knows nothing of
// attention.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOCPU_EMITTER_H
#define MOA_CONVERSION_TILETOCPU_EMITTER_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/Builders.h"
#include "llvm/ADT/STLFunctionalExtras.h"

namespace moa::cpu {

/// Emits vector code at a builder's insertion point. Integers are i64 unless
/// said; offsets and strides count elements of the type at hand.
class Emitter {
public:
  Emitter(mlir::OpBuilder &builder, mlir::Location loc, int64_t lanes)
      : b(builder), loc(loc), lanes(lanes) {}

  mlir::OpBuilder &b;
  mlir::Location loc;
  /// f32 lanes of one vector.
  const int64_t lanes;

  mlir::VectorType f32Vector() {
    return mlir::VectorType::get({lanes}, b.getF32Type());
  }
  mlir::VectorType i32Vector() {
    return mlir::VectorType::get({lanes}, b.getI32Type());
  }

  // Scalars.
  mlir::Value i64(int64_t value);
  mlir::Value i32(int32_t value);
  mlir::Value f32(float value);
  mlir::Value add(mlir::Value lhs, mlir::Value rhs);
  mlir::Value add(mlir::Value lhs, int64_t rhs);
  mlir::Value mul(mlir::Value lhs, mlir::Value rhs);
  mlir::Value mul(mlir::Value lhs, int64_t rhs);
  mlir::Value min(mlir::Value lhs, mlir::Value rhs);
  mlir::Value toI64(mlir::Value value);
  mlir::Value toI32(mlir::Value value);
  mlir::Value equals(mlir::Value lhs, mlir::Value rhs);

  // Memory. `type` is the element type in memory.
  mlir::Value offset(mlir::Value pointer, mlir::Value elements,
                     mlir::Type type);
  mlir::Value offset(mlir::Value pointer, int64_t elements, mlir::Type type);
  /// One scalar, as it is in memory.
  mlir::Value load(mlir::Value pointer, mlir::Type type);
  void store(mlir::Value value, mlir::Value pointer);
  /// `lanes` elements of `type`, widened to f32.
  mlir::Value loadVector(mlir::Value pointer, mlir::Type type);
  /// `lanes` 8-bit codes, as what they stand for before the scale: e4m3, here
  /// less by kE4M3Factor, or integers plus 128.
  static constexpr float kE4M3Factor = 256.0f;
  mlir::Value loadE4M3(mlir::Value pointer);
  mlir::Value loadInt8(mlir::Value pointer);
  /// Same as loadVector, as i32 (no conversion).
  mlir::Value loadI32Vector(mlir::Value pointer);
  /// Rounds an f32 vector to `type` (nearest even) and stores it.
  void storeVector(mlir::Value vector, mlir::Value pointer, mlir::Type type);
  /// An f32 in memory, in all lanes.
  mlir::Value loadSplat(mlir::Value pointer);

  // Vectors.
  mlir::Value splat(mlir::Value scalar);
  mlir::Value splat(float value) { return splat(f32(value)); }
  mlir::Value zero() { return splat(0.0f); }
  mlir::Value fma(mlir::Value x, mlir::Value y, mlir::Value z);
  mlir::Value mulf(mlir::Value lhs, mlir::Value rhs);
  mlir::Value subf(mlir::Value lhs, mlir::Value rhs);
  mlir::Value addf(mlir::Value lhs, mlir::Value rhs);
  mlir::Value cmpf(mlir::arith::CmpFPredicate predicate, mlir::Value lhs,
                   mlir::Value rhs);
  mlir::Value select(mlir::Value condition, mlir::Value yes, mlir::Value no);
  /// The larger of two; `rhs` where it is NaN. One instruction.
  mlir::Value max(mlir::Value lhs, mlir::Value rhs);
  /// Horizontal sum and maximum.
  mlir::Value sumLanes(mlir::Value vector);
  mlir::Value maxLanes(mlir::Value vector);
  mlir::Value lane0(mlir::Value vector);
  /// 2^x for x <= 0; exactly 0 below -126, NaN for NaN; relative error below
  /// 3e-7.
  mlir::Value exp2(mlir::Value x);
  /// As moa::tanhOf.
  mlir::Value tanh(mlir::Value x);
  /// Transposes a square of `lanes` vectors in registers.
  llvm::SmallVector<mlir::Value> transpose(llvm::ArrayRef<mlir::Value> rows);

  // Pairs of bf16, kept as one 32-bit lane of type f32 whose lower half is the
  // first of the pair. For chips with vdpbf16ps.
  /// Rounds two f32 vectors and packs them lane by lane.
  mlir::Value packPairs(mlir::Value first, mlir::Value second);
  /// Packs `lanes` bf16 at `first` with as many at `second`.
  mlir::Value interleaveBF16(mlir::Value first, mlir::Value second);
  /// sum + x.first * y.first + x.second * y.second, lane by lane.
  mlir::Value dotPairs(mlir::Value x, mlir::Value y, mlir::Value sum);

  // Control flow. Bodies receive the induction variable.
  void ifElse(mlir::Value condition, llvm::function_ref<void()> yes,
              llvm::function_ref<void()> no);
  void loop(mlir::Value begin, mlir::Value end, int64_t step,
            llvm::function_ref<void(mlir::Value)> body);
  void loop(int64_t begin, int64_t end, int64_t step,
            llvm::function_ref<void(mlir::Value)> body) {
    loop(i64(begin), i64(end), step, body);
  }
  /// A loop that carries values; the body returns the next ones.
  llvm::SmallVector<mlir::Value>
  loop(int64_t begin, int64_t end, int64_t step,
       llvm::ArrayRef<mlir::Value> init,
       llvm::function_ref<llvm::SmallVector<mlir::Value>(mlir::Value,
                                                         mlir::ValueRange)>
           body);
};

} // namespace moa::cpu

#endif // MOA_CONVERSION_TILETOCPU_EMITTER_H
