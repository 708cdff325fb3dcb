//===- Faults.cpp ---------------------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of Faults.h.
//
//===----------------------------------------------------------------------===//

#include "Faults.h"

#include <cerrno>
#include <cstdlib>
#include <new>
#include <sys/mman.h>

using namespace moa::rt::test;

namespace {

thread_local bool armed = false;
thread_local Fault fault;
thread_local int64_t left, failures;

/// Counts an allocation; whether it fails.
bool fails() {
  if (!armed)
    return false;
  if (left > 0) {
    --left;
    return false;
  }
  if (fault == Fault::One && failures > 0)
    return false;
  ++failures;
  return true;
}

} // namespace

FaultyAllocations::FaultyAllocations(Fault kind, int64_t at) {
  fault = kind;
  left = at;
  failures = 0;
  armed = true;
}

int64_t FaultyAllocations::stop() {
  armed = false;
  return failures;
}

void *operator new(size_t bytes, const std::nothrow_t &) noexcept {
  return fails() ? nullptr : std::malloc(bytes ? bytes : 1);
}
void *operator new(size_t bytes) {
  void *memory = operator new(bytes, std::nothrow);
  if (!memory)
    throw std::bad_alloc();
  return memory;
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, size_t) noexcept { std::free(memory); }
void operator delete(void *memory, const std::nothrow_t &) noexcept {
  std::free(memory);
}

extern "C" {

void *__real_aligned_alloc(size_t, size_t);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
  return fails() ? nullptr : __real_aligned_alloc(alignment, bytes);
}

int __real_posix_memalign(void **, size_t, size_t);
int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes) {
  return fails() ? ENOMEM : __real_posix_memalign(out, alignment, bytes);
}

void *__real_mmap(void *, size_t, int, int, int, off_t);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int file,
                  off_t offset) {
  if (!fails())
    return __real_mmap(at, bytes, protection, flags, file, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

int __real_mprotect(void *, size_t, int);
int __wrap_mprotect(void *at, size_t bytes, int protection) {
  if (!fails())
    return __real_mprotect(at, bytes, protection);
  errno = ENOMEM;
  return -1;
}

} // extern "C"
