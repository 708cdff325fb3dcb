//===- Append.cpp - Lowering of the append kernel -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Copies key and value rows into a page, row by row along vector lanes, and
// zeroes the rows behind them.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "moa/abi/kernel_args.h"

using namespace mlir;
using namespace moa::cpu;

/// Copies `rows` rows and zeroes `zero` rows behind them. Bits move unchanged.
static void copyRows(Emitter &e, Value source, Value stride, Value target,
                     Value rows, Value zero, int64_t dims, Type type) {
  int64_t bytes = type.getIntOrFloatBitWidth() / 8;
  // Rows are moved as i32 words, in the widest vectors that divide a row.
  int64_t words = dims * bytes / 4;
  int64_t width = e.lanes;
  while (words % width)
    width /= 2;
  Type word = e.b.getI32Type();
  auto vector = VectorType::get({width}, word);
  e.loop(e.i64(0), rows, 1, [&](Value row) {
    Value from = e.offset(source, e.mul(row, stride), type);
    Value to = e.offset(target, e.mul(row, dims), type);
    for (int64_t w = 0; w < words; w += width) {
      Value value = LLVM::LoadOp::create(e.b, e.loc, vector,
                                         e.offset(from, w, word), bytes);
      LLVM::StoreOp::create(e.b, e.loc, value, e.offset(to, w, word), bytes);
    }
  });
  Value zeros = arith::ConstantOp::create(e.b, e.loc, e.b.getZeroAttr(vector));
  e.loop(rows, e.add(rows, zero), 1, [&](Value row) {
    Value to = e.offset(target, e.mul(row, dims), type);
    for (int64_t w = 0; w < words; w += width)
      LLVM::StoreOp::create(e.b, e.loc, zeros, e.offset(to, w, word), bytes);
  });
}

void moa::cpu::lowerCopyRows(Emitter &e, Value itemPointer, int64_t dims,
                             Type type) {
  Item item(e, itemPointer);
  Type i64 = e.b.getI64Type();
  Value rows = item.intField(offsetof(moa_append_item, rows));
  Value zero = item.intField(offsetof(moa_append_item, zero));
  copyRows(e, item.pointerField(offsetof(moa_append_item, k)),
           item.field(offsetof(moa_append_item, k_stride), i64),
           item.pointerField(offsetof(moa_append_item, page_k)), rows, zero,
           dims, type);
  copyRows(e, item.pointerField(offsetof(moa_append_item, v)),
           item.field(offsetof(moa_append_item, v_stride), i64),
           item.pointerField(offsetof(moa_append_item, page_v)), rows, zero,
           dims, type);
}
