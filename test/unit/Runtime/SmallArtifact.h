//===- SmallArtifact.h - An artifact made by hand ---------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Bytes that a reader accepts, and how to reach every record of them. The code
// of each CPU kernel returns at once.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_RUNTIME_SMALLARTIFACT_H
#define MOA_TEST_UNIT_RUNTIME_SMALLARTIFACT_H

#include "moa/abi/artifact.h"
#include "moa/abi/kernel_args.h"
#include "moa/abi/version.h"

#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace moa::rt::test {

using Bytes = std::vector<uint8_t>;

/// A valid artifact of 2 layers, 4 query heads over 2 KV heads, and how to
/// reach its records.
class SmallArtifact {
public:
  SmallArtifact() {
    std::memset(&header, 0, sizeof(header));
    bytes.resize(sizeof(header));
    for (int i = 0; i < 8; ++i)
      rules.push_back({-64, 0.5, 64, 128, 64, MOA_LENGTH_REQUEST});
    layers.assign(2, {0, 1, 2, MOA_NO_KERNEL, MOA_NO_KERNEL, MOA_NO_KERNEL});
    kernels = {{0, MOA_KERNEL_PREFILL, MOA_DTYPE_F32, 64, 1, 0, 1, 0, 0},
               {8, MOA_KERNEL_DECODE, MOA_DTYPE_F32, 64, 2, 1, 1, 0, 0},
               {15, MOA_KERNEL_APPEND, MOA_DTYPE_F32, 64, 1, 2, 1, 0, 0}};
    for (uint64_t i = 0; i < 3; ++i)
      images.push_back(
          {MOA_TARGET_CPU_X86_64, 0, 22, 0, i * 64, 1, 0, 256, 0, 0, 0, 0});
  }

  /// Gives each kernel, behind its CPU image, a cubin and PTX for sm_90a: image
  /// 3 * kernel + 1 and the one behind it.
  SmallArtifact &addGpuImages() {
    const std::vector<moa_artifact_image> cpu = std::move(images);
    images.clear();
    for (uint32_t i = 0; i < 3; ++i) {
      const uint32_t features = 90 | MOA_GPU_ARCH_SPECIFIC;
      images.push_back(cpu[i]);
      const uint32_t rows = kernels[i].kind == MOA_KERNEL_DECODE ? 8 : 128;
      images.push_back({MOA_TARGET_CUDA_CUBIN, features, 26, 384, 0, 64,
                        kernels[i].name, 200000, rows, 176, 168, 0});
      images.push_back({MOA_TARGET_CUDA_PTX, features, 26, 384, 192, 5,
                        kernels[i].name, 200000, rows, 176, 0, 0});
      kernels[i].first_image = 3 * i;
      kernels[i].images = 3;
    }
    return *this;
  }

  /// Gives the model a prepare kernel with a cubin and PTX: its last images.
  SmallArtifact &addPrepare() {
    const uint32_t name = uint32_t(strings.size());
    strings += std::string("prepare\0", 8);
    kernels.push_back({name, MOA_KERNEL_PREPARE, MOA_DTYPE_F32, 64, 1,
                       uint32_t(images.size()), 2, 0, 0});
    images.push_back(
        {MOA_TARGET_CUDA_CUBIN, 80, 26, 256, 0, 64, name, 0, 0, 0, 86, 0});
    images.push_back(
        {MOA_TARGET_CUDA_PTX, 80, 26, 256, 192, 5, name, 0, 0, 0, 0, 0});
    for (moa_artifact_layer &layer : layers)
      layer.prepare = uint32_t(kernels.size() - 1);
    return *this;
  }

  Bytes build() {
    bytes.assign(sizeof(header), 0);
    add(header.rules, rules.data(), rules.size() * sizeof(rules[0]));
    add(header.layer_table, layers.data(), layers.size() * sizeof(layers[0]));
    add(header.kernels, kernels.data(), kernels.size() * sizeof(kernels[0]));
    add(header.images, images.data(), images.size() * sizeof(images[0]));
    add(header.strings, strings.data(), strings.size());
    Bytes code(3 * 64, 0xC3); // ret
    code.insert(code.end(), ptx.begin(), ptx.end());
    add(header.code, code.data(), code.size());
    add(header.kv_formats, kvFormats.data(), kvFormats.size());
    header.magic = MOA_ARTIFACT_MAGIC;
    header.version = MOA_ARTIFACT_VERSION;
    header.kernel_abi_version = MOA_KERNEL_ABI_VERSION;
    header.header_size = sizeof(header);
    header.layers = 2;
    header.q_heads = 4;
    header.kv_heads = 2;
    header.head_dim = 64;
    header.dtype = dtype;
    header.max_length = 4096;
    header.file_size = bytes.size();
    if (change)
      change(header);
    seal(bytes, header);
    return bytes;
  }

  /// Writes the header with the right checksum.
  static void seal(Bytes &bytes, moa_artifact_header header) {
    std::memcpy(bytes.data(), &header, sizeof(header));
    header.checksum = moa_artifact_checksum(bytes.data(), bytes.size());
    std::memcpy(bytes.data(), &header, sizeof(header));
  }

  moa_artifact_header header;
  uint32_t dtype = MOA_DTYPE_F32; ///< Of the header.
  std::vector<moa_span_rule> rules;
  std::vector<uint8_t> kvFormats = std::vector<uint8_t>(4, MOA_KV_MODEL);
  std::vector<moa_artifact_layer> layers;
  std::vector<moa_artifact_kernel> kernels;
  std::vector<moa_artifact_image> images;
  std::string strings =
      std::string("prefill\0decode\0append\0any\0sm_90a\0", 33);
  std::string ptx = std::string("text\0", 5);
  /// Last change to the header, before it is sealed.
  std::function<void(moa_artifact_header &)> change;

private:
  void add(moa_artifact_section &section, const void *data, size_t size) {
    bytes.resize((bytes.size() + 63) / 64 * 64);
    section = {bytes.size(), size};
    auto *from = static_cast<const uint8_t *>(data);
    bytes.insert(bytes.end(), from, from + size);
  }

  Bytes bytes;
};

} // namespace moa::rt::test

#endif // MOA_TEST_UNIT_RUNTIME_SMALLARTIFACT_H
