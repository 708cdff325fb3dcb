//===- FindPtxas.cpp - Where the assembler is -----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Looks for ptxas where toolkits and NVIDIA's Python packages put it, and asks
// each one found for its version: one that cannot read our PTX is passed over.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/NVPTX.h"

#include "Execute.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/Regex.h"
#include "llvm/Support/VersionTuple.h"
#include <algorithm>

using namespace moa;
using llvm::StringRef;

/// The first release that reads PTX 8.6, the version of the sm_90a kernels.
static const llvm::VersionTuple kOldest(12, 7);

/// The bin folders of NVIDIA's packages in a site-packages folder: nvidia/cu13
/// and its like, the newest toolkit first, then nvidia/cuda_nvcc of CUDA 12.
static std::vector<std::string> packageFolders(StringRef sitePackages) {
  std::vector<std::pair<unsigned, std::string>> toolkits;
  std::error_code error;
  for (llvm::sys::fs::directory_iterator entry(sitePackages + "/nvidia", error),
       end;
       !error && entry != end; entry.increment(error)) {
    StringRef name = llvm::sys::path::filename(entry->path());
    unsigned major = 0;
    if (name == "cuda_nvcc" ||
        (name.consume_front("cu") && !name.getAsInteger(10, major)))
      toolkits.emplace_back(major, entry->path() + "/bin");
  }
  std::sort(toolkits.rbegin(), toolkits.rend());
  std::vector<std::string> folders;
  for (auto &[major, folder] : toolkits)
    folders.push_back(std::move(folder));
  return folders;
}

std::vector<std::string> moa::ptxasFolders(StringRef sitePackages) {
  std::vector<std::string> folders;
  if (auto path = llvm::sys::Process::GetEnv("PATH"))
    for (StringRef folder : llvm::split(*path, llvm::sys::EnvPathSeparator))
      if (!folder.empty())
        folders.push_back(folder.str());
  for (const char *variable : {"CUDA_HOME", "CUDA_PATH"})
    if (auto home = llvm::sys::Process::GetEnv(variable))
      folders.push_back(*home + "/bin");
  folders.push_back("/usr/local/cuda/bin");
  if (!sitePackages.empty())
    for (std::string &folder : packageFolders(sitePackages))
      folders.push_back(std::move(folder));
  return folders;
}

/// Asks the program at `path` for its version.
static llvm::Expected<Ptxas> askVersion(StringRef path) {
  llvm::Expected<Answer> answer = execute(path, {"--version"});
  if (!answer)
    return answer.takeError();
  llvm::SmallVector<StringRef, 2> match;
  if (answer->status != 0 ||
      !llvm::Regex("V([0-9]+\\.[0-9]+\\.[0-9]+)").match(answer->text, &match))
    return llvm::createStringError(
        "expected '" + path +
        " --version' to state a version such as V13.0.88, found exit status " +
        llvm::Twine(answer->status) +
        " and: " + StringRef(answer->text).trim().take_front(200));
  return Ptxas{path.str(), match[1].str()};
}

llvm::Expected<Ptxas> moa::findPtxas(StringRef path, StringRef sitePackages) {
  if (!path.empty()) {
    if (!llvm::sys::fs::can_execute(path))
      return llvm::createStringError("expected a program that can be run at '" +
                                     path + "', found none");
    return askVersion(path);
  }
  std::string passedOver;
  for (StringRef folder : ptxasFolders(sitePackages)) {
    auto found = llvm::sys::findProgramByName("ptxas", {folder});
    if (!found)
      continue;
    llvm::Expected<Ptxas> ptxas = askVersion(*found);
    std::string reason;
    if (!ptxas) {
      reason = llvm::toString(ptxas.takeError());
    } else {
      llvm::VersionTuple version;
      if (!version.tryParse(ptxas->version) && version >= kOldest)
        return ptxas;
      reason = ptxas->version + " at '" + *found + "'";
    }
    passedOver += (passedOver.empty() ? "" : "; ") + reason;
  }
  return llvm::createStringError(
      "expected ptxas " + kOldest.getAsString() +
      " or newer in PATH, $CUDA_HOME/bin, $CUDA_PATH/bin, /usr/local/cuda/bin "
      "or the package nvidia-cuda-nvcc beside this one, found " +
      (passedOver.empty() ? "none" : passedOver));
}
