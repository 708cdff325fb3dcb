//===- api_observe.cpp ----------------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The C ABI of counters and traces. No exception leaves this file.
//
//===----------------------------------------------------------------------===//

#include "moa/observe.h"

#include "api_support.h"
#include "observe/prometheus.h"

using namespace moa::rt;

extern "C" {

moa_status *moa_cache_get_counters(const moa_cache *cache,
                                   moa_counters *counters) {
  return guard([&]() -> Status {
    if (!cache)
      return missing("cache");
    moa_counters full = cache->cache->countersNow();
    return writeInfo(full, counters, "moa_counters");
  });
}

moa_status *moa_cache_format_prometheus(const moa_cache *cache,
                                        const char *labels, char *buffer,
                                        size_t size, size_t *needed) {
  return guard([&]() -> Status {
    if (!cache || !needed || (!buffer && size))
      return missing(!cache ? "cache" : !needed ? "needed" : "buffer");
    if (!labels)
      labels = "";
    MOA_RT_TRY(checkLabels(labels));
    const std::string text =
        formatPrometheus(cache->cache->countersNow(), labels);
    *needed = text.size();
    if (size) {
      const size_t length = std::min(text.size(), size - 1);
      std::memcpy(buffer, text.data(), length);
      buffer[length] = '\0';
    }
    return ok();
  });
}

moa_status *moa_context_set_trace(moa_context *context, const char *path) {
  return guard([&]() -> Status {
    if (!context)
      return missing("context");
    return path ? context->trace.start(path) : context->trace.finish();
  });
}

moa_status *moa_context_set_range_hooks(moa_context *context,
                                        const moa_range_hooks *hooks) {
  return guard([&]() -> Status {
    if (!context)
      return missing("context");
    moa_range_hooks full;
    MOA_RT_TRY(readOptions(hooks, full, "moa_range_hooks"));
    if (hooks && (!full.push || !full.pop))
      return missing(!full.push ? "moa_range_hooks.push"
                                : "moa_range_hooks.pop");
    context->trace.setHooks(hooks ? &full : nullptr);
    return ok();
  });
}

} // extern "C"
