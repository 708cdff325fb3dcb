//===- Observe.h - What a cache did, for Python -----------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Statistics and counters of a cache as Python has them: dictionaries whose
// keys are the fields of the C structs, and text.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_PYTHON_OBSERVE_H
#define MOA_PYTHON_OBSERVE_H

#include "moa/observe.h"

#include <nanobind/nanobind.h>

#include <string>

moa_status *readStats(const moa_cache *cache, nanobind::dict &out);
moa_status *readCounters(const moa_cache *cache, nanobind::dict &out);
moa_status *readPrometheus(const moa_cache *cache, const std::string &labels,
                           std::string &out);

#endif // MOA_PYTHON_OBSERVE_H
