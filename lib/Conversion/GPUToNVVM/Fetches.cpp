//===- Fetches.cpp - Tiles fetched by all threads to NVVM -----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Eight threads take the eight 16-byte chunks of a row of a panel, the block's
// threads as many rows at a time as they reach. Chunk c of row r goes to place
// c ^ (r % 8) of the row, so neither copies nor matrix loads meet a bank twice.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace moa::gpu;

static constexpr int64_t kChunk = 16; ///< Bytes; 8 in a row of a panel.

Value KernelLowering::bufferPointer(TypedValue<BuffersType> buffers,
                                    Value use) {
  BuffersType type = buffers.getType();
  Value number = bitAnd(use, type.getPlaces() - 1);
  return offset(sharedBase(),
                add(mul(number, type.getTile().getBytes()), places[buffers]));
}

void KernelLowering::lowerFetch(FetchOp op) {
  SharedType tile = op.getBuffers().getType().getTile();
  auto launch = kernel->getAttrOfType<LaunchAttr>(kLaunchAttrName);
  const int64_t rows = launch.getThreads() / 8;
  const int64_t chunks = op.getColumns() * tile.getElementBytes() / kChunk;
  const int64_t codeChunks = op.getColumns() / kChunk;
  ifThen(op.getPresent(), [&] {
    Value row = shift(threadId(), 3), chunk = bitAnd(threadId(), 7);
    Value swizzled = arith::XOrIOp::create(b, chunk, bitAnd(row, 7));
    Value target = offset(bufferPointer(op.getBuffers(), op.getUse()),
                          add(mul(row, 128), mul(swizzled, kChunk)));
    auto wide = [&](Value x) {
      return arith::ExtUIOp::create(b, b.getI64Type(), x).getResult();
    };
    Value start = arith::AddIOp::create(
        b, arith::MulIOp::create(b, wide(row), op.getStride()),
        wide(mul(chunk, kChunk)));
    Value pass = arith::MulIOp::create(
        b, op.getStride(),
        arith::ConstantOp::create(b, b.getI64IntegerAttr(rows)));
    Value first = add(op.getFirst(), row);
    SmallVector<Value> sources, sizes;
    Value source = offset(op.getSource(), start);
    for (int64_t r = 0; r < tile.getRows(); r += rows) {
      sources.push_back(source);
      // A row before the first is a large number.
      Value inside = arith::CmpIOp::create(b, arith::CmpIPredicate::ult,
                                           add(first, r), op.getEnd());
      sizes.push_back(select(inside, i32(kChunk), i32(0)));
      source = offset(source, pass);
    }
    auto copyPanel = [&](int64_t panel) {
      for (auto [i, from, size] : llvm::enumerate(sources, sizes))
        NVVM::CpAsyncOp::create(b,
                                offset(target, panel * tile.getPanelBytes() +
                                                   int64_t(i) * rows * 128),
                                offset(from, panel * 128), kChunk,
                                NVVM::LoadCacheModifierKind::CG, size);
    };
    auto copyRows = [&](int64_t chunks) {
      for (int64_t panel = 0; panel * 8 < chunks; ++panel) {
        int64_t left = chunks - panel * 8;
        if (left >= 8)
          copyPanel(panel);
        else
          ifThen(less(chunk, i32(left)), [&] { copyPanel(panel); });
      }
    };
    if (!op.getCodes())
      return copyRows(chunks);
    auto branch = scf::IfOp::create(b, TypeRange{}, op.getCodes(), true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(branch.thenBlock());
    copyRows(codeChunks);
    b.setInsertionPointToStart(branch.elseBlock());
    copyRows(chunks);
  });
  NVVM::CpAsyncCommitGroupOp::create(b);
}

void KernelLowering::lowerAwait(AwaitOp op) {
  NVVM::CpAsyncWaitGroupOp::create(b, op.getPending());
  NVVM::Barrier0Op::create(b);
  lowered[op.getTile()] = bufferPointer(op.getBuffers(), op.getUse());
}
