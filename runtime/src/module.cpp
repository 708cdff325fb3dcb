//===- module.cpp - A loaded artifact -------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Chooses one image a kernel, copies them to fresh memory and makes it
// executable and read-only.
//
//===----------------------------------------------------------------------===//

#include "module.h"

#include "artifact/reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

namespace moa::rt {

uint32_t detectCpuFeatures() {
  uint32_t features = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // These builtins also check that the operating system saves the registers.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
    features |= MOA_CPU_X86_64_V3;
  if ((features & MOA_CPU_X86_64_V3) && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    features |= MOA_CPU_X86_64_V4;
  // On Intel cores vdpbf16ps runs at half the rate of f32 FMA (Sapphire Rapids:
  // 73 against 140 GFLOP/s in our prefill), so only AMD's is worth using.
  if ((features & MOA_CPU_X86_64_V4) && __builtin_cpu_is("amd") &&
      __builtin_cpu_supports("avx512bf16"))
    features |= MOA_CPU_AVX512_BF16;
#endif
  return features;
}

Module::~Module() {
  if (code)
    munmap(code, codeSize);
}

int64_t Module::groupStart(uint32_t layer, uint32_t kvHead, int64_t i,
                           int64_t n) const {
  const uint32_t group = geometry.group();
  int64_t start = i;
  for (uint32_t g = 0; g < group; ++g)
    start = std::min(start,
                     moa_window_start(&rule(layer, kvHead * group + g), i, n));
  return start;
}

moa_resident Module::resident(uint32_t layer, uint32_t kvHead, int64_t seen,
                              int64_t n) const {
  return moa_resident_pages(seen, groupStart(layer, kvHead, seen, n), sink());
}

Status Module::mapKernels(const Artifact &artifact, uint32_t cpuFeatures,
                          const std::string &origin) {
  std::vector<const ImageRecord *> chosen;
  for (const KernelRecord &kernel : artifact.kernels) {
    const ImageRecord *found = nullptr;
    for (const ImageRecord &image : kernel.images)
      if (!found && image.facts.target == MOA_TARGET_CPU_X86_64 &&
          (image.facts.features & ~cpuFeatures) == 0)
        found = &image;
    if (!found) {
      std::string have;
      for (const ImageRecord &image : kernel.images)
        have += (have.empty() ? "" : ", ") + image.chip;
      return error(
          MOA_INCOMPATIBLE, origin, ": kernel ", kernel.name,
          " has no image for this CPU (it has: ", have.empty() ? "none" : have,
          "); compile with --target cpu for a variant this machine "
          "runs");
    }
    chosen.push_back(found);
  }
  size_t size = 0;
  std::vector<size_t> offsets;
  for (const ImageRecord *image : chosen) {
    offsets.push_back(size);
    size += (image->facts.size + 63) / 64 * 64;
  }
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  codeSize = std::max(page, (size + page - 1) / page * page);
  void *memory = mmap(nullptr, codeSize, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return error(MOA_OUT_OF_MEMORY, "cannot map ", codeSize,
                 " bytes for kernels: ", std::strerror(errno));
  code = memory;
  for (size_t i = 0; i < chosen.size(); ++i)
    std::memcpy(static_cast<char *>(code) + offsets[i], chosen[i]->code,
                chosen[i]->facts.size);
  if (mprotect(code, codeSize, PROT_READ | PROT_EXEC))
    return error(MOA_OUT_OF_MEMORY, "cannot make ", codeSize,
                 " bytes of kernels executable: ", std::strerror(errno));

  auto kernelAt = [&](uint32_t index) {
    if (index == MOA_NO_KERNEL)
      return Kernel();
    return Kernel{static_cast<char *>(code) + offsets[index] +
                      chosen[index]->facts.entry,
                  static_cast<size_t>(chosen[index]->facts.scratch_bytes)};
  };
  for (const moa_artifact_layer &layer : artifact.layers)
    layers.push_back({kernelAt(layer.prefill), kernelAt(layer.decode),
                      kernelAt(layer.append)});
  // Not every kernel has an image for the most demanding variant.
  uint32_t most = 0;
  for (const ImageRecord *image : chosen)
    if (chip.empty() || image->facts.features > most) {
      most = image->facts.features;
      chip = image->chip;
    }
  return ok();
}

Status Module::load(const uint8_t *bytes, size_t size,
                    const std::string &origin, uint32_t cpuFeatures,
                    std::unique_ptr<Module> &out) {
  Artifact artifact;
  MOA_RT_TRY(readArtifact(bytes, size, origin, artifact));
  auto module = std::make_unique<Module>();
  const moa_artifact_header &header = artifact.header;
  Geometry &g = module->geometry;
  g.layers = header.layers;
  g.qHeads = header.q_heads;
  g.kvHeads = header.kv_heads;
  g.headDim = header.head_dim;
  g.dtype = header.dtype;
  g.lengthRule = header.length_rule;
  g.maxLength = header.max_length;
  module->artifactVersion = header.version;
  module->kernelCount = static_cast<uint32_t>(artifact.kernels.size());
  std::memcpy(module->planId, header.plan_id, sizeof(module->planId));
  module->rules = std::move(artifact.rules);
  MOA_RT_TRY(module->mapKernels(artifact, cpuFeatures, origin));
  out = std::move(module);
  return ok();
}

} // namespace moa::rt
