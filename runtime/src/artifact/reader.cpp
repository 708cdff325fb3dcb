//===- reader.cpp - Artifact reader ---------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One function a section. Every check names the field, its index, what was
// found and what was expected.
//
//===----------------------------------------------------------------------===//

#include "artifact/reader.h"

#include "moa/abi/kernel_args.h"
#include "moa/abi/version.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace moa::rt {
namespace {

constexpr uint32_t kMostLayers = 4096;
constexpr uint32_t kMostHeads = 4096;
constexpr int64_t kMostTokens = int64_t(1) << 30;
/// Most pages of a sequence that keeps everything: their bytes, and the tables
/// of as many sequences as a batch can have, fit 63 bits.
constexpr uint64_t kMostPages = uint64_t(1) << 44;

class Reader {
public:
  Reader(const uint8_t *bytes, size_t size, const std::string &origin,
         Artifact &out)
      : bytes(bytes), size(size), origin(origin), out(out), header(out.header) {
  }

  Status run() {
    MOA_RT_TRY(readHeader());
    MOA_RT_TRY(checkGeometry());
    MOA_RT_TRY(checkSections());
    MOA_RT_TRY(readRules());
    MOA_RT_TRY(readFormats());
    MOA_RT_TRY(readKernels());
    return readLayers();
  }

private:
  template <typename... Args> Status corrupt(const Args &...args) {
    return error(MOA_CORRUPT, origin, ": ", args...,
                 "; the file is damaged, compile it again");
  }

  Status readHeader();
  Status checkGeometry();
  Status checkSections();
  Status readRules();
  Status readFormats();
  Status readKernels();
  Status readImage(uint32_t index, uint32_t kind, ImageRecord &image);
  Status readCpuFacts(uint32_t index, const ImageRecord &image);
  Status readGpuFacts(uint32_t index, uint32_t kind, ImageRecord &image);
  Status checkKv8(uint32_t number, const moa_artifact_layer &layer);
  Status readLayers();
  Status readString(uint64_t offset, const char *what, uint32_t index,
                    std::string &text);

  template <typename T>
  T record(const moa_artifact_section &section, uint64_t index) {
    T value;
    std::memcpy(&value, bytes + section.offset + index * sizeof(T), sizeof(T));
    return value;
  }

  const uint8_t *bytes;
  const size_t size;
  const std::string &origin;
  Artifact &out;
  moa_artifact_header &header;
};

Status Reader::readHeader() {
  if (size < sizeof(header))
    return corrupt("expected at least ", sizeof(header), " bytes, found ",
                   size);
  std::memcpy(&header, bytes, sizeof(header));
  if (header.magic != MOA_ARTIFACT_MAGIC)
    return error(MOA_CORRUPT, origin,
                 ": not a MoA artifact (the first four bytes differ)");
  if (header.version < MOA_ARTIFACT_VERSION_MIN ||
      header.version > MOA_ARTIFACT_VERSION)
    return error(MOA_INCOMPATIBLE, origin, ": artifact version ",
                 header.version, ", this runtime reads ",
                 MOA_ARTIFACT_VERSION_MIN, " to ", MOA_ARTIFACT_VERSION,
                 header.version > MOA_ARTIFACT_VERSION
                     ? "; update the runtime"
                     : "; compile the plan again");
  if (header.kernel_abi_version != MOA_KERNEL_ABI_VERSION)
    return error(MOA_INCOMPATIBLE, origin, ": kernel ABI ",
                 header.kernel_abi_version, ", this runtime calls ",
                 MOA_KERNEL_ABI_VERSION, "; compile the plan again");
  if (header.header_size != sizeof(header))
    return corrupt("expected a header of ", sizeof(header), " bytes, found ",
                   header.header_size);
  if (header.file_size != size)
    return corrupt("expected ", header.file_size, " bytes, found ", size);
  uint64_t checksum = moa_artifact_checksum(bytes, size);
  if (checksum != header.checksum)
    return corrupt("expected checksum ", header.checksum, ", found ", checksum);
  return ok();
}

Status Reader::checkGeometry() {
  if (header.layers == 0 || header.layers > kMostLayers)
    return corrupt("expected 1 to ", kMostLayers, " layers, found ",
                   header.layers);
  if (header.q_heads == 0 || header.q_heads > kMostHeads ||
      header.kv_heads == 0 || header.q_heads % header.kv_heads ||
      header.q_heads / header.kv_heads > MOA_MAX_GROUP)
    return corrupt("expected query heads to be 1 to ", MOA_MAX_GROUP,
                   " times the KV heads, found ", header.q_heads, " and ",
                   header.kv_heads);
  if (header.head_dim == 0 || header.head_dim > 1024 || header.head_dim % 16)
    return corrupt("expected a head size that is a multiple of 16, found ",
                   header.head_dim);
  if (header.dtype > MOA_DTYPE_BF16)
    return corrupt("expected dtype 0 to ", MOA_DTYPE_BF16, ", found ",
                   header.dtype);
  if (header.length_rule != MOA_LENGTH_REQUEST &&
      header.length_rule != MOA_LENGTH_ROW)
    return corrupt("expected length rule 0 or 1, found ", header.length_rule);
  if (header.max_length < 1 || header.max_length > kMostTokens)
    return corrupt("expected a max length of 1 to ", kMostTokens, ", found ",
                   header.max_length);
  if (!(header.soft_cap >= 0) || std::isinf(header.soft_cap))
    return corrupt(
        "expected a soft cap that is positive, or 0 for none, found ",
        header.soft_cap);
  if (header.reserved)
    return corrupt("expected 0 behind the soft cap, found ", header.reserved);
  const uint64_t pages = uint64_t(header.layers) * header.kv_heads *
                         ((header.max_length - 1) / MOA_BLOCK_KEYS + 1);
  if (pages > kMostPages)
    return corrupt("expected at most ", kMostPages,
                   " pages of a sequence that keeps all of the max length, "
                   "found ",
                   pages);
  return ok();
}

Status Reader::checkSections() {
  struct {
    const char *name;
    const moa_artifact_section *section;
    uint64_t record; ///< Bytes of one record; 1 for byte sections.
    uint64_t exact;  ///< Expected size, or 0.
  } sections[] = {
      {"rules", &header.rules, sizeof(moa_span_rule),
       uint64_t(header.layers) * header.q_heads * sizeof(moa_span_rule)},
      {"layers", &header.layer_table, sizeof(moa_artifact_layer),
       uint64_t(header.layers) * sizeof(moa_artifact_layer)},
      {"kernels", &header.kernels, sizeof(moa_artifact_kernel), 0},
      {"images", &header.images, sizeof(moa_artifact_image), 0},
      {"strings", &header.strings, 1, 0},
      {"code", &header.code, 1, 0},
      {"KV formats", &header.kv_formats, 1,
       uint64_t(header.layers) * header.kv_heads},
  };
  for (auto &s : sections) {
    uint64_t offset = s.section->offset, bytesOf = s.section->size;
    if (offset % MOA_ARTIFACT_ALIGN || offset < sizeof(header) ||
        offset > size || bytesOf > size - offset)
      return corrupt("section ", s.name, " at ", offset, " with ", bytesOf,
                     " bytes does not lie in the file of ", size, " bytes");
    if (bytesOf % s.record || (s.exact && bytesOf != s.exact))
      return corrupt("section ", s.name, " has ", bytesOf, " bytes, expected ",
                     s.exact ? s.exact : s.record, s.exact ? "" : " a record");
  }
  return ok();
}

Status Reader::readString(uint64_t offset, const char *what, uint32_t index,
                          std::string &text) {
  const moa_artifact_section &strings = header.strings;
  if (offset >= strings.size)
    return corrupt(what, " ", index, ": name at ", offset,
                   " outside the strings of ", strings.size, " bytes");
  const char *start =
      reinterpret_cast<const char *>(bytes + strings.offset + offset);
  const void *end = std::memchr(start, 0, strings.size - offset);
  if (!end)
    return corrupt(what, " ", index, ": name at ", offset, " has no end");
  text.assign(start, static_cast<const char *>(end) - start);
  return ok();
}

Status Reader::readRules() {
  uint64_t count = uint64_t(header.layers) * header.q_heads;
  out.rules.resize(count);
  for (uint64_t i = 0; i < count; ++i) {
    auto rule = record<moa_span_rule>(header.rules, i);
    const int64_t bound = int64_t(1) << 40;
    bool good = rule.alpha >= -bound && rule.alpha <= bound && rule.beta >= 0 &&
                rule.beta <= 1 && rule.sink >= 0 && rule.min_span > rule.sink &&
                rule.round_to >= 1 && rule.round_to <= (1 << 20) &&
                moa_length_rule_of(&rule) == header.length_rule &&
                moa_span_most(&rule) >= 0 &&
                moa_span_most(&rule) <= MOA_MOST_WINDOW &&
                (!moa_span_most(&rule) || rule.sink == 0);
    if (!good)
      return corrupt("layer ", i / header.q_heads, " head ", i % header.q_heads,
                     ": rule alpha = ", rule.alpha, ", beta = ", rule.beta,
                     ", sink = ", rule.sink, ", min = ", rule.min_span,
                     ", round = ", rule.round_to,
                     ", length rule = ", moa_length_rule_of(&rule),
                     ", window = ", moa_span_most(&rule),
                     " is not one a plan can have");
    const uint64_t first = i - i % header.q_heads;
    if (i != first && rule.sink != out.rules[first].sink)
      return corrupt("layer ", i / header.q_heads, " head ", i % header.q_heads,
                     ": sink ", rule.sink, ", expected that of head 0, ",
                     out.rules[first].sink);
    out.rules[i] = rule;
  }
  return ok();
}

Status Reader::readFormats() {
  const uint8_t *formats = bytes + header.kv_formats.offset;
  const uint8_t most =
      header.dtype == MOA_DTYPE_F32 ? MOA_KV_MODEL : MOA_KV_INT8;
  for (uint64_t i = 0; i < header.kv_formats.size; ++i)
    if (formats[i] > most)
      return corrupt("layer ", i / header.kv_heads, " KV head ",
                     i % header.kv_heads, ": KV format ", int(formats[i]),
                     " beside dtype ", header.dtype, ", expected 0 to ",
                     int(most));
  out.kvFormats.assign(formats, formats + header.kv_formats.size);
  return ok();
}

Status Reader::readCpuFacts(uint32_t index, const ImageRecord &image) {
  const moa_artifact_image &facts = image.facts;
  if (facts.entry >= facts.size)
    return corrupt("image ", index, ": entry ", facts.entry, " outside its ",
                   facts.size, " bytes");
  if (facts.scratch_bytes > (uint64_t(1) << 30))
    return corrupt("image ", index, ": scratch of ", facts.scratch_bytes,
                   " bytes, expected at most ", uint64_t(1) << 30);
  if (facts.threads || facts.rows || facts.keys || facts.registers)
    return corrupt("image ", index, ": expected no GPU facts for a CPU, found ",
                   facts.threads, " threads, ", facts.rows, " rows, ",
                   facts.keys, " keys, ", facts.registers, " registers");
  return ok();
}

Status Reader::readGpuFacts(uint32_t index, uint32_t kind, ImageRecord &image) {
  const moa_artifact_image &facts = image.facts;
  uint32_t capability = facts.features & MOA_GPU_CAPABILITY_MASK;
  if (facts.features & ~(MOA_GPU_CAPABILITY_MASK | MOA_GPU_ARCH_SPECIFIC) ||
      capability < 80 || capability > 999)
    return corrupt("image ", index, ": features ", facts.features,
                   ", expected a compute capability of 80 to 999");
  if (facts.threads == 0 || facts.threads > 1024 || facts.threads % 32)
    return corrupt("image ", index, ": ", facts.threads,
                   " threads, expected a multiple of 32 up to 1024");
  if (facts.scratch_bytes > MOA_GPU_MAX_SHARED_BYTES)
    return corrupt("image ", index, ": shared memory of ", facts.scratch_bytes,
                   " bytes, expected at most ", MOA_GPU_MAX_SHARED_BYTES);
  if (facts.registers > 255)
    return corrupt("image ", index, ": ", facts.registers,
                   " registers, expected at most 255");
  const uint32_t group = header.q_heads / header.kv_heads;
  if (kind == MOA_KERNEL_DECODE &&
      (facts.rows < group || facts.rows > MOA_MAX_GROUP))
    return corrupt("image ", index, ": ", facts.rows,
                   " columns, expected the group's ", group, " to ",
                   MOA_MAX_GROUP);
  const struct {
    uint32_t value;
    const char *name;
  } sides[] = {{facts.rows, "rows"}, {facts.keys, "keys"}};
  for (const auto &side : sides)
    if (side.value > MOA_GPU_MAX_TILE ||
        (kind == MOA_KERNEL_PREFILL && (side.value == 0 || side.value % 16)))
      return corrupt("image ", index, ": tile of ", side.value, " ", side.name,
                     ", expected ",
                     kind == MOA_KERNEL_PREFILL ? "a multiple of 16 "
                                                : "a number ",
                     "up to ", MOA_GPU_MAX_TILE);
  if (facts.target == MOA_TARGET_CUDA_PTX && image.code[facts.size - 1] != 0)
    return corrupt("image ", index, ": PTX of ", facts.size,
                   " bytes does not end with a zero byte");
  MOA_RT_TRY(
      readString(facts.entry, "function of image", index, image.function));
  if (image.function.empty())
    return corrupt("image ", index, ": the function's name is empty");
  return ok();
}

Status Reader::readImage(uint32_t index, uint32_t kind, ImageRecord &image) {
  image.facts = record<moa_artifact_image>(header.images, index);
  const moa_artifact_image &facts = image.facts;
  if (facts.offset % MOA_ARTIFACT_ALIGN || facts.offset > header.code.size ||
      facts.size > header.code.size - facts.offset || facts.size == 0)
    return corrupt("image ", index, " at ", facts.offset, " with ", facts.size,
                   " bytes does not lie in the code of ", header.code.size,
                   " bytes");
  image.code = bytes + header.code.offset + facts.offset;
  if (facts.target > MOA_TARGET_CUDA_PTX)
    return corrupt("image ", index, ": target ", facts.target,
                   ", expected 0 to ", MOA_TARGET_CUDA_PTX);
  if (kind == MOA_KERNEL_PREPARE && facts.target == MOA_TARGET_CPU_X86_64)
    return corrupt("image ", index, ": target ", facts.target,
                   " of a prepare kernel, expected ", MOA_TARGET_CUDA_CUBIN,
                   " or ", MOA_TARGET_CUDA_PTX);
  MOA_RT_TRY(facts.target == MOA_TARGET_CPU_X86_64
                 ? readCpuFacts(index, image)
                 : readGpuFacts(index, kind, image));
  return readString(facts.chip, "image", index, image.chip);
}

Status Reader::readKernels() {
  uint64_t count = header.kernels.size / sizeof(moa_artifact_kernel);
  uint64_t images = header.images.size / sizeof(moa_artifact_image);
  for (uint32_t i = 0; i < count; ++i) {
    KernelRecord kernel;
    kernel.facts = record<moa_artifact_kernel>(header.kernels, i);
    const moa_artifact_kernel &facts = kernel.facts;
    MOA_RT_TRY(readString(facts.name, "kernel", i, kernel.name));
    uint32_t group =
        facts.kind == MOA_KERNEL_DECODE ? header.q_heads / header.kv_heads : 1;
    if (facts.kind > MOA_KERNEL_QUANTISE || facts.dtype != header.dtype ||
        facts.head_dim != header.head_dim || facts.group != group)
      return corrupt("kernel ", i, ": kind ", facts.kind, ", dtype ",
                     facts.dtype, ", head size ", facts.head_dim, ", group ",
                     facts.group, " does not fit the model (dtype ",
                     header.dtype, ", head size ", header.head_dim, ", group ",
                     group, ")");
    if (!moa_artifact_rotation_fits(facts.kind == MOA_KERNEL_ROPE,
                                    facts.rotation, header.head_dim))
      return corrupt("kernel ", i, ": rotation ", facts.rotation, " of kind ",
                     facts.kind, ", expected an even number of elements, 2 to ",
                     header.head_dim, ", in rope kernels alone");
    const bool attends =
        facts.kind == MOA_KERNEL_PREFILL || facts.kind == MOA_KERNEL_DECODE;
    if (facts.kv8 > attends)
      return corrupt("kernel ", i, ": kv8 ", facts.kv8, " of kind ", facts.kind,
                     ", expected 0, or 1 in prefill and decode kernels");
    if (facts.first_image > images || facts.images > images - facts.first_image)
      return corrupt("kernel ", i, ": images ", facts.first_image, " to ",
                     uint64_t(facts.first_image) + facts.images, " of ",
                     images);
    for (uint32_t j = 0; j < facts.images; ++j) {
      ImageRecord image;
      MOA_RT_TRY(readImage(facts.first_image + j, facts.kind, image));
      kernel.images.push_back(std::move(image));
    }
    out.kernels.push_back(std::move(kernel));
  }
  return ok();
}

/// A layer with blocks of 8 bits has kernels that make and take them.
Status Reader::checkKv8(uint32_t number, const moa_artifact_layer &layer) {
  const auto first = out.kvFormats.begin() + uint64_t(number) * header.kv_heads;
  if (std::count(first, first + header.kv_heads, MOA_KV_MODEL) ==
      int64_t(header.kv_heads))
    return ok();
  if (layer.quantise == MOA_NO_KERNEL)
    return corrupt("layer ", number,
                   ": no quantise kernel beside KV formats of 8 bits");
  for (uint32_t index : {layer.prefill, layer.decode})
    if (index != MOA_NO_KERNEL && !out.kernels[index].facts.kv8)
      return corrupt("layer ", number, ": kernel ", index,
                     " does not take the layer's KV formats of 8 bits");
  return ok();
}

Status Reader::readLayers() {
  for (uint32_t i = 0; i < header.layers; ++i) {
    auto layer = record<moa_artifact_layer>(header.layer_table, i);
    const struct {
      uint32_t index, kind;
      const char *name;
    } phases[] = {{layer.prefill, MOA_KERNEL_PREFILL, "prefill"},
                  {layer.decode, MOA_KERNEL_DECODE, "decode"},
                  {layer.append, MOA_KERNEL_APPEND, "append"},
                  {layer.prepare, MOA_KERNEL_PREPARE, "prepare"},
                  {layer.rope, MOA_KERNEL_ROPE, "rope"},
                  {layer.quantise, MOA_KERNEL_QUANTISE, "quantise"}};
    for (const auto &phase : phases)
      if (phase.index != MOA_NO_KERNEL &&
          (phase.index >= out.kernels.size() ||
           out.kernels[phase.index].facts.kind != phase.kind))
        return corrupt("layer ", i, ": ", phase.name, " kernel ", phase.index,
                       " is not such a kernel (there are ", out.kernels.size(),
                       ")");
    MOA_RT_TRY(checkKv8(i, layer));
    out.layers.push_back(layer);
  }
  return ok();
}

} // namespace

Status readArtifact(const uint8_t *bytes, size_t size,
                    const std::string &origin, Artifact &out) {
  return Reader(bytes, size, origin, out).run();
}

} // namespace moa::rt
