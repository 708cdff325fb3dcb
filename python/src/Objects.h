//===- Objects.h - What Python's objects hold -------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Handles of the C ABI that keep their parents alive, and statuses as
// exceptions, for the files that bind them.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_PYTHON_OBJECTS_H
#define MOA_PYTHON_OBJECTS_H

#include "moa/runtime.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <memory>
#include <optional>
#include <string>

namespace nb = nanobind;

namespace moa::python {

/// Raises the exception of moa.errors that belongs to a status.
inline void check(moa_status *status) {
  if (!status)
    return;
  int code = moa_status_get_code(status);
  std::string message = moa_status_get_message(status);
  moa_status_free(status);
  nb::object error =
      nb::module_::import_("moa.errors").attr("from_status")(code, message);
  PyErr_SetObject(reinterpret_cast<PyObject *>(error.type().ptr()),
                  error.ptr());
  throw nb::python_error();
}

/// Calls the C ABI with the GIL released, and checks what it returns.
template <typename Call> void checkReleased(Call call) {
  moa_status *status;
  {
    nb::gil_scoped_release release;
    status = call();
  }
  check(status);
}

struct Context {
  moa_context *handle = nullptr;
  moa_device_info info = {};
  Context(int threads, uint32_t features, const std::string &device,
          const std::optional<std::string> &driverPath) {
    moa_context_options options = {};
    options.struct_size = sizeof(options);
    options.threads = threads;
    options.cpu_features = features;
    if (device.rfind("cuda", 0) == 0) {
      options.device = MOA_DEVICE_CUDA;
      options.ordinal = ordinalOf(device);
      options.driver_path = driverPath ? driverPath->c_str() : nullptr;
    } else if (device != "cpu") {
      refuse(device);
    }
    check(moa_context_create(&options, &handle));
    info.struct_size = sizeof(info);
    check(moa_context_get_device_info(handle, &info));
  }
  Context(const Context &) = delete;
  Context &operator=(const Context &) = delete;
  ~Context() { moa_context_destroy(handle); }

  bool onCuda() const { return info.device == MOA_DEVICE_CUDA; }
  /// As torch names it.
  std::string name() const {
    return onCuda() ? "cuda:" + std::to_string(info.ordinal) : "cpu";
  }
  nb::dict describe() const {
    nb::dict d;
    d["device"] = name();
    d["name"] = info.name;
    d["capability"] =
        std::make_tuple(info.capability_major, info.capability_minor);
    d["driver_version"] = info.driver_version;
    d["processors"] = info.processors;
    d["memory_bytes"] = info.memory_bytes;
    return d;
  }

private:
  [[noreturn]] static void refuse(const std::string &device) {
    throw nb::value_error(
        ("device is '" + device + "', expected cpu, cuda or cuda:NUMBER")
            .c_str());
  }
  static int32_t ordinalOf(const std::string &device) {
    if (device == "cuda")
      return 0;
    const std::string digits = device.substr(5 < device.size() ? 5 : 0);
    if (device.rfind("cuda:", 0) != 0 || digits.empty() || digits.size() > 4 ||
        digits.find_first_not_of("0123456789") != std::string::npos)
      refuse(device);
    return std::stoi(digits);
  }
};

struct Module {
  std::shared_ptr<Context> context;
  moa_module *handle = nullptr;
  moa_module_info info = {};
  Module(std::shared_ptr<Context> owner, const std::string &path)
      : context(std::move(owner)) {
    checkReleased([&] {
      return moa_module_load_file(context->handle, path.c_str(), &handle);
    });
    info.struct_size = sizeof(info);
    check(moa_module_get_info(handle, &info));
  }
  ~Module() { moa_module_destroy(handle); }

  nb::dict describe() const {
    static const char *names[] = {"f32", "f16", "bf16"};
    nb::dict d;
    d["artifact_version"] = info.artifact_version;
    d["layers"] = info.layers;
    d["q_heads"] = info.q_heads;
    d["kv_heads"] = info.kv_heads;
    d["head_dim"] = info.head_dim;
    d["dtype"] = names[info.dtype];
    d["length"] = info.length_rule == MOA_LENGTH_ROW ? "row" : "request";
    d["kernels"] = info.kernels;
    d["max_length"] = info.max_length;
    d["chip"] = info.chip;
    d["remark"] = info.remark;
    d["soft_cap"] = info.soft_cap;
    std::string id;
    for (uint8_t byte : info.plan_id) {
      id += "0123456789abcdef"[byte >> 4];
      id += "0123456789abcdef"[byte & 15];
    }
    d["plan_id"] = id;
    return d;
  }
};

struct Cache {
  std::shared_ptr<Module> module;
  moa_cache *handle = nullptr;
  Cache(std::shared_ptr<Module> owner, uint64_t maxBytes, int64_t rollback,
        int64_t decodeParts)
      : module(std::move(owner)) {
    moa_cache_options options = {sizeof(options), maxBytes, rollback,
                                 decodeParts};
    check(moa_cache_create(module->handle, &options, &handle));
  }
  ~Cache() { moa_cache_destroy(handle); }
  /// What a function of Observe.h reads.
  nb::dict read(moa_status *(*from)(const moa_cache *, nb::dict &)) const {
    nb::dict out;
    check(from(handle, out));
    return out;
  }
};

struct Sequence {
  std::shared_ptr<Cache> cache;
  moa_sequence *handle = nullptr; ///< Null: no longer there, as calls then say.
  bool owned = true;              ///< Else a scheduler's.
  Sequence(std::shared_ptr<Cache> owner, int64_t length)
      : cache(std::move(owner)) {
    check(moa_sequence_create(cache->handle, length, &handle));
  }
  /// Takes what the C ABI made, or, not owned, lends it.
  Sequence(std::shared_ptr<Cache> owner, moa_sequence *handle,
           bool owned = true)
      : cache(std::move(owner)), handle(handle), owned(owned) {}
  Sequence(const Sequence &) = delete;
  Sequence &operator=(const Sequence &) = delete;
  ~Sequence() {
    if (owned)
      moa_sequence_destroy(handle);
  }
};

} // namespace moa::python

#endif // MOA_PYTHON_OBJECTS_H
