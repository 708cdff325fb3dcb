//===- ArtifactWriter.cpp - Contents to bytes -----------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Lays the sections of moa/abi/artifact.h out and checks what the format
// demands, so that a bad artifact is refused where it is made.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/Artifact.h"

#include "moa/abi/kernel_args.h"
#include "moa/abi/version.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringMap.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MathExtras.h"
#include <cstring>

using namespace moa;

static_assert(llvm::endianness::native == llvm::endianness::little,
              "structs are written as they lie in memory");

template <typename... Args>
static llvm::Error refuse(const char *format, Args &&...args) {
  return llvm::createStringError(
      llvm::formatv(format, std::forward<Args>(args)...).str());
}

namespace {

/// Strings, each stored once, NUL-terminated.
class StringSection {
public:
  uint32_t offsetOf(llvm::StringRef text) {
    auto [entry, fresh] = offsets.try_emplace(text, bytes.size());
    if (fresh) {
      bytes.insert(bytes.end(), text.begin(), text.end());
      bytes.push_back(0);
    }
    return entry->second;
  }
  const std::vector<uint8_t> &get() const { return bytes; }

private:
  std::vector<uint8_t> bytes;
  llvm::StringMap<uint32_t> offsets;
};

} // namespace

/// Appends zeros up to a multiple of the format's alignment.
static void align(std::vector<uint8_t> &bytes) {
  bytes.resize(llvm::alignTo(bytes.size(), MOA_ARTIFACT_ALIGN), 0);
}

template <typename T>
static moa_artifact_section append(std::vector<uint8_t> &file,
                                   const std::vector<T> &records) {
  static_assert(std::is_trivially_copyable_v<T>);
  align(file);
  moa_artifact_section section{file.size(), records.size() * sizeof(T)};
  auto *begin = reinterpret_cast<const uint8_t *>(records.data());
  file.insert(file.end(), begin, begin + section.size);
  return section;
}

static llvm::Error checkRules(const ArtifactContents &c) {
  uint64_t expected = uint64_t(c.layers) * c.qHeads;
  if (c.rules.size() != expected)
    return refuse("expected {0} rules ({1} layers of {2} heads), got {3}",
                  expected, c.layers, c.qHeads, c.rules.size());
  for (auto [i, rule] : llvm::enumerate(c.rules)) {
    uint64_t layer = i / c.qHeads, head = i % c.qHeads;
    if (moa_length_rule_of(&rule) != c.lengthRule)
      return refuse("layer {0} head {1}: expected length rule {2} as "
                    "everywhere, got {3}",
                    layer, head, c.lengthRule, moa_length_rule_of(&rule));
    if (!(rule.beta >= 0 && rule.beta <= 1))
      return refuse("layer {0} head {1}: expected beta between 0 and 1, got "
                    "{2}",
                    layer, head, rule.beta);
    if (rule.sink < 0 || rule.min_span <= rule.sink || rule.round_to < 1)
      return refuse("layer {0} head {1}: expected 0 <= sink < minimum span and "
                    "a rounding of at least 1, got {2}, {3} and {4}",
                    layer, head, rule.sink, rule.min_span, rule.round_to);
  }
  return llvm::Error::success();
}

/// Formats there are, of 8 bits beside 16-bit elements alone.
static llvm::Error checkFormats(const ArtifactContents &c) {
  uint64_t expected = uint64_t(c.layers) * c.kvHeads;
  if (c.kvFormats.size() != expected)
    return refuse("expected {0} KV formats ({1} layers of {2} heads), got {3}",
                  expected, c.layers, c.kvHeads, c.kvFormats.size());
  const uint8_t most = c.dtype == MOA_DTYPE_F32 ? MOA_KV_MODEL : MOA_KV_INT8;
  for (auto [i, format] : llvm::enumerate(c.kvFormats))
    if (format > most)
      return refuse("layer {0} KV head {1}: expected a KV format of 0 to {2}, "
                    "got {3}",
                    i / c.kvHeads, i % c.kvHeads, most, format);
  return llvm::Error::success();
}

/// Layers with 8-bit blocks have kernels that take them.
static llvm::Error checkKv8(const ArtifactContents &c, size_t layer) {
  const moa_artifact_layer &entry = c.layerTable[layer];
  auto formats =
      llvm::ArrayRef(c.kvFormats).slice(layer * c.kvHeads, c.kvHeads);
  if (!llvm::any_of(formats, [](uint8_t f) { return f != MOA_KV_MODEL; }))
    return llvm::Error::success();
  if (entry.quantise == MOA_NO_KERNEL)
    return refuse("layer {0}: expected a quantise kernel beside KV formats of "
                  "8 bits, got none",
                  layer);
  for (uint32_t index : {entry.prefill, entry.decode})
    if (index != MOA_NO_KERNEL && !c.kernels[index].kv8)
      return refuse("layer {0}: expected kernels that take KV formats of 8 "
                    "bits, got kernel {1} ('{2}')",
                    layer, index, c.kernels[index].name);
  return llvm::Error::success();
}

/// One entry of the layer table: in range, and a kernel of that kind.
static llvm::Error checkLayerKernel(const ArtifactContents &c, size_t layer,
                                    uint32_t index, uint32_t kind,
                                    const char *phase) {
  if (index == MOA_NO_KERNEL)
    return llvm::Error::success();
  if (index >= c.kernels.size())
    return refuse("layer {0}: expected the {1} kernel to be below {2}, got {3}",
                  layer, phase, c.kernels.size(), index);
  if (c.kernels[index].kind != kind)
    return refuse("layer {0}: expected kernel {1} ('{2}') to be of kind {3} "
                  "({4}), got {5}",
                  layer, index, c.kernels[index].name, kind, phase,
                  c.kernels[index].kind);
  return llvm::Error::success();
}

/// Facts of a CPU image; `where` names it.
static llvm::Error checkCpuImage(const ArtifactKernel &kernel,
                                 const ArtifactImage &image,
                                 llvm::StringRef where) {
  if (kernel.kind == MOA_KERNEL_PREPARE)
    return refuse("{0}: expected a GPU as target of a prepare kernel, got a "
                  "CPU",
                  where);
  if (image.entry >= image.code.size())
    return refuse("{0}: expected an entry below its {1} bytes, got {2}", where,
                  image.code.size(), image.entry);
  if (!image.function.empty() || image.threads || image.rows || image.keys ||
      image.registers)
    return refuse("{0}: expected no GPU facts for a CPU, got function '{1}', "
                  "{2} threads, {3} rows, {4} keys, {5} registers",
                  where, image.function, image.threads, image.rows, image.keys,
                  image.registers);
  return llvm::Error::success();
}

/// Launch facts of a GPU image, as far as a reader checks them.
static llvm::Error checkGpuImage(const ArtifactKernel &kernel,
                                 const ArtifactImage &image,
                                 llvm::StringRef where) {
  if (image.code.empty() || image.function.empty() || image.entry)
    return refuse("{0}: expected code, the name of a function and no entry, "
                  "got {1} bytes, '{2}' and {3}",
                  where, image.code.size(), image.function, image.entry);
  if (image.target == MOA_TARGET_CUDA_PTX && image.code.back() != 0)
    return refuse("{0}: expected PTX to end with a zero byte, got {1}", where,
                  image.code.back());
  if ((image.features & MOA_GPU_CAPABILITY_MASK) < 80)
    return refuse("{0}: expected a compute capability of at least 80, got {1}",
                  where, image.features & MOA_GPU_CAPABILITY_MASK);
  if (!image.threads || image.threads > 1024 || image.threads % 32)
    return refuse("{0}: expected a multiple of 32 up to 1024 as threads, got "
                  "{1}",
                  where, image.threads);
  if (image.scratchBytes > MOA_GPU_MAX_SHARED_BYTES)
    return refuse("{0}: expected at most {1} bytes of shared memory, got {2}",
                  where, MOA_GPU_MAX_SHARED_BYTES, image.scratchBytes);
  if (image.registers > 255)
    return refuse("{0}: expected at most 255 registers, got {1}", where,
                  image.registers);
  for (uint32_t side : {image.rows, image.keys})
    if (side > MOA_GPU_MAX_TILE ||
        (kernel.kind == MOA_KERNEL_PREFILL && (!side || side % 16)))
      return refuse("{0}: expected tiles of at most {1}, in prefill multiples "
                    "of 16, got {2} rows and {3} keys",
                    where, MOA_GPU_MAX_TILE, image.rows, image.keys);
  return llvm::Error::success();
}

static llvm::Error checkImages(const ArtifactContents &c, size_t index) {
  const ArtifactKernel &kernel = c.kernels[index];
  for (auto [i, image] : llvm::enumerate(kernel.images)) {
    std::string where = llvm::formatv("kernel {0} ('{1}') image {2} ('{3}')",
                                      index, kernel.name, i, image.chip);
    if (image.target > MOA_TARGET_CUDA_PTX)
      return refuse("{0}: expected target 0 to {1}, got {2}", where,
                    int(MOA_TARGET_CUDA_PTX), image.target);
    if (llvm::Error error = image.target == MOA_TARGET_CPU_X86_64
                                ? checkCpuImage(kernel, image, where)
                                : checkGpuImage(kernel, image, where))
      return error;
  }
  return llvm::Error::success();
}

static llvm::Error checkKernels(const ArtifactContents &c) {
  if (llvm::all_of(c.kernels, [](auto &k) { return k.images.empty(); }))
    return refuse("expected at least one image, got none for {0} kernels",
                  c.kernels.size());
  for (auto [i, kernel] : llvm::enumerate(c.kernels)) {
    if (kernel.headDim != c.headDim || kernel.dtype != c.dtype)
      return refuse("kernel {0} ('{1}'): expected head size {2} and dtype {3} "
                    "as the model has, got {4} and {5}",
                    i, kernel.name, c.headDim, c.dtype, kernel.headDim,
                    kernel.dtype);
    if (!moa_artifact_rotation_fits(kernel.kind == MOA_KERNEL_ROPE,
                                    kernel.rotation, c.headDim))
      return refuse("kernel {0} ('{1}'): expected an even number of rotated "
                    "elements, 2 to {2}, on rope kernels alone, got rotation "
                    "{3}",
                    i, kernel.name, c.headDim, kernel.rotation);
    if (kernel.kv8 && kernel.kind != MOA_KERNEL_PREFILL &&
        kernel.kind != MOA_KERNEL_DECODE)
      return refuse("kernel {0} ('{1}'): expected kv8 on prefill and decode "
                    "kernels alone, got kind {2}",
                    i, kernel.name, kernel.kind);
    if (llvm::Error error = checkImages(c, i))
      return error;
  }
  return llvm::Error::success();
}

static llvm::Error check(const ArtifactContents &c) {
  if (!c.layers || !c.qHeads || !c.kvHeads || !c.headDim || c.maxLength < 1 ||
      c.qHeads % c.kvHeads)
    return refuse("expected a positive geometry with q_heads a multiple of "
                  "kv_heads, got {0} layers, {1} and {2} heads of {3}, length "
                  "{4}",
                  c.layers, c.qHeads, c.kvHeads, c.headDim, c.maxLength);
  if (llvm::Error error = checkRules(c))
    return error;
  if (llvm::Error error = checkFormats(c))
    return error;
  if (c.layerTable.size() != c.layers)
    return refuse("expected {0} entries in the layer table, got {1}", c.layers,
                  c.layerTable.size());
  for (auto [i, layer] : llvm::enumerate(c.layerTable)) {
    if (llvm::Error error = checkLayerKernel(c, i, layer.prefill,
                                             MOA_KERNEL_PREFILL, "prefill"))
      return error;
    if (llvm::Error error =
            checkLayerKernel(c, i, layer.decode, MOA_KERNEL_DECODE, "decode"))
      return error;
    if (llvm::Error error =
            checkLayerKernel(c, i, layer.append, MOA_KERNEL_APPEND, "append"))
      return error;
    if (llvm::Error error = checkLayerKernel(c, i, layer.prepare,
                                             MOA_KERNEL_PREPARE, "prepare"))
      return error;
    if (llvm::Error error =
            checkLayerKernel(c, i, layer.rope, MOA_KERNEL_ROPE, "rope"))
      return error;
    if (llvm::Error error = checkLayerKernel(c, i, layer.quantise,
                                             MOA_KERNEL_QUANTISE, "quantise"))
      return error;
    if (llvm::Error error = checkKv8(c, i))
      return error;
  }
  return checkKernels(c);
}

/// Appends the image's bytes, or finds them where an equal image lies.
static uint64_t placeCode(std::vector<uint8_t> &code,
                          llvm::StringMap<uint64_t> &placed,
                          const std::vector<uint8_t> &image) {
  llvm::StringRef text(reinterpret_cast<const char *>(image.data()),
                       image.size());
  auto [entry, fresh] =
      placed.try_emplace(text, llvm::alignTo(code.size(), MOA_ARTIFACT_ALIGN));
  if (fresh) {
    align(code);
    code.insert(code.end(), image.begin(), image.end());
  }
  return entry->second;
}

llvm::Expected<std::vector<uint8_t>>
moa::writeArtifact(const ArtifactContents &contents) {
  if (llvm::Error error = check(contents))
    return std::move(error);

  StringSection strings;
  std::vector<moa_artifact_kernel> kernels;
  std::vector<moa_artifact_image> images;
  std::vector<uint8_t> code;
  llvm::StringMap<uint64_t> placed;
  for (const ArtifactKernel &kernel : contents.kernels) {
    moa_artifact_kernel record = {};
    record.name = strings.offsetOf(kernel.name);
    record.kind = kernel.kind;
    record.dtype = kernel.dtype;
    record.head_dim = kernel.headDim;
    record.group = kernel.group;
    record.rotation = kernel.rotation;
    record.kv8 = kernel.kv8;
    record.first_image = images.size();
    record.images = kernel.images.size();
    kernels.push_back(record);
    for (const ArtifactImage &image : kernel.images) {
      moa_artifact_image entry = {};
      entry.target = image.target;
      entry.features = image.features;
      entry.chip = strings.offsetOf(image.chip);
      entry.offset = placeCode(code, placed, image.code);
      entry.size = image.code.size();
      entry.entry = image.target == MOA_TARGET_CPU_X86_64
                        ? image.entry
                        : strings.offsetOf(image.function);
      entry.scratch_bytes = image.scratchBytes;
      entry.threads = image.threads;
      entry.rows = image.rows;
      entry.keys = image.keys;
      entry.registers = image.registers;
      images.push_back(entry);
    }
  }

  moa_artifact_header header = {};
  header.magic = MOA_ARTIFACT_MAGIC;
  header.version = MOA_ARTIFACT_VERSION;
  header.header_size = sizeof(header);
  header.kernel_abi_version = MOA_KERNEL_ABI_VERSION;
  header.layers = contents.layers;
  header.q_heads = contents.qHeads;
  header.kv_heads = contents.kvHeads;
  header.head_dim = contents.headDim;
  header.dtype = contents.dtype;
  header.length_rule = contents.lengthRule;
  header.max_length = contents.maxLength;
  header.soft_cap = contents.softCap;
  llvm::copy(contents.planId, header.plan_id);

  std::vector<uint8_t> file(sizeof(header), 0);
  header.rules = append(file, contents.rules);
  header.layer_table = append(file, contents.layerTable);
  header.kernels = append(file, kernels);
  header.images = append(file, images);
  header.strings = append(file, strings.get());
  header.code = append(file, code);
  header.kv_formats = append(file, contents.kvFormats);
  header.file_size = file.size();
  std::memcpy(file.data(), &header, sizeof(header));
  header.checksum = moa_artifact_checksum(file.data(), file.size());
  std::memcpy(file.data(), &header, sizeof(header));
  return file;
}
