//===- Emitter.cpp - Arithmetic that lowerings share ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Small builders over arith, vector, llvm and nvvm operations.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace moa::gpu;

Value KernelLowering::i32(int64_t value) {
  return arith::ConstantOp::create(b, b.getI32IntegerAttr(value));
}
Value KernelLowering::f32(float value) {
  return arith::ConstantOp::create(b, b.getF32FloatAttr(value));
}
Value KernelLowering::add(Value x, Value y) {
  return b.createOrFold<arith::AddIOp>(x, y);
}
Value KernelLowering::sub(Value x, Value y) {
  return b.createOrFold<arith::SubIOp>(x, y);
}
Value KernelLowering::mul(Value x, int64_t y) {
  if (llvm::isPowerOf2_64(y))
    return b.createOrFold<arith::ShLIOp>(x, i32(llvm::Log2_64(y)));
  return b.createOrFold<arith::MulIOp>(x, i32(y));
}
Value KernelLowering::bitAnd(Value x, int64_t y) {
  return b.createOrFold<arith::AndIOp>(x, i32(y));
}
Value KernelLowering::shift(Value x, int64_t y) {
  return b.createOrFold<arith::ShRUIOp>(x, i32(y));
}
Value KernelLowering::less(Value x, Value y) {
  return arith::CmpIOp::create(b, arith::CmpIPredicate::slt, x, y);
}
Value KernelLowering::equal(Value x, int64_t y) {
  return arith::CmpIOp::create(b, arith::CmpIPredicate::eq, x, i32(y));
}
Value KernelLowering::select(Value c, Value x, Value y) {
  return arith::SelectOp::create(b, c, x, y);
}
Value KernelLowering::exp2(Value x) {
  return LLVM::CallIntrinsicOp::create(
             b, b.getF32Type(), b.getStringAttr("llvm.nvvm.ex2.approx.ftz.f"),
             ValueRange{x})
      .getResult(0);
}
Value KernelLowering::fma(Value x, Value y, Value z) {
  return LLVM::FMAOp::create(b, x, y, z);
}
Value KernelLowering::reduce(Reduction kind, Value x, Value y) {
  if (kind == Reduction::Max)
    return arith::MaxNumFOp::create(b, x, y);
  return arith::AddFOp::create(b, x, y);
}
Value KernelLowering::shuffle(Value x, int64_t mask) {
  return NVVM::ShflOp::create(b, x.getType(), i32(-1), x, i32(mask), i32(31),
                              NVVM::ShflKind::bfly, UnitAttr());
}
Value KernelLowering::threadId() {
  return NVVM::ThreadIdXOp::create(b, b.getI32Type());
}
Value KernelLowering::warpId() {
  return NVVM::ShflOp::create(b, b.getI32Type(), i32(-1), shift(threadId(), 5),
                              i32(0), i32(31), NVVM::ShflKind::idx, UnitAttr());
}

void KernelLowering::ifThen(Value condition, llvm::function_ref<void()> body) {
  auto branch = scf::IfOp::create(b, TypeRange{}, condition, false);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(branch.thenBlock());
  body();
}

SmallVector<Value> KernelLowering::split(Value vector) {
  auto elements = vector::ToElementsOp::create(b, vector);
  return SmallVector<Value>(elements.getResults());
}
Value KernelLowering::join(ValueRange elements, Type elementType) {
  auto type =
      VectorType::get({static_cast<int64_t>(elements.size())}, elementType);
  return vector::FromElementsOp::create(b, type, elements);
}

Value KernelLowering::offset(Value base, Value bytes) {
  return LLVM::GEPOp::create(b, base.getType(), b.getI8Type(), base,
                             ArrayRef<LLVM::GEPArg>{bytes});
}
Value KernelLowering::offset(Value base, int64_t bytes) {
  if (!bytes)
    return base;
  return LLVM::GEPOp::create(
      b, base.getType(), b.getI8Type(), base,
      ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(bytes)});
}
Value KernelLowering::address(Value pointer) {
  return LLVM::PtrToIntOp::create(b, b.getI32Type(), pointer);
}
Value KernelLowering::sharedBase() {
  return LLVM::AddressOfOp::create(
      b, LLVM::LLVMPointerType::get(b.getContext(), 3), "shared");
}
