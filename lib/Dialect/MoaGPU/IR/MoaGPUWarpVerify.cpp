//===- MoaGPUWarpVerify.cpp - Verifiers of single warps' work -------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Roles of warps against the launch, blocks against tiles.
//
//===----------------------------------------------------------------------===//

#include "Verify.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace moa::gpu;

/// (C2) The launch has as many warps as there are roles for.
static LogicalResult verifyLaunch(WarpRolesOp roles) {
  int64_t consumers = roles.getConsumers();
  LaunchAttr launch = launchOf(roles);
  if (consumers >= 1 && launch && launch.getThreads() == 32 * (consumers + 1))
    return success();
  InFlightDiagnostic diag =
      roles.emitOpError("(C2) expected 1 consumer or more and a launch "
                        "with one warp besides, got ")
      << consumers << " consumers and ";
  if (launch)
    return diag << launch.getThreads() / 32 << " warps";
  return diag << "no " << kLaunchAttrName;
}

/// (C3) Stages come free: no ring waits for more warps than there are. (C5)
/// They go round among the same ones.
static LogicalResult verifyReaders(WarpRolesOp roles) {
  WalkResult result = roles.walk([&](ReleaseOp release) -> WalkResult {
    auto ring = release.getRing().getDefiningOp<RingOp>();
    if (!ring)
      return WalkResult::advance();
    const int64_t consumers = roles.getConsumers(), readers = ring.getReaders(),
                  stages = ring.getRing().getType().getStages();
    if (readers > consumers)
      return ring.emitOpError("(C3 of moa_gpu.warp_roles) expected at most ")
             << consumers << " readers, as many as there are consumers, got "
             << readers;
    if (consumers % readers == 0 && stages % (consumers / readers) == 0)
      return WalkResult::advance();
    return ring.emitOpError("(C5 of moa_gpu.warp_roles) expected readers that ")
           << "divide the " << consumers
           << " consumers, and stages that are a multiple of consumers / "
              "readers, got "
           << readers << " readers and " << stages << " stages";
  });
  return failure(result.wasInterrupted());
}

LogicalResult WarpRolesOp::verifyRegions() {
  if (failed(verifyRoleArguments(*this, getProducer(), getConsumer())) ||
      failed(verifyLaunch(*this)))
    return failure();
  WalkResult result = getProducer().walk([](Operation *op) -> WalkResult {
    if (!isa<BarrierOp, LoadMatrixOp, MultiplyOp, TransposeOp>(op))
      return WalkResult::advance();
    return op->emitOpError(
        "(C4 of moa_gpu.warp_roles) expected in the consumer "
        "region: the producer only loads");
  });
  if (result.wasInterrupted() || failed(verifyRings(*this, getProducer())))
    return failure();
  return verifyReaders(*this);
}

LogicalResult ScratchOp::verify() {
  if (failed(expectEntryBlock(*this)))
    return failure();
  int64_t bytes = getBytes();
  if (bytes >= 16 && bytes % 16 == 0)
    return success();
  return emitOpError("(C2) expected a positive multiple of 16 bytes, got ")
         << bytes;
}

LogicalResult LoadMatrixOp::verify() {
  SharedType tile = getTile().getType();
  int64_t column = getColumn(), step = tile.getPanelColumns() / 4;
  if (column < 0 || column % step || column >= tile.getCols())
    return emitOpError("(C1) expected a column that is a multiple of ")
           << step << " below " << tile.getCols() << ", got " << column;
  if (getTransposed() && tile.getElementBytes() == 4)
    return emitOpError("(C2) expected a tile of 16-bit elements, or of codes, "
                       "to be transposed, got ")
           << tile;
  return success();
}

LogicalResult LoadRightOp::verify() {
  SharedType tile = getTile().getType();
  int64_t column = getColumn();
  if (!tile.getElementType().isF32())
    return emitOpError("(C1) expected a tile of f32, got ") << tile;
  if (column >= 0 && column % 16 == 0 && column < tile.getCols())
    return success();
  return emitOpError("(C2) expected a column that is a multiple of 16 below ")
         << tile.getCols() << ", got " << column;
}

LogicalResult SplitOp::verify() {
  auto sizeOf = [](Value value) {
    return cast<VectorType>(value.getType()).getNumElements();
  };
  int64_t size = sizeOf(getValue());
  if (sizeOf(getBig()) == size && sizeOf(getSmall()) == size)
    return success();
  return emitOpError("(C1) expected results of ")
         << size << " elements, got " << sizeOf(getBig()) << " and "
         << sizeOf(getSmall());
}

/// Whether all lanes of a warp, of one that computes, come to `op`.
static bool isOfComputingWarp(Operation *op) {
  if (auto roles = op->getParentOfType<WarpRolesOp>())
    return roles.getConsumer().isAncestor(op->getParentRegion());
  auto kernel = op->getParentOfType<FunctionOpInterface>();
  return kernel && kernel->getRegion(0).getOps<RolesOp>().empty() &&
         kernel->getRegion(0).getOps<WarpRolesOp>().empty();
}

/// What ends the writes that `store` is one of, or what stands before that: in
/// its block, then in those around it.
static Operation *endOfWrites(Operation *store) {
  for (Operation *op = store; op && !isa<WarpRolesOp>(op);
       op = op->getParentOp())
    for (Operation *next = op->getNextNode(); next; next = next->getNextNode())
      if (isa<SealOp, LoadMatrixOp, ReleaseOp>(next))
        return next;
  return nullptr;
}

LogicalResult StorePieceOp::verify() {
  if (!isOfComputingWarp(*this))
    return emitOpError("(C1) expected in the consumer region of "
                       "moa_gpu.warp_roles, or in a kernel without roles: a "
                       "warp's lanes write together");
  Operation *end = endOfWrites(*this);
  if (isa_and_nonnull<SealOp>(end))
    return success();
  InFlightDiagnostic diag =
      emitOpError("(C2) expected a moa_gpu.seal behind it");
  if (end)
    diag.attachNote(end->getLoc())
        << "this comes first: other lanes, or the copy engine, may not see "
           "what was written";
  return diag;
}

LogicalResult SealOp::verify() {
  return verifyUniform(*this, "C1", Scope::Warp);
}

LogicalResult MultiplyOp::verify() {
  if (getType().isF16() || getType().isBF16() || getType().isTF32())
    return success();
  return emitOpError("(C1) expected type f16, bf16 or tf32, got ") << getType();
}
