//===- runtime.hpp - C++ objects over the C ABI ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// RAII for contexts, modules, caches and sequences, header only. Functions that
// can fail return a Status that is true for success, so the header works with
// and without exceptions.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RUNTIME_HPP
#define MOA_RUNTIME_HPP

#include "moa/observe.h"
#include "moa/prefix.h"
#include "moa/runtime.h"
#include "moa/scheduler.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace moa {

/// Outcome of a call: true for success, else a code and a message.
class [[nodiscard]] Status {
public:
  Status() = default;
  /// Takes ownership of what the C ABI returned.
  explicit Status(moa_status *status) : status(status) {}

  explicit operator bool() const { return !status; }
  moa_status_code code() const { return moa_status_get_code(status.get()); }
  /// Valid as long as the Status.
  const char *message() const { return moa_status_get_message(status.get()); }

private:
  struct Free {
    void operator()(moa_status *status) const { moa_status_free(status); }
  };
  std::unique_ptr<moa_status, Free> status;
};

/// Owns a handle of the C ABI. Movable; empty until a create function fills it.
template <typename T, void (*Destroy)(T *)> class Handle {
public:
  T *get() const { return handle.get(); }
  explicit operator bool() const { return handle != nullptr; }

protected:
  void reset(T *value) { handle.reset(value); }

private:
  struct Free {
    void operator()(T *value) const { Destroy(value); }
  };
  std::unique_ptr<T, Free> handle;
};

/// Where kernels run. Outlives its modules.
class Context : public Handle<moa_context, moa_context_destroy> {
public:
  /// The CPU; `threads` includes the calling one; 0 for one a core.
  Status create(int32_t threads = 0) {
    moa_context_options options = {};
    options.threads = threads;
    return create(options);
  }
  /// A CUDA device.
  Status createCuda(int32_t ordinal = 0) {
    moa_context_options options = {};
    options.device = MOA_DEVICE_CUDA;
    options.ordinal = ordinal;
    return create(options);
  }
  /// As the options say; their struct_size is set here.
  Status create(moa_context_options options) {
    options.struct_size = sizeof(options);
    moa_context *value = nullptr;
    Status status(moa_context_create(&options, &value));
    reset(value);
    return status;
  }
  Status deviceInfo(moa_device_info &info) const {
    info.struct_size = sizeof(info);
    return Status(moa_context_get_device_info(get(), &info));
  }
  /// Writes what calls do to a file until endTrace(): see moa/observe.h.
  Status trace(const std::string &path) {
    return Status(moa_context_set_trace(get(), path.c_str()));
  }
  Status endTrace() { return Status(moa_context_set_trace(get(), nullptr)); }
  /// Calls these around what calls do; their struct_size is set here.
  Status setRangeHooks(moa_range_hooks hooks) {
    hooks.struct_size = sizeof(hooks);
    return Status(moa_context_set_range_hooks(get(), &hooks));
  }
  Status endRangeHooks() {
    return Status(moa_context_set_range_hooks(get(), nullptr));
  }
};

/// A loaded artifact. Outlives its caches.
class Module : public Handle<moa_module, moa_module_destroy> {
public:
  Status load(const Context &context, const std::string &path) {
    moa_module *value = nullptr;
    Status status(moa_module_load_file(context.get(), path.c_str(), &value));
    reset(value);
    return status;
  }
  Status load(const Context &context, const void *bytes, size_t size) {
    moa_module *value = nullptr;
    Status status(moa_module_load_memory(context.get(), bytes, size, &value));
    reset(value);
    return status;
  }
  Status info(moa_module_info &info) const {
    info.struct_size = sizeof(info);
    return Status(moa_module_get_info(get(), &info));
  }
  /// Bytes of one sequence in closed form and of a dense cache.
  Status kvBytes(int64_t n, int64_t seen, uint64_t &bytes,
                 uint64_t &dense) const {
    return Status(moa_module_kv_bytes(get(), n, seen, &bytes, &dense));
  }
};

/// A page pool. Outlives its sequences.
class Cache : public Handle<moa_cache, moa_cache_destroy> {
public:
  /// `maxBytes` of pages; 0 as in moa_cache_options.
  /// `rollback`: tokens that can always be taken back. `decodeParts`: as in
  /// moa_cache_options.
  Status create(const Module &module, uint64_t maxBytes = 0,
                int64_t rollback = 0, int64_t decodeParts = 0) {
    moa_cache_options options = {sizeof(options), maxBytes, rollback,
                                 decodeParts};
    moa_cache *value = nullptr;
    Status status(moa_cache_create(module.get(), &options, &value));
    reset(value);
    return status;
  }
  Status stats(moa_cache_stats &stats) const {
    stats.struct_size = sizeof(stats);
    return Status(moa_cache_get_stats(get(), &stats));
  }
  Status counters(moa_counters &counters) const {
    counters.struct_size = sizeof(counters);
    return Status(moa_cache_get_counters(get(), &counters));
  }
  /// The counters as text for Prometheus; labels as in
  /// moa_cache_format_prometheus.
  Status prometheus(std::string &text, const std::string &labels = {}) const {
    size_t size = 0;
    if (Status status(moa_cache_format_prometheus(get(), labels.c_str(),
                                                  nullptr, 0, &size));
        !status)
      return status;
    text.resize(size + 1);
    Status status(moa_cache_format_prometheus(get(), labels.c_str(),
                                              text.data(), size + 1, &size));
    text.resize(size);
    return status;
  }
  Status setLimit(uint64_t maxBytes) {
    return Status(moa_cache_set_limit(get(), maxBytes));
  }
  /// Keeps pages for sequences that begin alike, or changes how many bytes of
  /// them: see moa/prefix.h.
  Status setPrefixReuse(uint64_t maxBytes = 0) {
    moa_prefix_options options = {sizeof(options), maxBytes};
    return Status(moa_cache_set_prefix_reuse(get(), &options));
  }
  /// Gives a layer, or MOA_ALL_LAYERS, a rotation; its struct_size is set here.
  Status setRope(moa_rope rope, uint32_t layer = MOA_ALL_LAYERS) {
    rope.struct_size = sizeof(rope);
    return Status(moa_cache_set_rope(get(), layer, &rope));
  }
  /// Appends, attends and evicts for one layer, at scale 1 / sqrt(head size).
  Status attend(uint32_t layer, const std::vector<moa_attend_entry> &entries,
                void *stream = nullptr) {
    moa_attend_options options = {};
    options.layer = layer;
    options.stream = stream;
    return attend(options, entries);
  }
  /// The same at another scale.
  Status attend(uint32_t layer, const std::vector<moa_attend_entry> &entries,
                float scale, void *stream = nullptr) {
    moa_attend_options options = {};
    options.layer = layer;
    options.has_scale = 1;
    options.scale = scale;
    options.stream = stream;
    return attend(options, entries);
  }
  /// As the options say; their sizes are set here.
  Status attend(moa_attend_options options,
                const std::vector<moa_attend_entry> &entries) {
    options.struct_size = sizeof(options);
    options.entry_size = sizeof(moa_attend_entry);
    return Status(moa_attend(get(), &options, entries.data(), entries.size()));
  }
};

/// One sequence of a cache.
class Sequence : public Handle<moa_sequence, moa_sequence_destroy> {
public:
  /// `length`: prompt tokens + generation budget.
  Status create(const Cache &cache, int64_t length) {
    moa_sequence *value = nullptr;
    Status status(moa_sequence_create(cache.get(), length, &value));
    reset(value);
    return status;
  }
  /// Becomes a sequence that shares all pages of another.
  Status fork(const Sequence &from) {
    moa_sequence *value = nullptr;
    Status status(moa_sequence_fork(from.get(), &value));
    reset(value);
    return status;
  }
  /// Becomes what was stored in a file.
  Status restore(const Cache &cache, const std::string &path) {
    moa_sequence *value = nullptr;
    Status status(moa_sequence_restore_file(cache.get(), path.c_str(), &value));
    reset(value);
    return status;
  }
  /// Becomes what was stored in memory.
  Status restore(const Cache &cache, const std::vector<char> &bytes) {
    moa_sequence *value = nullptr;
    Status status(moa_sequence_restore_memory(cache.get(), bytes.data(),
                                              bytes.size(), &value));
    reset(value);
    return status;
  }
  /// Begins with what is there of these tokens: `reused` of them. `common`, if
  /// wanted, becomes how many others have as well.
  Status reuse(const std::vector<int64_t> &tokens, int64_t &reused,
               uint64_t salt = 0, int64_t *common = nullptr) {
    return Status(moa_sequence_reuse(get(), salt, tokens.data(), tokens.size(),
                                     &reused, common));
  }
  /// Says which tokens follow the known ones.
  Status addTokens(const std::vector<int64_t> &tokens) {
    return Status(moa_sequence_add_tokens(get(), tokens.data(), tokens.size()));
  }
  Status snapshot(const std::string &path) const {
    return Status(moa_sequence_snapshot_file(get(), path.c_str()));
  }
  Status snapshot(std::vector<char> &bytes) const {
    size_t size = 0;
    if (Status status(moa_sequence_snapshot_memory(get(), nullptr, 0, &size));
        !status)
      return status;
    bytes.resize(size);
    return Status(
        moa_sequence_snapshot_memory(get(), bytes.data(), size, nullptr));
  }
  /// Drops the newest rows.
  Status truncate(int64_t tokens) {
    return Status(moa_sequence_truncate(get(), tokens));
  }
  Status minLength(int64_t &tokens) const {
    return Status(moa_sequence_get_min_length(get(), &tokens));
  }
  Status setLength(int64_t length) {
    return Status(moa_sequence_set_length(get(), length));
  }
  Status seen(uint32_t layer, int64_t &tokens) const {
    return Status(moa_sequence_get_length(get(), layer, nullptr, &tokens));
  }
  Status bytes(uint64_t &bytes) const {
    return Status(moa_sequence_get_bytes(get(), &bytes));
  }
};

/// Sequences that step together, their steps captured once and replayed: see
/// moa_batch in runtime.h. The sequences' cache outlives it.
class Batch : public Handle<moa_batch, moa_batch_destroy> {
public:
  Status create(const Cache &cache, moa_batch_options options) {
    options.struct_size = sizeof(options);
    moa_batch *value = nullptr;
    Status status(moa_batch_create(cache.get(), &options, &value));
    reset(value);
    return status;
  }
  Status info(moa_batch_info &info) const {
    info.struct_size = sizeof(info);
    return Status(moa_batch_get_info(get(), &info));
  }
  Status begin(const std::vector<moa_sequence *> &sequences, int64_t tokens = 1,
               void *stream = nullptr) {
    moa_batch_step step = {sizeof(step), sequences.data(), sequences.size(),
                           tokens, stream};
    return Status(moa_batch_begin(get(), &step));
  }
  /// As the options say; their struct_size is set here.
  Status attend(moa_batch_attend_options options) {
    options.struct_size = sizeof(options);
    return Status(moa_batch_attend(get(), &options));
  }
  void end() { moa_batch_end(get()); }
  void cancel() { moa_batch_cancel(get()); }
};

/// Decides which rows of which requests a step feeds: see moa/scheduler.h. Its
/// cache outlives it.
class Scheduler : public Handle<moa_scheduler, moa_scheduler_destroy> {
public:
  /// As the options say; their struct_size is set here.
  Status create(const Cache &cache, moa_scheduler_options options = {}) {
    options.struct_size = sizeof(options);
    moa_scheduler *value = nullptr;
    Status status(moa_scheduler_create(cache.get(), &options, &value));
    reset(value);
    return status;
  }
  Status submit(int64_t promptTokens, int64_t maxNewTokens, uint64_t &id,
                uint64_t user = 0) {
    moa_scheduler_request request = {};
    request.prompt_tokens = promptTokens;
    request.max_new_tokens = maxNewTokens;
    request.user = user;
    return submit(request, id);
  }
  /// As the request says; its struct_size is set here.
  Status submit(moa_scheduler_request request, uint64_t &id) {
    request.struct_size = sizeof(request);
    return Status(moa_scheduler_submit(get(), &request, &id));
  }
  /// Says which tokens follow a request's known ones.
  Status addTokens(uint64_t id, const std::vector<int64_t> &tokens) {
    return Status(
        moa_scheduler_add_tokens(get(), id, tokens.data(), tokens.size()));
  }
  Status cancel(uint64_t id) { return Status(moa_scheduler_cancel(get(), id)); }
  Status next(moa_scheduler_step &step) {
    step = {};
    step.struct_size = sizeof(step);
    step.entry_size = sizeof(moa_scheduler_entry);
    return Status(moa_scheduler_next(get(), &step));
  }
  /// A value an entry, other than 0 where its request ends.
  Status commit(const std::vector<uint8_t> &stops) {
    return Status(moa_scheduler_commit(get(), stops.data(), stops.size()));
  }
  Status abortStep() { return Status(moa_scheduler_abort_step(get())); }
  Status stats(moa_scheduler_stats &stats) const {
    stats.struct_size = sizeof(stats);
    return Status(moa_scheduler_get_stats(get(), &stats));
  }
};

} // namespace moa

#endif // MOA_RUNTIME_HPP
