//===- JsonText.h - JSON with positions and a canonical form ----*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads JSON without exceptions, refusing what nlohmann/json would let pass
// (keys given twice, nesting without bound), and writes the canonical form.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_PLAN_JSONTEXT_H
#define MOA_LIB_PLAN_JSONTEXT_H

#include "moa/Plan/Plan.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include <nlohmann/json.hpp>
#include <string>

namespace moa::plan {

/// Most arrays and objects inside each other that a plan file may hold.
constexpr size_t kMaxJsonDepth = 64;

/// Reads a whole text. A refusal is a PlanError with line and, for what is not
/// JSON, column.
llvm::Expected<nlohmann::json> readJson(llvm::StringRef text,
                                        llvm::StringRef fileName);

/// Line, from 1, of the value at a key path such as `alphas/3/2` in a text that
/// readJson accepts; for an absent last part the line where its parent starts.
unsigned lineOfKey(llvm::StringRef text, llvm::StringRef key);

/// Sorted keys, no spaces, shortest round-trip floats, newline at the end: the
/// text of Python's json.dumps(.., sort_keys=True, ensure_ascii=False,
/// separators=(",", ":")) + "\n".
std::string canonicalText(const nlohmann::json &value);

} // namespace moa::plan

#endif // MOA_LIB_PLAN_JSONTEXT_H
