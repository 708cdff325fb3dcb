//===- Rope.cpp - Lowering of the rope kernel -----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Rotates key and query rows in place, then copies as the append kernel does.
// The rotation of a vector of pairs is computed once for all heads of a row.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "moa/Conversion/Rotation.h"
#include "moa/abi/kernel_args.h"

using namespace mlir;
using namespace moa;
using namespace moa::cpu;

namespace {

/// Rotates vectors of `element` at one place of a row, in all heads.
class RowRotation {
public:
  RowRotation(Emitter &e, Type element, tile::RopeAttr rope)
      : e(e), element(element), half(rope.getRotaryDim() / 2),
        interleaved(rope.getLayout() == tile::RopeLayout::Interleaved) {}

  /// Pairs a vector of at most `lanes` elements has.
  int64_t pairsOf(int64_t lanes) const {
    int64_t pairs = interleaved ? lanes / 2 : lanes;
    while (half % pairs)
      pairs /= 2;
    return pairs;
  }
  /// Rotates the pairs from `pair` on of the row at `row`.
  void rotateAt(Value row, Value pair, const Rotation &rotation, int64_t pairs);

private:
  Emitter &e;
  const Type element;
  const int64_t half;
  const bool interleaved;
};

} // namespace

void RowRotation::rotateAt(Value row, Value pair, const Rotation &rotation,
                           int64_t pairs) {
  ImplicitLocOpBuilder b(e.loc, e.b);
  if (interleaved) {
    Emitter wide(e.b, e.loc, 2 * pairs);
    Value place = e.offset(row, e.mul(pair, 2), element);
    wide.storeVector(
        rotateInterleaved(b, rotation, wide.loadVector(place, element)), place,
        element);
    return;
  }
  Emitter narrow(e.b, e.loc, pairs);
  Value low = e.offset(row, pair, element);
  Value high = e.offset(low, half, element);
  auto [x, y] = rotate(b, rotation, narrow.loadVector(low, element),
                       narrow.loadVector(high, element));
  narrow.storeVector(x, low, element);
  narrow.storeVector(y, high, element);
}

void moa::cpu::lowerRotateRows(Emitter &e, Value itemPointer, int64_t dims,
                               Type type, tile::RopeAttr rope) {
  Item item(e, itemPointer);
  Type i64 = e.b.getI64Type();
  RowRotation rotation(e, type, rope);
  const int64_t pairs = rotation.pairsOf(e.lanes);
  Value k = item.pointerField(offsetof(moa_append_item, k));
  Value kStride = item.field(offsetof(moa_append_item, k_stride), i64);
  Value rows = item.intField(offsetof(moa_append_item, rows));
  Value q = item.pointerField(offsetof(moa_rope_item, q));
  Value qStride = item.field(offsetof(moa_rope_item, q_row_stride), i64);
  Value qHead = item.field(offsetof(moa_rope_item, q_head_stride), i64);
  Value turns = item.pointerField(offsetof(moa_rope_item, turns));
  Value heads = item.intField(offsetof(moa_rope_item, heads));
  Value position = item.intField(offsetof(moa_rope_item, position));
  Value scale = item.field(offsetof(moa_rope_item, scale), e.b.getF32Type());
  e.loop(e.i64(0), rows, 1, [&](Value row) {
    Value keys = e.offset(k, e.mul(row, kStride), type);
    Value queries = e.offset(q, e.mul(row, qStride), type);
    Value place = e.add(position, row);
    e.loop(0, rope.getRotaryDim() / 2, pairs, [&](Value pair) {
      ImplicitLocOpBuilder b(e.loc, e.b);
      Value own = LLVM::LoadOp::create(b, VectorType::get({pairs}, i64),
                                       e.offset(turns, pair, i64), 8);
      Rotation angles = rotationOf(b, own, place, scale);
      rotation.rotateAt(keys, pair, angles, pairs);
      e.loop(e.i64(0), heads, 1, [&](Value head) {
        rotation.rotateAt(e.offset(queries, e.mul(head, qHead), type), pair,
                          angles, pairs);
      });
    });
  });
  static_assert(offsetof(moa_rope_item, append) == 0, "copied as append does");
  Value page = item.field(offsetof(moa_append_item, page_k), i64);
  Value hasPage = arith::CmpIOp::create(e.b, e.loc, arith::CmpIPredicate::ne,
                                        page, e.i64(0));
  auto branch = scf::IfOp::create(e.b, e.loc, hasPage, /*withElse=*/false);
  OpBuilder::InsertionGuard guard(e.b);
  e.b.setInsertionPointToStart(branch.thenBlock());
  lowerCopyRows(e, itemPointer, dims, type);
}
