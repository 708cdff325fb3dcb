//===- Execute.cpp - Running a program ------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Execute.h.
//
//===----------------------------------------------------------------------===//

#include "Execute.h"

#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Program.h"

using namespace moa;
using llvm::StringRef;

/// Seconds that one run may take: a kernel takes about one.
static constexpr unsigned kTimeLimit = 300;

TemporaryFile::TemporaryFile(StringRef suffix) {
  error = llvm::sys::fs::createTemporaryFile("moa", suffix, path);
  if (!error)
    remover.setFile(path, /*deleteIt=*/true);
}

llvm::Expected<Answer> moa::execute(StringRef program,
                                    llvm::ArrayRef<StringRef> arguments) {
  TemporaryFile log("log");
  if (log.error)
    return llvm::createStringError("cannot create a temporary file: " +
                                   log.error.message());
  llvm::SmallVector<StringRef> argv{program};
  argv.append(arguments.begin(), arguments.end());
  StringRef path = log.path;
  std::optional<StringRef> redirects[] = {StringRef(""), path, path};
  std::string message;
  bool failed = false;
  Answer answer;
  answer.status = llvm::sys::ExecuteAndWait(
      program, argv, /*Env=*/std::nullopt, redirects, kTimeLimit,
      /*MemoryLimit=*/0, &message, &failed);
  if (failed || answer.status < 0)
    return llvm::createStringError("cannot run '" + program + "': " + message);
  if (auto buffer = llvm::MemoryBuffer::getFile(path))
    answer.text = (*buffer)->getBuffer().str();
  return answer;
}
