//===- CubinStore.cpp - Finished cubins in a folder -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// An entry is a line 'moa-cubin-1 CHECKSUM PTXAS REGISTERS SHARED INSTRUCTIONS'
// and the cubin; the checksum is of all behind it.
//
//===----------------------------------------------------------------------===//

#include "CubinStore.h"

#include "moa/Target/Artifact.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/SHA256.h"
#include "llvm/Support/xxhash.h"
#include <algorithm>

using namespace moa;
using llvm::StringRef;

static constexpr llvm::StringLiteral kMagic = "moa-cubin-1";
static constexpr llvm::StringLiteral kSuffix = ".moa-cubin";

std::string CubinStore::pathOf(StringRef ptx, const GpuChip &chip) const {
  std::string key =
      (kMagic + "|" + chip.name + "|" + kPtxasLevel + "|" + ptx).str();
  std::array<uint8_t, 32> digest =
      llvm::SHA256::hash(llvm::arrayRefFromStringRef(key));
  llvm::SmallString<256> path(folder);
  llvm::sys::path::append(path,
                          llvm::toHex(digest, /*LowerCase=*/true) + kSuffix);
  return path.str().str();
}

std::optional<Cubin> CubinStore::load(StringRef ptx,
                                      const GpuChip &chip) const {
  auto buffer = llvm::MemoryBuffer::getFile(pathOf(ptx, chip), /*IsText=*/false,
                                            /*RequiresNullTerminator=*/false);
  if (!buffer)
    return std::nullopt;
  StringRef rest = (*buffer)->getBuffer();
  auto word = [&rest](char end) {
    auto [first, behind] = rest.split(end);
    rest = behind;
    return first;
  };
  uint64_t checksum = 0;
  if (word(' ') != kMagic || word(' ').getAsInteger(16, checksum) ||
      llvm::xxh3_64bits(rest) != checksum)
    return std::nullopt;
  Cubin cubin;
  cubin.ptxasVersion = word(' ').str();
  if (word(' ').getAsInteger(10, cubin.report.registers) ||
      word(' ').getAsInteger(10, cubin.report.sharedBytes) ||
      word('\n').getAsInteger(10, cubin.instructions) || rest.empty())
    return std::nullopt;
  cubin.code.assign(rest.bytes_begin(), rest.bytes_end());
  return cubin;
}

llvm::Error CubinStore::store(StringRef ptx, const GpuChip &chip,
                              const Cubin &cubin) const {
  std::string body = llvm::formatv(
      "{0} {1} {2} {3}\n", cubin.ptxasVersion, cubin.report.registers,
      cubin.report.sharedBytes, cubin.instructions);
  body.append(cubin.code.begin(), cubin.code.end());
  std::string entry =
      llvm::formatv("{0} {1:x-} ", kMagic, llvm::xxh3_64bits(body));
  entry += body;
  if (std::error_code error = llvm::sys::fs::create_directories(folder))
    return llvm::createStringError("cannot create '" + folder +
                                   "': " + error.message());
  return writeFileAtomically(pathOf(ptx, chip), StringRef(entry));
}

uint64_t CubinStore::contents() const {
  std::vector<std::string> names;
  std::error_code error;
  for (llvm::sys::fs::directory_iterator entry(folder, error), end;
       !error && entry != end; entry.increment(error)) {
    StringRef name = llvm::sys::path::filename(entry->path());
    if (name.ends_with(kSuffix))
      names.push_back(name.str());
  }
  std::sort(names.begin(), names.end());
  return llvm::xxh3_64bits(llvm::join(names, ""));
}
