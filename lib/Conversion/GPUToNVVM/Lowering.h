//===- Lowering.h - State of one kernel's lowering --------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Where rings and tiles lie in shared memory, what their SSA values stand for,
// and a builder for the arithmetic in between. One function a family of
// operations; each replaces the operation it is given.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_GPUTONVVM_LOWERING_H
#define MOA_CONVERSION_GPUTONVVM_LOWERING_H

#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "llvm/ADT/DenseMap.h"

namespace moa::gpu {

/// A ring's place: bytes from the start of shared memory, barriers by number.
struct RingPlace {
  int64_t offset = 0;
  int64_t firstFull = 0;  ///< One full barrier a stage,
  int64_t firstEmpty = 0; ///< then one empty barrier a stage.
  int64_t words = 0;      ///< Where the stages' words are, bytes.
};

/// Lowers one kernel function.
class KernelLowering {
public:
  KernelLowering(mlir::LLVM::LLVMFuncOp kernel);
  /// Replaces every operation of the dialect.
  mlir::LogicalResult run();

private:
  // GPUToNVVM.cpp
  void layOut();
  /// Reserves shared memory; where it lies from the start.
  int64_t place(int64_t bytes, int64_t alignment);
  void lowerRoles(RolesOp op);
  void lowerOneThread(OneThreadOp op);
  void lowerBarrier(BarrierOp op);
  void initBarriers();
  /// Moves a region's operations into the block that holds the builder.
  void inlineBody(mlir::Block &from);

  // Rings.cpp
  void lowerPut(PutOp op);
  void lowerCopyIn(CopyInOp op);
  void lowerGet(GetOp op);
  void lowerRelease(ReleaseOp op);
  void lowerOrderFence(OrderFenceOp op);
  void lowerStage(StageOp op);
  void lowerCopyOut(CopyOutOp op);
  void lowerCopyOutWait(CopyOutWaitOp op);

  // Fetches.cpp
  void lowerFetch(FetchOp op);
  void lowerAwait(AwaitOp op);
  mlir::Value bufferPointer(mlir::TypedValue<BuffersType> buffers,
                            mlir::Value use);

  // Codes.cpp
  void lowerAsCodes(AsCodesOp op);
  void lowerCopyWords(CopyWordsOp op);
  void lowerWeave(WeaveOp op);
  void lowerLoadWoven(LoadWovenOp op);
  void lowerUnpack(UnpackOp op);
  mlir::Value halves(mlir::Value low, mlir::Value high, bool upper);

  // Products.cpp
  void lowerScores(ScoresOp op);
  void lowerAccumulate(AccumulateOp op);
  void lowerWait(WaitOp op);

  // Fragments.cpp
  void lowerLaneRow(LaneRowOp op);
  void lowerMask(MaskOp op);
  void lowerRowReduce(RowReduceOp op);
  void lowerLaneReduce(LaneReduceOp op);
  void lowerExp2(Exp2Op op);
  void lowerTanh(TanhOp op);
  void lowerRowScale(RowScaleOp op);
  void lowerReciprocal(ReciprocalOp op);
  void lowerPack(PackOp op);

  // Warps.cpp
  void lowerWarpRoles(WarpRolesOp op);
  void lowerLaneCount(LaneCountOp op);
  void lowerLoadMatrix(LoadMatrixOp op);
  void lowerOpaque(OpaqueOp op);
  void lowerStorePiece(StorePieceOp op);
  void lowerSeal(SealOp op);
  void lowerLoadRight(LoadRightOp op);
  void lowerSplit(SplitOp op);
  void lowerMultiply(MultiplyOp op);
  void lowerTranspose(TransposeOp op);
  void lowerMaskColumns(MaskColumnsOp op);
  void lowerCountArrival(CountArrivalOp op);

  // Arithmetic on i32 and f32; constants fold.
  using Value = mlir::Value;
  Value i32(int64_t value);
  Value f32(float value);
  Value add(Value x, Value y);
  Value add(Value x, int64_t y) { return y ? add(x, i32(y)) : x; }
  Value sub(Value x, Value y);
  Value mul(Value x, int64_t y);
  Value bitAnd(Value x, int64_t y);
  Value shift(Value x, int64_t y);
  Value less(Value x, Value y); ///< Signed.
  Value equal(Value x, int64_t y);
  Value select(Value c, Value x, Value y);
  Value exp2(Value x);
  Value fma(Value x, Value y, Value z);
  Value reduce(Reduction kind, Value x, Value y);
  /// Value of the lane whose number differs in the bits of `mask`.
  Value shuffle(Value x, int64_t mask);
  Value threadId();
  /// The warp's number in the block, known to be the same in all its lanes.
  Value warpId();
  void ifThen(Value condition, llvm::function_ref<void()> body);

  llvm::SmallVector<Value> split(Value vector);
  Value join(mlir::ValueRange elements, mlir::Type elementType);

  /// Shared-memory pointer `bytes` behind `base`.
  Value offset(Value base, Value bytes);
  Value offset(Value base, int64_t bytes);
  /// 32-bit address of a shared-memory pointer.
  Value address(Value pointer);
  Value sharedBase();
  /// Address of barrier `first + stage`.
  Value barrier(int64_t first, Value stage);
  Value stageOf(RingType ring, Value use);
  Value phaseOf(RingType ring, Value use);
  Value stagePointer(RingType ring, const RingPlace &place, Value use);
  Value wordsPointer(RingType ring, const RingPlace &place, Value use);
  /// Descriptor of a tile for products, from row `row` on (null: row 0).
  Value descriptor(Value tile, Value row, int64_t leadingBytes);

  mlir::LLVM::LLVMFuncOp kernel;
  mlir::ImplicitLocOpBuilder b;
  llvm::DenseMap<Value, RingPlace> rings;
  llvm::DenseMap<Value, int64_t> places; ///< Of tiles, buffers, scratch.
  /// What a value of the dialect's types stands for: a pointer or a vector.
  llvm::DenseMap<Value, Value> lowered;
  /// By the barrier of a stage being written: where its last words are.
  llvm::DenseMap<Value, Value> lastWords;
  /// Of a tile in a ring: where stage 0 is, and the tile's stage.
  llvm::DenseMap<Value, std::pair<Value, Value>> stages;
  int64_t sharedBytes = 0;
  int64_t barriers = 0;
  bool warpRoles = false;              ///< Warps, not warpgroups, have roles.
  llvm::SmallVector<int64_t> arrivals; ///< Of each barrier.
  mlir::LogicalResult status = mlir::success();
};

} // namespace moa::gpu

#endif // MOA_CONVERSION_GPUTONVVM_LOWERING_H
