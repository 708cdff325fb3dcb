//===- artifact.cpp - Fuzzing the artifact reader -------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Loads bytes as an artifact and asks what a caller may ask of a module. Bytes
// that are refused are sealed, with the versions, sizes and checksum that the
// reader looks at first, and loaded again: so most mutations reach the checks
// behind, and kept inputs do when a version is raised.
//
//===----------------------------------------------------------------------===//

#include "moa/abi/artifact.h"
#include "moa/abi/version.h"
#include "moa/runtime.hpp"

#include <cstring>
#include <vector>

/// Writes into an artifact's header what the reader compares first.
static void seal(uint8_t *data, size_t size) {
  moa_artifact_header header;
  std::memcpy(&header, data, sizeof(header));
  header.magic = MOA_ARTIFACT_MAGIC;
  header.version = MOA_ARTIFACT_VERSION;
  header.kernel_abi_version = MOA_KERNEL_ABI_VERSION;
  header.header_size = sizeof(header);
  header.file_size = size;
  std::memcpy(data, &header, sizeof(header));
  header.checksum = moa_artifact_checksum(data, size);
  std::memcpy(data, &header, sizeof(header));
}

static moa::Status load(moa::Module &module, const uint8_t *data, size_t size) {
  static moa::Context *context = [] {
    auto *made = new moa::Context;
    if (!made->create(1))
      __builtin_trap();
    return made;
  }();
  return module.load(*context, static_cast<const void *>(data), size);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  moa::Module module;
  if (!load(module, data, size)) {
    if (size < sizeof(moa_artifact_header))
      return 0;
    std::vector<uint8_t> sealed(data, data + size);
    seal(sealed.data(), size);
    if (!load(module, sealed.data(), size))
      return 0;
  }
  moa_module_info info = {};
  if (!module.info(info))
    __builtin_trap();
  uint64_t bytes = 0, dense = 0;
  for (int64_t seen : {int64_t(0), int64_t(1), info.max_length})
    if (!module.kvBytes(info.max_length, seen, bytes, dense))
      __builtin_trap();
  moa::Cache cache;
  moa::Sequence sequence;
  if (!cache.create(module) || !sequence.create(cache, info.max_length))
    __builtin_trap();
  return 0;
}
