//===- WarpProductsF32.cpp - Products of f32, each three of tf32 ----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// An element is the sum of a big and a small tf32. Tensor cores cut off what
// does not fit instead of rounding, so no sum in them is long: the products
// with a small factor have sums of their own in scores, and those of one step's
// values are added to the outputs by ordinary, rounding arithmetic.
//
// Sums of a product have columns 2 l and 2 l + 1 of thread l where a left
// operand wants l and l + 4: keys are dealt out anew in between, the same for
// probabilities and for values (moa_gpu.load_right).
//
//===----------------------------------------------------------------------===//

#include "WarpProducts.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

using namespace mlir;
using namespace moa::gpu;

namespace {

/// Registers of an operand.
struct Split {
  WarpProducts::Values big, small;
};

class ProductsF32 : public WarpProducts {
public:
  ProductsF32(KernelBuilder &b, const KernelForm &form) : b(b), form(form) {}

  void setQueries(Value tile, Value row) override {
    queries = tile;
    queryRow = row;
  }
  Value scores(Value keys, int64_t count) override;
  Values leftOf(Value exponents) override;
  Values noOutputs() override { return Values(form.headDim / 8, zero()); }
  void rescale(Value factor, MutableArrayRef<Value>) override {
    Values rows = b.split(factor);
    scales = b.join({rows[0], rows[0], rows[1], rows[1]});
  }
  void addValues(Value values, ValueRange left,
                 MutableArrayRef<Value> outputs) override;
  SmallVector<Values> rounded(ValueRange outputs) override;
  void storeRow(ArrayRef<Values> rounded, int64_t half, Value row) override;

private:
  Split split(Value value);
  Split load(Value tile, Value row, int64_t column, bool right);
  Value zero() { return b.splat(4, 0); }
  void multiply(Value leftBig, Value leftSmall, const Split &right,
                MutableArrayRef<Value> sums, MutableArrayRef<Value> smallSums);

  KernelBuilder &b;
  const KernelForm &form;
  Value queries, queryRow;
  Value scales; ///< What outputs are multiplied with when values are added.
};

} // namespace

Split ProductsF32::split(Value value) {
  int64_t size = cast<VectorType>(value.getType()).getNumElements();
  auto op = SplitOp::create(b, b.i32s(size), b.i32s(size), value);
  return {b.split(op.getBig()), b.split(op.getSmall())};
}

/// 16 rows of 8 columns: a left operand, or two right ones.
Split ProductsF32::load(Value tile, Value row, int64_t column, bool right) {
  Value bits = LoadMatrixOp::create(b, b.i32s(4), tile, row, column,
                                    /*transposed=*/false, right);
  return split(arith::BitcastOp::create(b, b.f32s(4), bits));
}

/// Adds the products with two right operands, those with a small factor to
/// `smallSums`.
void ProductsF32::multiply(Value leftBig, Value leftSmall, const Split &right,
                           MutableArrayRef<Value> sums,
                           MutableArrayRef<Value> smallSums) {
  auto tf32 = TypeAttr::get(b.getTF32Type());
  for (int64_t i : {0, 1}) {
    auto product = [&](Value left, const Values &registers, Value &sum) {
      Value pair = b.join({registers[2 * i], registers[2 * i + 1]});
      sum = MultiplyOp::create(b, b.f32s(4), left, pair, sum, tf32);
    };
    product(leftSmall, right.big, smallSums[i]);
    product(leftBig, right.small, smallSums[i]);
    product(leftBig, right.big, sums[i]);
  }
}

Value ProductsF32::scores(Value keys, int64_t count) {
  Values sums(count / 8, zero()), smallSums = sums;
  for (int64_t column = 0; column < form.headDim; column += 8) {
    Split query = load(queries, queryRow, column, /*right=*/false);
    Value big = b.join(query.big), small = b.join(query.small);
    for (int64_t key = 0; key < count; key += 16)
      multiply(big, small, load(keys, b.i32(key), column, /*right=*/true),
               MutableArrayRef<Value>(sums).slice(key / 8, 2),
               MutableArrayRef<Value>(smallSums).slice(key / 8, 2));
  }
  Values elements;
  for (auto [sum, smallSum] : llvm::zip_equal(sums, smallSums))
    elements.append(b.split(arith::AddFOp::create(b, sum, smallSum)));
  return b.join(elements);
}

/// Big and small by turns, of 8 keys each. Columns l and l + 4 of the operand
/// are columns 2 l and 2 l + 1 of the sums.
WarpProducts::Values ProductsF32::leftOf(Value exponents) {
  Split all = split(exponents);
  Values left;
  for (size_t i = 0; i < all.big.size(); i += 4)
    for (const Values *part : {&all.big, &all.small})
      left.push_back(
          b.join({(*part)[i], (*part)[i + 2], (*part)[i + 1], (*part)[i + 3]}));
  return left;
}

void ProductsF32::addValues(Value values, ValueRange left,
                            MutableArrayRef<Value> outputs) {
  for (int64_t column = 0; column < form.headDim; column += 16) {
    Values sums(2, zero());
    for (size_t i = 0; i < left.size(); i += 2)
      multiply(left[i], left[i + 1],
               split(LoadRightOp::create(b, b.f32s(4), values,
                                         b.i32(4 * int64_t(i)), column)),
               sums, sums);
    for (int64_t j : {0, 1}) {
      Value &output = outputs[column / 8 + j];
      output = LLVM::FMAOp::create(b, output, scales, sums[j]);
    }
  }
}

/// The elements of every 8 columns.
SmallVector<WarpProducts::Values> ProductsF32::rounded(ValueRange outputs) {
  SmallVector<Values> blocks;
  for (Value output : outputs)
    blocks.push_back(b.split(output));
  return blocks;
}

void ProductsF32::storeRow(ArrayRef<Values> rounded, int64_t half, Value row) {
  Value place = b.offset(row, b.mul(b.bitAnd(b.threadId(), 3), 8));
  for (auto [i, block] : llvm::enumerate(rounded))
    LLVM::StoreOp::create(b, b.join({block[2 * half], block[2 * half + 1]}),
                          b.offset(place, int64_t(i) * 32), 8);
}

std::unique_ptr<WarpProducts>
moa::gpu::makeProductsF32(KernelBuilder &b, const KernelForm &form) {
  return std::make_unique<ProductsF32>(b, form);
}
