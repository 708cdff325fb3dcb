//===- Builder.h - Arithmetic of kernels being arranged ---------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A builder with short names for i32 arithmetic, vectors, loads of fields,
// and the kernel's signature. What the kernels have in common, nothing of any
// one of them.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOGPU_BUILDER_H
#define MOA_CONVERSION_TILETOGPU_BUILDER_H

#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace moa::gpu {

class KernelBuilder : public mlir::ImplicitLocOpBuilder {
public:
  using mlir::ImplicitLocOpBuilder::ImplicitLocOpBuilder;
  using Value = mlir::Value;

  Value i32(int64_t value);
  Value f32(float value);
  Value add(Value x, Value y);
  Value add(Value x, int64_t y) { return y ? add(x, i32(y)) : x; }
  Value sub(Value x, Value y);
  Value mul(Value x, int64_t y);
  Value wide(Value x);         ///< To i64, unsigned.
  Value max(Value x, Value y); ///< Signed.
  Value min(Value x, Value y); ///< Signed.
  Value equal(Value x, int64_t y);
  Value bitAnd(Value x, int64_t y);
  Value shift(Value x, int64_t y);     ///< Right, unsigned.
  Value divide(Value x, int64_t y);    ///< Unsigned.
  Value remainder(Value x, int64_t y); ///< Unsigned.
  Value less(Value x, Value y);
  Value lessEqual(Value x, Value y);
  Value both(Value x, Value y);
  Value either(Value x, Value y);
  Value select(Value c, Value x, Value y);

  mlir::VectorType f32s(int64_t size);
  mlir::VectorType i32s(int64_t size);
  Value splat(int64_t size, float value); ///< A vector of f32.
  llvm::SmallVector<Value> split(Value vector);
  Value join(mlir::ValueRange elements);

  /// Pointer `bytes` behind `base`.
  Value offset(Value base, Value bytes);
  Value offset(Value base, int64_t bytes);
  /// Pointer to element `index` of an array of structs of `bytes`.
  Value element(Value base, Value index, int64_t bytes);
  /// The i32 at `index` of an array that no one writes during the launch.
  Value loadI32(Value base, Value index);
  /// The i32 fields in the first `front` bytes of a struct of `bytes` (both
  /// multiples of 16) at `index` of an array, by 16-byte loads.
  llvm::SmallVector<Value> loadStruct(Value base, Value index, int64_t bytes,
                                      int64_t front);
  llvm::SmallVector<Value> loadStruct(Value base, Value index, int64_t bytes) {
    return loadStruct(base, index, bytes, bytes);
  }

  /// The field of `type` that lies `bytes` behind `base`, aligned as its type
  /// (at most 8 bytes) and written by no one during the launch.
  Value loadField(Value base, int64_t bytes, mlir::Type type);

  /// Fetches a struct of an array to the L2 cache.
  void prefetchStruct(Value base, Value index, int64_t bytes);

  Value blockId();
  Value gridSize();
  Value threadId();

  mlir::Type globalPointer();

  /// An empty kernel that takes a struct of `bytes` bytes by value, aligned to
  /// `align`, then `types`.
  mlir::LLVM::LLVMFuncOp kernel(llvm::StringRef name, int64_t bytes,
                                int64_t align, llvm::ArrayRef<mlir::Type> types,
                                LaunchAttr launch);
  /// An empty kernel that takes a pointer to items in global memory, which it
  /// only reads, and their number.
  mlir::LLVM::LLVMFuncOp itemKernel(llvm::StringRef name, LaunchAttr launch);
  /// Marks a pointer parameter through which the kernel only reads.
  void markReadOnly(mlir::LLVM::LLVMFuncOp function, unsigned number);

  /// An empty kernel that attends, with the parameters of moa/abi/gpu_args.h: a
  /// struct of `bytes` bytes by value, aligned to `align`, then `pointers`
  /// pointers to global memory, the first `readOnly` of which it only reads,
  /// then `integers` i32, the last of which is the sink, and the scale.
  mlir::LLVM::LLVMFuncOp attentionKernel(llvm::StringRef name, int64_t bytes,
                                         int64_t align, unsigned pointers,
                                         unsigned readOnly, unsigned integers,
                                         LaunchAttr launch);

  /// A loop over i32 with values carried along; `body` returns the next ones.
  using LoopBody =
      llvm::function_ref<llvm::SmallVector<Value>(Value, mlir::ValueRange)>;
  llvm::SmallVector<Value> loop(Value from, Value to, Value step,
                                mlir::ValueRange init, LoopBody body);
  /// A loop while `go` holds of the values carried along.
  using GoOn = llvm::function_ref<Value(mlir::ValueRange)>;
  using Next = llvm::function_ref<llvm::SmallVector<Value>(mlir::ValueRange)>;
  llvm::SmallVector<Value> whileLoop(mlir::ValueRange init, GoOn go, Next next);
  /// A branch without values.
  void ifThen(Value condition, llvm::function_ref<void()> body);
  /// A branch that yields what the bodies return, of types `types`.
  using BranchBody = llvm::function_ref<llvm::SmallVector<Value>()>;
  llvm::SmallVector<Value> branch(Value condition, mlir::TypeRange types,
                                  BranchBody yes, BranchBody no);
};

} // namespace moa::gpu

#endif // MOA_CONVERSION_TILETOGPU_BUILDER_H
