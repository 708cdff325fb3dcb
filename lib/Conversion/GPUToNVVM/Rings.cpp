//===- Rings.cpp - Rings and copies to NVVM -------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Use n of a ring of S stages goes through stage n % S; its full barrier has
// completed n / S phases before, its empty barrier one fewer, so the writer's
// first round passes at once.
//
//===----------------------------------------------------------------------===//

#include "InlinePTX.h"
#include "Lowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace moa::gpu;

Value KernelLowering::stageOf(RingType ring, Value use) {
  int64_t stages = ring.getStages();
  if (stages == 1)
    return i32(0);
  if (llvm::isPowerOf2_64(stages))
    return bitAnd(use, stages - 1);
  return arith::RemUIOp::create(b, use, i32(stages));
}

Value KernelLowering::phaseOf(RingType ring, Value use) {
  int64_t stages = ring.getStages();
  Value round = stages == 1 ? use
                : llvm::isPowerOf2_64(stages)
                    ? shift(use, llvm::Log2_64(stages))
                    : arith::DivUIOp::create(b, use, i32(stages)).getResult();
  return bitAnd(round, 1);
}

Value KernelLowering::barrier(int64_t first, Value stage) {
  Value base = LLVM::AddressOfOp::create(
      b, LLVM::LLVMPointerType::get(b.getContext(), 3), "barriers");
  return offset(base, add(mul(stage, 8), first * 8));
}

Value KernelLowering::stagePointer(RingType ring, const RingPlace &place,
                                   Value use) {
  return offset(
      sharedBase(),
      add(mul(stageOf(ring, use), ring.getTile().getBytes()), place.offset));
}

Value KernelLowering::wordsPointer(RingType ring, const RingPlace &place,
                                   Value use) {
  return offset(sharedBase(),
                add(mul(stageOf(ring, use), ring.getWords() * 4), place.words));
}

void KernelLowering::lowerPut(PutOp op) {
  RingType ring = op.getRing().getType();
  const RingPlace place = rings[op.getRing()];
  Value stage = stageOf(ring, op.getUse());
  Value free = arith::XOrIOp::create(b, phaseOf(ring, op.getUse()), i32(1));
  ptx::waitBarrier(b, address(barrier(place.firstEmpty, stage)), free);
  Value full = barrier(place.firstFull, stage);
  auto fill = [&] {
    // Words go before the arrival, which makes them visible to the readers.
    for (size_t i = 0; i < op.getWords().size(); i += 4) {
      Value quad = join(op.getWords().slice(i, 4), b.getI32Type());
      LLVM::StoreOp::create(
          b, quad,
          offset(wordsPointer(ring, place, op.getUse()), int64_t(i * 4)), 16);
    }
    Block &body = op.getBody().front();
    int64_t bytes = cast<SharedType>(body.getArgument(0).getType()).getBytes();
    if (!body.getOps<CopyWordsOp>().empty()) {
      bytes += 16;
      lastWords[body.getArgument(1)] =
          offset(wordsPointer(ring, place, op.getUse()),
                 int64_t(op.getWords().size() * 4));
    }
    NVVM::MBarrierArriveExpectTxOp::create(b, Type(), full, i32(bytes),
                                           NVVM::MemScopeKind::CTA,
                                           /*relaxed=*/false, Value());
    lowered[body.getArgument(0)] = stagePointer(ring, place, op.getUse());
    lowered[body.getArgument(1)] = full;
    inlineBody(body);
  };
  // The producer is one thread already, or a warp.
  if (warpRoles)
    ifThen(equal(bitAnd(threadId(), 31), 0), fill);
  else
    fill();
}

/// What createpolicy.fractional.L2::evict_first with fraction 1 makes.
static constexpr int64_t kEvictFirst = 0x12f0000000000000;

void KernelLowering::lowerCopyIn(CopyInOp op) {
  SharedType tile = op.getTile().getType();
  int64_t place =
      op.getBox()[1] * tile.getPanelBytes() + op.getBox()[0] * 64 * 128;
  Value policy;
  if (op.getReadOnce())
    policy = arith::ConstantOp::create(b, b.getI64IntegerAttr(kEvictFirst));
  NVVM::CpAsyncBulkTensorGlobalToSharedClusterOp::create(
      b, offset(lowered[op.getTile()], place), op.getMap(),
      ValueRange{op.getColumn(), op.getRow(), op.getPlane()},
      lowered[op.getFull()], ValueRange{}, Value(), policy,
      NVVM::TMALoadMode::TILE, /*isCTAOnly=*/true, NVVM::CTAGroupKindAttr(),
      Value());
}

void KernelLowering::lowerGet(GetOp op) {
  RingType ring = op.getRing().getType();
  const RingPlace place = rings[op.getRing()];
  Value stage = stageOf(ring, op.getUse());
  ptx::waitBarrier(b, address(barrier(place.firstFull, stage)),
                   phaseOf(ring, op.getUse()));
  lowered[op.getTile()] = stagePointer(ring, place, op.getUse());
  stages[op.getTile()] = {offset(sharedBase(), place.offset), stage};
  for (size_t i = 0; i < op.getWords().size(); i += 4) {
    Value quad = LLVM::LoadOp::create(
        b, VectorType::get({4}, b.getI32Type()),
        offset(wordsPointer(ring, place, op.getUse()), int64_t(i * 4)), 16);
    for (auto [word, value] : llvm::zip(op.getWords().slice(i, 4), split(quad)))
      word.replaceAllUsesWith(value);
  }
}

void KernelLowering::lowerRelease(ReleaseOp op) {
  const RingPlace place = rings[op.getRing()];
  Value stage = stageOf(op.getRing().getType(), op.getUse());
  // A warp's other lanes have read when its first one counts; a warpgroup's
  // products end together, and words were read before that ((C3) of get).
  if (warpRoles)
    NVVM::SyncWarpOp::create(b, i32(-1));
  ifThen(equal(bitAnd(threadId(), warpRoles ? 31 : 127), 0), [&] {
    ptx::arriveBarrier(b, address(barrier(place.firstEmpty, stage)));
  });
}

void KernelLowering::lowerOrderFence(OrderFenceOp op) {
  RingType ring = op.getRing().getType();
  const RingPlace place = rings[op.getRing()];
  ptx::waitBarrier(
      b, address(barrier(place.firstFull, stageOf(ring, op.getUse()))),
      phaseOf(ring, op.getUse()));
}

/// Each matrix store writes 16 rows by 16 columns: lanes 0 to 15 give the rows'
/// addresses in the left half, the others in the right one.
void KernelLowering::lowerStage(StageOp op) {
  SharedType tile = op.getTile().getType();
  SmallVector<Value> registers = split(op.getFragment());
  Value lane = bitAnd(threadId(), 31);
  Value warp = bitAnd(shift(threadId(), 5), 3);
  Value row = add(add(op.getRow(), mul(warp, 16)), bitAnd(lane, 15));
  Value base = offset(lowered[op.getTile()], mul(row, 128));
  Value swizzle = bitAnd(lane, 7), half = shift(lane, 4);
  MLIRContext *ctx = b.getContext();
  for (int64_t k = 0; k < tile.getCols() / 16; ++k) {
    Value chunk = arith::XOrIOp::create(b, add(half, 2 * (k % 4)), swizzle);
    Value target =
        offset(offset(base, mul(chunk, 16)), k / 4 * tile.getPanelBytes());
    NVVM::StMatrixOp::create(
        b, target, ArrayRef<Value>(registers).slice(4 * k, 4),
        NVVM::MMALayoutAttr::get(ctx, NVVM::MMALayout::row),
        NVVM::LdStMatrixShapeAttr::get(ctx, 8, 8),
        NVVM::LdStMatrixEltTypeAttr::get(ctx, NVVM::LdStMatrixEltType::B16));
  }
  NVVM::FenceProxyOp::create(
      b, NVVM::ProxyKindAttr::get(ctx, NVVM::ProxyKind::async_shared),
      NVVM::SharedSpaceAttr::get(ctx, NVVM::SharedSpace::shared_cta));
}

void KernelLowering::lowerCopyOut(CopyOutOp op) {
  SharedType tile = op.getTile().getType();
  Value source = offset(lowered[op.getTile()], mul(op.getTileRow(), 128));
  for (int64_t panel = 0; panel < tile.getPanels(); ++panel)
    NVVM::CpAsyncBulkTensorSharedCTAToGlobalOp::create(
        b, op.getMap(), offset(source, panel * tile.getPanelBytes()),
        ValueRange{i32(panel * 64), op.getRow(), op.getPlane()}, Value(),
        NVVM::TMAStoreMode::TILE, Value());
  NVVM::CpAsyncBulkCommitGroupOp::create(b);
}

void KernelLowering::lowerCopyOutWait(CopyOutWaitOp) {
  NVVM::CpAsyncBulkWaitGroupOp::create(b, 0, b.getUnitAttr());
}
