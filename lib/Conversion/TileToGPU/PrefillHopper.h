//===- PrefillHopper.h - Parts of prefill on Hopper -------------*- C++ -*-===//
//-*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One builder in three files: the kernel and its items, the warp that loads,
// the warpgroups that compute.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOGPU_PREFILLHOPPER_H
#define MOA_CONVERSION_TILETOGPU_PREFILLHOPPER_H

#include "KernelForm.h"
#include "Prefill.h"
#include "ScoreScale.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"

namespace moa::gpu::prefill {

/// Named barriers: from 1 on for turns, from 4 on for each warpgroup's own.
constexpr int64_t kTurnBarrier = 1, kGroupBarrier = 4;

/// An item's fields, and what follows from them for both roles.
struct Item : ItemFields {
  Value tiles; ///< Window and sink tiles.
  Value uses;  ///< Stages that the item takes: tiles and the sink block.
};

/// What a step hands to the next: outputs, maximum, sum, probabilities. The
/// maximum is that of scaled scores: a power of two, which outputs, sum and
/// probabilities are relative to.
struct State {
  Value output, maximum, sum, probabilities;

  llvm::SmallVector<Value> values() const {
    return {output, maximum, sum, probabilities};
  }
  static State from(ValueRange v) { return {v[0], v[1], v[2], v[3]}; }
};

/// What a tile's softmax gives: its probabilities in f32, the state's maximum
/// and sum with the tile, what outputs so far must be multiplied with, and
/// whether that is other than 1 for a row of the warp.
struct Softmax {
  Value exponents, maximum, sum, rescale, rescales;
};

class PrefillHopper {
public:
  PrefillHopper(mlir::OpBuilder &builder, mlir::Location loc,
                const KernelForm &form)
      : b(loc, builder), form(form), warpgroups(form.rows / 64),
        padded((form.headDim + MOA_GPU_PANEL - 1) / MOA_GPU_PANEL *
               MOA_GPU_PANEL),
        queryTile(
            SharedType::get(b.getContext(), form.rows, padded, form.element)),
        keyTile(
            SharedType::get(b.getContext(), form.keys, padded, form.element)),
        outputType(b.f32s(padded / 2)) {}

  mlir::LLVM::LLVMFuncOp build(llvm::StringRef name);

private:
  Item itemOf(llvm::SmallVector<Value> fields);
  Value tileNumber(const Item &item, Value step);
  Value entryMap(const Item &item, size_t byteOffset);

  void produce();
  void putQueries(const Item &item, Value use);
  llvm::SmallVector<Value> blockPlaces(const Item &item, Value step);
  void putTile(const Item &item, Value tile, ValueRange places, Value use);
  void copyBlocks(mlir::Block &body, ValueRange ids, Value firstBlock,
                  const Item &item, bool values);

  void consume(Value group);
  Item getQueries(Value use);
  State firstStep(const Item &item, Value firstUse);
  State step(const Item &item, Value step, Value firstUse, const State &state,
             Value group);
  State sinkStep(const Item &item, Value firstUse, Value queryUse,
                 const State &state);
  State lastValues(const Item &item, Value firstUse, Value queryUse,
                   const State &state);
  Softmax softmax(Value scores, const State &old);
  Value rescaled(const Softmax &soft, Value output);
  Value maskedTile(const Item &item, Value scores, Value step) {
    Value firstKey = b.mul(tileNumber(item, step), form.keys);
    return maskWhereNeeded(b, window, scores, firstKey, form.keys, sink);
  }
  void store(const Item &item, const State &state, Value group);
  Value startScores(Value keys, int64_t count);
  Value getTile(Value ring, Value use) {
    return GetOp::create(b, keyTile, mlir::TypeRange{}, ring, use).getTile();
  }
  Value startValues(Value probabilities, Value values, Value output) {
    return AccumulateOp::create(b, AsyncType::get(b.getContext(), outputType),
                                probabilities, values, output);
  }
  Value pack(Value fragment);
  Value nextTurn(Value group);
  void turn(BarrierAction action, Value barrier) {
    BarrierOp::create(b, action, barrier, 2 * 128);
  }
  void oneThread(llvm::function_ref<void()> body) {
    auto op = OneThreadOp::create(b);
    mlir::OpBuilder::InsertionGuard guard(b);
    b.createBlock(&op.getBody());
    body();
  }
  Value wait(Value product, int64_t pending) {
    return WaitOp::create(
        b, llvm::cast<AsyncType>(product.getType()).getFragment(), product,
        pending);
  }

  KernelBuilder b;
  const KernelForm form;
  const int64_t warpgroups; ///< That compute.
  const int64_t padded;     ///< Head size rounded up to whole panels.
  const SharedType queryTile, keyTile;
  const VectorType outputType;

  Value maps, items, tables, starts, count, sink; ///< Parameters.
  ScoreScale scale;
  Value queryRing, keyRing, valueRing;
  Value staging; ///< Null where outputs leave through the query tile.
  // Of the item at hand, in a consumer.
  Value queries, groupRow;
  Window window;
};

} // namespace moa::gpu::prefill

#endif // MOA_CONVERSION_TILETOGPU_PREFILLHOPPER_H
