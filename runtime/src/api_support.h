//===- api_support.h --------------------------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the files of the C ABI share: handles, options and infos of any size,
// exceptions as statuses.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_API_SUPPORT_H
#define MOA_RT_API_SUPPORT_H

#include "moa/runtime.h"

#include "backend/device.h"
#include "cache/cache.h"
#include "module.h"
#include "status.h"

#include <algorithm>
#include <cstring>
#include <new>

struct moa_context {
  std::unique_ptr<moa::rt::Device> device;
  moa::rt::Trace trace;
};

struct moa_module {
  moa_context *context;
  std::unique_ptr<moa::rt::Module> module;
};

struct moa_cache {
  moa::rt::Device *device = nullptr; ///< Of the module's context.
  std::unique_ptr<moa::rt::Cache> cache;
};

namespace moa::rt {

/// What a call returns that found no memory, not even for a status. Made when
/// the library is loaded; moa_status_free leaves it alone.
extern moa_status noMemory;

/// Runs `body`, turning exceptions to statuses.
template <typename Body> moa_status *guard(Body body) {
  try {
    try {
      Status status = body();
      return status.release();
    } catch (const std::bad_alloc &) {
      return &noMemory;
    } catch (const std::exception &exception) {
      return error(MOA_OUT_OF_MEMORY, "the system refused: ", exception.what())
          .release();
    }
  } catch (const std::bad_alloc &) { // The status found no memory.
    return &noMemory;
  }
}

/// Runs `body`, which gets the call's span, as guard() does; counts failures.
template <typename Body>
moa_status *observe(Cache *cache, const char *name, Body body) {
  Span span(cache ? cache->trace : nullptr, name);
  moa_status *failed = guard([&] { return body(span); });
  if (failed && cache)
    ++cache->counters.failed_calls;
  span.arg("status", moa_status_get_code(failed));
  return failed;
}

inline Status missing(const char *what) {
  return error(MOA_INVALID_ARGUMENT, what, " is NULL");
}

/// Copies a caller's options into a full struct of defaults.
template <typename T>
Status readOptions(const T *from, T &to, const char *name) {
  to = T{};
  to.struct_size = sizeof(T);
  if (!from)
    return ok();
  if (from->struct_size < sizeof(size_t))
    return error(MOA_INVALID_ARGUMENT, name, ".struct_size is ",
                 from->struct_size, "; set it to sizeof(", name, ")");
  std::memcpy(&to, from, std::min(from->struct_size, sizeof(T)));
  return ok();
}

/// Checks what a caller takes for the size of the entries of an array.
inline Status checkEntrySize(size_t found, size_t expected, const char *name) {
  if (found == expected)
    return ok();
  return error(MOA_INVALID_ARGUMENT, "entry_size is ", found,
               ", this library takes ", expected, "; set it to sizeof(", name,
               ")");
}

/// Copies a full struct to as much as the caller knows of it.
template <typename T> Status writeInfo(T &from, T *to, const char *name) {
  if (!to)
    return missing(name);
  if (to->struct_size < sizeof(size_t))
    return error(MOA_INVALID_ARGUMENT, name, ".struct_size is ",
                 to->struct_size, "; set it to sizeof(", name, ")");
  from.struct_size = to->struct_size;
  std::memcpy(to, &from, std::min(to->struct_size, sizeof(T)));
  return ok();
}

inline Sequence *unwrap(moa_sequence *sequence) {
  return reinterpret_cast<Sequence *>(sequence);
}
inline const Sequence *unwrap(const moa_sequence *sequence) {
  return reinterpret_cast<const Sequence *>(sequence);
}

inline Batch *unwrap(moa_batch *batch) {
  return reinterpret_cast<Batch *>(batch);
}
inline const Batch *unwrap(const moa_batch *batch) {
  return reinterpret_cast<const Batch *>(batch);
}

/// Refuses an N that the length rule cannot take.
Status checkLength(const Module &module, int64_t length);

/// Refuses a rollback margin that no sequence can have.
Status checkRollback(const Module &module, int64_t tokens);

/// Refuses a number of parts that no item can be cut in.
Status checkDecodeParts(int64_t parts);

/// Refuses a limit of pages, in bytes, that holds not even one; 0 is no limit.
Status checkLimit(uint64_t bytes, uint64_t pageBytes);

/// The factor of scores that options ask for.
Status scaleOf(const Module &module, bool given, float scale, float &out);

} // namespace moa::rt

#endif // MOA_RT_API_SUPPORT_H
