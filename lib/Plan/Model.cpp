//===- Model.cpp - Model shape from a command line ------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The key=value form, the checks that both forms share, and the choice between
// them.
//
//===----------------------------------------------------------------------===//

#include "moa/Plan/Model.h"

#include "llvm/ADT/SmallString.h"
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

using namespace moa::plan;

static constexpr llvm::StringLiteral kForm =
    "write --model layers=32,q_heads=32,kv_heads=8,head_dim=128, or give the "
    "model's config.json";

static llvm::Error refuse(const llvm::Twine &file, const llvm::Twine &message) {
  PlanError error;
  error.file = file.str();
  error.message = message.str();
  error.cure = kForm.str();
  return llvm::make_error<PlanError>(std::move(error));
}

/// Where the value of `key` goes, or null.
static int64_t *fieldOf(ModelShape &shape, llvm::StringRef key) {
  if (key == "layers")
    return &shape.layers;
  if (key == "q_heads")
    return &shape.qHeads;
  if (key == "kv_heads")
    return &shape.kvHeads;
  if (key == "head_dim")
    return &shape.headDim;
  if (key == "max_length")
    return &shape.maxLength;
  return nullptr;
}

/// Reads the value of a field.
static llvm::Error readField(ModelShape &shape, llvm::StringRef key,
                             llvm::StringRef value) {
  if (key == "soft_cap") {
    double cap;
    if (value.trim().getAsDouble(cap) || !isSoftCap(cap))
      return refuse("--model", "expected a number from 2^-20 to 2^20 for '" +
                                   key + "', got '" + value + "'");
    shape.softCap = static_cast<float>(cap);
    return llvm::Error::success();
  }
  int64_t &target = *fieldOf(shape, key);
  if (value.trim().getAsInteger(10, target) || target < 1 ||
      target > (int64_t(1) << 31))
    return refuse("--model", "expected a positive number for '" + key +
                                 "', got '" + value + "'");
  return llvm::Error::success();
}

llvm::Expected<ModelShape> moa::plan::parseModelText(llvm::StringRef text) {
  ModelShape shape;
  shape.maxLength = kDefaultMaxLength;
  llvm::StringSet<> seen;
  llvm::SmallVector<llvm::StringRef> fields;
  text.split(fields, ',');
  for (llvm::StringRef field : fields) {
    auto [key, value] = field.split('=');
    key = key.trim();
    if (key != "soft_cap" && !fieldOf(shape, key))
      return refuse("--model", "expected layers, q_heads, kv_heads, head_dim, "
                               "max_length or soft_cap, got '" +
                                   field + "'");
    if (!seen.insert(key).second)
      return refuse("--model", "expected '" + key + "' once, got it twice");
    if (llvm::Error error = readField(shape, key, value))
      return std::move(error);
  }
  for (llvm::StringRef key : {"layers", "q_heads", "head_dim"})
    if (!seen.contains(key))
      return refuse("--model",
                    "expected '" + key + "', found only '" + text + "'");
  if (!shape.kvHeads)
    shape.kvHeads = shape.qHeads;
  if (shape.qHeads % shape.kvHeads)
    return refuse("--model",
                  llvm::formatv("expected q_heads to be a multiple of "
                                "kv_heads, got {0} and {1}",
                                shape.qHeads, shape.kvHeads)
                      .str());
  return shape;
}

llvm::Expected<ModelShape> moa::plan::loadModel(llvm::StringRef argument) {
  if (argument.contains('=') && !llvm::sys::fs::exists(argument))
    return parseModelText(argument);
  llvm::SmallString<256> path(argument);
  if (llvm::sys::fs::is_directory(path))
    llvm::sys::path::append(path, "config.json");
  auto buffer = llvm::MemoryBuffer::getFile(path, /*IsText=*/true);
  if (!buffer)
    return refuse(path, "cannot read the model's configuration: " +
                            buffer.getError().message());
  return parseModelConfig((*buffer)->getBuffer(), path);
}
