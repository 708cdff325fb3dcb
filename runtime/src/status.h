//===- status.h - Status values inside the runtime --------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A code and a message, made where the fault is found and handed to the caller
// unchanged. Success is a null pointer and costs nothing.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_STATUS_H
#define MOA_RT_STATUS_H

#include "moa/runtime.h"

#include <memory>
#include <sstream>
#include <string>

struct moa_status {
  moa_status_code code;
  std::string message;
};

namespace moa::rt {

/// Null for success.
using Status = std::unique_ptr<moa_status>;

inline Status ok() { return nullptr; }

/// Makes a status from values that are streamed together.
template <typename... Args>
[[nodiscard]] Status error(moa_status_code code, const Args &...args) {
  std::ostringstream text;
  (text << ... << args);
  return Status(new moa_status{code, text.str()});
}

} // namespace moa::rt

/// Returns from the calling function when `expression` is not success.
#define MOA_RT_TRY(expression)                                                 \
  do {                                                                         \
    if (auto status_ = (expression))                                           \
      return status_;                                                          \
  } while (false)

#endif // MOA_RT_STATUS_H
