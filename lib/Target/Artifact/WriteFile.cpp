//===- WriteFile.cpp - Files that appear whole ----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of writeFileAtomically.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/Artifact.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/Support/Errno.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace moa;

static llvm::Error failed(llvm::StringRef what, llvm::StringRef path) {
  int code = errno;
  return llvm::createStringError("cannot " + what + " '" + path +
                                 "': " + llvm::sys::StrError(code));
}

/// Writes all bytes; interrupted and partial writes continue.
static bool writeAll(int file, llvm::ArrayRef<uint8_t> bytes) {
  while (!bytes.empty()) {
    ssize_t written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR)
      return false;
    bytes = bytes.drop_front(written < 0 ? 0 : written);
  }
  return true;
}

static llvm::Error writeInPlace(llvm::StringRef path,
                                llvm::ArrayRef<uint8_t> bytes) {
  if (path == "-") {
    if (!writeAll(STDOUT_FILENO, bytes))
      return failed("write to", "standard output");
    return llvm::Error::success();
  }
  int file = ::open(path.str().c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0)
    return failed("open", path);
  bool done = writeAll(file, bytes);
  if (::close(file) != 0 || !done)
    return failed("write", path);
  return llvm::Error::success();
}

/// Flushes the folder, so that the new name survives a crash. Folders that
/// cannot be flushed are no reason to fail: the file itself is on the disk.
static void flushFolder(llvm::StringRef path) {
  llvm::StringRef folder = llvm::sys::path::parent_path(path);
  int file = ::open(folder.empty() ? "." : folder.str().c_str(),
                    O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0)
    return;
  (void)::fsync(file);
  (void)::close(file);
}

llvm::Error moa::writeFileAtomically(llvm::StringRef path,
                                     llvm::ArrayRef<uint8_t> bytes) {
  llvm::sys::fs::file_status status;
  bool exists = !llvm::sys::fs::status(path, status);
  if (path == "-" ||
      (exists && status.type() != llvm::sys::fs::file_type::regular_file))
    return writeInPlace(path, bytes);

  // A link keeps being one: what it points to is replaced.
  llvm::SmallString<256> target(path);
  if (exists && llvm::sys::fs::is_symlink_file(path))
    if (std::error_code error = llvm::sys::fs::real_path(path, target))
      return llvm::createStringError("cannot resolve '" + path +
                                     "': " + error.message());

  std::string temporary = (target + ".tmp-XXXXXX").str();
  int file = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (file < 0)
    return failed("create a file beside", target);
  mode_t mask = ::umask(0);
  ::umask(mask);
  mode_t mode = exists ? mode_t(status.permissions()) : mode_t(0666 & ~mask);
  bool done =
      writeAll(file, bytes) && ::fchmod(file, mode) == 0 && ::fsync(file) == 0;
  int code = errno;
  if (::close(file) != 0 && done) {
    done = false;
    code = errno;
  }
  if (done && ::rename(temporary.c_str(), target.c_str()) != 0) {
    done = false;
    code = errno;
  }
  if (!done) {
    (void)::unlink(temporary.c_str());
    errno = code;
    return failed("write", target);
  }
  flushFolder(target);
  return llvm::Error::success();
}

llvm::Error moa::writeFileAtomically(llvm::StringRef path,
                                     llvm::StringRef text) {
  return writeFileAtomically(
      path, llvm::ArrayRef<uint8_t>(
                reinterpret_cast<const uint8_t *>(text.data()), text.size()));
}
