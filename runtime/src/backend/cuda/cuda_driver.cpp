//===- cuda_driver.cpp - The CUDA driver, loaded at run time --------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of cuda_driver.h.
//
//===----------------------------------------------------------------------===//

#include "backend/cuda/cuda_driver.h"

#include <dlfcn.h>

namespace moa::rt::cuda {
namespace {

/// What to do about an error, or the general advice.
const char *cureOf(CUresult result) {
  switch (result) {
  case kErrorOutOfMemory:
    return "lower max_bytes, free sequences, or free memory of other programs "
           "on the device";
  case kErrorNoDevice:
    return "check nvidia-smi and CUDA_VISIBLE_DEVICES, or use the CPU device";
  case 700: // CUDA_ERROR_ILLEGAL_ADDRESS
  case 715: // CUDA_ERROR_ILLEGAL_INSTRUCTION
  case 716: // CUDA_ERROR_MISALIGNED_ADDRESS
  case 719: // CUDA_ERROR_LAUNCH_FAILED
    return "a kernel failed earlier and the device's context is lost: check "
           "that tensors stay allocated until the stream is done, and start "
           "the process again";
  case 803: // CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
  case 804: // CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
    return "the driver library and the kernel module differ: reboot, or "
           "install one version of both";
  case 900: // CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    return "make the first call of each size outside of stream capture";
  default:
    return "nvidia-smi shows the device's state; an error of an earlier kernel "
           "may show up here";
  }
}

} // namespace

std::string Driver::describe(CUresult result) const {
  const char *name = nullptr, *text = nullptr;
  cuGetErrorName(result, &name);
  cuGetErrorString(result, &text);
  return std::string(name ? name : "CUDA error " + std::to_string(result)) +
         " (" + (text ? text : "no text") + ")";
}

Status Driver::failure(CUresult result, const char *call,
                       const std::string &what) const {
  moa_status_code code = result == kErrorOutOfMemory ? MOA_OUT_OF_MEMORY
                         : result == kErrorNoDevice  ? MOA_NO_DEVICE
                                                     : MOA_DEVICE_ERROR;
  return error(code, what, ": ", call, " returned ", describe(result), "; ",
               cureOf(result));
}

Driver::~Driver() {
  if (library)
    dlclose(library);
}

Status Driver::resolve(const char *path) {
  const char *missing = nullptr, *since = nullptr;
  auto find = [&](auto &function, const char *symbol, const char *version,
                  bool needed) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(
        dlsym(library, symbol));
    if (!function && needed && !missing) {
      missing = symbol;
      since = version;
    }
  };
#define MOA_CUDA_SYMBOL(function, symbol, version, parameters)                 \
  find(function, symbol, version, true);
#define MOA_CUDA_OPTIONAL(function, symbol, version, parameters)               \
  find(function, symbol, version, false);
#include "backend/cuda/cuda_symbols.def"
  if (missing)
    return error(MOA_NO_DEVICE, path, ": the driver has no ", missing,
                 ", expected one for CUDA ", since,
                 " or later; update the NVIDIA driver");
  return ok();
}

Status Driver::load(const char *path, std::shared_ptr<Driver> &out) {
  if (!path)
    path = "libcuda.so.1";
  std::shared_ptr<Driver> driver(new Driver());
  driver->library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!driver->library) {
    const char *reason = dlerror();
    return error(MOA_NO_DEVICE,
                 "no CUDA driver: ", reason ? reason : "cannot be loaded",
                 "; install the NVIDIA driver, or use the CPU device");
  }
  MOA_RT_TRY(driver->resolve(path));
  if (CUresult result = driver->cuInit(0)) {
    Status status = driver->check(result, "cuInit", "starting the CUDA driver");
    status->code = MOA_NO_DEVICE;
    return status;
  }
  MOA_CUDA_TRY(*driver, cuDriverGetVersion, (&driver->version),
               "asking for the driver's version");
  out = std::move(driver);
  return ok();
}

} // namespace moa::rt::cuda
