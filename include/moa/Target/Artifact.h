//===- Artifact.h - Writing .moa artifacts ----------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The value that becomes an artifact, its encoding as bytes, and writing files
// so that a reader never sees half of one. The format itself is
// moa/abi/artifact.h of the runtime.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TARGET_ARTIFACT_H
#define MOA_TARGET_ARTIFACT_H

#include "mlir/IR/BuiltinOps.h"
#include "moa/abi/artifact.h"
#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include <array>
#include <string>
#include <vector>

namespace moa {

/// Code of one kernel for one target variant.
struct ArtifactImage {
  uint32_t target = MOA_TARGET_CPU_X86_64; ///< MOA_TARGET_*.
  /// CPU: MOA_CPU_* bits it needs. GPU: capability and MOA_GPU_ARCH_SPECIFIC.
  uint32_t features = 0;
  std::string chip;          ///< Name of the variant.
  std::vector<uint8_t> code; ///< PTX ends with a zero byte.
  uint64_t entry = 0;        ///< CPU: offset of the kernel in `code`.
  std::string function;      ///< GPU: name of the kernel in `code`.
  /// CPU: scratch per thread. GPU: dynamic shared memory of a block.
  uint64_t scratchBytes = 0;
  uint32_t threads = 0;   ///< GPU: threads of a block.
  uint32_t rows = 0;      ///< GPU: query rows of an item, or 0.
  uint32_t keys = 0;      ///< GPU: keys of a tile, or 0.
  uint32_t registers = 0; ///< GPU: registers of a thread; 0 for PTX.
};

/// One kernel structure and its images, the preferred one first. None where no
/// target has such a kernel: a runtime that needs it says so.
struct ArtifactKernel {
  std::string name;
  uint32_t kind = 0;  ///< MOA_KERNEL_*.
  uint32_t dtype = 0; ///< MOA_DTYPE_*.
  uint32_t headDim = 0;
  uint32_t group = 1;
  uint32_t rotation = 0; ///< Rope: moa_artifact_rotation.
  bool kv8 = false; ///< Prefill, decode: takes blocks of 8 bits beside others.
  /// Layers that launch it, increasing. Not stored: the layer table says it.
  std::vector<int64_t> layers;
  std::vector<ArtifactImage> images;
};

/// All that an artifact says.
struct ArtifactContents {
  uint32_t layers = 0;
  uint32_t qHeads = 0;
  uint32_t kvHeads = 0;
  uint32_t headDim = 0;
  uint32_t dtype = 0;     ///< MOA_DTYPE_*.
  int32_t lengthRule = 0; ///< MOA_LENGTH_*.
  int64_t maxLength = 0;  ///< Tokens.
  float softCap = 0;      ///< Of scores; 0 where they have none.
  std::array<uint8_t, 32> planId = {};
  std::vector<moa_span_rule> rules;           ///< layers * qHeads.
  std::vector<uint8_t> kvFormats;             ///< layers * kvHeads of MOA_KV_*.
  std::vector<moa_artifact_layer> layerTable; ///< Indices into `kernels`.
  std::vector<ArtifactKernel> kernels;
};

/// Encodes an artifact. Equal contents give equal bytes. Fails, naming index,
/// expected and found value, when a reader would have to refuse the result.
llvm::Expected<std::vector<uint8_t>>
writeArtifact(const ArtifactContents &contents);

/// Reads everything but the images off a module at the tile level: model,
/// plan id, rules and formats in the launches' windows, and one kernel per
/// nested module with `moa.kernel`. Errors are reported at the operation that
/// lacks something.
mlir::FailureOr<ArtifactContents> collectKernelTable(mlir::ModuleOp module);

/// Appends a prepare kernel without images, for every layer that has a decode
/// kernel. Returns its index.
size_t addPrepareKernel(ArtifactContents &contents);

/// Replaces the file at `path` by `bytes`, whole or not at all: writes a
/// temporary file beside it, flushes it to the disk and renames it. Leaves
/// nothing behind on failure. What is no regular file (a pipe, /dev/null) is
/// written to in place; "-" is the standard output.
llvm::Error writeFileAtomically(llvm::StringRef path,
                                llvm::ArrayRef<uint8_t> bytes);
llvm::Error writeFileAtomically(llvm::StringRef path, llvm::StringRef text);

} // namespace moa

#endif // MOA_TARGET_ARTIFACT_H
