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

#include "Append.h"
#include "Kernels.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "moa/abi/gpu_args.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

namespace {

constexpr int64_t kRegisters = 64, kPiece = 16;

/// Keys or values of an item.
struct Copy {
  Value source, target;
  Value rowBytes; ///< Between source rows, i64.
};

} // namespace

void moa::gpu::copyRows(KernelBuilder &b, const KernelForm &form, Value item) {
  const int64_t elementBytes = form.element.getIntOrFloatBitWidth() / 8;
  const int64_t pieces = form.headDim * elementBytes / kPiece; // Of a row.
  const VectorType piece = b.i32s(kPiece / 4);
  auto load = [&](size_t source, size_t target, size_t stride) -> Copy {
    Value elements = b.loadField(item, stride, b.getI64Type());
    Value bytes =
        arith::ConstantOp::create(b, b.getI64IntegerAttr(elementBytes));
    return {b.loadField(item, source, b.globalPointer()),
            b.loadField(item, target, b.globalPointer()),
            arith::MulIOp::create(b, elements, bytes)};
  };
  const Copy copies[] = {
      load(offsetof(moa_append_item, k), offsetof(moa_append_item, page_k),
           offsetof(moa_append_item, k_stride)),
      load(offsetof(moa_append_item, v), offsetof(moa_append_item, page_v),
           offsetof(moa_append_item, v_stride))};
  Value rows =
      b.loadField(item, offsetof(moa_append_item, rows), b.getI32Type());
  Value zero =
      b.loadField(item, offsetof(moa_append_item, zero), b.getI32Type());
  Value end = b.mul(rows, pieces), step = b.i32(kAppendThreads);
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
}

LLVM::LLVMFuncOp moa::gpu::buildAppend(OpBuilder &builder, Location loc,
                                       StringRef name, const KernelForm &form) {
  KernelBuilder b(loc, builder);
  LLVM::LLVMFuncOp function = b.itemKernel(
      name, LaunchAttr::get(b.getContext(), kAppendThreads, kRegisters, 0, 0));
  OpBuilder::InsertionGuard guard(b);
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToStart(entry);
  copyRows(
      b, form,
      b.element(entry->getArgument(0), b.blockId(), sizeof(moa_append_item)));
  LLVM::ReturnOp::create(b, ValueRange{});
  return function;
}
