//===- PlanReader.h - From a JSON document to a plan -----------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the files that read plans share: the walk over a document, whose methods
// check one part each and fill the plan.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_LIB_PLAN_PLANREADER_H
#define MOA_LIB_PLAN_PLANREADER_H

#include "JsonText.h"

#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/ADT/Twine.h"
#include <optional>
#include <string>
#include <vector>

namespace moa::plan {

/// Most query heads of a layer, and most layers.
constexpr int64_t kMaxSize = 1 << 16;

/// "-3", "\"abc\"", "an array of 2": what a message calls a value.
std::string describe(const nlohmann::json *value);

/// Walks a document; each method checks one part and fills the plan.
class Reader {
  using json = nlohmann::json;
  using Error = llvm::Error;
  using StringRef = llvm::StringRef;
  using Twine = llvm::Twine;

public:
  Reader(json &document, StringRef text, StringRef file)
      : document(document), text(text), file(file) {}

  llvm::Expected<Plan> read();

private:
  Error refuse(const Twine &key, const Twine &expected, const Twine &found,
               const Twine &cure) const;
  /// Member `name` of an object, or null.
  static json *member(json &object, StringRef name);
  /// Section `name` of the document into `section`; absent leaves it null.
  Error section(StringRef name, json *&section);
  /// Integer `key` of a section within bounds; absent leaves `value`.
  Error integer(json *in, StringRef path, StringRef key, int64_t low,
                int64_t high, int64_t &value, StringRef cure);
  Error optionalInteger(json *in, StringRef path, StringRef key,
                        std::optional<int64_t> &value);
  /// Text `key` of a section, one of `choices`; absent leaves `value`.
  Error choice(json *in, StringRef path, StringRef key,
               llvm::ArrayRef<StringRef> choices, std::string &value,
               StringRef cure);
  Error format();
  Error matrix(StringRef key, std::vector<double> &values);
  Error rules();
  Error span();
  Error windows(json *in);
  Error mask();
  Error model();
  Error kv();
  Error kvFormats(json &in);
  Error kvFormat(const Twine &path, json &value);
  Error lengths(StringRef path, json &object,
                llvm::function_ref<Error(StringRef, int64_t, json &)> each);
  Error budget();
  Error density();
  Error densityAt(StringRef path, int64_t n, json &at);

  json &document;
  StringRef text, file;
  Plan plan;
};

} // namespace moa::plan

#endif // MOA_LIB_PLAN_PLANREADER_H
