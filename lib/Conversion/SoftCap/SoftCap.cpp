//===- SoftCap.cpp - Arithmetic of soft caps ------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The rational function of Eigen and of MLIR's approximations of math by
// polynomials. Theirs divides exactly, for which a GPU has no instruction.
//
//===----------------------------------------------------------------------===//

#include "moa/Conversion/SoftCap.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;

/// Beyond it tanh is 1 in f32, and the function no longer is.
static constexpr float kEnd = 7.99881172180175781f;
/// Coefficients of odd powers above, of even ones below; the highest first.
static constexpr float kAbove[] = {
    -2.76076847742355e-16f, 2.00018790482477e-13f, -8.60467152213735e-11f,
    5.12229709037114e-08f,  1.48572235717979e-05f, 6.37261928875436e-04f,
    4.89352455891786e-03f};
static constexpr float kBelow[] = {1.19825839466702e-06f, 1.18534705686654e-04f,
                                   2.26843463243900e-03f,
                                   4.89352518554385e-03f};

Value moa::tanhOf(ImplicitLocOpBuilder &b, Value x) {
  auto type = cast<VectorType>(x.getType());
  auto constant = [&](float value) -> Value {
    return arith::ConstantOp::create(b, DenseElementsAttr::get(type, value));
  };
  auto bounded = [&](arith::CmpFPredicate predicate, float bound) {
    Value beyond = arith::CmpFOp::create(b, predicate, x, constant(bound));
    x = arith::SelectOp::create(b, beyond, constant(bound), x);
  };
  bounded(arith::CmpFPredicate::OGT, kEnd);
  bounded(arith::CmpFPredicate::OLT, -kEnd);
  Value square = arith::MulFOp::create(b, x, x);
  auto polynomial = [&](ArrayRef<float> terms) {
    Value sum = constant(terms.front());
    for (float term : terms.drop_front())
      sum = vector::FMAOp::create(b, sum, square, constant(term));
    return sum;
  };
  Value above = arith::MulFOp::create(b, x, polynomial(kAbove));
  return arith::DivFOp::create(b, above, polynomial(kBelow),
                               arith::FastMathFlags::afn);
}
