//===- snapshot_io.cpp - Snapshots in memory and in files -----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A file is written beside its target, brought to the disk and renamed, so that
// the target has the old bytes or the new.
//
//===----------------------------------------------------------------------===//

#include "cache/snapshot.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace moa::rt {
namespace {

class MemorySink : public SnapshotSink {
public:
  explicit MemorySink(void *buffer) : buffer(static_cast<char *>(buffer)) {}
  Status write(uint64_t at, const void *bytes, size_t size) override {
    std::memcpy(buffer + at, bytes, size);
    return ok();
  }

private:
  char *buffer;
};

class MemorySource : public SnapshotSource {
public:
  MemorySource(const void *bytes, uint64_t count)
      : bytes(static_cast<const char *>(bytes)), count(count) {
    origin = "snapshot in memory";
  }
  uint64_t size() const override { return count; }
  Status read(uint64_t at, void *to, size_t size) override {
    std::memcpy(to, bytes + at, size);
    return ok();
  }

private:
  const char *bytes;
  const uint64_t count;
};

/// An open file that closes itself.
struct File {
  explicit File(int descriptor) : descriptor(descriptor) {}
  ~File() { close(); }
  File(const File &) = delete;
  File &operator=(const File &) = delete;
  int close() {
    const int result = descriptor < 0 ? 0 : ::close(descriptor);
    descriptor = -1;
    return result;
  }
  int descriptor;
};

Status failure(const std::string &path, const char *what) {
  return error(MOA_IO, path, ": cannot be ", what, ": ", std::strerror(errno));
}

class FileSink : public SnapshotSink {
public:
  FileSink(const File &file, const std::string &path)
      : file(file), path(path) {}
  Status write(uint64_t at, const void *bytes, size_t size) override {
    for (size_t done = 0; done < size;) {
      const ssize_t now =
          pwrite(file.descriptor, static_cast<const char *>(bytes) + done,
                 size - done, static_cast<off_t>(at + done));
      if (now < 0 && errno != EINTR)
        return failure(path, "written");
      done += now > 0 ? static_cast<size_t>(now) : 0;
    }
    return ok();
  }

private:
  const File &file;
  const std::string &path;
};

class FileSource : public SnapshotSource {
public:
  FileSource(const File &file, uint64_t count, const std::string &path)
      : file(file), count(count) {
    origin = path;
  }
  uint64_t size() const override { return count; }
  Status read(uint64_t at, void *to, size_t size) override {
    for (size_t done = 0; done < size;) {
      const ssize_t now = pread(file.descriptor, static_cast<char *>(to) + done,
                                size - done, static_cast<off_t>(at + done));
      if (now < 0 && errno != EINTR)
        return failure(origin, "read");
      if (now == 0)
        return error(MOA_CORRUPT, origin, ": expected ", count,
                     " bytes, found ", at + done,
                     "; the snapshot is damaged, compute the sequence again");
      done += now > 0 ? static_cast<size_t>(now) : 0;
    }
    return ok();
  }

private:
  const File &file;
  const uint64_t count;
};

/// Writes, brings to the disk and renames.
Status writeAndRename(const Sequence &sequence, File &file,
                      const std::string &temporary, const std::string &path) {
  FileSink sink(file, temporary);
  MOA_RT_TRY(writeSnapshot(sequence, sink));
  // A new file is for its owner alone; one that is replaced keeps its mode.
  struct stat old = {};
  if (!stat(path.c_str(), &old))
    fchmod(file.descriptor, old.st_mode & 0777);
  if (fsync(file.descriptor) || file.close())
    return failure(temporary, "written");
  if (std::rename(temporary.c_str(), path.c_str()))
    return failure(path, "written");
  return ok();
}

} // namespace

Status writeSnapshotMemory(const Sequence &sequence, void *buffer,
                           uint64_t capacity) {
  if (capacity < snapshotBytes(sequence))
    return error(MOA_INVALID_ARGUMENT, "the buffer has ", capacity,
                 " bytes, the snapshot needs ", snapshotBytes(sequence));
  MemorySink sink(buffer);
  return writeSnapshot(sequence, sink);
}

Status writeSnapshotFile(const Sequence &sequence, const std::string &path) {
  std::string temporary = path + ".XXXXXX";
  File file(mkstemp(temporary.data()));
  if (file.descriptor < 0)
    return failure(temporary, "made");
  Status failed;
  try {
    failed = writeAndRename(sequence, file, temporary, path);
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  if (failed) {
    unlink(temporary.c_str());
    return failed;
  }
  // The new name as well; where a folder cannot be synchronised it comes later.
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "."
                             : slash == 0               ? "/"
                                                        : path.substr(0, slash);
  File place(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (place.descriptor >= 0)
    fsync(place.descriptor);
  return ok();
}

Status readSnapshotMemory(Cache &cache, const void *bytes, uint64_t size,
                          Sequence *&out) {
  MemorySource source(bytes, size);
  return readSnapshot(cache, source, out);
}

Status readSnapshotFile(Cache &cache, const std::string &path, Sequence *&out) {
  File file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat facts = {};
  if (file.descriptor < 0 || fstat(file.descriptor, &facts))
    return failure(path, "opened");
  if (!S_ISREG(facts.st_mode))
    return error(MOA_IO, path, ": not a regular file");
  FileSource source(file, static_cast<uint64_t>(facts.st_size), path);
  return readSnapshot(cache, source, out);
}

} // namespace moa::rt
