//===- ObserveTestSupport.h - What tests of counters and traces share -----===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A dense model of 2 layers behind the C ABI and calls of it, and the events of
// a trace file.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_RUNTIME_OBSERVETESTSUPPORT_H
#define MOA_TEST_UNIT_RUNTIME_OBSERVETESTSUPPORT_H

#include "SchedulerTestSupport.h"

namespace moa::rt::test {

/// A context, a model of 2 layers of 2 KV heads with 3 query heads each, and a
/// cache.
class Observed {
public:
  Observed();
  /// A cache of its own, of the context and model of another.
  explicit Observed(Observed &other);
  ~Observed();

  moa_sequence *create(int64_t length);
  /// Random rows of one sequence.
  moa_status *attend(uint32_t layer, moa_sequence *sequence, int64_t rows);
  /// A step of a new batch, a row a sequence, through both layers.
  void step(const std::vector<moa_sequence *> &sequences, bool cancels);
  /// A request of a new scheduler that samples one token, committed twice.
  void serve(int64_t prompt);
  void expect(const moa_counters &want, const char *after);

  moa_context *context = nullptr;
  moa_cache *cache = nullptr;

private:
  std::mt19937 random{11};
  std::unique_ptr<moa_module> own;
  moa_module *model = nullptr;
};

/// A name of no file, and none at the end.
class TemporaryFile {
public:
  TemporaryFile();
  ~TemporaryFile();
  const char *path() const { return name.c_str(); }

private:
  std::string name;
};

struct Event {
  std::string name;
  std::string args; ///< " key=value" of each.
  long thread = 0;
  int64_t begin = 0, end = 0; ///< Nanoseconds.
  size_t depth = 0;           ///< Events around it.
};

/// The spans of a file, by begin. Expects that it is JSON of that format, and
/// that spans of a thread nest.
std::vector<Event> readTrace(const TemporaryFile &file);

} // namespace moa::rt::test

#endif // MOA_TEST_UNIT_RUNTIME_OBSERVETESTSUPPORT_H
