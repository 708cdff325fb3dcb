//===- trace.cpp - When calls began and ended -----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of trace.h. Adding an event allocates nothing, so it cannot
// fail but by the file.
//
//===----------------------------------------------------------------------===//

#include "observe/trace.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <sys/syscall.h>
#include <unistd.h>

namespace moa::rt {

/// Bytes of events between two writes to the file.
constexpr size_t kBufferBytes = size_t(1) << 16;

int64_t Span::now() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

static long threadNumber() noexcept {
  thread_local const long number = syscall(SYS_gettid);
  return number;
}

Trace::~Trace() {
  try {
    finish();
  } catch (...) { // No memory for the status; the file is closed.
  }
}

/// Nothing follows a write that failed.
template <typename... Args>
void Trace::write(const char *format, Args... args) noexcept {
  if (!failed && std::fprintf(file, format, args...) < 0)
    failed = errno;
}

Status Trace::start(const char *path) {
  std::lock_guard<std::mutex> locked(lock);
  if (file)
    return error(MOA_INVALID_ARGUMENT, "a trace is being written to ", name,
                 "; end it with a path of NULL first");
  std::string newName = path;
  auto newBuffer = std::make_unique<char[]>(kBufferBytes);
  FILE *opened = std::fopen(path, "wbe");
  if (!opened)
    return error(MOA_IO, path,
                 ": cannot be opened for a trace: ", std::strerror(errno));
  file = opened;
  name.swap(newName);
  buffer.swap(newBuffer);
  std::setvbuf(file, buffer.get(), _IOFBF, kBufferBytes);
  failed = 0;
  began = Span::now();
  write("{\"traceEvents\":[\n"
        "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":%d,"
        "\"args\":{\"name\":\"moa\"}}",
        getpid());
  writing = true;
  return ok();
}

Status Trace::finish() {
  std::lock_guard<std::mutex> locked(lock);
  if (!file)
    return ok();
  writing = false;
  write("%s", "\n]}\n");
  if (std::fclose(file) != 0 && !failed)
    failed = errno;
  file = nullptr;
  buffer.reset();
  if (!failed)
    return ok();
  return error(MOA_IO, name,
               ": the trace could not be written, its end is "
               "missing: ",
               std::strerror(failed));
}

void Trace::setHooks(const moa_range_hooks *hooks) {
  std::lock_guard<std::mutex> locked(lock);
  if (hooks)
    kept.push_back(std::make_unique<const moa_range_hooks>(*hooks));
  calling.store(hooks ? kept.back().get() : nullptr, std::memory_order_release);
}

void Trace::add(const Span &span) noexcept {
  const int64_t ended = Span::now();
  std::lock_guard<std::mutex> locked(lock);
  if (!file || span.began < began)
    return;
  const int64_t start = span.began - began, time = ended - span.began;
  auto micros = [](int64_t ns) { return static_cast<long long>(ns / 1000); };
  auto rest = [](int64_t ns) { return static_cast<int>(ns % 1000); };
  write(",\n{\"name\":\"%s\",\"cat\":\"moa\",\"ph\":\"X\",\"ts\":%lld.%03d,"
        "\"dur\":%lld.%03d,\"pid\":%d,\"tid\":%ld,\"args\":{",
        span.name, micros(start), rest(start), micros(time), rest(time),
        getpid(), threadNumber());
  for (size_t i = 0; i < span.used; ++i)
    write("%s\"%s\":%lld", i ? "," : "", span.args[i].key,
          static_cast<long long>(span.args[i].value));
  write("%s", "}}");
}

} // namespace moa::rt
