//===- trace.h - When calls began and ended ---------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A file of Chrome's trace events and a caller's hooks, shared by the threads
// of a context, and the spans of code that become events and ranges. What is
// off costs a span one test each.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_OBSERVE_TRACE_H
#define MOA_RT_OBSERVE_TRACE_H

#include "moa/observe.h"
#include "status.h"

#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <vector>

namespace moa::rt {

class Span;

class Trace {
public:
  Trace() = default;
  /// Ends the file; a failure goes unreported.
  ~Trace();
  Trace(const Trace &) = delete;
  Trace &operator=(const Trace &) = delete;

  bool on() const { return writing.load(std::memory_order_relaxed); }
  /// Begins a file; see moa_context_set_trace.
  Status start(const char *path);
  /// Ends the file, if one is being written, and reports what went wrong since
  /// it began.
  Status finish();
  /// Writes a span that ends now, unless it began before the file.
  void add(const Span &span) noexcept;

  /// Null for none; what was set once lives as the trace.
  const moa_range_hooks *hooks() const {
    return calling.load(std::memory_order_acquire);
  }
  /// See moa_context_set_range_hooks; null for none.
  void setHooks(const moa_range_hooks *hooks);

private:
  template <typename... Args>
  void write(const char *format, Args... args) noexcept;

  std::atomic<bool> writing{false};
  std::mutex lock; ///< Of all below.
  std::string name;
  std::unique_ptr<char[]> buffer; ///< Of `file`.
  FILE *file = nullptr;
  int64_t began = 0; ///< Nanoseconds of the steady clock.
  int failed = 0;    ///< errno of the first write that failed.

  std::atomic<const moa_range_hooks *> calling{nullptr};
  /// All that there were: spans under way may still use them.
  std::vector<std::unique_ptr<const moa_range_hooks>> kept;
};

/// A piece of one thread's time. Strings are literals.
class Span {
public:
  /// `to` may be null.
  Span(Trace *to, const char *name) noexcept
      : trace(to && to->on() ? to : nullptr), hooks(to ? to->hooks() : nullptr),
        name(name) {
    if (hooks)
      hooks->push(hooks->user, name);
    if (trace)
      began = now();
  }
  ~Span() {
    if (trace)
      trace->add(*this);
    if (hooks)
      hooks->pop(hooks->user);
  }
  Span(const Span &) = delete;
  Span &operator=(const Span &) = delete;

  /// Whether it is going to be written.
  explicit operator bool() const { return trace != nullptr; }
  /// Those behind kArgs are left out.
  void arg(const char *key, int64_t value) noexcept {
    if (trace && used < kArgs)
      args[used++] = {key, value};
  }

private:
  friend class Trace;
  static constexpr size_t kArgs = 4;
  struct Arg {
    const char *key;
    int64_t value;
  };
  /// Nanoseconds of the steady clock.
  static int64_t now() noexcept;

  Trace *const trace;
  const moa_range_hooks *const hooks;
  const char *const name;
  int64_t began = 0;
  size_t used = 0;
  Arg args[kArgs];
};

} // namespace moa::rt

#endif // MOA_RT_OBSERVE_TRACE_H
