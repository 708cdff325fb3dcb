//===- GPUToNVVM.cpp - The GPU dialect to NVVM ----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Lays out shared memory and barriers, then replaces operations one by one, in
// order, outer ones first. This level decides nothing: it spells.
//
//===----------------------------------------------------------------------===//

#include "InlinePTX.h"
#include "Lowering.h"
#include "moa/Conversion/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/MathExtras.h"

namespace moa {
#define GEN_PASS_DEF_CONVERTMOAGPUTONVVM
#include "moa/Conversion/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

KernelLowering::KernelLowering(LLVM::LLVMFuncOp kernel)
    : kernel(kernel), b(kernel.getLoc(), kernel.getContext()) {}

/// What the swizzle of a tile asks of its address.
static constexpr int64_t kTileAlignment = 1024;

int64_t KernelLowering::place(int64_t bytes, int64_t alignment) {
  int64_t start = llvm::alignTo(sharedBytes, alignment);
  sharedBytes = start + bytes;
  return start;
}

/// Rings, tiles and scratch one after the other.
void KernelLowering::layOut() {
  for (Operation &op : kernel.getBody().front()) {
    if (auto ring = dyn_cast<RingOp>(op)) {
      RingType type = ring.getRing().getType();
      int64_t stages = type.getStages();
      rings[ring.getRing()] = {
          place(stages * type.getTile().getBytes(), kTileAlignment), barriers,
          barriers + stages};
      barriers += 2 * stages;
      arrivals.append(stages, 1);
      arrivals.append(stages, ring.getReaders());
    } else if (auto tile = dyn_cast<SharedOp>(op)) {
      places[tile.getTile()] =
          place(tile.getTile().getType().getBytes(), kTileAlignment);
    } else if (auto buffers = dyn_cast<BuffersOp>(op)) {
      BuffersType type = buffers.getBuffers().getType();
      places[buffers.getBuffers()] =
          place(type.getPlaces() * type.getTile().getBytes(), kTileAlignment);
    } else if (auto scratch = dyn_cast<ScratchOp>(op)) {
      places[scratch.getMemory()] = place(scratch.getBytes(), 16);
    }
    warpRoles |= isa<WarpRolesOp>(op);
  }
  // Words behind all tiles, which need a larger alignment.
  for (auto ring : kernel.getBody().front().getOps<RingOp>()) {
    RingType type = ring.getRing().getType();
    rings[ring.getRing()].words =
        place(type.getStages() * type.getWords() * 4, 16);
  }
}

void KernelLowering::initBarriers() {
  ifThen(equal(threadId(), 0), [&] {
    for (auto [i, count] : llvm::enumerate(arrivals))
      NVVM::MBarrierInitOp::create(b, barrier(i, i32(0)), i32(count), Value());
    NVVM::FenceMbarrierInitOp::create(b);
  });
  NVVM::Barrier0Op::create(b);
}

void KernelLowering::inlineBody(Block &from) {
  Block *to = b.getInsertionBlock();
  to->getOperations().splice(b.getInsertionPoint(), from.getOperations());
}

void KernelLowering::lowerRoles(RolesOp op) {
  initBarriers();
  Value warp = warpId();
  Value group = shift(warp, 2);
  auto branch = scf::IfOp::create(b, TypeRange{}, equal(group, 0), true);
  b.setInsertionPointToStart(branch.thenBlock());
  NVVM::SetMaxRegisterOp::create(b, op.getProducerRegisters(),
                                 NVVM::SetMaxRegisterAction::decrease);
  ifThen(equal(warp, 0), [&] {
    Value leader = NVVM::ElectSyncOp::create(b, b.getI1Type(), Value());
    ifThen(leader, [&] { inlineBody(op.getProducer().front()); });
  });
  b.setInsertionPointToStart(branch.elseBlock());
  NVVM::SetMaxRegisterOp::create(b, op.getConsumerRegisters(),
                                 NVVM::SetMaxRegisterAction::increase);
  Value number = add(group, -1);
  op.getConsumer().front().getArgument(0).replaceAllUsesWith(number);
  inlineBody(op.getConsumer().front());
}

void KernelLowering::lowerOneThread(OneThreadOp op) {
  ifThen(equal(bitAnd(threadId(), 127), 0),
         [&] { inlineBody(op.getBody().front()); });
}

void KernelLowering::lowerBarrier(BarrierOp op) {
  Value threads = i32(op.getThreads());
  if (op.getAction() == BarrierAction::Sync)
    NVVM::BarrierOp::create(b, TypeRange{}, op.getId(), threads,
                            NVVM::BarrierReductionAttr(), Value());
  else
    NVVM::BarrierArriveOp::create(b, op.getId(), threads);
}

LogicalResult KernelLowering::run() {
  layOut();
  auto launch = kernel->getAttrOfType<LaunchAttr>(kLaunchAttrName);
  SmallVector<Operation *> worklist;
  kernel.walk<WalkOrder::PreOrder>([&](Operation *op) {
    if (isa<MoaGPUDialect>(op->getDialect()))
      worklist.push_back(op);
  });
  for (Operation *op : worklist) {
    b.setInsertionPoint(op);
    b.setLoc(op->getLoc());
    llvm::TypeSwitch<Operation *>(op)
        .Case([&](RolesOp o) { lowerRoles(o); })
        .Case([&](OneThreadOp o) { lowerOneThread(o); })
        .Case([&](BarrierOp o) { lowerBarrier(o); })
        .Case([&](PutOp o) { lowerPut(o); })
        .Case([&](CopyInOp o) { lowerCopyIn(o); })
        .Case([&](GetOp o) { lowerGet(o); })
        .Case([&](ReleaseOp o) { lowerRelease(o); })
        .Case([&](OrderFenceOp o) { lowerOrderFence(o); })
        .Case([&](StageOp o) { lowerStage(o); })
        .Case([&](CopyOutOp o) { lowerCopyOut(o); })
        .Case([&](CopyOutWaitOp o) { lowerCopyOutWait(o); })
        .Case([&](ScoresOp o) { lowerScores(o); })
        .Case([&](AccumulateOp o) { lowerAccumulate(o); })
        .Case([&](WaitOp o) { lowerWait(o); })
        .Case([&](LaneRowOp o) { lowerLaneRow(o); })
        .Case([&](MaskOp o) { lowerMask(o); })
        .Case([&](RowReduceOp o) { lowerRowReduce(o); })
        .Case([&](LaneReduceOp o) { lowerLaneReduce(o); })
        .Case([&](Exp2Op o) { lowerExp2(o); })
        .Case([&](TanhOp o) { lowerTanh(o); })
        .Case([&](RowScaleOp o) { lowerRowScale(o); })
        .Case([&](ReciprocalOp o) { lowerReciprocal(o); })
        .Case([&](PackOp o) { lowerPack(o); })
        .Case([&](WarpRolesOp o) { lowerWarpRoles(o); })
        .Case([&](WarpOp o) { o.getNumber().replaceAllUsesWith(warpId()); })
        .Case([&](LaneCountOp o) { lowerLaneCount(o); })
        .Case([&](LoadMatrixOp o) { lowerLoadMatrix(o); })
        .Case([&](OpaqueOp o) { lowerOpaque(o); })
        .Case([&](StorePieceOp o) { lowerStorePiece(o); })
        .Case([&](SealOp o) { lowerSeal(o); })
        .Case([&](LoadRightOp o) { lowerLoadRight(o); })
        .Case([&](SplitOp o) { lowerSplit(o); })
        .Case([&](MultiplyOp o) { lowerMultiply(o); })
        .Case([&](TransposeOp o) { lowerTranspose(o); })
        .Case([&](MaskColumnsOp o) { lowerMaskColumns(o); })
        .Case([&](CountArrivalOp o) { lowerCountArrival(o); })
        .Case([&](AsCodesOp o) { lowerAsCodes(o); })
        .Case([&](CopyWordsOp o) { lowerCopyWords(o); })
        .Case([&](WeaveOp o) { lowerWeave(o); })
        .Case([&](LoadWovenOp o) { lowerLoadWoven(o); })
        .Case([&](UnpackOp o) { lowerUnpack(o); })
        .Case([&](WaitLaunchesOp) { ptx::waitLaunches(b); })
        .Case([&](LaunchNextOp) { ptx::launchNext(b); })
        .Case([&](SharedOp o) {
          lowered[o.getTile()] = offset(sharedBase(), places[o.getTile()]);
        })
        .Case([&](ScratchOp o) {
          o.getMemory().replaceAllUsesWith(
              offset(sharedBase(), places[o.getMemory()]));
        })
        .Case([&](FetchOp o) { lowerFetch(o); })
        .Case([&](AwaitOp o) { lowerAwait(o); })
        .Case<RingOp, BuffersOp>([](Operation *) {})
        .Default([&](Operation *o) {
          o->emitOpError("has no lowering to NVVM");
          status = failure();
        });
  }
  if (failed(status))
    return failure();
  for (Operation *op : llvm::reverse(worklist))
    op->erase();

  MLIRContext *ctx = kernel.getContext();
  kernel->removeAttr(kLaunchAttrName);
  kernel->setAttr("nvvm.reqntid",
                  b.getDenseI32ArrayAttr({int32_t(launch.getThreads()), 1, 1}));
  kernel->setAttr("nvvm.maxnreg", b.getI32IntegerAttr(launch.getRegisters()));
  auto fact = [&](StringRef name, int64_t value) {
    kernel->setAttr(name, b.getI64IntegerAttr(value));
  };
  fact("moa.threads", launch.getThreads());
  fact("moa.shared_bytes", sharedBytes);
  fact("moa.tile_rows", launch.getRows());
  fact("moa.tile_keys", launch.getKeys());
  fact("moa.register_budget", launch.getRegisters());

  b.setInsertionPoint(kernel);
  auto global = [&](StringRef name, Type type, LLVM::Linkage linkage,
                    uint64_t alignment) {
    LLVM::GlobalOp::create(b, type, /*isConstant=*/false, linkage, name,
                           Attribute(), alignment, /*addrSpace=*/3);
  };
  if (sharedBytes)
    global("shared", LLVM::LLVMArrayType::get(IntegerType::get(ctx, 8), 0),
           LLVM::Linkage::External, 1024);
  if (barriers)
    global("barriers",
           LLVM::LLVMArrayType::get(IntegerType::get(ctx, 64), barriers),
           LLVM::Linkage::Internal, 8);
  return success();
}

namespace {

struct ConvertMoaGPUToNVVM
    : public moa::impl::ConvertMoaGPUToNVVMBase<ConvertMoaGPUToNVVM> {
  void runOnOperation() override {
    SmallVector<LLVM::LLVMFuncOp> kernels;
    for (auto function : getOperation().getOps<LLVM::LLVMFuncOp>())
      if (function->hasAttr(kLaunchAttrName))
        kernels.push_back(function);
    if (kernels.size() > 1) {
      kernels[1].emitOpError("expected one kernel in a module, got ")
          << kernels.size();
      return signalPassFailure();
    }
    for (LLVM::LLVMFuncOp kernel : kernels)
      if (failed(KernelLowering(kernel).run()))
        return signalPassFailure();
    WalkResult rest = getOperation().walk([](Operation *op) {
      if (!isa<MoaGPUDialect>(op->getDialect()))
        return WalkResult::advance();
      op->emitOpError("expected in an llvm.func with '")
          << kLaunchAttrName << "', which says how the kernel is launched";
      return WalkResult::interrupt();
    });
    if (rest.wasInterrupted())
      signalPassFailure();
  }
};

} // namespace
