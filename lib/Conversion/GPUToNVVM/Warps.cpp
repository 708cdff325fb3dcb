//===- Warps.cpp - Work of single warps to NVVM ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Products of one warp: 16 rows of 32 bytes are read as four matrices of eight
// rows of 16, of which lanes 8 i to 8 i + 7 give the row addresses of matrix i.
//
//===----------------------------------------------------------------------===//

#include "InlinePTX.h"
#include "Lowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include <limits>

using namespace mlir;
using namespace moa::gpu;

void KernelLowering::lowerWarpRoles(WarpRolesOp op) {
  initBarriers();
  Value warp = warpId();
  auto branch =
      scf::IfOp::create(b, TypeRange{}, equal(warp, op.getConsumers()), true);
  b.setInsertionPointToStart(branch.thenBlock());
  inlineBody(op.getProducer().front());
  b.setInsertionPointToStart(branch.elseBlock());
  op.getConsumer().front().getArgument(0).replaceAllUsesWith(warp);
  inlineBody(op.getConsumer().front());
}

void KernelLowering::lowerLaneCount(LaneCountOp op) {
  Value lanes =
      NVVM::VoteSyncOp::create(b, b.getI32Type(), i32(-1), op.getCondition(),
                               NVVM::VoteSyncKind::ballot);
  op.getCount().replaceAllUsesWith(LLVM::CtPopOp::create(b, lanes));
}

void KernelLowering::lowerOpaque(OpaqueOp op) {
  op.getResult().replaceAllUsesWith(ptx::copy(b, op.getValue()));
}

/// A left operand's matrices are, in the order of its registers, its rows 0-7
/// and 8-15 of the first 16 bytes, then both of the next 16; those of right
/// operands both chunks of rows 0-7, then of 8-15. Transposed, a row of the
/// tile is a column of the operand, and the other way round. A lane's 4 bytes
/// of a matrix are one f32, as products of tf32 want it.
void KernelLowering::lowerLoadMatrix(LoadMatrixOp op) {
  SharedType tile = op.getTile().getType();
  Value lane = bitAnd(threadId(), 31);
  Value bit0 = bitAnd(shift(lane, 3), 1), bit1 = shift(lane, 4);
  Value low = bitAnd(lane, 7); // Of the row, and so what the swizzle takes.
  const bool rowsFirst = op.getTransposed() == op.getRight();
  Value rowsDown = rowsFirst ? bit0 : bit1;
  Value chunksOn = rowsFirst ? bit1 : bit0;
  Value row = add(op.getRow(), add(mul(rowsDown, 8), low));
  int64_t bytes = op.getColumn() * tile.getElementBytes();
  Value chunk = arith::XOrIOp::create(b, add(chunksOn, bytes % 128 / 16), low);
  Value place = add(add(mul(row, 128), mul(chunk, 16)),
                    bytes / 128 * tile.getPanelBytes());
  MLIRContext *ctx = b.getContext();
  auto four = LLVM::LLVMStructType::getLiteral(
      ctx, SmallVector<Type>(4, b.getI32Type()));
  Value loaded = NVVM::LdMatrixOp::create(
      b, four, offset(lowered[op.getTile()], place), 4,
      op.getTransposed() ? NVVM::MMALayout::col : NVVM::MMALayout::row,
      NVVM::LdStMatrixShapeAttr::get(ctx, 8, 8), NVVM::LdStMatrixEltType::B16);
  SmallVector<Value> registers;
  for (int64_t i = 0; i < 4; ++i)
    registers.push_back(LLVM::ExtractValueOp::create(b, loaded, i));
  op.getBlock().replaceAllUsesWith(join(registers, b.getI32Type()));
}

/// Rows are 128 bytes of a panel; the swizzle exchanges their 16-byte chunks by
/// the row's number.
void KernelLowering::lowerStorePiece(StorePieceOp op) {
  SharedType tile = op.getTile().getType();
  Value chunk = bitAnd(shift(op.getColumn(), 3), 7);
  Value swizzled = arith::XOrIOp::create(b, chunk, bitAnd(op.getRow(), 7));
  Value panel = mul(shift(op.getColumn(), 6), tile.getPanelBytes());
  Value place = add(add(panel, mul(op.getRow(), 128)), mul(swizzled, 16));
  LLVM::StoreOp::create(b, op.getPiece(), offset(lowered[op.getTile()], place),
                        16);
}

/// Lanes meet first: no write moves behind that. Without a ring there is no
/// copy engine to write later.
void KernelLowering::lowerSeal(SealOp) {
  NVVM::SyncWarpOp::create(b, i32(-1));
  if (rings.empty())
    return;
  MLIRContext *ctx = b.getContext();
  NVVM::FenceProxyOp::create(
      b, NVVM::ProxyKindAttr::get(ctx, NVVM::ProxyKind::async_shared),
      NVVM::SharedSpaceAttr::get(ctx, NVVM::SharedSpace::shared_cta));
}

/// A warp reads four rows of two chunks at a time, which lie in eight places.
void KernelLowering::lowerLoadRight(LoadRightOp op) {
  SharedType tile = op.getTile().getType();
  Value lane = bitAnd(threadId(), 31);
  Value pair = mul(bitAnd(lane, 3), 2), column = shift(lane, 2);
  Value ownChunk = shift(column, 2), inChunk = mul(bitAnd(column, 3), 4);
  SmallVector<Value> elements;
  for (int64_t operand : {0, 1})
    for (int64_t half : {0, 1}) {
      int64_t bytes = (op.getColumn() + 8 * operand) * tile.getElementBytes();
      Value row = add(pair, half);
      Value chunk =
          arith::XOrIOp::create(b, add(ownChunk, bytes % 128 / 16), row);
      Value place = add(
          add(mul(add(op.getRow(), row), 128), add(mul(chunk, 16), inChunk)),
          bytes / 128 * tile.getPanelBytes());
      elements.push_back(LLVM::LoadOp::create(
          b, b.getF32Type(), offset(lowered[op.getTile()], place), 4));
    }
  op.getBlock().replaceAllUsesWith(join(elements, b.getF32Type()));
}

void KernelLowering::lowerSplit(SplitOp op) {
  constexpr int64_t kBigBits = ~0x1fff; // Sign, exponent, 10 of mantissa.
  SmallVector<Value> big, small;
  for (Value element : split(op.getValue())) {
    Value bits = arith::BitcastOp::create(b, b.getI32Type(), element);
    big.push_back(bitAnd(bits, kBigBits));
    Value rest = arith::SubFOp::create(
        b, element, arith::BitcastOp::create(b, b.getF32Type(), big.back()));
    small.push_back(arith::BitcastOp::create(b, b.getI32Type(), rest));
  }
  op.getBig().replaceAllUsesWith(join(big, b.getI32Type()));
  op.getSmall().replaceAllUsesWith(join(small, b.getI32Type()));
}

void KernelLowering::lowerMultiply(MultiplyOp op) {
  auto four = LLVM::LLVMStructType::getLiteral(
      b.getContext(), SmallVector<Type>(4, b.getF32Type()));
  // Operands in registers are pairs, which the instruction's builder wants as
  // what they are.
  auto type = op.getType().isTF32()   ? NVVM::MMATypes::tf32
              : op.getType().isBF16() ? NVVM::MMATypes::bf16
                                      : NVVM::MMATypes::f16;
  const int64_t depth = op.getType().isTF32() ? 8 : 16;
  SmallVector<Value> left = split(op.getLeft()), right = split(op.getRight());
  if (op.getType().isF16())
    for (SmallVector<Value> *operand : {&left, &right})
      for (Value &pair : *operand)
        pair = LLVM::BitcastOp::create(b, VectorType::get({2}, b.getF16Type()),
                                       pair);
  Value product = NVVM::MmaOp::create(
      b, four, left, right, split(op.getSums()),
      ArrayRef<int64_t>{16, 8, depth}, std::nullopt, std::nullopt,
      std::array<NVVM::MMATypes, 2>{type, type},
      std::array<NVVM::MMALayout, 2>{NVVM::MMALayout::row,
                                     NVVM::MMALayout::col});
  SmallVector<Value> sums;
  for (int64_t i = 0; i < 4; ++i)
    sums.push_back(LLVM::ExtractValueOp::create(b, product, i));
  op.getResult().replaceAllUsesWith(join(sums, b.getF32Type()));
}

void KernelLowering::lowerTranspose(TransposeOp op) {
  SmallVector<Value> blocks = split(op.getValue());
  for (Value &block : blocks)
    block = ptx::transpose(b, block);
  op.getResult().replaceAllUsesWith(join(blocks, b.getI32Type()));
}

/// Element e is key row lane / 4 + 8 * (e / 2).
void KernelLowering::lowerMaskColumns(MaskColumnsOp op) {
  SmallVector<Value> scores = split(op.getScores());
  Value none = f32(-std::numeric_limits<float>::infinity());
  Value first = add(op.getKey(), shift(bitAnd(threadId(), 31), 2));
  for (auto [e, score] : llvm::enumerate(scores)) {
    Value key = add(first, e / 2 * 8);
    Value start = e % 2 ? op.getStart1() : op.getStart0();
    Value end = e % 2 ? op.getEnd1() : op.getEnd0();
    Value left = arith::AndIOp::create(
        b, less(key, start),
        arith::CmpIOp::create(b, arith::CmpIPredicate::sge, key, op.getSink()));
    Value behind =
        arith::CmpIOp::create(b, arith::CmpIPredicate::sge, key, end);
    score = select(arith::OrIOp::create(b, left, behind), none, score);
  }
  op.getResult().replaceAllUsesWith(join(scores, b.getF32Type()));
}

void KernelLowering::lowerCountArrival(CountArrivalOp op) {
  Value address = LLVM::PtrToIntOp::create(b, b.getI64Type(), op.getCounter());
  op.getFound().replaceAllUsesWith(ptx::countArrival(b, address));
}
