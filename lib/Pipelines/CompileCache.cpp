//===- CompileCache.cpp - Finished artifacts on disk ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// An entry is a line 'moa-cache-1 CHECKSUM BYTES', that many bytes of
// statistics in JSON, and the artifact.
//
//===----------------------------------------------------------------------===//

#include "CompileCache.h"
#include "CompileStats.h"
#include "CubinStore.h"

#include "moa/Target/Artifact.h"
#include "moa/abi/version.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Config/llvm-config.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SHA256.h"
#include "llvm/Support/xxhash.h"
#include <dlfcn.h>

using namespace moa;

static constexpr llvm::StringLiteral kMagic = "moa-cache-1";

/// Hash of the program or library this code is in, the code of the prepare
/// kernel included: artifacts of another build of the compiler are never taken
/// for ours.
static uint64_t buildHash() {
  static const uint64_t hash = [] {
    Dl_info info;
    if (!dladdr(reinterpret_cast<void *>(&buildHash), &info) || !info.dli_fname)
      return uint64_t(0);
    // A program started by its bare name is not a path.
    for (llvm::StringRef path :
         {llvm::StringRef(info.dli_fname), llvm::StringRef("/proc/self/exe")})
      if (auto buffer = llvm::MemoryBuffer::getFile(
              path, /*IsText=*/false, /*RequiresNullTerminator=*/false))
        return llvm::xxh3_64bits((*buffer)->getBuffer());
    return uint64_t(0);
  }();
  return hash;
}

CompileCache::CompileCache(const plan::Plan &plan,
                           const plan::ModelShape &shape,
                           const CompileOptions &options)
    : folder(options.cacheDir) {
  std::string key = llvm::formatv(
      "{0} {1} {2}|{3}|{4} {5} {6} {7} {8} {9}|{10} "
      "{11}{12}{13}|",
      kMagic, LLVM_VERSION_STRING, buildHash(), plan.idText(), shape.layers,
      shape.qHeads, shape.kvHeads, shape.headDim, shape.maxLength,
      llvm::bit_cast<uint32_t>(shape.softCap), int(options.dtype),
      options.phases.prefill, options.phases.decode, options.phases.append);
  if (const std::optional<RopeShape> &rope = options.phases.rope)
    key += llvm::formatv("rope {0} {1}|", int(rope->layout),
                         rope->rotaryDim.value_or(shape.headDim));
  key +=
      llvm::formatv("{0} {1}|", MOA_ARTIFACT_VERSION, MOA_KERNEL_ABI_VERSION);
  for (const CpuChip *chip : options.chips)
    key += (chip->name + ",").str();
  for (const GpuChip *chip : options.gpuChips)
    key += (chip->name + ",").str();
  if (options.ptxas)
    key += options.ptxas->version;
  else if (options.cubinDir.empty() || options.gpuChips.empty())
    key += "no ptxas";
  else
    key += llvm::formatv("no ptxas, cubins {0}",
                         CubinStore(options.cubinDir).contents());
  std::array<uint8_t, 32> digest =
      llvm::SHA256::hash(llvm::arrayRefFromStringRef(key));
  llvm::SmallString<256> file(folder);
  llvm::sys::path::append(file, llvm::toHex(digest, /*LowerCase=*/true) +
                                    ".moa-cache");
  path = file.str().str();
}

bool CompileCache::load(CompileResult &result) const {
  auto buffer = llvm::MemoryBuffer::getFile(path, /*IsText=*/false,
                                            /*RequiresNullTerminator=*/false);
  if (!buffer)
    return false;
  auto [line, body] = (*buffer)->getBuffer().split('\n');
  auto [magic, numbers] = line.split(' ');
  auto [checksum, size] = numbers.split(' ');
  uint64_t expected = 0, statsBytes = 0;
  if (magic != kMagic || checksum.getAsInteger(16, expected) ||
      size.getAsInteger(10, statsBytes) || statsBytes > body.size() ||
      llvm::xxh3_64bits(body) != expected)
    return false;
  CompileStats stats;
  if (!readStats(body.take_front(statsBytes), stats))
    return false;
  llvm::StringRef artifact = body.drop_front(statsBytes);
  result.bytes.assign(artifact.bytes_begin(), artifact.bytes_end());
  result.stats = std::move(stats);
  result.stats.cacheHit = true;
  result.stats.artifactBytes = result.bytes.size();
  return true;
}

llvm::Error CompileCache::store(const CompileResult &result) const {
  std::string body;
  llvm::raw_string_ostream os(body);
  printStats(result.stats, os);
  size_t statsBytes = body.size();
  body.append(result.bytes.begin(), result.bytes.end());
  std::string entry = llvm::formatv("{0} {1:x-} {2}\n", kMagic,
                                    llvm::xxh3_64bits(body), statsBytes);
  entry += body;
  if (std::error_code error = llvm::sys::fs::create_directories(folder))
    return llvm::createStringError("cannot create '" + folder +
                                   "': " + error.message());
  return writeFileAtomically(path, llvm::StringRef(entry));
}
