//===- RuntimeModule.cpp - Python binding of the runtime ------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Thin over moa/runtime.h: objects that keep their parents alive, tensors by
// DLPack, the GIL released while kernels run, statuses as exceptions.
//
//===----------------------------------------------------------------------===//

#include "Objects.h"
#include "Observe.h"
#include "Prefix.h"
#include "Scheduler.h"

#include "moa/abi/kernel_args.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <vector>

using namespace moa::python;

void bindSpan(nb::module_ &m);

namespace {

std::shared_ptr<Sequence> forkSequence(const Sequence &from) {
  moa_sequence *handle = nullptr;
  check(moa_sequence_fork(from.handle, &handle));
  return std::make_shared<Sequence>(from.cache, handle);
}

nb::object snapshot(const Sequence &sequence,
                    const std::optional<std::string> &path) {
  if (path) {
    checkReleased([&] {
      return moa_sequence_snapshot_file(sequence.handle, path->c_str());
    });
    return nb::none();
  }
  size_t size = 0;
  check(moa_sequence_snapshot_memory(sequence.handle, nullptr, 0, &size));
  std::string bytes(size, 0);
  checkReleased([&] {
    return moa_sequence_snapshot_memory(sequence.handle, bytes.data(), size,
                                        nullptr);
  });
  return nb::bytes(bytes.data(), size);
}

std::shared_ptr<Sequence> restore(std::shared_ptr<Cache> cache,
                                  const nb::object &from) {
  moa_sequence *handle = nullptr;
  if (nb::isinstance<nb::bytes>(from)) {
    auto bytes = nb::cast<nb::bytes>(from);
    const char *data = bytes.c_str();
    const size_t size = bytes.size();
    checkReleased([&] {
      return moa_sequence_restore_memory(cache->handle, data, size, &handle);
    });
  } else {
    const auto path = nb::cast<std::string>(nb::str(from));
    checkReleased([&] {
      return moa_sequence_restore_file(cache->handle, path.c_str(), &handle);
    });
  }
  return std::make_shared<Sequence>(std::move(cache), handle);
}

struct Batch {
  std::shared_ptr<Cache> cache;
  moa_batch *handle = nullptr;
  size_t count = 0;   ///< Sequences of the step at hand.
  int64_t tokens = 0; ///< Of each.
  Batch(std::shared_ptr<Cache> owner, uint32_t maxSequences, uint32_t maxTokens,
        int64_t maxLength)
      : cache(std::move(owner)) {
    moa_batch_options options = {sizeof(options), maxSequences, maxTokens,
                                 maxLength};
    check(moa_batch_create(cache->handle, &options, &handle));
  }
  Batch(const Batch &) = delete;
  Batch &operator=(const Batch &) = delete;
  ~Batch() { moa_batch_destroy(handle); }

  bool replays() const {
    moa_batch_info info = {};
    info.struct_size = sizeof(info);
    check(moa_batch_get_info(handle, &info));
    return info.replays != 0;
  }
};

using Tensor = nb::ndarray<nb::ndim<3>>;
using RowTensor = nb::ndarray<nb::ndim<4>>;
using Entry = std::tuple<Sequence *, Tensor, Tensor, Tensor, Tensor>;

bool hasDtype(nb::dlpack::dtype found, uint32_t dtype) {
  switch (dtype) {
  case MOA_DTYPE_F32:
    return found == nb::dtype<float>();
  case MOA_DTYPE_F16:
    return found.code == uint8_t(nb::dlpack::dtype_code::Float) &&
           found.bits == 16 && found.lanes == 1;
  default:
    return found.code == uint8_t(nb::dlpack::dtype_code::Bfloat) &&
           found.bits == 16 && found.lanes == 1;
  }
}

std::string shapeText(const std::vector<size_t> &shape) {
  std::string text;
  for (size_t extent : shape)
    text += (text.empty() ? "[" : ", ") + std::to_string(extent);
  return text + "]";
}

/// Checks where one tensor lies, its type and shape; strides are the runtime's
/// to check. With `more`, the first extent may be larger.
template <typename T>
void checkTensor(const T &tensor, const std::string &where,
                 const std::vector<size_t> &expected, bool more,
                 const Module &module) {
  static const char *names[] = {"float32", "float16", "bfloat16"};
  const moa_module_info &info = module.info;
  const Context &context = *module.context;
  const bool cuda = tensor.device_type() == nb::device::cuda::value;
  if (cuda != context.onCuda() ||
      (cuda ? tensor.device_id() != context.info.ordinal
            : tensor.device_type() != nb::device::cpu::value))
    throw nb::value_error(
        (where + " is on " +
         (cuda ? "cuda:" + std::to_string(tensor.device_id())
          : tensor.device_type() == nb::device::cpu::value
              ? std::string("cpu")
              : "a device of DLPack type " +
                    std::to_string(tensor.device_type())) +
         ", the context is on " + context.name() +
         "; move the tensor, or make a context for its device")
            .c_str());
  if (!hasDtype(tensor.dtype(), info.dtype))
    throw nb::type_error((where +
                          " has another dtype than the artifact; expected " +
                          names[info.dtype])
                             .c_str());
  std::vector<size_t> shape;
  for (size_t i = 0; i < tensor.ndim(); ++i)
    shape.push_back(tensor.shape(i));
  bool fits = more ? shape[0] >= expected[0] : shape[0] == expected[0];
  if (!fits ||
      !std::equal(shape.begin() + 1, shape.end(), expected.begin() + 1))
    throw nb::value_error((where + " has shape " + shapeText(shape) +
                           ", expected " + shapeText(expected) +
                           (more ? " or more sequences" : ""))
                              .c_str());
  if (tensor.stride(shape.size() - 1) != 1)
    throw nb::value_error((where +
                           ": elements of a head are not adjacent (stride " +
                           std::to_string(tensor.stride(shape.size() - 1)) +
                           "); call contiguous()")
                              .c_str());
}

void attend(Cache &cache, uint32_t layer, std::vector<Entry> entries,
            std::optional<float> scale, uintptr_t stream) {
  const Module &module = *cache.module;
  const moa_module_info &info = module.info;
  std::vector<moa_attend_entry> raw(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    auto &[sequence, q, k, v, out] = entries[i];
    if (!sequence)
      throw nb::type_error("expected a Sequence in every entry");
    size_t tokens = q.shape(0);
    auto checkOne = [&](const Tensor &tensor, const char *name, size_t heads) {
      checkTensor(tensor, "entry " + std::to_string(i) + ": " + name,
                  {tokens, heads, info.head_dim}, false, module);
    };
    checkOne(q, "q", info.q_heads);
    checkOne(k, "k", info.kv_heads);
    checkOne(v, "v", info.kv_heads);
    checkOne(out, "out", info.q_heads);
    raw[i] = {sequence->handle, int64_t(tokens), q.data(),    k.data(),
              v.data(),         out.data(),      q.stride(0), q.stride(1),
              k.stride(0),      k.stride(1),     v.stride(0), v.stride(1),
              out.stride(0),    out.stride(1)};
  }
  moa_attend_options options = {};
  options.struct_size = sizeof(options);
  options.entry_size = sizeof(moa_attend_entry);
  options.layer = layer;
  options.has_scale = scale.has_value();
  options.scale = scale.value_or(0);
  options.stream = reinterpret_cast<void *>(stream);
  checkReleased([&] {
    return moa_attend(cache.handle, &options, raw.data(), raw.size());
  });
}

void append(Cache &cache, uint32_t layer,
            std::vector<std::tuple<Sequence *, Tensor, Tensor>> entries,
            uintptr_t stream) {
  const Module &module = *cache.module;
  const moa_module_info &info = module.info;
  std::vector<moa_attend_entry> raw(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    auto &[sequence, k, v] = entries[i];
    if (!sequence)
      throw nb::type_error("expected a Sequence in every entry");
    const std::string where = "entry " + std::to_string(i);
    const std::vector<size_t> shape = {k.shape(0), info.kv_heads,
                                       info.head_dim};
    checkTensor(k, where + ": k", shape, false, module);
    checkTensor(v, where + ": v", shape, false, module);
    moa_attend_entry &entry = raw[i];
    entry.sequence = sequence->handle;
    entry.tokens = int64_t(shape[0]);
    entry.k = k.data();
    entry.v = v.data();
    entry.k_row_stride = k.stride(0);
    entry.k_head_stride = k.stride(1);
    entry.v_row_stride = v.stride(0);
    entry.v_head_stride = v.stride(1);
  }
  moa_attend_options options = {};
  options.struct_size = sizeof(options);
  options.entry_size = sizeof(moa_attend_entry);
  options.layer = layer;
  options.stream = reinterpret_cast<void *>(stream);
  checkReleased([&] {
    return moa_attend(cache.handle, &options, raw.data(), raw.size());
  });
}

void setRope(Cache &cache, const std::vector<double> &frequencies,
             const std::string &layout, float scale,
             std::optional<uint32_t> layer) {
  if (layout != "half" && layout != "interleaved")
    throw nb::value_error(
        ("layout is '" + layout + "', expected half or interleaved").c_str());
  moa_rope rope = {
      sizeof(rope),
      uint32_t(layout == "half" ? MOA_ROPE_HALF : MOA_ROPE_INTERLEAVED),
      uint32_t(2 * frequencies.size()), frequencies.data(), scale};
  checkReleased([&] {
    return moa_cache_set_rope(cache.handle, layer.value_or(MOA_ALL_LAYERS),
                              &rope);
  });
}

void begin(Batch &batch, std::vector<Sequence *> sequences, int64_t tokens,
           uintptr_t stream) {
  std::vector<moa_sequence *> raw;
  for (Sequence *sequence : sequences) {
    if (!sequence)
      throw nb::type_error("expected a Sequence in every place");
    raw.push_back(sequence->handle);
  }
  moa_batch_step step = {sizeof(step), raw.data(), raw.size(), tokens,
                         reinterpret_cast<void *>(stream)};
  checkReleased([&] { return moa_batch_begin(batch.handle, &step); });
  batch.count = raw.size();
  batch.tokens = tokens;
}

void attendBatch(Batch &batch, uint32_t layer, RowTensor q, RowTensor k,
                 RowTensor v, RowTensor out, std::optional<float> scale,
                 uintptr_t stream) {
  const Module &module = *batch.cache->module;
  const moa_module_info &info = module.info;
  moa_batch_attend_options options = {};
  // Without a step the runtime says that there is none.
  const size_t count = batch.count ? batch.count : q.shape(0);
  const size_t tokens = batch.count ? size_t(batch.tokens) : q.shape(1);
  auto take = [&](const RowTensor &tensor, const char *name,
                  size_t heads) -> moa_batch_tensor {
    checkTensor(tensor, name, {count, tokens, heads, info.head_dim}, true,
                module);
    return {tensor.data(), tensor.stride(0), tensor.stride(1),
            tensor.stride(2)};
  };
  options.q = take(q, "q", info.q_heads);
  options.k = take(k, "k", info.kv_heads);
  options.v = take(v, "v", info.kv_heads);
  options.out = take(out, "out", info.q_heads);
  options.struct_size = sizeof(options);
  options.layer = layer;
  options.has_scale = scale.has_value();
  options.scale = scale.value_or(0);
  options.stream = reinterpret_cast<void *>(stream);
  checkReleased([&] { return moa_batch_attend(batch.handle, &options); });
}

} // namespace

NB_MODULE(_runtime, m) {
  m.doc() = "Binding of the MoA runtime (moa/runtime.h)";
  m.attr("__version__") = MOA_VERSION;
  int32_t major = 0, minor = 0;
  moa_abi_version(&major, &minor);
  m.attr("C_ABI_VERSION") = std::to_string(major) + "." + std::to_string(minor);
  m.attr("ARTIFACT_VERSION") = MOA_ARTIFACT_VERSION;
  m.attr("KERNEL_ABI_VERSION") = MOA_KERNEL_ABI_VERSION;
  bindSpan(m);

  nb::class_<Context>(m, "Context", "Where kernels run.")
      .def(nb::init<int, uint32_t, const std::string &,
                    const std::optional<std::string> &>(),
           nb::arg("threads") = 0, nb::arg("cpu_features") = 0,
           nb::arg("device") = "cpu", nb::arg("driver_path") = nb::none(),
           "device is cpu, cuda or cuda:NUMBER. On the CPU, threads includes "
           "the calling one, 0 for one per core; cpu_features limits the "
           "instruction sets used, 0 for all. driver_path names the CUDA "
           "driver's library, None for libcuda.so.1.")
      .def_prop_ro("device", &Context::name)
      .def_prop_ro("info", &Context::describe)
      .def(
          "trace",
          [](Context &context, const std::optional<std::string> &path) {
            check(moa_context_set_trace(context.handle,
                                        path ? path->c_str() : nullptr));
          },
          nb::arg("path").none(),
          "Writes what calls do to a file that Perfetto opens; None ends it.");
  nb::class_<Module>(m, "Module", "A loaded artifact.")
      .def(nb::init<std::shared_ptr<Context>, const std::string &>(),
           nb::arg("context"), nb::arg("path"))
      .def_prop_ro("info", &Module::describe)
      .def(
          "rule",
          [](const Module &module, uint32_t layer, uint32_t head) {
            moa_span_rule rule;
            check(moa_module_get_rule(module.handle, layer, head, &rule));
            return rule;
          },
          nb::arg("layer"), nb::arg("q_head"))
      .def(
          "kv_bytes",
          [](const Module &module, int64_t n, int64_t seen, int64_t rollback) {
            uint64_t bytes = 0, dense = 0;
            check(moa_module_kv_bytes_rollback(module.handle, n, seen, rollback,
                                               &bytes, &dense));
            return std::make_tuple(bytes, dense);
          },
          nb::arg("n"), nb::arg("seen"), nb::arg("rollback_tokens") = 0,
          "(closed form, dense) bytes of one sequence over all layers.");
  nb::class_<Cache>(m, "Cache", "A page pool and its sequences.")
      .def(nb::init<std::shared_ptr<Module>, uint64_t, int64_t, int64_t>(),
           nb::arg("module"), nb::arg("max_bytes") = 0,
           nb::arg("rollback_tokens") = 0, nb::arg("decode_parts") = 0,
           "rollback_tokens: so many of the newest tokens can always be taken "
           "back by Sequence.truncate. decode_parts: above 0, rows decoded on "
           "a GPU have the same bits whatever else a step has; each KV head of "
           "a sequence is shared by at most so many blocks of threads.")
      .def(
          "set_limit",
          [](Cache &cache, uint64_t maxBytes) {
            check(moa_cache_set_limit(cache.handle, maxBytes));
          },
          nb::arg("max_bytes"),
          "Changes the most bytes of pages; less than is in use is refused.")
      .def_prop_ro("stats",
                   [](const Cache &cache) { return cache.read(readStats); })
      .def_prop_ro("counters",
                   [](const Cache &cache) { return cache.read(readCounters); })
      .def(
          "prometheus",
          [](const Cache &cache, const std::string &labels) {
            std::string text;
            check(readPrometheus(cache.handle, labels, text));
            return text;
          },
          nb::arg("labels") = "", "The counters in Prometheus' text format.")
      .def("set_rope", &setRope, nb::arg("frequencies"),
           nb::arg("layout") = "half", nb::arg("scale") = 1.0f,
           nb::arg("layer") = nb::none(),
           "Gives a layer, None for all, a rotation: q and k of its calls are "
           "then not rotated yet, and are overwritten with the rotated ones. "
           "frequencies: one a pair, radians a token, as inv_freq of "
           "transformers; twice as many elements of a head are rotated. "
           "layout: half or interleaved. scale multiplies cosine and sine. "
           "Before the cache's first sequence. See moa_cache_set_rope.");
  nb::class_<Sequence>(m, "Sequence", "One sequence of a cache.")
      .def(nb::init<std::shared_ptr<Cache>, int64_t>(), nb::arg("cache"),
           nb::arg("length"))
      .def(
          "set_length",
          [](Sequence &s, int64_t length) {
            check(moa_sequence_set_length(s.handle, length));
          },
          nb::arg("length"), "Raises N; a smaller value is refused.")
      .def("fork", &forkSequence,
           "A sequence that has seen the same and shares all pages; a page is "
           "copied when one of its holders writes to it.")
      .def(
          "truncate",
          [](Sequence &s, int64_t tokens) {
            check(moa_sequence_truncate(s.handle, tokens));
          },
          nb::arg("tokens"),
          "Drops the newest rows; raises NotResidentError, and changes "
          "nothing, where what rows to come see was given up.")
      .def_prop_ro(
          "min_length",
          [](const Sequence &s) {
            int64_t tokens = 0;
            check(moa_sequence_get_min_length(s.handle, &tokens));
            return tokens;
          },
          "The least length from which on truncate takes all.")
      .def("snapshot", &snapshot, nb::arg("path") = nb::none(),
           "Stores the sequence in a file, or returns it as bytes.")
      .def_static("restore", &restore, nb::arg("cache"), nb::arg("source"),
                  "A sequence from a snapshot: bytes, or the path of a file.")
      .def_prop_ro(
          "length",
          [](const Sequence &s) {
            int64_t length = 0;
            check(moa_sequence_get_length(s.handle, 0, &length, nullptr));
            return length;
          })
      .def(
          "seen",
          [](const Sequence &s, uint32_t layer) {
            int64_t seen = 0;
            check(moa_sequence_get_length(s.handle, layer, nullptr, &seen));
            return seen;
          },
          nb::arg("layer") = 0)
      .def(
          "first_resident",
          [](const Sequence &s, uint32_t layer, uint32_t kvHead) {
            int64_t position = 0;
            check(moa_sequence_get_first_resident(s.handle, layer, kvHead,
                                                  &position));
            return position;
          },
          nb::arg("layer"), nb::arg("kv_head"))
      .def_prop_ro("bytes", [](const Sequence &s) {
        uint64_t bytes = 0;
        check(moa_sequence_get_bytes(s.handle, &bytes));
        return bytes;
      });
  bindPrefix<Cache, Sequence>(m, check);
  bindScheduler(m);
  nb::class_<Batch>(m, "Batch",
                    "Sequences that step together: begin, attend in each "
                    "layer, end. On a CUDA device the attend calls may be "
                    "captured in a graph that serves every later step. See "
                    "moa_batch.")
      .def(nb::init<std::shared_ptr<Cache>, uint32_t, uint32_t, int64_t>(),
           nb::arg("cache"), nb::arg("max_sequences"),
           nb::arg("max_tokens") = 1, nb::arg("max_length") = 0,
           "max_tokens: new rows a sequence in a step. max_length: tokens of "
           "a sequence, 0 for the artifact's most.")
      .def_prop_ro("replays", &Batch::replays,
                   "Whether captured calls serve later steps.")
      .def("begin", &begin, nb::arg("sequences"), nb::arg("tokens") = 1,
           nb::arg("stream") = 0,
           "Begins a step of these sequences; takes the pages of all layers, "
           "or raises OutOfPagesError and changes nothing.")
      .def("attend", &attendBatch, nb::arg("layer"), nb::arg("q"), nb::arg("k"),
           nb::arg("v"), nb::arg("out"), nb::arg("scale") = nb::none(),
           nb::arg("stream") = 0,
           "Attends to one layer. Tensors [sequences, tokens, heads, "
           "head_dim]; there may be more sequences than the step has, which "
           "are left alone.")
      .def(
          "end", [](Batch &batch) { moa_batch_end(batch.handle); },
          "The step's rows count as seen; pages no later row sees go back.")
      .def(
          "cancel", [](Batch &batch) { moa_batch_cancel(batch.handle); },
          "Gives the step up: sequences are as before it.");
  m.def("append", &append, nb::arg("cache"), nb::arg("layer"),
        nb::arg("entries"), nb::arg("stream") = 0,
        "Appends to one layer without attention: what `attend` would keep of "
        "the same keys and values. Entries are tuples (sequence, k, v) of "
        "tensors [tokens, kv_heads, head_dim]; k is overwritten where the "
        "layer has a rotation.");
  m.def("attend", &attend, nb::arg("cache"), nb::arg("layer"),
        nb::arg("entries"), nb::arg("scale") = nb::none(),
        nb::arg("stream") = 0,
        "Appends, attends and evicts for one layer. Entries are tuples "
        "(sequence, q, k, v, out) of tensors [tokens, heads, head_dim] of the "
        "artifact's dtype, on the context's device; out is written, and so are "
        "q and k where the layer has a rotation (Cache.set_rope). On a CUDA "
        "device the work is enqueued on `stream`, such as "
        "torch.cuda.current_stream().cuda_stream. See moa_attend.");
}
