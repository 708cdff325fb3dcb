//===- Faults.h - Allocations that fail on demand ---------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Stands between the runtime and what gives it memory: operator new,
// aligned_alloc, posix_memalign, mmap and mprotect, the last four by the
// linker's --wrap.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_RUNTIME_FAULTS_H
#define MOA_TEST_UNIT_RUNTIME_FAULTS_H

#include <cstdint>

namespace moa::rt::test {

/// How many allocations fail.
enum class Fault { One, AllBehind };

/// From now on, of the allocations of this thread number `at`, from 0, fails,
/// or it and all behind it do. At most one at a time in a thread.
class FaultyAllocations {
public:
  FaultyAllocations(Fault fault, int64_t at);
  FaultyAllocations(const FaultyAllocations &) = delete;
  FaultyAllocations &operator=(const FaultyAllocations &) = delete;
  ~FaultyAllocations() { stop(); }

  /// Lets allocations succeed again; how many failed.
  int64_t stop();
};

} // namespace moa::rt::test

#endif // MOA_TEST_UNIT_RUNTIME_FAULTS_H
