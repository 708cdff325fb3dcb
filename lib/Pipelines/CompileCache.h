//===- CompileCache.h - Finished artifacts on disk --------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Finds and keeps artifacts under a key that covers all they depend on. An
// entry is checked before it is used, so a damaged one is as good as none.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_PIPELINES_COMPILECACHE_H
#define MOA_LIB_PIPELINES_COMPILECACHE_H

#include "moa/Pipelines/Compile.h"

namespace moa {

class CompileCache {
public:
  /// The entry for these inputs in `options.cacheDir`.
  CompileCache(const plan::Plan &plan, const plan::ModelShape &shape,
               const CompileOptions &options);

  /// Fills bytes and stats from the entry; false when there is none or it is
  /// damaged.
  bool load(CompileResult &result) const;

  /// Writes the entry, creating the folder if need be.
  llvm::Error store(const CompileResult &result) const;

private:
  std::string folder;
  std::string path;
};

} // namespace moa

#endif // MOA_LIB_PIPELINES_COMPILECACHE_H
