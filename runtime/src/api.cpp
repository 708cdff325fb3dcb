//===- api.cpp - The C ABI ------------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Argument checks and forwarding. No exception leaves this file.
//
//===----------------------------------------------------------------------===//

#include "moa/runtime.h"

#include "api_support.h"
#include "backend/cpu/cpu_device.h"
#include "backend/cuda/cuda_device.h"

#include <cmath>
#include <fstream>
#include <thread>

using namespace moa::rt;

moa_status moa::rt::noMemory = {
    MOA_OUT_OF_MEMORY, "the system refused memory, nothing has changed; free "
                       "sequences or caches and call again"};

namespace {

Status loadModule(moa_context *context, const uint8_t *bytes, size_t size,
                  const std::string &origin, moa_module **out) {
  Span span(&context->trace, "module_load");
  span.arg("bytes", static_cast<int64_t>(size));
  auto module = std::make_unique<moa_module>();
  module->context = context;
  Status failed =
      Module::load(bytes, size, origin, *context->device, module->module);
  span.arg("status", moa_status_get_code(failed.get()));
  if (failed)
    return failed;
  *out = module.release();
  return ok();
}

/// The memory that options ask for.
Status memoryOf(const moa_context_options &options, HostMemory &out) {
  if (!options.allocator)
    return ok();
  moa_allocator from;
  MOA_RT_TRY(readOptions(options.allocator, from, "moa_allocator"));
  if (!from.allocate || !from.deallocate)
    return missing(!from.allocate ? "moa_allocator.allocate"
                                  : "moa_allocator.deallocate");
  if (options.device == MOA_DEVICE_CUDA)
    return error(MOA_UNSUPPORTED, "an allocator is for the CPU, pages of a "
                                  "CUDA device are its driver's; limit them "
                                  "by max_bytes of a cache");
  out = HostMemory(from);
  return ok();
}

} // namespace

extern "C" {

void moa_abi_version(int32_t *major, int32_t *minor) {
  if (major)
    *major = MOA_ABI_VERSION_MAJOR;
  if (minor)
    *minor = MOA_ABI_VERSION_MINOR;
}

moa_status_code moa_status_get_code(const moa_status *status) {
  return status ? status->code : MOA_OK;
}
const char *moa_status_get_message(const moa_status *status) {
  return status ? status->message.c_str() : "ok";
}
void moa_status_free(moa_status *status) {
  if (status != &noMemory)
    delete status;
}

moa_status *moa_context_create(const moa_context_options *options,
                               moa_context **out) {
  return guard([&]() -> Status {
    if (!out)
      return missing("out");
    moa_context_options o;
    MOA_RT_TRY(readOptions(options, o, "moa_context_options"));
    if (o.threads < 0 || o.threads > 1024)
      return error(MOA_INVALID_ARGUMENT, "threads is ", o.threads,
                   ", expected 0 (all cores) to 1024");
    HostMemory memory;
    MOA_RT_TRY(memoryOf(o, memory));
    auto context = std::make_unique<moa_context>();
    if (o.device == MOA_DEVICE_CUDA) {
      MOA_RT_TRY(makeCudaDevice(o.driver_path, o.ordinal, context->device));
      *out = context.release();
      return ok();
    }
    if (o.device != MOA_DEVICE_CPU)
      return error(MOA_INVALID_ARGUMENT, "device is ", o.device,
                   ", expected MOA_DEVICE_CPU (0) or MOA_DEVICE_CUDA (1)");
    int threads = o.threads;
    if (threads == 0)
      threads = std::max(1u, std::thread::hardware_concurrency());
    uint32_t features = detectCpuFeatures();
    if (o.cpu_features)
      features &= o.cpu_features;
    context->device = makeCpuDevice(threads, features, memory);
    *out = context.release();
    return ok();
  });
}
void moa_context_destroy(moa_context *context) { delete context; }

moa_status *moa_context_get_device_info(const moa_context *context,
                                        moa_device_info *info) {
  return guard([&]() -> Status {
    if (!context)
      return missing("context");
    const DeviceFacts &facts = context->device->facts();
    moa_device_info full = {};
    full.device = facts.kind;
    full.ordinal = facts.ordinal;
    full.name = facts.name.c_str();
    full.capability_major = facts.capabilityMajor;
    full.capability_minor = facts.capabilityMinor;
    full.driver_version = facts.driverVersion;
    full.processors = facts.processors;
    full.memory_bytes = facts.memoryBytes;
    return writeInfo(full, info, "moa_device_info");
  });
}

moa_status *moa_device_alloc(moa_context *context, size_t bytes, void **out) {
  return guard([&]() -> Status {
    if (!context || !out)
      return missing(!context ? "context" : "out");
    return context->device->allocate(std::max<size_t>(bytes, 1), out);
  });
}
moa_status *moa_device_free(moa_context *context, void *memory) {
  return guard([&]() -> Status {
    if (!context)
      return missing("context");
    return memory ? context->device->free(memory) : ok();
  });
}
moa_status *moa_device_copy(moa_context *context, void *to, const void *from,
                            size_t bytes) {
  return guard([&]() -> Status {
    if (!context || !to || !from)
      return missing(!context ? "context" : !to ? "to" : "from");
    return bytes ? context->device->copy(to, from, bytes) : ok();
  });
}
moa_status *moa_device_synchronize(moa_context *context) {
  return guard([&]() -> Status {
    if (!context)
      return missing("context");
    return context->device->synchronize();
  });
}

moa_status *moa_module_load_file(moa_context *context, const char *path,
                                 moa_module **out) {
  return guard([&]() -> Status {
    if (!context || !path || !out)
      return missing(!context ? "context" : !path ? "path" : "out");
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file)
      return error(MOA_IO, path, ": cannot be opened: ", std::strerror(errno));
    std::streamoff size = file.tellg();
    file.seekg(0);
    // A folder opens too, and says that it is endless.
    if (size < 0 ||
        (size > 0 && file.peek() == std::ifstream::traits_type::eof()))
      return error(MOA_IO, path, ": cannot be read");
    std::vector<uint8_t> bytes(static_cast<size_t>(size));
    if (!file.read(reinterpret_cast<char *>(bytes.data()), size))
      return error(MOA_IO, path, ": cannot be read");
    return loadModule(context, bytes.data(), bytes.size(), path, out);
  });
}
moa_status *moa_module_load_memory(moa_context *context, const void *bytes,
                                   size_t size, moa_module **out) {
  return guard([&]() -> Status {
    if (!context || !bytes || !out)
      return missing(!context ? "context" : !bytes ? "bytes" : "out");
    return loadModule(context, static_cast<const uint8_t *>(bytes), size,
                      "artifact in memory", out);
  });
}
void moa_module_destroy(moa_module *module) { delete module; }

moa_status *moa_module_get_info(const moa_module *module,
                                moa_module_info *info) {
  return guard([&]() -> Status {
    if (!module)
      return missing("module");
    const Module &m = *module->module;
    moa_module_info full = {};
    full.artifact_version = m.artifactVersion;
    full.layers = m.geometry.layers;
    full.q_heads = m.geometry.qHeads;
    full.kv_heads = m.geometry.kvHeads;
    full.head_dim = m.geometry.headDim;
    full.dtype = m.geometry.dtype;
    full.length_rule = m.geometry.lengthRule;
    full.kernels = m.kernelCount;
    full.max_length = m.geometry.maxLength;
    std::memcpy(full.plan_id, m.planId, sizeof(full.plan_id));
    full.chip = m.chip.c_str();
    full.remark = m.remark.c_str();
    full.soft_cap = m.geometry.softCap;
    return writeInfo(full, info, "moa_module_info");
  });
}

moa_status *moa_module_get_rule(const moa_module *module, uint32_t layer,
                                uint32_t q_head, moa_span_rule *rule) {
  return guard([&]() -> Status {
    if (!module || !rule)
      return missing(!module ? "module" : "rule");
    MOA_RT_TRY(module->module->checkLayer(layer));
    if (q_head >= module->module->geometry.qHeads)
      return error(MOA_INVALID_ARGUMENT, "query head ", q_head,
                   ", expected below ", module->module->geometry.qHeads);
    *rule = module->module->rule(layer, q_head);
    return ok();
  });
}

moa_status *moa_module_get_kv_format(const moa_module *module, uint32_t layer,
                                     uint32_t kv_head, uint32_t *format) {
  return guard([&]() -> Status {
    if (!module || !format)
      return missing(!module ? "module" : "format");
    MOA_RT_TRY(module->module->checkLayer(layer));
    if (kv_head >= module->module->geometry.kvHeads)
      return error(MOA_INVALID_ARGUMENT, "KV head ", kv_head,
                   ", expected below ", module->module->geometry.kvHeads);
    *format = module->module->kvFormat(layer, kv_head);
    return ok();
  });
}

moa_status *moa_module_kv_bytes(const moa_module *module, int64_t n,
                                int64_t seen, uint64_t *bytes,
                                uint64_t *dense_bytes) {
  return moa_module_kv_bytes_rollback(module, n, seen, 0, bytes, dense_bytes);
}

moa_status *moa_module_kv_bytes_rollback(const moa_module *module, int64_t n,
                                         int64_t seen, int64_t rollback_tokens,
                                         uint64_t *bytes,
                                         uint64_t *dense_bytes) {
  return guard([&]() -> Status {
    if (!module)
      return missing("module");
    const Module &m = *module->module;
    MOA_RT_TRY(checkLength(m, n));
    MOA_RT_TRY(checkRollback(m, rollback_tokens));
    if (seen < 0 || seen > m.geometry.maxLength)
      return error(MOA_OUT_OF_RANGE, "seen is ", seen, ", expected 0 to ",
                   m.geometry.maxLength);
    if (bytes)
      *bytes =
          m.residentPages(seen, n, rollback_tokens) * m.geometry.pageBytes();
    if (dense_bytes)
      *dense_bytes = uint64_t((seen + MOA_BLOCK_KEYS - 1) / MOA_BLOCK_KEYS) *
                     m.geometry.layers * m.geometry.kvHeads *
                     m.geometry.pageBytes();
    return ok();
  });
}

moa_status *moa_cache_create(moa_module *module,
                             const moa_cache_options *options,
                             moa_cache **out) {
  return guard([&]() -> Status {
    if (!module || !out)
      return missing(!module ? "module" : "out");
    moa_cache_options o;
    MOA_RT_TRY(readOptions(options, o, "moa_cache_options"));
    MOA_RT_TRY(checkLimit(o.max_bytes, module->module->geometry.pageBytes()));
    auto cache = std::make_unique<moa_cache>();
    cache->device = module->context->device.get();
    MOA_RT_TRY(checkRollback(*module->module, o.rollback_tokens));
    MOA_RT_TRY(checkDecodeParts(o.decode_parts));
    MOA_RT_TRY(Cache::create(
        *cache->device, *module->module, o.max_bytes, o.rollback_tokens,
        static_cast<int32_t>(o.decode_parts), cache->cache));
    cache->cache->trace = &module->context->trace;
    *out = cache.release();
    return ok();
  });
}
void moa_cache_destroy(moa_cache *cache) { delete cache; }

moa_status *moa_cache_get_stats(const moa_cache *cache,
                                moa_cache_stats *stats) {
  return guard([&]() -> Status {
    if (!cache)
      return missing("cache");
    const Cache &c = *cache->cache;
    moa_cache_stats full = {};
    full.page_bytes = c.pool.pageBytes();
    full.pages_used = c.pool.used();
    full.pages_high_water = c.pool.highWater();
    full.pages_limit = c.pool.limit();
    full.reserved_bytes = c.pool.reservedBytes();
    full.sequences = c.sequences.size();
    full.pages_shared = c.pool.shared();
    full.pages_referenced = c.pool.referenced();
    full.pages_kept = c.pool.idle();
    full.pages_indexed = c.prefixes ? c.prefixes->kept() : 0;
    full.unused_bytes = full.reserved_bytes -
                        (full.pages_used + full.pages_kept) * full.page_bytes;
    return writeInfo(full, stats, "moa_cache_stats");
  });
}

moa_status *moa_cache_set_rope(moa_cache *cache, uint32_t layer,
                               const moa_rope *rope) {
  return guard([&]() -> Status {
    if (!cache || !rope)
      return missing(!cache ? "cache" : "rope");
    moa_rope full;
    MOA_RT_TRY(readOptions(rope, full, "moa_rope"));
    return cache->cache->setRope(*cache->device, layer, full);
  });
}

moa_status *moa_cache_set_limit(moa_cache *cache, uint64_t max_bytes) {
  return guard([&]() -> Status {
    if (!cache)
      return missing("cache");
    PagePool &pool = cache->cache->pool;
    MOA_RT_TRY(checkLimit(max_bytes, pool.pageBytes()));
    return pool.setLimit(max_bytes / pool.pageBytes());
  });
}

moa_status *moa_attend(moa_cache *cache, const moa_attend_options *options,
                       const moa_attend_entry *entries, size_t count) {
  Cache *owner = cache ? cache->cache.get() : nullptr;
  return observe(owner, "attend", [&](Span &span) -> Status {
    if (!cache || !options)
      return missing(!cache ? "cache" : "options");
    moa_attend_options o;
    MOA_RT_TRY(readOptions(options, o, "moa_attend_options"));
    MOA_RT_TRY(checkEntrySize(o.entry_size, sizeof(moa_attend_entry),
                              "moa_attend_entry"));
    float scale = 0;
    MOA_RT_TRY(scaleOf(cache->cache->module, o.has_scale != 0, o.scale, scale));
    if (span) {
      span.arg("layer", o.layer);
      span.arg("entries", static_cast<int64_t>(count));
      uint64_t rows = 0;
      for (size_t i = 0; entries && i < count; ++i)
        rows += static_cast<uint64_t>(entries[i].tokens);
      span.arg("rows", static_cast<int64_t>(rows));
    }
    return cache->cache->attend({o.layer, scale, o.stream, entries, count});
  });
}

} // extern "C"
