//===- cuda_memory.cpp - Pages in device memory ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One range of addresses for all pages that a cache may ever have, so that a
// single tensor map covers them; memory is mapped into it as pages are needed.
//
//===----------------------------------------------------------------------===//

#include "backend/cuda/cuda_device.h"
#include "moa/abi/gpu_args.h"

#include <algorithm>

namespace moa::rt::cuda {
namespace {

/// Bytes mapped at a time, about.
constexpr size_t kChunkBytes = size_t(64) << 20;

size_t roundUp(size_t value, size_t to) { return (value + to - 1) / to * to; }

CUmemAllocationProp propertiesOf(const Gpu &gpu) {
  CUmemAllocationProp properties = {};
  properties.type = 1;
  properties.location = {1, gpu.device};
  return properties;
}

class DevicePages : public PageMemory {
public:
  DevicePages(Gpu &gpu, size_t pageBytes, size_t scaleBytes, uint64_t pages)
      : gpu(gpu), driver(*gpu.driver), pageBytes(pageBytes),
        scaleBytes(scaleBytes), pages(pages) {}
  ~DevicePages() override;

  /// Reserves addresses, or allocates everything where that is not possible.
  Status open();

  size_t pagesPerSlab() const override { return pages; }
  char *base() const override { return reinterpret_cast<char *>(first); }
  char *scales() const override { return reinterpret_cast<char *>(table); }
  uint64_t bytes() const override { return mapped + spareMapped; }
  uint64_t most() const override { return pages; }
  uint64_t addressable() const override {
    return spares ? spareFirst() + pages : pages;
  }
  Status spare(uint64_t count, PageId &first) override;
  Status settle() override;
  Status copy(void *to, const void *from, size_t bytes) override;
  Status grow(std::vector<char *> &slabs, uint64_t &usable) override;

private:
  Status map(size_t offset, size_t chunk);
  /// Spare pages begin behind what all others are mapped with.
  size_t spareOffset() const { return roundUp(pages * pageBytes, granularity); }
  uint64_t spareFirst() const {
    return (spareOffset() + pageBytes - 1) / pageBytes;
  }

  Gpu &gpu;
  const Driver &driver;
  const size_t pageBytes, scaleBytes; ///< Of a page, of its scales.
  const uint64_t pages;
  CUdeviceptr table = 0; ///< Scales of all pages; 0 where there are none.
  CUdeviceptr first = 0;
  size_t reserved = 0; ///< 0: one plain allocation.
  size_t granularity = 0;
  size_t mapped = 0;
  std::vector<size_t> chunks; ///< Sizes of what is mapped, in order.
  bool spares = false;        ///< Whether there can be spare pages: as many.
  size_t spareMapped = 0;
  std::vector<size_t> spareChunks;
};

DevicePages::~DevicePages() {
  Current current(driver, gpu.context);
  if (table)
    driver.cuMemFree(table);
  if (!first)
    return;
  if (!reserved) {
    driver.cuMemFree(first);
    return;
  }
  // Each chunk is unmapped by itself, as it was mapped.
  auto unmap = [&](size_t offset, const std::vector<size_t> &sizes) {
    for (size_t chunk : sizes) {
      driver.cuMemUnmap(first + offset, chunk);
      offset += chunk;
    }
  };
  unmap(0, chunks);
  unmap(spareOffset(), spareChunks);
  driver.cuMemAddressFree(first, reserved);
}

Status DevicePages::open() {
  if (scaleBytes)
    MOA_CUDA_TRY(driver, cuMemAlloc, (&table, pages * scaleBytes),
                 "allocating ", pages * scaleBytes, " bytes for the scales of ",
                 pages, " pages");
  if (gpu.virtualMemory) {
    CUmemAllocationProp properties = propertiesOf(gpu);
    MOA_CUDA_TRY(driver, cuMemGetAllocationGranularity,
                 (&granularity, &properties, 0),
                 "asking for the granularity of memory");
    // What is in 8 bits is brought back in spare pages.
    spares = scaleBytes != 0;
    size_t size = roundUp(addressable() * pageBytes, granularity);
    MOA_CUDA_TRY(driver, cuMemAddressReserve, (&first, size, 0, 0, 0),
                 "reserving ", size, " bytes of addresses for pages");
    reserved = size;
    return ok();
  }
  MOA_CUDA_TRY(driver, cuMemAlloc, (&first, pages * pageBytes), "allocating ",
               pages * pageBytes, " bytes for pages");
  mapped = pages * pageBytes;
  return ok();
}

Status DevicePages::map(size_t offset, size_t chunk) {
  CUmemAllocationProp properties = propertiesOf(gpu);
  CUmemHandle handle = 0;
  MOA_CUDA_TRY(driver, cuMemCreate, (&handle, chunk, &properties, 0),
               "allocating ", chunk, " bytes for pages beside ", mapped,
               " in use");
  CUdeviceptr place = first + offset;
  CUresult result = driver.cuMemMap(place, chunk, 0, handle, 0);
  driver.cuMemRelease(handle); // The mapping keeps the memory.
  MOA_RT_TRY(
      driver.check(result, "cuMemMap", "mapping ", chunk, " bytes for pages"));
  CUmemAccessDesc access = {{1, gpu.device}, 3};
  result = driver.cuMemSetAccess(place, chunk, &access, 1);
  if (result != kSuccess)
    driver.cuMemUnmap(place, chunk);
  return driver.check(result, "cuMemSetAccess", "giving access to ", chunk,
                      " bytes for pages");
}

Status DevicePages::grow(std::vector<char *> &slabs, uint64_t &usable) {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  slabs.reserve(1);
  if (reserved) {
    RelaxedCapture relaxed(driver);
    size_t chunk =
        std::min(spareOffset() - mapped, roundUp(kChunkBytes, granularity));
    chunks.reserve(chunks.size() + 1);
    MOA_RT_TRY(map(mapped, chunk));
    chunks.push_back(chunk);
    mapped += chunk;
  }
  if (slabs.empty())
    slabs.push_back(reinterpret_cast<char *>(first));
  usable = std::min<uint64_t>(pages, mapped / pageBytes);
  return ok();
}

Status DevicePages::spare(uint64_t count, PageId &page) {
  if (!spares || count > pages)
    return error(MOA_UNSUPPORTED, gpu.facts.name, ": the call reads ", count,
                 " pages in 8 bits, which prompts need in ",
                 "the model's type; there is room for ", spares ? pages : 0,
                 " beside the cache's: feed fewer sequences in a call, or one "
                 "token at a time");
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  page = static_cast<PageId>(spareFirst());
  const size_t end = (page + count) * pageBytes - spareOffset();
  if (end <= spareMapped)
    return ok();
  RelaxedCapture relaxed(driver);
  const size_t chunk = roundUp(end - spareMapped, granularity);
  spareChunks.reserve(spareChunks.size() + 1);
  MOA_RT_TRY(map(spareOffset() + spareMapped, chunk));
  spareChunks.push_back(chunk);
  spareMapped += chunk;
  return ok();
}

Status DevicePages::settle() {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  MOA_CUDA_TRY(driver, cuCtxSynchronize, (), "waiting for the device");
  return ok();
}

Status DevicePages::copy(void *to, const void *from, size_t count) {
  Current current(driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  MOA_CUDA_TRY(driver, cuMemcpy,
               (reinterpret_cast<CUdeviceptr>(to),
                reinterpret_cast<CUdeviceptr>(from), count),
               "copying a page of ", count, " bytes");
  return ok();
}

} // namespace

Status makePool(Gpu &gpu, const Geometry &geometry, uint64_t maxBytes,
                std::unique_ptr<PagePool> &out) {
  Current current(*gpu.driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  const size_t pageBytes = geometry.pageBytes();
  const size_t scaleBytes = geometry.scaleBytes();
  size_t available = 0, total = 0;
  MOA_CUDA_TRY(*gpu.driver, cuMemGetInfo, (&available, &total),
               "asking for free memory");
  if (!maxBytes)
    maxBytes = available / 10 * 9;
  // What entries of block tables can say.
  const uint64_t most = geometry.kv8 ? MOA_GPU_CODES_PAGES : INT32_MAX;
  uint64_t pages = std::min<uint64_t>(maxBytes / pageBytes, most);
  if (!pages)
    return error(MOA_OUT_OF_MEMORY, gpu.facts.name, " has ", available, " of ",
                 total, " bytes free, expected room for a page of ", pageBytes,
                 "; free memory of other programs on the device");
  auto memory =
      std::make_unique<DevicePages>(gpu, pageBytes, scaleBytes, pages);
  MOA_RT_TRY(memory->open());
  out = std::make_unique<PagePool>(pageBytes, pages, std::move(memory),
                                   scaleBytes);
  return ok();
}

} // namespace moa::rt::cuda
