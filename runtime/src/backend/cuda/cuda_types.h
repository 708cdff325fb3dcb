//===- cuda_types.h - What the CUDA driver's binary interface needs *- C++
//-*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Own declarations of the few types and numbers of the driver API in use, so
// that building needs no CUDA toolkit. They are fixed parts of the driver's
// ABI.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_BACKEND_CUDA_CUDA_TYPES_H
#define MOA_RT_BACKEND_CUDA_CUDA_TYPES_H

#include <cstddef>
#include <cstdint>

namespace moa::rt::cuda {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = uint64_t;
using CUmemHandle = uint64_t;
using CUcontext = struct CUctx_st *;
using CUmodule = struct CUmod_st *;
using CUfunction = struct CUfunc_st *;
using CUstream = struct CUstream_st *;
using CUevent = struct CUevent_st *;

enum : CUresult {
  kSuccess = 0,
  kErrorInvalidValue = 1,
  kErrorOutOfMemory = 2,
  kErrorNoDevice = 100,
  kErrorInvalidImage = 200,
  kErrorNoBinaryForGpu = 209,
  kErrorInvalidPtx = 218,
  kErrorJitCompilerNotFound = 221,
  kErrorUnsupportedPtxVersion = 222,
  kErrorJitCompilationDisabled = 223,
  kErrorInvalidSource = 300,
  kErrorNotSupported = 801
};

/// CUdevice_attribute.
enum {
  kAttributeMultiprocessors = 16,
  kAttributeCapabilityMajor = 75,
  kAttributeCapabilityMinor = 76,
  kAttributeSharedBytesOptin = 97,
  kAttributeVirtualMemory = 102
};

enum { kFunctionMaxDynamicShared = 8 };           // CUfunction_attribute
enum { kJitErrorLog = 5, kJitErrorLogBytes = 6 }; // CUjit_option
enum { kEventDisableTiming = 2 };                 // CUevent_flags
enum { kCaptureNone = 0, kCaptureRelaxed = 2 };   // CUstreamCapture*

/// CUpointer_attribute, CUmemorytype.
enum {
  kPointerMemoryType = 2,
  kPointerDeviceOrdinal = 9,
  kPointerRangeStart = 11,
  kPointerRangeSize = 12,
  kMemoryDevice = 2
};

struct CUmemLocation {
  int type; ///< 1 = device.
  int id;
};

struct CUmemAllocationProp {
  int type; ///< 1 = pinned.
  int requestedHandleTypes;
  CUmemLocation location;
  void *win32HandleMetaData;
  struct {
    unsigned char compressionType, gpuDirectRDMACapable;
    unsigned short usage;
    unsigned char reserved[4];
  } allocFlags;
};

struct CUmemAccessDesc {
  CUmemLocation location;
  int flags; ///< 3 = read and write.
};

/// CUlaunchAttributeID.
enum { kLaunchProgrammaticSerialization = 6 };

struct CUlaunchAttribute {
  int id;
  char padding[4];
  union {
    char bytes[64];
    int flag;
  } value;
};
static_assert(sizeof(CUlaunchAttribute) == 72);

struct CUlaunchConfig {
  unsigned gridDimX, gridDimY, gridDimZ;
  unsigned blockDimX, blockDimY, blockDimZ;
  unsigned sharedMemBytes;
  CUstream hStream;
  CUlaunchAttribute *attrs;
  unsigned numAttrs;
};

/// Arguments of cuTensorMapEncodeTiled.
enum {
  kTensorU8 = 0,
  kTensorF16 = 6,
  kTensorBF16 = 9,
  kTensorNoInterleave = 0,
  kTensorSwizzle128B = 3,
  kTensorPromoteL2128B = 2,
  kTensorZeroFill = 0
};

} // namespace moa::rt::cuda

#endif // MOA_RT_BACKEND_CUDA_CUDA_TYPES_H
