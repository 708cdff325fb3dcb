//===- version.h - ABI and artifact version numbers -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The numbers that compiler, artifact and runtime compare before they trust
// each other, and the rule for raising each of them.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_ABI_VERSION_H
#define MOA_ABI_VERSION_H

/// C ABI of libmoa_rt. Raise MINOR when a symbol or a trailing struct field is
/// added; raise MAJOR when anything existing changes its meaning or layout.
#define MOA_ABI_VERSION_MAJOR 1
#define MOA_ABI_VERSION_MINOR 7

/// File format of `.moa` artifacts. Raise it whenever a struct of artifact.h
/// changes layout or meaning. A runtime loads exactly the versions from
/// MOA_ARTIFACT_VERSION_MIN to MOA_ARTIFACT_VERSION.
#define MOA_ARTIFACT_VERSION 6
#define MOA_ARTIFACT_VERSION_MIN 6

/// Layout of the structs in kernel_args.h, gpu_args.h and gpu_step.h, recorded
/// for every kernel image. Raise it whenever a field there moves: old images
/// are then refused.
#define MOA_KERNEL_ABI_VERSION 7

#endif // MOA_ABI_VERSION_H
