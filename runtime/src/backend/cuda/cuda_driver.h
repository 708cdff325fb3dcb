//===- cuda_driver.h - The CUDA driver, loaded at run time ------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A table of the driver's functions by dlopen, and errors as statuses that name
// the call, the driver's error and a cure.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_BACKEND_CUDA_CUDA_DRIVER_H
#define MOA_RT_BACKEND_CUDA_CUDA_DRIVER_H

#include "backend/cuda/cuda_types.h"
#include "status.h"

namespace moa::rt::cuda {

class Driver {
public:
  /// Loads `path`, or libcuda.so.1, and initialises it.
  static Status load(const char *path, std::shared_ptr<Driver> &out);
  ~Driver();
  Driver(const Driver &) = delete;
  Driver &operator=(const Driver &) = delete;

  /// Success, or what `call` failed with. `what` says what it was for.
  template <typename... Args>
  Status check(CUresult result, const char *call, const Args &...what) const {
    if (result == kSuccess)
      return ok();
    std::ostringstream text;
    (text << ... << what);
    return failure(result, call, text.str());
  }
  /// "CUDA_ERROR_X (text)".
  std::string describe(CUresult result) const;

#define MOA_CUDA_SYMBOL(function, symbol, version, parameters)                 \
  CUresult(*function) parameters = nullptr;
#include "backend/cuda/cuda_symbols.def"

  int version = 0; ///< 1000 * major + 10 * minor of CUDA.

private:
  Driver() = default;
  Status failure(CUresult result, const char *call,
                 const std::string &what) const;
  Status resolve(const char *path);

  void *library = nullptr;
};

/// Makes a context current for the calling thread while it lives.
class Current {
public:
  Current(const Driver &driver, CUcontext context) : driver(driver) {
    status = driver.check(driver.cuCtxPushCurrent(context), "cuCtxPushCurrent",
                          "making the device's context current");
    pushed = !status;
  }
  ~Current() {
    CUcontext popped;
    if (pushed)
      driver.cuCtxPopCurrent(&popped);
  }
  Current(const Current &) = delete;
  Current &operator=(const Current &) = delete;

  Status status; ///< Failure to make it current; take it.

private:
  const Driver &driver;
  bool pushed;
};

/// Lets the calling thread allocate while one of its streams is captured, which
/// is safe as what it allocates lives as long as the cache.
class RelaxedCapture {
public:
  explicit RelaxedCapture(const Driver &driver) : driver(driver) {
    driver.cuThreadExchangeStreamCaptureMode(&mode);
  }
  ~RelaxedCapture() { driver.cuThreadExchangeStreamCaptureMode(&mode); }
  RelaxedCapture(const RelaxedCapture &) = delete;
  RelaxedCapture &operator=(const RelaxedCapture &) = delete;

private:
  const Driver &driver;
  int mode = kCaptureRelaxed;
};

} // namespace moa::rt::cuda

/// Calls a function of the driver; returns a status from the calling function
/// if it fails. What follows the arguments says what the call was for.
#define MOA_CUDA_TRY(driver, function, arguments, ...)                         \
  MOA_RT_TRY(                                                                  \
      (driver).check((driver).function arguments, #function, __VA_ARGS__))

#endif // MOA_RT_BACKEND_CUDA_CUDA_DRIVER_H
