//===- DecodeColumns.cpp - Decode: tokens and heads as columns ------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Column token * group + head of an item is a query row of a head of the group:
// where it lies in the call's tensors and which keys it sees. A kernel may have
// more columns than an item; those behind the item's last compute what that one
// does, and nothing of them is written.
//
//===----------------------------------------------------------------------===//

#include "Decode.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

/// Keys before `firstEnd` are seen by all tokens, as far as windows go. What
/// else columns ask for is found anew where it is needed, which is rarely:
/// registers are few.
void Decode::findColumns(const Share &share) {
  firstEnd = b.add(b.sub(length, share.facts.tokens), 1);
}

Decode::Value Decode::columnCount() {
  Value tokens = b.add(b.sub(length, opaque(firstEnd)), 1);
  return b.mul(tokens, group());
}

Decode::Column Decode::columnOf(Value number) {
  Value own = b.min(number, b.add(columnCount(), -1));
  return {b.divide(own, group()), b.remainder(own, group())};
}

/// Where a column's window starts: the item has that for every column that a
/// kernel can have.
Value Decode::startOf(const Share &share, Value number) {
  Value starts =
      b.offset(share.place, int64_t(offsetof(moa_gpu_decode_item, starts)));
  return b.loadI32(starts, number);
}

/// Position behind the last key that a column sees: its token's own.
Value Decode::endOf(Value number) {
  return b.add(firstEnd, columnOf(number).token);
}

/// Row of a column in a tensor of queries or outputs, at the item's place
/// there.
Value Decode::queryRow(const Share &share, size_t tensor, Value place,
                       Value number) {
  const Facts &facts = share.facts;
  Column column = columnOf(number);
  return rowOf(tensor, place, b.add(b.mul(facts.kvHead, group()), column.head),
               b.add(facts.token, column.token));
}

/// Threads take a column and four dimensions each, for the first `count`
/// columns; `most` is the largest that `count` can be. Each of `slices` equal
/// sets of threads does so.
void Decode::forColumns(Value count, int64_t most, int64_t slices,
                        llvm::function_ref<void(Value, Value)> body) {
  int64_t own = threads() / slices;
  int64_t quads = headDim() / 4, atOnce = own / quads;
  Value thread = opaque(b.threadId());
  if (slices > 1)
    thread = b.remainder(thread, own);
  Value quad = b.remainder(thread, quads), first = b.divide(thread, quads);
  if (most <= atOnce) {
    b.ifThen(b.less(first, b.min(count, b.i32(most))),
             [&] { body(first, quad); });
    return;
  }
  // Threads that are left over take none.
  count = b.min(count, b.i32(most));
  first = b.select(b.less(first, b.i32(atOnce)), first, count);
  b.loop(first, count, b.i32(atOnce), {},
         [&](Value column, ValueRange) -> SmallVector<Value> {
           body(column, quad);
           return {};
         });
}
