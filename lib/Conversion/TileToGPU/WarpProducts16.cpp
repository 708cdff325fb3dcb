//===- WarpProducts16.cpp - Products of 16-bit elements -------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Probabilities stay in registers: packed sums of a product are the left
// operand of the next. Sums of small head sizes leave room for the queries
// beside them.
//
//===----------------------------------------------------------------------===//

#include "WarpProducts.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

using namespace mlir;
using namespace moa::gpu;

namespace {

/// Head sizes up to this one keep a warp's queries in registers.
constexpr int64_t kQueriesInRegisters = 128;

class Products16 : public WarpProducts {
public:
  Products16(KernelBuilder &b, const KernelForm &form) : b(b), form(form) {}

  void setQueries(Value tile, Value row) override;
  Value scores(Value keys, int64_t count) override;
  Values leftOf(Value exponents) override;
  Values noOutputs() override {
    return Values(form.headDim / 8, b.splat(4, 0));
  }
  void rescale(Value factor, MutableArrayRef<Value> outputs) override {
    for (Value &output : outputs)
      output = RowScaleOp::create(b, output.getType(), output, factor);
  }
  void addValues(Value values, ValueRange left,
                 MutableArrayRef<Value> outputs) override;
  SmallVector<Values> rounded(ValueRange outputs) override;
  void storeRow(ArrayRef<Values> rounded, int64_t half, Value row) override;

private:
  Value query(int64_t k);
  /// Two right operands.
  Value load(Value tile, int64_t row, int64_t column, bool transposed) {
    return LoadMatrixOp::create(b, b.i32s(4), tile, b.i32(row), column,
                                transposed, /*right=*/true);
  }
  Value pack(Value fragment) {
    int64_t size = cast<VectorType>(fragment.getType()).getNumElements();
    return PackOp::create(b, b.i32s(size / 2), fragment,
                          TypeAttr::get(form.element));
  }
  void multiply(Value left, Value block, MutableArrayRef<Value> sums);

  KernelBuilder &b;
  const KernelForm &form;
  Value queries, queryRow;
  Values held; ///< Queries in registers, 16 columns each.
};

} // namespace

/// Adds the products with two right operands.
void Products16::multiply(Value left, Value block,
                          MutableArrayRef<Value> sums) {
  Values registers = b.split(block);
  for (int64_t half : {0, 1})
    sums[half] = MultiplyOp::create(
        b, b.f32s(4), left,
        b.join({registers[2 * half], registers[2 * half + 1]}), sums[half],
        TypeAttr::get(form.element));
}

void Products16::setQueries(Value tile, Value row) {
  queries = tile;
  queryRow = row;
  held.clear();
  if (form.headDim <= kQueriesInRegisters)
    for (int64_t k = 0; k < form.headDim / 16; ++k)
      held.push_back(query(k));
}

/// The warp's rows of columns 16 k and on, a left operand.
Value Products16::query(int64_t k) {
  if (k < int64_t(held.size()))
    return held[k];
  return LoadMatrixOp::create(b, b.i32s(4), queries, queryRow, 16 * k,
                              /*transposed=*/false, /*right=*/false);
}

Value Products16::scores(Value keys, int64_t count) {
  Values sums(count / 8, b.splat(4, 0));
  for (int64_t k = 0; k < form.headDim / 16; ++k) {
    Value left = query(k);
    for (int64_t key = 0; key < count; key += 16)
      multiply(left, load(keys, key, 16 * k, false),
               MutableArrayRef<Value>(sums).slice(key / 8, 2));
  }
  Values elements;
  for (Value block : sums)
    elements.append(b.split(block));
  return b.join(elements);
}

WarpProducts::Values Products16::leftOf(Value exponents) {
  Values pairs = b.split(pack(exponents)), left;
  for (size_t i = 0; i < pairs.size(); i += 4)
    left.push_back(b.join(ValueRange(pairs).slice(i, 4)));
  return left;
}

void Products16::addValues(Value values, ValueRange left,
                           MutableArrayRef<Value> outputs) {
  for (auto [i, block] : llvm::enumerate(left))
    for (int64_t d = 0; d < form.headDim; d += 16)
      multiply(block, load(values, 16 * int64_t(i), d, true),
               outputs.slice(d / 8, 2));
}

/// The pair of each of two rows, of every 8 columns.
SmallVector<WarpProducts::Values> Products16::rounded(ValueRange outputs) {
  SmallVector<Values> blocks;
  for (Value output : outputs)
    blocks.push_back(b.split(pack(output)));
  return blocks;
}

void Products16::storeRow(ArrayRef<Values> rounded, int64_t half, Value row) {
  Value place = b.offset(row, b.mul(b.bitAnd(b.threadId(), 3), 4));
  for (auto [i, block] : llvm::enumerate(rounded))
    LLVM::StoreOp::create(b, block[half], b.offset(place, int64_t(i) * 16), 4);
}

std::unique_ptr<WarpProducts> moa::gpu::makeProducts16(KernelBuilder &b,
                                                       const KernelForm &form) {
  return std::make_unique<Products16>(b, form);
}
