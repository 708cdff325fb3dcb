//===- DecodeLine.cpp - Decode: the line of pages -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Which pages are a block's: a run of those of all items, laid end to end.
// Whoever loads and whoever computes walks the same shares of items, so both
// count pages alike.
//
//===----------------------------------------------------------------------===//

#include "Decode.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

LLVM::LLVMFuncOp Decode::build(StringRef name) {
  LLVM::LLVMFuncOp function = b.attentionKernel(
      name, sizeof(moa_gpu_decode_args), 64, 6, 4, 1,
      LaunchAttr::get(b.getContext(), threads() + 32 * loaders(), registers(),
                      form.columns, MOA_BLOCK_KEYS));
  OpBuilder::InsertionGuard guard(b);
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToStart(entry);
  Value *parameters[] = {&args, &items,    &line,     &tables,
                         &cuts, &partials, &counters, &sink};
  for (auto [i, parameter] : llvm::enumerate(parameters))
    *parameter = entry->getArgument(i);
  scale = ScoreScale(b, form, entry->getArguments().back());

  const int64_t sumBytes = warps() * kColumns * 8, ticketBytes = 16;
  placePages(outputBytes() + sumBytes + ticketBytes);
  auto scratch = [&](int64_t bytes) -> Value {
    return ScratchOp::create(b, LLVM::LLVMPointerType::get(b.getContext(), 3),
                             bytes);
  };
  outputs = scratch(outputBytes());
  sums = scratch(sumBytes);
  ticket = scratch(ticketBytes);

  takeCut();
  run();
  LLVM::ReturnOp::create(b, ValueRange{});
  return function;
}

//===----------------------------------------------------------------------===//
// The line
//===----------------------------------------------------------------------===//

/// All a block needs to find its first pages is one read.
void Decode::takeCut() {
  block = b.blockId();
  SmallVector<Value> words = b.loadStruct(cuts, block, sizeof(moa_gpu_cut),
                                          offsetof(moa_gpu_cut, ids));
  auto word = [&](size_t bytes) { return words[bytes / 4]; };
  auto idsOf = [&](size_t bytes, Value item) {
    auto field = [&](size_t offset) { return word(bytes + offset); };
    return Pages{item, field(offsetof(moa_gpu_page_ids, to)),
                 field(offsetof(moa_gpu_page_ids, sink_end)),
                 field(offsetof(moa_gpu_page_ids, sink_table)),
                 field(offsetof(moa_gpu_page_ids, window_table))};
  };
  begin = word(offsetof(moa_gpu_cut, begin));
  end = word(offsetof(moa_gpu_cut, end));
  count = word(offsetof(moa_gpu_cut, items));
  firstItem = word(offsetof(moa_gpu_cut, item));
  first = idsOf(offsetof(moa_gpu_cut, own), firstItem);
  second = idsOf(offsetof(moa_gpu_cut, next), itemBehind(firstItem));
  starts = b.offset(line, int64_t(offsetof(moa_gpu_line, first)));
  // A lane's id of the first ones. An ordinary load: those that nobody writes
  // to are moved behind the branch to where they are used, and then wait twice.
  Value lane = b.bitAnd(b.threadId(), MOA_GPU_CUT_IDS - 1);
  Value place = b.offset(b.element(cuts, block, sizeof(moa_gpu_cut)),
                         b.add(b.mul(lane, 4), offsetof(moa_gpu_cut, ids)));
  firstIds = LLVM::LoadOp::create(b, b.getI32Type(), place, 4);
}

/// The item behind one, or the last.
Value Decode::itemBehind(Value item) {
  return b.min(b.add(item, 1), b.add(count, -1));
}

/// By ordinary loads, which stay ahead of a wait that they stand before: those
/// of what nobody writes to are moved to where they are used.
Decode::Facts Decode::loadFacts(Value item) {
  Value place = b.element(items, item, sizeof(moa_gpu_decode_item));
  auto load = [&](Value base, int64_t bytes, Type type) -> Value {
    return LLVM::LoadOp::create(b, type, b.offset(base, bytes),
                                type.getIntOrFloatBitWidth() / 8);
  };
  auto word = [&](size_t offset) {
    return load(place, offset, b.getI32Type());
  };
  auto wide = [&](size_t offset) {
    return load(place, offset, b.getI64Type());
  };
  Value start = b.element(starts, item, sizeof(int32_t));
  Facts facts;
  facts.first = load(start, 0, b.getI32Type());
  facts.last = load(start, sizeof(int32_t), b.getI32Type());
  facts.sinkPages = word(offsetof(moa_gpu_decode_item, sink_pages));
  facts.windowBegin = word(offsetof(moa_gpu_decode_item, window_begin));
  facts.length = word(offsetof(moa_gpu_decode_item, length));
  facts.startMax = word(offsetof(moa_gpu_decode_item, start_max));
  facts.fresh = word(offsetof(moa_gpu_decode_item, fresh));
  facts.kvHead = word(offsetof(moa_gpu_decode_item, kv_head));
  facts.tokens = word(offsetof(moa_gpu_decode_item, tokens));
  facts.token = word(offsetof(moa_gpu_decode_item, token));
  facts.zero = word(offsetof(moa_gpu_decode_item, zero));
  facts.q = wide(offsetof(moa_gpu_decode_item, q));
  facts.out = wide(offsetof(moa_gpu_decode_item, out));
  facts.k = wide(offsetof(moa_gpu_decode_item, k));
  facts.v = wide(offsetof(moa_gpu_decode_item, v));
  return facts;
}

void Decode::forShares(const Facts &front, ValueRange init, ShareBody body) {
  SmallVector<Value> values{firstItem, begin};
  const SmallVector<Value> facts = front.values();
  values.append(facts);
  values.append(init.begin(), init.end());
  b.whileLoop(
      values, [&](ValueRange v) { return b.less(v[1], end); },
      [&](ValueRange v) -> SmallVector<Value> {
        Share share;
        share.item = v[0];
        share.place = b.element(items, share.item, sizeof(moa_gpu_decode_item));
        share.facts = Facts::from(v.slice(2, facts.size()));
        share.from = v[1];
        share.to = b.min(share.facts.last, end);
        SmallVector<Value> carried =
            body(share, v.drop_front(2 + facts.size()));
        Value behind = b.add(share.item, 1);
        SmallVector<Value> next{behind, share.to};
        next.append(b.branch(
            b.less(share.to, end), ValueRange(facts).getTypes(),
            [&] { return loadFacts(behind).values(); },
            [&] {
              SmallVector<Value> none;
              for (Value fact : facts)
                none.push_back(LLVM::PoisonOp::create(b, fact.getType()));
              return none;
            }));
        next.append(carried);
        return next;
      });
}

Decode::Pages Decode::loadPages(Value item) {
  Value place = b.element(items, item, sizeof(moa_gpu_decode_item));
  auto field = [&](size_t offset) {
    return b.loadField(place, offset, b.getI32Type());
  };
  Value first = b.loadI32(starts, item);
  Pages run;
  run.item = item;
  run.to = b.min(b.loadI32(starts, b.add(item, 1)), end);
  run.sinkEnd = b.add(first, field(offsetof(moa_gpu_decode_item, sink_pages)));
  run.sinkTable = b.sub(field(offsetof(moa_gpu_decode_item, table)), first);
  run.windowTable =
      b.sub(field(offsetof(moa_gpu_decode_item, window_table)), first);
  return run;
}

Value Decode::pageId(const Pages &run, Value page) {
  Value table =
      b.select(b.less(page, run.sinkEnd), run.sinkTable, run.windowTable);
  return b.loadI32(tables, b.add(table, page));
}

/// Block of 64 keys of a line page.
Value Decode::blockNumber(const Share &share, Value page) {
  const Facts &facts = share.facts;
  Value number = b.sub(page, facts.first);
  Value behind = b.add(b.sub(number, facts.sinkPages), facts.windowBegin);
  return b.select(b.less(number, facts.sinkPages), number, behind);
}

//===----------------------------------------------------------------------===//
// Rows of the call's tensors
//===----------------------------------------------------------------------===//

Value Decode::rowOf(size_t tensor, Value place, Value head, Value token) {
  auto field = [&](size_t offset, Type type) {
    return b.loadField(args, tensor + offset, type);
  };
  Type i64 = b.getI64Type();
  Value ofPlace =
      arith::MulIOp::create(b, place, field(offsetof(moa_gpu_rows, unit), i64));
  Value ofHead = arith::MulIOp::create(
      b, b.wide(head), field(offsetof(moa_gpu_rows, head_stride), i64));
  Value elements = arith::AddIOp::create(b, ofPlace, ofHead);
  if (token) {
    Value ofToken = arith::MulIOp::create(
        b, b.wide(token), field(offsetof(moa_gpu_rows, token_stride), i64));
    elements = arith::AddIOp::create(b, elements, ofToken);
  }
  Value two = arith::ConstantOp::create(b, b.getI64IntegerAttr(2));
  return b.offset(field(offsetof(moa_gpu_rows, base), b.globalPointer()),
                  arith::MulIOp::create(b, elements, two).getResult());
}
