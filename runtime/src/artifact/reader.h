//===- reader.h - Artifact reader -------------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Turns bytes of unknown origin into checked tables. Nothing behind this reader
// looks at the bytes again.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_ARTIFACT_READER_H
#define MOA_RT_ARTIFACT_READER_H

#include "moa/abi/artifact.h"
#include "status.h"

#include <string>
#include <vector>

namespace moa::rt {

/// One image of a kernel; `code` points into the artifact's bytes.
struct ImageRecord {
  moa_artifact_image facts;
  std::string chip;
  std::string function; ///< GPU: the kernel's name in the image.
  const uint8_t *code;
};

struct KernelRecord {
  moa_artifact_kernel facts;
  std::string name;
  std::vector<ImageRecord> images;
};

/// The tables of an artifact; valid while the bytes they were read from are.
struct Artifact {
  moa_artifact_header header;
  std::vector<moa_span_rule> rules; ///< [layer][query head].
  std::vector<uint8_t> kvFormats;   ///< [layer][KV head]: MOA_KV_*.
  std::vector<moa_artifact_layer> layers;
  std::vector<KernelRecord> kernels;
};

/// Reads and checks; `origin` names the artifact in messages.
Status readArtifact(const uint8_t *bytes, size_t size,
                    const std::string &origin, Artifact &out);

} // namespace moa::rt

#endif // MOA_RT_ARTIFACT_READER_H
