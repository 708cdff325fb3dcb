//===- Rope.cpp - Rotations of queries and keys ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Blocks take items in turn. A thread rotates up to 16 bytes of each element of
// its pairs where they lie; then the block copies keys and values as the append
// kernel does, if the item has a page.
//
//===----------------------------------------------------------------------===//

#include "Append.h"
#include "Kernels.h"
#include "moa/Conversion/Rotation.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "moa/abi/gpu_args.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

namespace {

constexpr int64_t kRegisters = 64, kPiece = 16;
constexpr int64_t kMeet = 1; ///< The barrier between rotating and copying.

/// Query and key rows of an item, whatever it is. Distances are bytes, i64;
/// counts are i32.
struct Rows {
  Value q, qRow, qHead, k, kRow, turns, rows, heads, position, scale;

  SmallVector<Value> flatten() const {
    return {q, qRow, qHead, k, kRow, turns, rows, heads, position, scale};
  }
  static Rows from(ValueRange v) {
    return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9]};
  }
};

class Rope {
public:
  Rope(OpBuilder &builder, Location loc, const KernelForm &form)
      : b(loc, builder), form(form),
        elementBytes(form.element.getIntOrFloatBitWidth() / 8),
        rotary(form.rope.getRotaryDim()),
        interleaved(form.rope.getLayout() == tile::RopeLayout::Interleaved) {
    const int64_t run = interleaved ? rotary : rotary / 2;
    width = kPiece / elementBytes;
    while (run % width)
      width /= 2;
    pieces = run / width;
  }

  LLVM::LLVMFuncOp build(StringRef name);

private:
  Rows rowsOfCall(Value item);
  Rows rowsOfStep(Value item);
  void rotateRows(const Rows &rows);
  void rotatePiece(const Rows &rows, Value row, Value head, Value piece);
  void copyToPage(Value item);

  Value field(Value base, size_t offset, Type type) {
    return b.loadField(base, static_cast<int64_t>(offset), type);
  }
  Value bytes(Value elements) {
    return times(elements, arith::ConstantOp::create(
                               b, b.getI64IntegerAttr(elementBytes)));
  }
  Value times(Value x, Value y) { return arith::MulIOp::create(b, x, y); }
  Value compareNull(LLVM::ICmpPredicate predicate, Value pointer) {
    return LLVM::ICmpOp::create(b, predicate, pointer,
                                LLVM::ZeroOp::create(b, pointer.getType()));
  }
  /// Elements in memory, as f32.
  Value load(Value place);
  void store(Value vector, Value place);

  KernelBuilder b;
  const KernelForm &form;
  const int64_t elementBytes, rotary;
  const bool interleaved;
  int64_t width;  ///< Elements that a thread loads at a time.
  int64_t pieces; ///< As many of them has a row, with `half` half of it.
  Value args, items;
};

} // namespace

Value Rope::load(Value place) {
  auto type = VectorType::get({width}, form.element);
  Value loaded = LLVM::LoadOp::create(b, type, place, width * elementBytes);
  if (form.element.isF32())
    return loaded;
  return arith::ExtFOp::create(b, b.f32s(width), loaded);
}

void Rope::store(Value vector, Value place) {
  if (!form.element.isF32())
    vector = arith::TruncFOp::create(b, VectorType::get({width}, form.element),
                                     vector);
  LLVM::StoreOp::create(b, vector, place, width * elementBytes);
}

/// An item of a call: all it says stands in it.
Rows Rope::rowsOfCall(Value item) {
  Type i64 = b.getI64Type(), i32 = b.getI32Type(), pointer = b.globalPointer();
  return {field(item, offsetof(moa_rope_item, q), pointer),
          bytes(field(item, offsetof(moa_rope_item, q_row_stride), i64)),
          bytes(field(item, offsetof(moa_rope_item, q_head_stride), i64)),
          field(item, offsetof(moa_append_item, k), pointer),
          bytes(field(item, offsetof(moa_append_item, k_stride), i64)),
          field(item, offsetof(moa_rope_item, turns), pointer),
          field(item, offsetof(moa_append_item, rows), i32),
          field(item, offsetof(moa_rope_item, heads), i32),
          field(item, offsetof(moa_rope_item, position), i32),
          field(item, offsetof(moa_rope_item, scale), b.getF32Type())};
}

/// An item of a decode kernel: places in the tensors of the launch.
Rows Rope::rowsOfStep(Value item) {
  Type i64 = b.getI64Type(), i32 = b.getI32Type(), pointer = b.globalPointer();
  Value tokens = field(item, offsetof(moa_gpu_decode_item, tokens), i32);
  Value token = b.wide(field(item, offsetof(moa_gpu_decode_item, token), i32));
  Value kvHead =
      b.wide(field(item, offsetof(moa_gpu_decode_item, kv_head), i32));
  Value heads = field(args, offsetof(moa_gpu_rope_args, heads), i32);
  // Address of the first row, distances between rows and between heads.
  auto rowsOf = [&](size_t tensor, size_t place, Value head) {
    auto of = [&](size_t offset) { return field(args, tensor + offset, i64); };
    Value row = of(offsetof(moa_gpu_rows, token_stride));
    Value headStride = of(offsetof(moa_gpu_rows, head_stride));
    Value from =
        b.add(times(field(item, place, i64), of(offsetof(moa_gpu_rows, unit))),
              b.add(times(token, row), times(head, headStride)));
    Value base = field(args, tensor + offsetof(moa_gpu_rows, base), pointer);
    return SmallVector<Value>{b.offset(base, bytes(from)), bytes(row),
                              bytes(headStride)};
  };
  SmallVector<Value> q =
      rowsOf(offsetof(moa_gpu_rope_args, q), offsetof(moa_gpu_decode_item, q),
             times(kvHead, b.wide(heads)));
  SmallVector<Value> k = rowsOf(offsetof(moa_gpu_rope_args, k),
                                offsetof(moa_gpu_decode_item, k), kvHead);
  Value length = field(item, offsetof(moa_gpu_decode_item, length), i32);
  Value turns = field(args, offsetof(moa_gpu_rope_args, turns), pointer);
  Value scale = field(args, offsetof(moa_gpu_rope_args, scale), b.getF32Type());
  return {
      q[0], q[1], q[2], k[0], k[1], turns, tokens, heads, b.sub(length, tokens),
      scale};
}

/// One thread's part of a row; head `heads` is that of the keys.
void Rope::rotatePiece(const Rows &rows, Value row, Value head, Value piece) {
  Value line = b.wide(row);
  Value query = b.offset(
      rows.q, b.add(times(line, rows.qRow), times(b.wide(head), rows.qHead)));
  Value key = b.offset(rows.k, times(line, rows.kRow));
  Value place = b.offset(b.select(b.less(head, rows.heads), query, key),
                         b.mul(piece, width * elementBytes));
  const int64_t pairs = interleaved ? width / 2 : width;
  auto turns = LLVM::LoadOp::create(
      b, VectorType::get({pairs}, b.getI64Type()),
      b.offset(rows.turns, b.mul(piece, 8 * pairs)), pairs > 1 ? 16 : 8);
  turns.setInvariant(true);
  Rotation rotation =
      rotationOf(b, turns, b.wide(b.add(rows.position, row)), rows.scale);
  if (interleaved) {
    store(rotateInterleaved(b, rotation, load(place)), place);
    return;
  }
  Value other = b.offset(place, rotary / 2 * elementBytes);
  auto [x, y] = rotate(b, rotation, load(place), load(other));
  store(x, place);
  store(y, other);
}

void Rope::rotateRows(const Rows &rows) {
  Value all = b.add(rows.heads, 1);
  Value end = b.mul(times(rows.rows, all), pieces);
  b.loop(b.threadId(), end, b.i32(kAppendThreads), {},
         [&](Value number, ValueRange) -> SmallVector<Value> {
           Value line = b.divide(number, pieces);
           rotatePiece(rows, arith::DivUIOp::create(b, line, all),
                       arith::RemUIOp::create(b, line, all),
                       b.remainder(number, pieces));
           return {};
         });
}

void Rope::copyToPage(Value item) {
  Value page =
      field(item, offsetof(moa_append_item, page_k), b.globalPointer());
  b.ifThen(compareNull(LLVM::ICmpPredicate::ne, page), [&] {
    BarrierOp::create(b, BarrierAction::Sync, b.i32(kMeet), kAppendThreads);
    copyRows(b, form, item);
  });
}

LLVM::LLVMFuncOp Rope::build(StringRef name) {
  LLVM::LLVMFuncOp function = b.kernel(
      name, sizeof(moa_gpu_rope_args), 8, {b.globalPointer()},
      LaunchAttr::get(b.getContext(), kAppendThreads, kRegisters, 0, 0));
  b.markReadOnly(function, 1);
  OpBuilder::InsertionGuard guard(b);
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToStart(entry);
  args = entry->getArgument(0);
  items = entry->getArgument(1);
  Type i64 = b.getI64Type(), i32 = b.getI32Type(), pointer = b.globalPointer();
  Value line = field(args, offsetof(moa_gpu_rope_args, line), pointer);
  Value ofCall = compareNull(LLVM::ICmpPredicate::eq, line);
  using Results = SmallVector<Value>;
  Value count =
      b.branch(
           ofCall, i32,
           [&]() -> Results {
             return {field(args, offsetof(moa_gpu_rope_args, count), i32)};
           },
           [&]() -> Results {
             return {field(line, offsetof(moa_gpu_line, items), i32)};
           })
          .front();
  const Type types[] = {pointer, i64, i64, pointer, i64,
                        pointer, i32, i32, i32,     b.getF32Type()};
  b.loop(
      b.blockId(), count, b.gridSize(), {},
      [&](Value number, ValueRange) -> Results {
        auto itemOf = [&](int64_t size) {
          return b.element(items, number, size);
        };
        rotateRows(Rows::from(b.branch(
            ofCall, types,
            [&] { return rowsOfCall(itemOf(sizeof(moa_rope_item))).flatten(); },
            [&] {
              return rowsOfStep(itemOf(sizeof(moa_gpu_decode_item))).flatten();
            })));
        b.ifThen(ofCall, [&] { copyToPage(itemOf(sizeof(moa_rope_item))); });
        return {};
      });
  LLVM::ReturnOp::create(b, ValueRange{});
  return function;
}

LLVM::LLVMFuncOp moa::gpu::buildRope(OpBuilder &builder, Location loc,
                                     StringRef name, const KernelForm &form) {
  static_assert(offsetof(moa_rope_item, append) == 0, "copied as append does");
  return Rope(builder, loc, form).build(name);
}
