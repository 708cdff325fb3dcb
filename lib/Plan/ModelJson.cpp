//===- ModelJson.cpp - Model shape from a config.json ---------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads the few keys that attention needs from a Hugging Face configuration and
// says which line to mend when one is missing or wrong.
//
//===----------------------------------------------------------------------===//

#include "JsonText.h"
#include "moa/Plan/Model.h"

#include "llvm/Support/FormatVariadic.h"

using namespace moa::plan;
using nlohmann::json;

static constexpr llvm::StringLiteral kCure =
    "give the shape itself: --model "
    "layers=32,q_heads=32,kv_heads=8,head_dim=128";

namespace {

/// One configuration and the text it came from.
class Config {
public:
  Config(const json &object, std::string prefix, llvm::StringRef text,
         llvm::StringRef fileName)
      : object(object), prefix(std::move(prefix)), text(text),
        fileName(fileName) {}

  bool has(llvm::StringRef key) const {
    auto it = object.find(key.str());
    return it != object.end() && !it->is_null();
  }

  llvm::Error refuse(llvm::StringRef key, const llvm::Twine &message) const {
    PlanError error;
    error.file = fileName.str();
    error.key = prefix + key.str();
    error.line = lineOfKey(text, error.key);
    error.message = message.str();
    error.cure = kCure.str();
    return llvm::make_error<PlanError>(std::move(error));
  }

  /// Reads a positive integer into `target`. An absent key leaves it alone and
  /// is refused only when `required`.
  llvm::Error read(llvm::StringRef key, int64_t &target,
                   bool required = false) const {
    if (!has(key))
      return required ? refuse(key, "expected a positive integer, found no "
                                    "such key")
                      : llvm::Error::success();
    const json &value = object[key.str()];
    if (!value.is_number_integer() || value.get<int64_t>() < 1)
      return refuse(key, "expected a positive integer, found " + value.dump());
    target = value.get<int64_t>();
    return llvm::Error::success();
  }

  /// Reads a soft cap; an absent key leaves it alone.
  llvm::Error readCap(llvm::StringRef key, float &target) const {
    if (!has(key))
      return llvm::Error::success();
    const json &value = object[key.str()];
    if (!value.is_number() || !isSoftCap(value.get<double>()))
      return refuse(key, "expected a number from 2^-20 to 2^20, found " +
                             value.dump());
    target = value.get<float>();
    return llvm::Error::success();
  }

private:
  const json &object;
  std::string prefix;
  llvm::StringRef text, fileName;
};

} // namespace

static llvm::Error readHeadDim(const Config &config, ModelShape &shape) {
  if (config.has("head_dim"))
    return config.read("head_dim", shape.headDim);
  int64_t hidden = 0;
  if (llvm::Error error = config.read("hidden_size", hidden, true))
    return error;
  if (hidden % shape.qHeads)
    return config.refuse("hidden_size",
                         llvm::formatv("expected a multiple of "
                                       "num_attention_heads = {0}, found {1}",
                                       shape.qHeads, hidden)
                             .str());
  shape.headDim = hidden / shape.qHeads;
  return llvm::Error::success();
}

static llvm::Error readShape(const Config &config, ModelShape &shape) {
  if (llvm::Error error = config.read("num_hidden_layers", shape.layers, true))
    return error;
  if (llvm::Error error =
          config.read("num_attention_heads", shape.qHeads, true))
    return error;
  shape.kvHeads = shape.qHeads;
  if (llvm::Error error = config.read("num_key_value_heads", shape.kvHeads))
    return error;
  if (shape.qHeads % shape.kvHeads)
    return config.refuse("num_key_value_heads",
                         llvm::formatv("expected a divisor of "
                                       "num_attention_heads = {0}, found {1}",
                                       shape.qHeads, shape.kvHeads)
                             .str());
  if (llvm::Error error = readHeadDim(config, shape))
    return error;
  shape.maxLength = kDefaultMaxLength;
  if (llvm::Error error =
          config.read("max_position_embeddings", shape.maxLength))
    return error;
  return config.readCap("attn_logit_softcapping", shape.softCap);
}

llvm::Expected<ModelShape>
moa::plan::parseModelConfig(llvm::StringRef text, llvm::StringRef fileName) {
  llvm::Expected<json> root = readJson(text, fileName);
  if (!root)
    return root.takeError();
  if (!root->is_object()) {
    Config config(*root, "", text, fileName);
    return config.refuse("", "expected a JSON object");
  }
  auto nested = root->find("text_config");
  bool isNested = nested != root->end() && nested->is_object() &&
                  !root->contains("num_hidden_layers");
  Config config(isNested ? *nested : *root, isNested ? "text_config/" : "",
                text, fileName);
  ModelShape shape;
  if (llvm::Error error = readShape(config, shape))
    return std::move(error);
  return shape;
}
