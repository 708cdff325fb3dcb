//===- MoaGPUFetchVerify.cpp - Verifiers of fetched tiles -----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A fetch has no name that a wait could ask for: waits count. So they are
// counted here, as far as a block shows it.
//
//===----------------------------------------------------------------------===//

#include "Verify.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Utils/StaticValueUtils.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace moa::gpu;

LogicalResult BuffersType::verify(function_ref<InFlightDiagnostic()> emitError,
                                  int64_t places, SharedType) {
  if (places == 1 || places == 2 || places == 4)
    return success();
  return emitError() << "(C1) expected 1, 2 or 4 places, got " << places;
}

LogicalResult BuffersOp::verify() {
  if (failed(expectEntryBlock(*this)))
    return failure();
  for (Operation &op : *(*this)->getBlock())
    if (isa<RolesOp, WarpRolesOp>(op))
      return emitOpError("(C2) expected a kernel without roles")
                 .attachNote(op.getLoc())
             << "these are; a producer fills rings";
  auto launch =
      (*this)->getParentOp()->getAttrOfType<LaunchAttr>(kLaunchAttrName);
  int64_t threads = launch ? launch.getThreads() : 0;
  int64_t rows = getBuffers().getType().getTile().getRows();
  if (llvm::is_contained({64, 128, 256, 512}, threads) &&
      rows % (threads / 8) == 0)
    return success();
  return emitOpError("(C3) expected a launch with 64, 128, 256 or 512 threads, "
                     "at most 8 for each of ")
         << rows << " rows, got " << threads;
}

LogicalResult FetchOp::verify() {
  int64_t columns = getColumns();
  SharedType tile = getBuffers().getType().getTile();
  if (getCodes() && tile.getElementBytes() != 2)
    return emitOpError("(C2) expected a tile of 16-bit elements with codes, "
                       "got ")
           << tile;
  const int64_t most = tile.getCols();
  const int64_t chunk = getCodes() ? 16 : tile.getPanelColumns() / 8;
  if (columns >= chunk && columns % chunk == 0 && columns <= most)
    return success();
  return emitOpError("(C1) expected columns to be a multiple of ")
         << chunk << " from " << chunk << " to " << most << ", got " << columns;
}

static bool isSameUse(Value x, Value y) {
  std::optional<int64_t> number = getConstantIntValue(x);
  return x == y || (number && number == getConstantIntValue(y));
}

/// Fetches in the block between that of the awaited use and the await, or none
/// where the block has no such fetch.
static std::optional<int64_t> countYounger(AwaitOp await) {
  int64_t younger = 0;
  for (Operation *op = await->getPrevNode(); op; op = op->getPrevNode()) {
    auto fetch = dyn_cast<FetchOp>(op);
    if (!fetch)
      continue;
    if (fetch.getBuffers() == await.getBuffers() &&
        isSameUse(fetch.getUse(), await.getUse()))
      return younger;
    ++younger;
  }
  return std::nullopt;
}

/// Fetches into the buffers behind the await, up to the next await of a
/// rotation or the block's end.
static int64_t countRefills(AwaitOp await) {
  int64_t refills = 0;
  for (Operation *op = await->getNextNode(); op; op = op->getNextNode()) {
    if (auto next = dyn_cast<AwaitOp>(op))
      if (next.getBuffers() == await.getBuffers())
        break;
    if (auto fetch = dyn_cast<FetchOp>(op))
      refills += fetch.getBuffers() == await.getBuffers();
  }
  return refills;
}

LogicalResult AwaitOp::verify() {
  BuffersType type = getBuffers().getType();
  int64_t places = type.getPlaces(), pending = getPending();
  if (getTile().getType() != type.getTile())
    return emitOpError("(C4) expected the buffers' tile ")
           << type.getTile() << ", got " << getTile().getType();
  if ((*this)->getParentOfType<scf::IfOp>())
    return emitOpError("(C5) expected under no branch: all threads of the "
                       "block meet here");
  std::optional<int64_t> younger = countYounger(*this);
  if (younger && pending != *younger)
    return emitOpError("(C1) expected pending ")
           << *younger << ", the fetches since that of this use, got "
           << pending;
  if (!younger && (places < 2 || pending != places - 2))
    return emitOpError("(C2) expected a fetch of this use before it in the "
                       "block, or two places or more and as many pending, "
                       "less 2; got ")
           << places << " places and pending " << pending;
  int64_t refills = places > 1 ? countRefills(*this) : 1;
  if (refills == 1)
    return success();
  return emitOpError("(C3) expected one fetch into the buffers before the next "
                     "await of them, got ")
         << refills;
}
