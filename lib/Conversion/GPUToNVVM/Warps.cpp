//===- Warps.cpp - Work of single warps to NVVM ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Products of one warp: blocks of 16 x 16 are read as four 8 x 8 matrices, of
// which lanes 8 i to 8 i + 7 give the row addresses of matrix i.
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

/// The operand's matrices are, in the order of its registers, its rows 0-7 and
/// 8-15 of columns 0-7, then both of columns 8-15. Read as it lies, a row of
/// the tile is a row of the operand: matrices 1 and 3 are 8 rows below, 2 and 3
/// eight columns on. Transposed, a row of the tile is a column of the operand,
/// so 1 and 3 are eight columns on, 2 and 3 eight rows below.
void KernelLowering::lowerLoadMatrix(LoadMatrixOp op) {
  SharedType tile = op.getTile().getType();
  Value lane = bitAnd(threadId(), 31);
  Value bit0 = bitAnd(shift(lane, 3), 1), bit1 = shift(lane, 4);
  Value low = bitAnd(lane, 7); // Of the row, and so what the swizzle takes.
  Value rowsDown = op.getTransposed() ? bit1 : bit0;
  Value chunksOn = op.getTransposed() ? bit0 : bit1;
  Value row = add(op.getRow(), add(mul(rowsDown, 8), low));
  int64_t column = op.getColumn();
  Value chunk = arith::XOrIOp::create(b, add(chunksOn, column % 64 / 8), low);
  Value place = add(add(mul(row, 128), mul(chunk, 16)),
                    column / 64 * tile.getPanelBytes());
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

/// Lanes meet first: no write moves behind that.
void KernelLowering::lowerSeal(SealOp) {
  NVVM::SyncWarpOp::create(b, i32(-1));
  MLIRContext *ctx = b.getContext();
  NVVM::FenceProxyOp::create(
      b, NVVM::ProxyKindAttr::get(ctx, NVVM::ProxyKind::async_shared),
      NVVM::SharedSpaceAttr::get(ctx, NVVM::SharedSpace::shared_cta));
}

void KernelLowering::lowerMultiply(MultiplyOp op) {
  auto four = LLVM::LLVMStructType::getLiteral(
      b.getContext(), SmallVector<Type>(4, b.getF32Type()));
  // Operands in registers are pairs, which the instruction's builder wants as
  // what they are.
  auto type =
      op.getType().isBF16() ? NVVM::MMATypes::bf16 : NVVM::MMATypes::f16;
  SmallVector<Value> left = split(op.getLeft()), right = split(op.getRight());
  if (op.getType().isF16())
    for (SmallVector<Value> *operand : {&left, &right})
      for (Value &pair : *operand)
        pair = LLVM::BitcastOp::create(b, VectorType::get({2}, b.getF16Type()),
                                       pair);
  Value product = NVVM::MmaOp::create(
      b, four, left, right, split(op.getSums()), ArrayRef<int64_t>{16, 8, 16},
      std::nullopt, std::nullopt, std::array<NVVM::MMATypes, 2>{type, type},
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
    Value left = arith::AndIOp::create(
        b, less(key, start),
        arith::CmpIOp::create(b, arith::CmpIPredicate::sge, key, op.getSink()));
    Value behind = arith::CmpIOp::create(b, arith::CmpIPredicate::sge, key,
                                         op.getLength());
    score = select(arith::OrIOp::create(b, left, behind), none, score);
  }
  op.getResult().replaceAllUsesWith(join(scores, b.getF32Type()));
}

void KernelLowering::lowerCountArrival(CountArrivalOp op) {
  Value address = LLVM::PtrToIntOp::create(b, b.getI64Type(), op.getCounter());
  op.getFound().replaceAllUsesWith(ptx::countArrival(b, address));
}
