//===- MoaGPUVerify.cpp - Verifiers of roles, rings and copies ------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What would hang or race if it were written otherwise: rings with one side
// only, products on a single thread, fences on stages that were given back.
//
//===----------------------------------------------------------------------===//

#include "Verify.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Interfaces/FunctionInterfaces.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/ADT/SmallSet.h"

using namespace mlir;
using namespace moa::gpu;

/// What the two regions of a roles operation do with a ring.
namespace {
struct RingUses {
  Operation *put = nullptr, *get = nullptr, *release = nullptr;
};
} // namespace

LogicalResult moa::gpu::verifyRings(Operation *roles, Region &producer) {
  llvm::MapVector<Value, RingUses> rings;
  WalkResult result = roles->walk([&](Operation *op) -> WalkResult {
    bool produces = producer.isAncestor(op->getParentRegion());
    if (auto put = dyn_cast<PutOp>(op)) {
      if (!produces)
        return op->emitOpError("(C3 of ")
               << roles->getName()
               << ") expected in the producer region; consumers get";
      rings[put.getRing()].put = op;
      return WalkResult::advance();
    }
    if (!isa<GetOp, ReleaseOp, OrderFenceOp>(op))
      return WalkResult::advance();
    if (produces)
      return op->emitOpError("(C3 of ")
             << roles->getName()
             << ") expected in the consumer region; the producer puts";
    RingUses &uses = rings[op->getOperand(0)];
    if (isa<GetOp>(op))
      uses.get = op;
    if (isa<ReleaseOp>(op))
      uses.release = op;
    return WalkResult::advance();
  });
  if (result.wasInterrupted())
    return failure();
  for (auto &[ring, uses] : rings) {
    const char *lacks = !uses.put       ? "put by the producer"
                        : !uses.get     ? "read by the consumers"
                        : !uses.release ? "released by the consumers"
                                        : nullptr;
    if (lacks)
      return roles->emitOpError("(C3) expected every ring to be ")
                 .append(lacks)
                 .attachNote(ring.getLoc())
             << "this one is not: one side would wait for ever";
  }
  return success();
}

LogicalResult moa::gpu::verifyRoleArguments(Operation *roles, Region &producer,
                                            Region &consumer) {
  if (producer.getNumArguments() == 0 && consumer.getNumArguments() == 1 &&
      consumer.getArgument(0).getType().isInteger(32))
    return success();
  return roles->emitOpError("(C1) expected no argument of the producer and one "
                            "i32 of the consumer, got ")
         << producer.getArgumentTypes() << " and "
         << consumer.getArgumentTypes();
}

LaunchAttr moa::gpu::launchOf(Operation *roles) {
  auto kernel = roles->getParentOfType<FunctionOpInterface>();
  return kernel ? kernel->getAttrOfType<LaunchAttr>(kLaunchAttrName) : nullptr;
}

/// (C6) The kernel's launch has the threads and the registers of `roles`.
static LogicalResult verifyLaunch(RolesOp roles) {
  LaunchAttr launch = launchOf(roles);
  if (!launch)
    return success();
  const int64_t consumers = roles.getWarpgroups();
  if (launch.getThreads() != 128 * (consumers + 1))
    return roles.emitOpError("(C6) expected a launch with ")
           << 128 * (consumers + 1) << " threads, a warpgroup more than the "
           << consumers << " that compute, got " << launch.getThreads();
  const int64_t moved = roles.getProducerRegisters() +
                        consumers * int64_t(roles.getConsumerRegisters()),
                had = (consumers + 1) * int64_t(launch.getRegisters());
  if (moved <= had)
    return success();
  return roles.emitOpError("(C6) expected registers of the warpgroups that are "
                           "at most ")
         << had << " together, as at the launch, got " << moved
         << ": consumers would wait for theirs for ever";
}

/// (C5) Every ring used in `roles` has as many readers as there are.
static LogicalResult verifyReaders(RolesOp roles) {
  WalkResult result = roles.walk([&](ReleaseOp release) -> WalkResult {
    auto ring = release.getRing().getDefiningOp<RingOp>();
    if (!ring || ring.getReaders() == roles.getWarpgroups())
      return WalkResult::advance();
    return ring.emitOpError("(C5 of moa_gpu.roles) expected ")
           << roles.getWarpgroups()
           << " readers, as many as there are warpgroups that compute, got "
           << ring.getReaders();
  });
  return failure(result.wasInterrupted());
}

LogicalResult RolesOp::verifyRegions() {
  if (failed(verifyRoleArguments(*this, getProducer(), getConsumer())))
    return failure();
  for (uint64_t registers : {getProducerRegisters(), getConsumerRegisters()})
    if (registers < 24 || registers > 240 || registers % 8)
      return emitOpError("(C2) expected registers to be a multiple of 8 from "
                         "24 to 240, got ")
             << registers;
  WalkResult result = walk([&](Operation *op) -> WalkResult {
    if (!isa<ScoresOp, AccumulateOp, WaitOp, BarrierOp>(op))
      return WalkResult::advance();
    if (getProducer().isAncestor(op->getParentRegion()))
      return op->emitOpError("(C4 of moa_gpu.roles) expected in the consumer "
                             "region: the producer is one thread");
    if (op->getParentOfType<OneThreadOp>())
      return op->emitOpError("(C4 of moa_gpu.roles) expected outside "
                             "moa_gpu.one_thread: the whole warpgroup takes "
                             "part");
    return WalkResult::advance();
  });
  if (result.wasInterrupted() || failed(verifyRings(*this, getProducer())) ||
      failed(verifyReaders(*this)))
    return failure();
  return verifyLaunch(*this);
}

LogicalResult BarrierOp::verify() {
  int64_t threads = getThreads();
  if (threads < 32 || threads % 32)
    return emitOpError("(C1) expected a positive multiple of 32 threads, got ")
           << threads;
  return success();
}

LogicalResult moa::gpu::expectEntryBlock(Operation *op) {
  if (isa_and_nonnull<FunctionOpInterface>(op->getParentOp()) &&
      op->getBlock()->isEntryBlock())
    return success();
  return op->emitOpError("(C1) expected in the entry block of a kernel: shared "
                         "memory is laid out once");
}

LogicalResult RingOp::verify() {
  if (failed(expectEntryBlock(*this)))
    return failure();
  int64_t readers = getReaders();
  if (readers < 1)
    return emitOpError("(C2) expected a positive number of readers, got ")
           << readers;
  return success();
}

LogicalResult SharedOp::verify() {
  if (failed(expectEntryBlock(*this)))
    return failure();
  SharedType tile = getTile().getType();
  if (tile.getElementBytes() == 2)
    return success();
  return emitOpError("(C2) expected a tile of 16-bit elements, got ")
         << tile << "; tiles of f32 are fetched into buffers";
}

LogicalResult PutOp::verifyRegions() {
  Block &body = getBody().front();
  SharedType tile = getRing().getType().getTile();
  if (body.getNumArguments() == 2 &&
      body.getArgument(0).getType() == tile.codes())
    tile = tile.codes();
  if (body.getNumArguments() != 2 || body.getArgument(0).getType() != tile ||
      !isa<BarrierType>(body.getArgument(1).getType()))
    return emitOpError("(C1) expected body arguments (")
           << tile << ", !moa_gpu.barrier), got " << body.getArgumentTypes();
  const int64_t words = getRing().getType().getWords(),
                given = getWords().size(),
                copies = llvm::range_size(body.getOps<CopyWordsOp>());
  if (copies > 1 || (given != words && given != words - 4) ||
      (copies == 1 && given == words))
    return emitOpError("(C3) expected ")
           << words
           << " words, as the ring has, or four fewer and at most one "
              "moa_gpu.copy_words, got "
           << given << " and " << copies;
  int64_t boxes = tile.getRows() / 64 * tile.getPanels();
  llvm::SmallSet<int64_t, 16> covered;
  CopyInOp astray;
  body.walk([&](CopyInOp copy) {
    if (copy->getBlock() != &body || copy.getTile() != body.getArgument(0) ||
        copy.getFull() != body.getArgument(1))
      astray = copy;
  });
  if (astray)
    return astray.emitOpError("(C4 of moa_gpu.put) expected directly in the "
                              "body, to its tile and its barrier: what counts "
                              "at a barrier must be known");
  for (auto copy : body.getOps<CopyInOp>()) {
    ArrayRef<int64_t> box = copy.getBox();
    if (!covered.insert(box[1] * (tile.getRows() / 64) + box[0]).second)
      return copy.emitOpError("(C2 of moa_gpu.put) expected each box once, got "
                              "[")
             << box[0] << ", " << box[1] << "] again";
  }
  if (int64_t(covered.size()) != boxes)
    return emitOpError("(C2) expected copies of all ")
           << boxes << " boxes of the tile, got " << covered.size()
           << ": readers would wait for the rest for ever";
  return success();
}

LogicalResult CopyInOp::verify() {
  SharedType tile = getTile().getType();
  ArrayRef<int64_t> box = getBox();
  if (box.size() == 2 && box[0] >= 0 && box[0] < tile.getRows() / 64 &&
      box[1] >= 0 && box[1] < tile.getPanels())
    return success();
  return emitOpError("(C1) expected a box [row / 64, panel] below [")
         << tile.getRows() / 64 << ", " << tile.getPanels() << "], got [" << box
         << "]";
}

/// What gives back the stage that `get` read, where nothing behind the get
/// holds it back: in its block, then in those around it, up to the roles.
static ReleaseOp releasedAhead(GetOp get) {
  for (Operation *op = get; !isa<RolesOp>(op); op = op->getParentOp())
    for (Operation *next = op->getNextNode(); next;
         next = next->getNextNode()) {
      auto barrier = dyn_cast<BarrierOp>(next);
      if (isa<WaitOp>(next) ||
          (barrier && barrier.getAction() == BarrierAction::Sync))
        return nullptr;
      ReleaseOp found;
      next->walk([&](ReleaseOp release) {
        if (release.getRing() == get.getRing() && !found)
          found = release;
      });
      if (found)
        return found;
    }
  return nullptr;
}

LogicalResult GetOp::verify() {
  RingType ring = getRing().getType();
  if (getTile().getType() != ring.getTile())
    return emitOpError("(C1) expected the ring's tile ")
           << ring.getTile() << ", got " << getTile().getType();
  int64_t words = getWords().size();
  if (words != 0 && words != ring.getWords())
    return emitOpError("(C2) expected no words or the ring's ")
           << ring.getWords() << ", got " << words;
  if (!words || !(*this)->getParentOfType<RolesOp>())
    return success();
  if (ReleaseOp release = releasedAhead(*this))
    return emitOpError(
               "(C3) expected a moa_gpu.wait or a barrier between words "
               "and the ring's release")
               .attachNote(release.getLoc())
           << "one thread releases here, others may still be reading";
  return success();
}

LogicalResult OrderFenceOp::verify() {
  for (Operation *op = (*this)->getPrevNode(); op; op = op->getPrevNode())
    if (auto release = dyn_cast<ReleaseOp>(op))
      if (release.getRing() == getRing() && release.getUse() == getUse())
        return emitOpError("(C1) expected a stage that is held")
                   .attachNote(release.getLoc())
               << "it was released here; put the fence before";
  return success();
}

LogicalResult StageOp::verify() {
  int64_t pairs = cast<VectorType>(getFragment().getType()).getNumElements();
  int64_t expected = getTile().getType().getCols() / 4;
  if (pairs == expected)
    return success();
  return emitOpError("(C1) expected a fragment of ")
         << expected << " pairs, got " << pairs;
}

static LogicalResult expectOneThread(Operation *op) {
  if (op->getParentOfType<OneThreadOp>())
    return success();
  return op->emitOpError("(C1) expected in moa_gpu.one_thread: each thread "
                         "would copy once more");
}
LogicalResult CopyOutOp::verify() { return expectOneThread(*this); }
LogicalResult CopyOutWaitOp::verify() { return expectOneThread(*this); }
