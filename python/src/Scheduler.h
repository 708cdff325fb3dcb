//===- Scheduler.h - Continuous batching for Python -------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Binds moa/scheduler.h.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_PYTHON_SCHEDULER_H
#define MOA_PYTHON_SCHEDULER_H

#include <nanobind/nanobind.h>

/// Adds Scheduler and its StepEntry to a module that has Cache and Sequence.
void bindScheduler(nanobind::module_ &m);

#endif // MOA_PYTHON_SCHEDULER_H
