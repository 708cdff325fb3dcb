//===- cuda_launch.cpp ----------------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of cuda_launch.h.
//
//===----------------------------------------------------------------------===//

#include "backend/cuda/cuda_launch.h"

#include <algorithm>

namespace moa::rt::cuda {

Status DecodeMemory::reserve(const Driver &driver, int64_t blocks) {
  if (blocks <= room)
    return ok();
  RelaxedCapture relaxed(driver);
  outgrown.reserve(outgrown.size() + 1);
  // At least twice what there was: all that is outgrown takes less than this.
  const int64_t wanted = std::max(blocks, 2 * room);
  const auto bytes = static_cast<size_t>(wanted * blockBytes);
  CUdeviceptr memory = 0;
  MOA_CUDA_TRY(driver, cuMemAlloc, (&memory, bytes), "allocating ", bytes,
               " bytes for partial results");
  if (partials)
    outgrown.push_back(partials);
  partials = memory;
  room = wanted;
  return ok();
}

void DecodeMemory::free(const Driver &driver) {
  for (CUdeviceptr memory : outgrown)
    driver.cuMemFree(memory);
  for (CUdeviceptr memory : {partials, counters})
    if (memory)
      driver.cuMemFree(memory);
}

int64_t DecodeMemory::mostItems() const {
  const int64_t items = kDecodeItems;
  return parts && blockBytes ? std::min(items, INT32_MAX / (parts * blockBytes))
                             : items;
}

Status launch(const Driver &driver, const Launch &what, void **parameters) {
  const Kernel &kernel = what.kernel;
  auto function = static_cast<CUfunction>(kernel.entry);
  auto stream = static_cast<CUstream>(what.stream);
  const auto grid = static_cast<unsigned>(what.grid);
  const auto shared = static_cast<unsigned>(kernel.scratchBytes);
  CUresult result;
  if (what.early && driver.cuLaunchKernelEx) {
    CUlaunchAttribute attribute = {};
    attribute.id = kLaunchProgrammaticSerialization;
    attribute.value.flag = 1;
    CUlaunchConfig config = {};
    config.gridDimX = grid;
    config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = kernel.threads;
    config.blockDimY = config.blockDimZ = 1;
    config.sharedMemBytes = shared;
    config.hStream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
    result = driver.cuLaunchKernelEx(&config, function, parameters, nullptr);
  } else {
    result = driver.cuLaunchKernel(function, grid, 1, 1, kernel.threads, 1, 1,
                                   shared, stream, parameters, nullptr);
  }
  return driver.check(result, "cuLaunchKernel", "layer ", what.layer,
                      ": launching the ", what.name, " kernel with ", grid,
                      " blocks of ", kernel.threads, " threads");
}

Status launchDecodeKernel(const Driver &driver, const Launch &what,
                          DecodeMemory &memory, DecodeTables tables,
                          int32_t sink, float scaleLog2) {
  void *parameters[] = {&memory.args,     &tables.items, &tables.line,
                        &tables.pages,    &tables.cuts,  &memory.partials,
                        &memory.counters, &sink,         &scaleLog2};
  return launch(driver, what, parameters);
}

} // namespace moa::rt::cuda
