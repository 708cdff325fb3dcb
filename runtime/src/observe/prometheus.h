//===- prometheus.h - Counters as text --------------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Prometheus' text exposition format, version 0.0.4. One table names every
// counter.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_OBSERVE_PROMETHEUS_H
#define MOA_RT_OBSERVE_PROMETHEUS_H

#include "moa/observe.h"
#include "status.h"

#include <string_view>

namespace moa::rt {

/// Refuses labels that are not name="value" pairs, and says where.
Status checkLabels(std::string_view labels);

/// The text; `labels` were checked.
std::string formatPrometheus(const moa_counters &counters,
                             std::string_view labels);

} // namespace moa::rt

#endif // MOA_RT_OBSERVE_PROMETHEUS_H
