//===- Builder.cpp - Arithmetic of kernels being arranged -----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Builder.h.
//
//===----------------------------------------------------------------------===//

#include "Builder.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace moa::gpu;

Value KernelBuilder::i32(int64_t value) {
  return arith::ConstantOp::create(*this, getI32IntegerAttr(value));
}
Value KernelBuilder::f32(float value) {
  return arith::ConstantOp::create(*this, getF32FloatAttr(value));
}
Value KernelBuilder::add(Value x, Value y) {
  return createOrFold<arith::AddIOp>(x, y);
}
Value KernelBuilder::sub(Value x, Value y) {
  return createOrFold<arith::SubIOp>(x, y);
}
Value KernelBuilder::mul(Value x, int64_t y) {
  return createOrFold<arith::MulIOp>(x, i32(y));
}
Value KernelBuilder::wide(Value x) {
  return arith::ExtUIOp::create(*this, getI64Type(), x);
}
Value KernelBuilder::max(Value x, Value y) {
  return arith::MaxSIOp::create(*this, x, y);
}
Value KernelBuilder::min(Value x, Value y) {
  return arith::MinSIOp::create(*this, x, y);
}
Value KernelBuilder::equal(Value x, int64_t y) {
  return arith::CmpIOp::create(*this, arith::CmpIPredicate::eq, x, i32(y));
}
Value KernelBuilder::bitAnd(Value x, int64_t y) {
  return createOrFold<arith::AndIOp>(x, i32(y));
}
Value KernelBuilder::shift(Value x, int64_t y) {
  return createOrFold<arith::ShRUIOp>(x, i32(y));
}
Value KernelBuilder::divide(Value x, int64_t y) {
  return createOrFold<arith::DivUIOp>(x, i32(y));
}
Value KernelBuilder::remainder(Value x, int64_t y) {
  return createOrFold<arith::RemUIOp>(x, i32(y));
}
Value KernelBuilder::less(Value x, Value y) {
  return arith::CmpIOp::create(*this, arith::CmpIPredicate::slt, x, y);
}
Value KernelBuilder::lessEqual(Value x, Value y) {
  return arith::CmpIOp::create(*this, arith::CmpIPredicate::sle, x, y);
}
Value KernelBuilder::both(Value x, Value y) {
  return arith::AndIOp::create(*this, x, y);
}
Value KernelBuilder::either(Value x, Value y) {
  return arith::OrIOp::create(*this, x, y);
}
Value KernelBuilder::select(Value c, Value x, Value y) {
  return arith::SelectOp::create(*this, c, x, y);
}

VectorType KernelBuilder::f32s(int64_t size) {
  return VectorType::get({size}, getF32Type());
}
VectorType KernelBuilder::i32s(int64_t size) {
  return VectorType::get({size}, getI32Type());
}
Value KernelBuilder::splat(int64_t size, float value) {
  return arith::ConstantOp::create(*this,
                                   DenseElementsAttr::get(f32s(size), value));
}
SmallVector<Value> KernelBuilder::split(Value vector) {
  return llvm::to_vector_of<Value>(
      vector::ToElementsOp::create(*this, vector).getResults());
}
Value KernelBuilder::join(ValueRange elements) {
  auto type =
      VectorType::get({int64_t(elements.size())}, elements.front().getType());
  return vector::FromElementsOp::create(*this, type, elements);
}

Value KernelBuilder::offset(Value base, Value bytes) {
  return LLVM::GEPOp::create(*this, base.getType(), getI8Type(), base,
                             ArrayRef<LLVM::GEPArg>{bytes});
}
Value KernelBuilder::offset(Value base, int64_t bytes) {
  return LLVM::GEPOp::create(
      *this, base.getType(), getI8Type(), base,
      ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(bytes)});
}

Value KernelBuilder::element(Value base, Value index, int64_t bytes) {
  return LLVM::GEPOp::create(*this, base.getType(),
                             LLVM::LLVMArrayType::get(getI8Type(), bytes), base,
                             ArrayRef<LLVM::GEPArg>{index});
}

Value KernelBuilder::loadField(Value base, int64_t bytes, Type type) {
  unsigned size =
      isa<LLVM::LLVMPointerType>(type) ? 8 : type.getIntOrFloatBitWidth() / 8;
  auto load = LLVM::LoadOp::create(*this, type, offset(base, bytes), size);
  load.setInvariant(true);
  return load;
}

Value KernelBuilder::loadI32(Value base, Value index) {
  Value place = LLVM::GEPOp::create(*this, base.getType(), getI32Type(), base,
                                    ArrayRef<LLVM::GEPArg>{index});
  auto load = LLVM::LoadOp::create(*this, getI32Type(), place, 4);
  load.setInvariant(true);
  return load;
}

SmallVector<Value> KernelBuilder::loadStruct(Value base, Value index,
                                             int64_t bytes, int64_t front) {
  auto quad = VectorType::get({4}, getI32Type());
  Value place = element(base, index, bytes);
  SmallVector<Value> fields;
  for (int64_t i = 0; i < front / 16; ++i) {
    auto load = LLVM::LoadOp::create(*this, quad, offset(place, 16 * i), 16);
    load.setInvariant(true);
    for (int64_t j = 0; j < 4; ++j)
      fields.push_back(LLVM::ExtractElementOp::create(*this, load, i32(j)));
  }
  return fields;
}

void KernelBuilder::prefetchStruct(Value base, Value index, int64_t bytes) {
  auto whole = LLVM::LLVMArrayType::get(getI8Type(), bytes);
  Value place = LLVM::GEPOp::create(*this, base.getType(), whole, base,
                                    ArrayRef<LLVM::GEPArg>{index});
  NVVM::PrefetchOp::create(*this,
                           NVVM::PrefetchCacheLevelAttr::get(
                               getContext(), NVVM::PrefetchCacheLevel::L2),
                           NVVM::CacheEvictionPriorityAttr(), place, Value(),
                           UnitAttr(), UnitAttr(), UnitAttr());
}

Value KernelBuilder::blockId() {
  return NVVM::BlockIdXOp::create(*this, getI32Type());
}
Value KernelBuilder::gridSize() {
  return NVVM::GridDimXOp::create(*this, getI32Type());
}
Value KernelBuilder::threadId() {
  return NVVM::ThreadIdXOp::create(*this, getI32Type());
}
Type KernelBuilder::globalPointer() {
  return LLVM::LLVMPointerType::get(getContext(), 1);
}

/// An empty kernel with these parameters.
static LLVM::LLVMFuncOp emptyKernel(OpBuilder &b, Location loc, StringRef name,
                                    ArrayRef<Type> types, LaunchAttr launch) {
  auto function = LLVM::LLVMFuncOp::create(
      b, loc, name,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(b.getContext()),
                                  types));
  function->setAttr("nvvm.kernel", b.getUnitAttr());
  function->setAttr(kLaunchAttrName, launch);
  return function;
}

LLVM::LLVMFuncOp KernelBuilder::itemKernel(StringRef name, LaunchAttr launch) {
  LLVM::LLVMFuncOp function = emptyKernel(
      *this, getLoc(), name, {globalPointer(), getI32Type()}, launch);
  markReadOnly(function, 0);
  return function;
}

LLVM::LLVMFuncOp KernelBuilder::kernel(StringRef name, int64_t bytes,
                                       int64_t align, ArrayRef<Type> rest,
                                       LaunchAttr launch) {
  SmallVector<Type> types{LLVM::LLVMPointerType::get(getContext())};
  llvm::append_range(types, rest);
  LLVM::LLVMFuncOp function = emptyKernel(*this, getLoc(), name, types, launch);
  function.setArgAttr(
      0, "llvm.byval",
      TypeAttr::get(LLVM::LLVMArrayType::get(getI8Type(), bytes)));
  function.setArgAttr(0, "llvm.align", getI64IntegerAttr(align));
  function.setArgAttr(0, "nvvm.grid_constant", getUnitAttr());
  return function;
}

void KernelBuilder::markReadOnly(LLVM::LLVMFuncOp function, unsigned number) {
  function.setArgAttr(number, "llvm.noalias", getUnitAttr());
  function.setArgAttr(number, "llvm.readonly", getUnitAttr());
}

LLVM::LLVMFuncOp
KernelBuilder::attentionKernel(StringRef name, int64_t bytes, int64_t align,
                               unsigned pointers, unsigned readOnly,
                               unsigned integers, LaunchAttr launch) {
  SmallVector<Type> types(pointers, globalPointer());
  types.append(integers, getI32Type());
  types.push_back(getF32Type());
  LLVM::LLVMFuncOp function = kernel(name, bytes, align, types, launch);
  for (unsigned i = 1; i <= readOnly; ++i)
    markReadOnly(function, i);
  return function;
}

SmallVector<Value> KernelBuilder::loop(Value from, Value to, Value step,
                                       ValueRange init, LoopBody body) {
  auto loop = scf::ForOp::create(*this, from, to, step, init);
  OpBuilder::InsertionGuard guard(*this);
  Block *block = loop.getBody();
  // Without values to carry a terminator is there already.
  if (!block->empty())
    setInsertionPoint(block->getTerminator());
  else
    setInsertionPointToEnd(block);
  SmallVector<Value> next =
      body(loop.getInductionVar(), loop.getRegionIterArgs());
  if (!init.empty())
    scf::YieldOp::create(*this, next);
  return SmallVector<Value>(loop.getResults());
}

SmallVector<Value> KernelBuilder::whileLoop(ValueRange init, GoOn go,
                                            Next next) {
  auto loop = scf::WhileOp::create(
      *this, init.getTypes(), init,
      [&](OpBuilder &, Location, ValueRange values) {
        scf::ConditionOp::create(*this, go(values), values);
      },
      [&](OpBuilder &, Location, ValueRange values) {
        scf::YieldOp::create(*this, next(values));
      });
  return SmallVector<Value>(loop.getResults());
}

void KernelBuilder::ifThen(Value condition, llvm::function_ref<void()> body) {
  auto branch = scf::IfOp::create(*this, TypeRange{}, condition, false);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(branch.thenBlock());
  body();
}

SmallVector<Value> KernelBuilder::branch(Value condition, TypeRange types,
                                         BranchBody yes, BranchBody no) {
  auto branch = scf::IfOp::create(*this, types, condition, true);
  OpBuilder::InsertionGuard guard(*this);
  setInsertionPointToStart(branch.thenBlock());
  SmallVector<Value> first = yes();
  if (!types.empty())
    scf::YieldOp::create(*this, first);
  setInsertionPointToStart(branch.elseBlock());
  SmallVector<Value> second = no();
  if (!types.empty())
    scf::YieldOp::create(*this, second);
  return SmallVector<Value>(branch.getResults());
}
