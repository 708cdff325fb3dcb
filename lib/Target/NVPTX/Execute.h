//===- Execute.h - Running a program -----------------------------*- C++
//-*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Runs a program without a shell and reads what it says. Temporary files are
// gone afterwards, whatever happens.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_TARGET_NVPTX_EXECUTE_H
#define MOA_LIB_TARGET_NVPTX_EXECUTE_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/FileUtilities.h"
#include <string>

namespace moa {

/// A temporary file that is gone at the end of the scope.
struct TemporaryFile {
  explicit TemporaryFile(llvm::StringRef suffix);
  llvm::SmallString<128> path;
  std::error_code error;

private:
  llvm::FileRemover remover;
};

/// What a program answered.
struct Answer {
  int status = 0;   ///< As ExecuteAndWait returns it.
  std::string text; ///< Standard output and error, as they came.
};

/// Runs a program and waits for it, five minutes at most. Fails when it cannot
/// be started or did not end by itself.
llvm::Expected<Answer> execute(llvm::StringRef program,
                               llvm::ArrayRef<llvm::StringRef> arguments);

} // namespace moa

#endif // MOA_LIB_TARGET_NVPTX_EXECUTE_H
