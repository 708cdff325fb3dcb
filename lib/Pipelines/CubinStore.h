//===- CubinStore.h - Finished cubins in a folder ---------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Cubins under a key of all that ptxas is given: the PTX, the chip, the level
// of optimisation. Kernels are shared by structure and hold nothing of a plan,
// so a store of common structures serves plans that it has never seen.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_PIPELINES_CUBINSTORE_H
#define MOA_LIB_PIPELINES_CUBINSTORE_H

#include "moa/Target/NVPTX.h"
#include <optional>
#include <string>

namespace moa {

class CubinStore {
public:
  /// The store in `folder`, which need not exist.
  explicit CubinStore(llvm::StringRef folder) : folder(folder) {}

  /// The cubin of this PTX, with its report and the version of its ptxas; none
  /// where there is no entry, or a damaged one. `messages` is empty.
  std::optional<Cubin> load(llvm::StringRef ptx, const GpuChip &chip) const;

  /// Writes an entry, creating the folder if need be.
  llvm::Error store(llvm::StringRef ptx, const GpuChip &chip,
                    const Cubin &cubin) const;

  /// Hash over the names of the entries: what artifacts made with the store
  /// depend on, as a name stands for an entry's key.
  uint64_t contents() const;

private:
  std::string pathOf(llvm::StringRef ptx, const GpuChip &chip) const;

  std::string folder;
};

} // namespace moa

#endif // MOA_LIB_PIPELINES_CUBINSTORE_H
