//===- Append.cpp - Rows of keys and values into pages --------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One block an item. Its threads move the rows in pieces of 16 bytes, which lie
// dense in the page and by rows in the source, then zero the rows behind them.
//
//===----------------------------------------------------------------------===//

#include "Builder.h"
#include "Kernels.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "moa/abi/gpu_args.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

namespace {

constexpr int64_t kThreads = 256, kRegisters = 64, kPiece = 16;

/// Keys or values of an item.
struct Copy {
  Value source, target;
  Value rowBytes; ///< Between source rows, i64.
};

class Append {
public:
  Append(OpBuilder &builder, Location loc, const KernelForm &form)
      : b(loc, builder), elementBytes(form.element.getIntOrFloatBitWidth() / 8),
        pieces(form.headDim * elementBytes / kPiece),
        piece(VectorType::get({kPiece / 4}, b.getI32Type())) {}

  LLVM::LLVMFuncOp build(StringRef name);

private:
  LLVM::LLVMFuncOp makeFunction(StringRef name);
  Copy loadCopy(Value item, size_t source, size_t target, size_t stride);

  KernelBuilder b;
  const int64_t elementBytes;
  const int64_t pieces; ///< Of a row.
  const VectorType piece;
};

} // namespace

LLVM::LLVMFuncOp Append::makeFunction(StringRef name) {
  MLIRContext *ctx = b.getContext();
  auto function = LLVM::LLVMFuncOp::create(
      b, name,
      LLVM::LLVMFunctionType::get(LLVM::LLVMVoidType::get(ctx),
                                  {b.globalPointer(), b.getI32Type()}));
  function->setAttr("nvvm.kernel", b.getUnitAttr());
  function.setArgAttr(0, "llvm.noalias", b.getUnitAttr());
  function.setArgAttr(0, "llvm.readonly", b.getUnitAttr());
  function->setAttr(kLaunchAttrName,
                    LaunchAttr::get(ctx, kThreads, kRegisters, 0, 0));
  return function;
}

Copy Append::loadCopy(Value item, size_t source, size_t target, size_t stride) {
  Value elements = b.loadField(item, stride, b.getI64Type());
  Value bytes = arith::ConstantOp::create(b, b.getI64IntegerAttr(elementBytes));
  return {b.loadField(item, source, b.globalPointer()),
          b.loadField(item, target, b.globalPointer()),
          arith::MulIOp::create(b, elements, bytes)};
}

LLVM::LLVMFuncOp Append::build(StringRef name) {
  LLVM::LLVMFuncOp function = makeFunction(name);
  OpBuilder::InsertionGuard guard(b);
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToStart(entry);
  Value item =
      b.element(entry->getArgument(0), b.blockId(), sizeof(moa_append_item));
  const Copy copies[] = {loadCopy(item, offsetof(moa_append_item, k),
                                  offsetof(moa_append_item, page_k),
                                  offsetof(moa_append_item, k_stride)),
                         loadCopy(item, offsetof(moa_append_item, v),
                                  offsetof(moa_append_item, page_v),
                                  offsetof(moa_append_item, v_stride))};
  Value rows =
      b.loadField(item, offsetof(moa_append_item, rows), b.getI32Type());
  Value zero =
      b.loadField(item, offsetof(moa_append_item, zero), b.getI32Type());
  Value end = b.mul(rows, pieces), step = b.i32(kThreads);
  Value first = b.threadId();
  b.loop(
      first, end, step, {},
      [&](Value number, ValueRange) -> SmallVector<Value> {
        Value count = b.i32(pieces);
        Value row = arith::DivUIOp::create(b, number, count);
        Value column = arith::RemUIOp::create(b, number, count);
        SmallVector<Value> loaded;
        for (const Copy &copy : copies) {
          Value from = b.offset(
              copy.source,
              arith::MulIOp::create(b, b.wide(row), copy.rowBytes).getResult());
          loaded.push_back(LLVM::LoadOp::create(
              b, piece, b.offset(from, b.mul(column, kPiece)), kPiece));
        }
        for (auto [copy, value] : llvm::zip_equal(copies, loaded))
          LLVM::StoreOp::create(
              b, value, b.offset(copy.target, b.mul(number, kPiece)), kPiece);
        return {};
      });
  Value zeros = arith::ConstantOp::create(b, b.getZeroAttr(piece));
  b.loop(b.add(end, first), b.mul(b.add(rows, zero), pieces), step, {},
         [&](Value number, ValueRange) -> SmallVector<Value> {
           for (const Copy &copy : copies)
             LLVM::StoreOp::create(b, zeros,
                                   b.offset(copy.target, b.mul(number, kPiece)),
                                   kPiece);
           return {};
         });
  LLVM::ReturnOp::create(b, ValueRange{});
  return function;
}

LLVM::LLVMFuncOp moa::gpu::buildAppend(OpBuilder &builder, Location loc,
                                       StringRef name, const KernelForm &form) {
  return Append(builder, loc, form).build(name);
}
