//===- cuda_module.cpp - Kernels of an artifact on a CUDA device ----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// For each kernel, the first image in the artifact's order that the device runs
// and the driver accepts; what was refused on the way becomes a remark.
//
//===----------------------------------------------------------------------===//

#include "backend/cuda/cuda_device.h"

#include <algorithm>

namespace moa::rt::cuda {
namespace {

struct CudaCode : KernelCode {
  explicit CudaCode(Gpu &gpu) : gpu(gpu) {}
  ~CudaCode() override {
    Current current(*gpu.driver, gpu.context);
    for (CUmodule module : modules)
      gpu.driver->cuModuleUnload(module);
  }
  Gpu &gpu;
  std::vector<CUmodule> modules;
};

/// Whether an error says that another image may do better.
bool refusesImage(CUresult result) {
  switch (result) {
  case kErrorInvalidImage:
  case kErrorNoBinaryForGpu:
  case kErrorInvalidPtx:
  case kErrorJitCompilerNotFound:
  case kErrorUnsupportedPtxVersion:
  case kErrorJitCompilationDisabled:
  case kErrorInvalidSource:
    return true;
  default:
    return false;
  }
}

std::string nameOf(const ImageRecord &image) {
  switch (image.facts.target) {
  case MOA_TARGET_CUDA_CUBIN:
    return image.chip + " cubin";
  case MOA_TARGET_CUDA_PTX:
    return image.chip + " PTX";
  default:
    return image.chip;
  }
}

/// "NVIDIA H200 (compute capability 9.0)".
std::string nameOf(const Gpu &gpu) {
  return gpu.facts.name + " (compute capability " +
         std::to_string(gpu.facts.capabilityMajor) + "." +
         std::to_string(gpu.facts.capabilityMinor) + ")";
}

class Loader {
public:
  Loader(Gpu &gpu, const std::string &origin, LoadedKernels &out)
      : gpu(gpu), driver(*gpu.driver), origin(origin), out(out) {}

  Status run(const Artifact &artifact);

private:
  Status loadKernel(const KernelRecord &kernel, Kernel &loaded, Kernel &wide);
  Status loadImages(const KernelRecord &kernel, uint32_t rows, Kernel &loaded);
  Status tryImage(const KernelRecord &kernel, const ImageRecord &image,
                  Kernel &loaded, std::string &refused);
  Status describe(const KernelRecord &kernel, const ImageRecord &image,
                  CUfunction function, Kernel &loaded);

  Gpu &gpu;
  const Driver &driver;
  const std::string &origin;
  LoadedKernels &out;
  std::vector<CUmodule> *modules = nullptr;
  uint32_t demand = 0; ///< Features of the variant that is named.
};

/// Launch facts, checked against the device.
Status Loader::describe(const KernelRecord &kernel, const ImageRecord &image,
                        CUfunction function, Kernel &loaded) {
  const moa_artifact_image &facts = image.facts;
  if (kernel.facts.kind == MOA_KERNEL_PREFILL && facts.keys != 64 &&
      facts.keys != 128)
    return error(MOA_INCOMPATIBLE, origin, ": kernel ", kernel.name, ", ",
                 nameOf(image), ": key tiles of ", facts.keys,
                 ", this runtime makes lists for 64 or 128; compile the plan "
                 "again");
  loaded.entry = function;
  loaded.scratchBytes = facts.scratch_bytes;
  loaded.threads = facts.threads;
  loaded.rows = facts.rows;
  loaded.keys = facts.keys;
  const bool decodes = kernel.facts.kind == MOA_KERNEL_DECODE;
  const bool hopper = (facts.features & MOA_GPU_ARCH_SPECIFIC) != 0 &&
                      kernel.facts.dtype != MOA_DTYPE_F32;
  loaded.maps = hopper && (decodes || kernel.facts.kind == MOA_KERNEL_PREFILL);
  loaded.waits = hopper && decodes;
  if (loaded.maps && !driver.cuTensorMapEncodeTiled)
    return error(MOA_NO_DEVICE, origin, ": kernel ", kernel.name,
                 " needs tensor maps, which came with CUDA 12.1; the driver is "
                 "for ",
                 driver.version / 1000, ".", driver.version % 1000 / 10,
                 ": update it, or compile with --target sm_80");
  if (facts.scratch_bytes)
    MOA_CUDA_TRY(driver, cuFuncSetAttribute,
                 (function, kFunctionMaxDynamicShared,
                  static_cast<int>(facts.scratch_bytes)),
                 origin, ": kernel ", kernel.name, " needs ",
                 facts.scratch_bytes, " bytes of shared memory, ", nameOf(gpu),
                 " gives a block ", gpu.sharedBytes);
  int blocks = 0;
  MOA_CUDA_TRY(
      driver, cuOccupancyMaxActiveBlocksPerMultiprocessor,
      (&blocks, function, static_cast<int>(facts.threads), facts.scratch_bytes),
      origin, ": asking how many blocks of kernel ", kernel.name,
      " run at a time");
  if (blocks < 1)
    return error(MOA_INCOMPATIBLE, origin, ": kernel ", kernel.name, " with ",
                 facts.threads, " threads and ", facts.scratch_bytes,
                 " bytes of shared memory does not fit on ", nameOf(gpu),
                 "; compile with --target for it");
  loaded.grid = static_cast<uint32_t>(blocks * gpu.facts.processors);
  return ok();
}

/// Loads one image. A refusal that another image may cure is told in `refused`.
Status Loader::tryImage(const KernelRecord &kernel, const ImageRecord &image,
                        Kernel &loaded, std::string &refused) {
  char log[1024] = {};
  int options[] = {kJitErrorLog, kJitErrorLogBytes};
  void *values[] = {log, reinterpret_cast<void *>(sizeof(log) - 1)};
  CUmodule module = nullptr;
  modules->reserve(modules->size() + 1);
  CUresult result =
      driver.cuModuleLoadDataEx(&module, image.code, 2, options, values);
  if (refusesImage(result)) {
    refused = nameOf(image) + " refused: " + driver.describe(result);
    std::string text = log;
    text = text.substr(0, text.find('\n'));
    if (!text.empty())
      refused += ": " + text;
    return ok();
  }
  MOA_RT_TRY(driver.check(result, "cuModuleLoadDataEx", origin,
                          ": loading kernel ", kernel.name, ", ",
                          nameOf(image)));
  modules->push_back(module);
  CUfunction function = nullptr;
  MOA_CUDA_TRY(driver, cuModuleGetFunction,
               (&function, module, image.function.c_str()), origin,
               ": looking for ", image.function, " in kernel ", kernel.name,
               ", ", nameOf(image));
  return describe(kernel, image, function, loaded);
}

/// The rows that the device's images of a decode kernel have, in their order,
/// each once; 0, for any, of other kernels.
static std::vector<uint32_t> rowsOf(const KernelRecord &kernel,
                                    uint32_t capability) {
  if (kernel.facts.kind != MOA_KERNEL_DECODE)
    return {0};
  std::vector<uint32_t> rows;
  for (const ImageRecord &image : kernel.images)
    if (moa_gpu_image_runs(image.facts.target, image.facts.features,
                           capability) &&
        std::find(rows.begin(), rows.end(), image.facts.rows) == rows.end())
      rows.push_back(image.facts.rows);
  return rows.empty() ? std::vector<uint32_t>{0} : rows;
}

/// Of a decode kernel `wide` is the image with the most columns, where that is
/// not the one with the fewest, `loaded`.
Status Loader::loadKernel(const KernelRecord &kernel, Kernel &loaded,
                          Kernel &wide) {
  const std::vector<uint32_t> rows = rowsOf(kernel, gpu.capability());
  const auto [least, most] = std::minmax_element(rows.begin(), rows.end());
  MOA_RT_TRY(loadImages(kernel, *least, loaded));
  return *least == *most ? ok() : loadImages(kernel, *most, wide);
}

/// Loads the first image that runs of those with `rows`, or with any for 0.
Status Loader::loadImages(const KernelRecord &kernel, uint32_t rows,
                          Kernel &loaded) {
  std::string have, refusals;
  bool forGpus = false;
  for (const ImageRecord &image : kernel.images) {
    have += (have.empty() ? "" : ", ") + nameOf(image);
    if (image.facts.target == MOA_TARGET_CPU_X86_64)
      continue;
    forGpus = true;
    if (loaded.entry || (rows && image.facts.rows != rows) ||
        !moa_gpu_image_runs(image.facts.target, image.facts.features,
                            gpu.capability()))
      continue;
    std::string refused;
    MOA_RT_TRY(tryImage(kernel, image, loaded, refused));
    if (!refused.empty()) {
      refusals += (refusals.empty() ? "" : "; ") + refused;
      continue;
    }
    if (!refusals.empty() && out.remark.empty())
      out.remark = "kernel " + kernel.name + ": " + refusals + "; " +
                   nameOf(image) + " is used";
    if (out.chip.empty() || image.facts.features > demand) {
      demand = image.facts.features;
      out.chip = nameOf(image);
    }
  }
  if (loaded.entry || (!forGpus && refusals.empty()))
    return ok();
  if (!refusals.empty())
    return error(MOA_INCOMPATIBLE, origin, ": kernel ", kernel.name, " on ",
                 nameOf(gpu), ": ", refusals,
                 "; update the driver, or compile with --target sm_80, whose "
                 "PTX any newer driver takes");
  return error(MOA_INCOMPATIBLE, origin, ": kernel ", kernel.name,
               " has no image for ", nameOf(gpu), " (it has: ", have,
               "); compile with --target sm_",
               gpu.capability() == 90 ? "90a" : "80");
}

Status Loader::run(const Artifact &artifact) {
  auto code = std::make_unique<CudaCode>(gpu);
  modules = &code->modules;
  bool any = false;
  std::string have;
  for (const KernelRecord &kernel : artifact.kernels) {
    Kernel loaded, wide;
    MOA_RT_TRY(loadKernel(kernel, loaded, wide));
    any |= loaded.entry != nullptr;
    out.kernels.push_back(loaded);
    out.wide.push_back(wide);
    for (const ImageRecord &image : kernel.images)
      if (have.find(image.chip) == std::string::npos)
        have += (have.empty() ? "" : ", ") + nameOf(image);
  }
  if (!any)
    return error(MOA_INCOMPATIBLE, origin, ": no kernel for ", nameOf(gpu),
                 " (images: ", have.empty() ? "none" : have,
                 "); compile with --target sm_",
                 gpu.capability() == 90 ? "90a" : "80");
  out.code = std::move(code);
  return ok();
}

} // namespace

Status loadKernels(Gpu &gpu, const Artifact &artifact,
                   const std::string &origin, LoadedKernels &out) {
  Current current(*gpu.driver, gpu.context);
  MOA_RT_TRY(std::move(current.status));
  return Loader(gpu, origin, out).run(artifact);
}

} // namespace moa::rt::cuda
