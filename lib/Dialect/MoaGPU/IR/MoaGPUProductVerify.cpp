//===- MoaGPUProductVerify.cpp - Verifiers of asynchronous products -------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Shapes, then what the hardware leaves undefined: registers touched and stages
// given back while a product runs, products that only some threads start.
//
//===----------------------------------------------------------------------===//

#include "Verify.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "llvm/ADT/SetVector.h"

using namespace mlir;
using namespace moa::gpu;

static int64_t sizeOf(Value value) {
  return cast<VectorType>(value.getType()).getNumElements();
}

/// Whether the threads of a warp, or those of a warpgroup, get different
/// results. The words of a ring are the same for all.
static bool differsByThread(Operation *op, Scope scope) {
  if (isa<WarpOp>(op))
    return scope == Scope::Warpgroup;
  if (isa<NVVM::ThreadIdXOp, NVVM::LaneIdOp, NVVM::WarpIdOp, NVVM::ElectSyncOp>(
          op))
    return true;
  return isa<MoaGPUDialect>(op->getDialect()) && !isa<GetOp>(op) &&
         llvm::any_of(op->getResultTypes(), [](Type type) {
           return !isa<RingType, SharedType>(type);
         });
}

/// What `value`, number `i` of those that a loop carries or that a branch
/// yields, comes from.
static void addCarried(Operation *op, size_t i, SetVector<Value> &sources) {
  if (auto loop = dyn_cast<scf::ForOp>(op)) {
    sources.insert(loop.getInitArgs()[i]);
    sources.insert(loop.getYieldedValues()[i]);
  } else if (auto branch = dyn_cast<scf::IfOp>(op)) {
    sources.insert(branch.getCondition());
    sources.insert(branch.thenYield()->getOperand(i));
    sources.insert(branch.elseYield()->getOperand(i));
  }
}

/// What decides how often, or whether, the regions of `op` run.
static void addConditions(Operation *op, SetVector<Value> &sources) {
  if (auto loop = dyn_cast<scf::ForOp>(op))
    sources.insert_range(
        ValueRange{loop.getLowerBound(), loop.getUpperBound(), loop.getStep()});
  else if (auto branch = dyn_cast<scf::IfOp>(op))
    sources.insert(branch.getCondition());
  else
    sources.insert_range(op->getOperands());
}

LogicalResult moa::gpu::verifyUniform(Operation *op, StringRef constraint,
                                      Scope scope) {
  SetVector<Value> sources;
  for (Operation *parent = op->getParentOp();
       parent && !isa<RolesOp, WarpRolesOp, FunctionOpInterface>(parent);
       parent = parent->getParentOp())
    addConditions(parent, sources);
  for (size_t i = 0; i < sources.size(); ++i) { // It grows.
    Value source = sources[i];
    if (auto argument = dyn_cast<BlockArgument>(source)) {
      auto loop = dyn_cast<scf::ForOp>(argument.getOwner()->getParentOp());
      if (loop && argument == loop.getInductionVar())
        addConditions(loop, sources);
      else if (loop)
        addCarried(loop, argument.getArgNumber() - 1, sources);
      continue;
    }
    Operation *from = source.getDefiningOp();
    if (differsByThread(from, scope))
      return op->emitOpError("(")
                 .append(constraint, ") expected under no branch or loop that "
                                     "may go differently in different threads")
                 .attachNote(from->getLoc())
             << "its condition depends on this, which differs by thread";
    if (isa<scf::ForOp, scf::IfOp>(from))
      addCarried(from, cast<OpResult>(source).getResultNumber(), sources);
    else
      sources.insert_range(from->getOperands());
  }
  return success();
}

/// (C4) and (C5) of operations that start a product.
static LogicalResult verifyProduct(Operation *op) {
  Value product = op->getResult(0);
  auto wait = product.hasOneUse()
                  ? dyn_cast<WaitOp>(*product.getUsers().begin())
                  : WaitOp();
  if (!wait || wait->getBlock() != op->getBlock())
    return op->emitOpError("(C4) expected one use, a moa_gpu.wait in the same "
                           "block: registers of a product in flight must not "
                           "be touched or moved");
  return verifyUniform(op, "C5", Scope::Warpgroup);
}

LogicalResult ScoresOp::verify() {
  SharedType q = getQueries().getType(), k = getKeysTile().getType();
  int64_t depth = getDepth(), keys = getKeys();
  if (q.getCols() != k.getCols() || q.getElementType() != k.getElementType() ||
      depth < 16 || depth % 16 || depth > q.getCols())
    return emitOpError("(C1) expected tiles of equal columns and types and a "
                       "depth of a multiple of 16 up to those columns, got ")
           << q << ", " << k << " and depth " << depth;
  if (keys < 8 || keys % 8 || keys > 256 || keys > k.getRows())
    return emitOpError("(C2) expected keys to be a multiple of 8 from 8 to ")
           << std::min<int64_t>(256, k.getRows()) << ", got " << keys;
  int64_t size = getResult().getType().getFragment().getNumElements();
  if (size != keys / 2)
    return emitOpError("(C3) expected a fragment of ")
           << keys / 2 << " elements, got " << size;
  return verifyProduct(*this);
}

LogicalResult AccumulateOp::verify() {
  SharedType v = getValues().getType();
  int64_t keys = sizeOf(getProbabilities()) * 4;
  if (keys > v.getRows() || keys % 16)
    return emitOpError("(C1) expected probabilities of a multiple of 16 keys "
                       "up to the tile's ")
           << v.getRows() << ", got " << keys;
  if (sizeOf(getAccumulator()) * 2 != v.getCols())
    return emitOpError("(C2) expected an accumulator of ")
           << v.getCols() / 2 << " elements, got " << sizeOf(getAccumulator());
  if (v.getCols() > 256)
    return emitOpError("(C3) expected values of at most 256 columns, got ")
           << v.getCols();
  return verifyProduct(*this);
}

/// Whether the product that `op` starts is still in flight at `wait`.
static bool inFlightAt(Operation &op, WaitOp wait) {
  for (Operation *user : op.getResult(0).getUsers())
    if (user->getBlock() == wait->getBlock() && user->isBeforeInBlock(wait))
      return false;
  return true;
}

/// (C4): the stages that `start` reads stay this warpgroup's until `wait`.
static LogicalResult verifyHeld(Operation *start, WaitOp wait) {
  for (Value operand : start->getOperands()) {
    auto get = operand.getDefiningOp<GetOp>();
    for (Operation *op = start; get && op != wait; op = op->getNextNode()) {
      auto release = dyn_cast<ReleaseOp>(op);
      if (release && release.getRing() == get.getRing() &&
          release.getUse() == get.getUse())
        return wait.emitOpError("(C4) expected the stages that the product "
                                "reads to be held until here")
                   .attachNote(release.getLoc())
               << "it is released here, and may be overwritten; put this "
                  "behind the wait";
    }
  }
  return success();
}

LogicalResult WaitOp::verify() {
  Operation *start = getProduct().getDefiningOp();
  if (!start || start->getBlock() != (*this)->getBlock())
    return emitOpError("(C1) expected a product that was started in the same "
                       "block")
               .attachNote(getProduct().getLoc())
           << "a product must not cross a block while its registers are being "
              "written";
  int64_t younger = 0;
  bool seen = false;
  for (Operation &op : *(*this)->getBlock()) {
    if (&op == *this)
      break;
    if (&op == start) {
      seen = true;
      continue;
    }
    if (!isa<ScoresOp, AccumulateOp>(op) || !inFlightAt(op, *this))
      continue;
    if (!seen)
      return emitOpError("(C3) expected no older product in flight")
                 .attachNote(op.getLoc())
             << "wait for this one first: products end in the order of their "
                "start";
    ++younger;
  }
  int64_t pending = getPending();
  if (pending != younger)
    return emitOpError("(C2) expected pending ")
           << younger << ", the products started later and in flight, got "
           << pending;
  return verifyHeld(start, *this);
}
