//===- MoaInterfaces.td - Interfaces ------------------------ -*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_INTERFACES_TD
#define MOA_INTERFACES_TD

include "mlir/IR/OpBase.td"

def Moa_WindowedOpInterface : OpInterface<"WindowedOpInterface"> {
  let cppNamespace = "::moa";
  let description = [{
    An operation that attends with per-head windows. Passes that read or write
    windows, layouts and tile choices speak to this interface and never to a
    concrete operation.
  }];
  let methods = [
    InterfaceMethod<"The windows, or null before a plan is applied.",
      "::moa::WindowAttr", "getWindowAttr">,
    InterfaceMethod<"Replaces the windows.", "void", "setWindowAttr",
      (ins "::moa::WindowAttr":$window)>,
    InterfaceMethod<"The cache layout, or null.", "::moa::CacheLayoutAttr",
      "getLayoutAttr">,
    InterfaceMethod<"Replaces the cache layout.", "void", "setLayoutAttr",
      (ins "::moa::CacheLayoutAttr":$layout)>,
    InterfaceMethod<"The tile choice, or null.", "::moa::TileConfigAttr",
      "getTileConfigAttr">,
    InterfaceMethod<"Replaces the tile choice.", "void", "setTileConfigAttr",
      (ins "::moa::TileConfigAttr":$config)>,
    InterfaceMethod<"What kernel the operation becomes.", "::moa::KernelKind",
      "getKernelKind">,
    InterfaceMethod<"Query heads.", "int64_t", "getQueryHeads", (ins), [{}], [{
      return ::llvm::cast<::mlir::RankedTensorType>(
          $_op.getQueries().getType()).getDimSize(1);
    }]>,
    InterfaceMethod<"The cache's type.", "::moa::CacheType", "getCacheType",
      (ins), [{}], [{
      return ::llvm::cast<::moa::CacheType>($_op.getCache().getType());
    }]>,
    InterfaceMethod<"Query heads per KV head.", "int64_t", "getGroup", (ins),
      [{}], [{
      return ::llvm::cast<::mlir::RankedTensorType>(
                 $_op.getQueries().getType()).getDimSize(1) /
             ::llvm::cast<::moa::CacheType>(
                 $_op.getCache().getType()).getHeads();
    }]>
  ];
}

#endif // MOA_INTERFACES_TD
