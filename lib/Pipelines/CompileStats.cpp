//===- CompileStats.cpp - What a compilation tells, as JSON ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Prints statistics for machines, and reads them again where the cache kept
// them.
//
//===----------------------------------------------------------------------===//

#include "CompileStats.h"

#include "llvm/Support/JSON.h"

using namespace moa;

static llvm::json::Value numberOrNull(std::optional<uint64_t> number) {
  return number ? llvm::json::Value(int64_t(*number)) : nullptr;
}

static std::optional<uint64_t> numberIn(const llvm::json::Object &object,
                                        llvm::StringRef key) {
  std::optional<int64_t> number = object.getInteger(key);
  return number ? std::optional<uint64_t>(*number) : std::nullopt;
}

bool moa::readStats(llvm::StringRef text, CompileStats &stats) {
  llvm::Expected<llvm::json::Value> value = llvm::json::parse(text);
  if (!value) {
    llvm::consumeError(value.takeError());
    return false;
  }
  const llvm::json::Object *root = value->getAsObject();
  const llvm::json::Array *kernels = root ? root->getArray("kernels") : nullptr;
  if (!kernels)
    return false;
  for (const llvm::json::Value &entry : *kernels) {
    const llvm::json::Object *object = entry.getAsObject();
    const llvm::json::Array *layers =
        object ? object->getArray("layers") : nullptr;
    if (!layers)
      return false;
    KernelStats kernel;
    kernel.name = object->getString("name").value_or("").str();
    kernel.chip = object->getString("target").value_or("").str();
    kernel.kind = object->getString("kind").value_or("").str();
    for (const llvm::json::Value &layer : *layers)
      kernel.layers.push_back(layer.getAsInteger().value_or(-1));
    kernel.instructions = numberIn(*object, "instructions");
    kernel.registers = numberIn(*object, "registers");
    kernel.spillBytes = numberIn(*object, "spill_bytes");
    kernel.sharedBytes = numberIn(*object, "shared_bytes");
    kernel.ptxasVersion = object->getString("ptxas").value_or("").str();
    kernel.codeBytes = object->getInteger("code_bytes").value_or(0);
    kernel.scratchBytes = object->getInteger("scratch_bytes").value_or(0);
    stats.kernels.push_back(std::move(kernel));
  }
  const llvm::json::Array *remarks = root->getArray("remarks");
  if (!remarks)
    return false;
  for (const llvm::json::Value &remark : *remarks)
    stats.remarks.push_back(remark.getAsString().value_or("").str());
  return true;
}

void moa::printStats(const CompileStats &stats, llvm::raw_ostream &os) {
  llvm::json::OStream json(os);
  json.object([&] {
    json.attribute("seconds", stats.seconds);
    json.attribute("cache_hit", stats.cacheHit);
    json.attribute("artifact_bytes", int64_t(stats.artifactBytes));
    json.attributeArray("kernels", [&] {
      for (const KernelStats &kernel : stats.kernels)
        json.object([&] {
          json.attribute("name", kernel.name);
          json.attribute("target", kernel.chip);
          json.attribute("kind", kernel.kind);
          json.attribute("layers", llvm::json::Array(kernel.layers));
          json.attribute("registers", numberOrNull(kernel.registers));
          json.attribute("spill_bytes", numberOrNull(kernel.spillBytes));
          json.attribute("shared_bytes", numberOrNull(kernel.sharedBytes));
          json.attribute("instructions", numberOrNull(kernel.instructions));
          if (!kernel.ptxasVersion.empty())
            json.attribute("ptxas", kernel.ptxasVersion);
          json.attribute("code_bytes", int64_t(kernel.codeBytes));
          json.attribute("scratch_bytes", int64_t(kernel.scratchBytes));
        });
    });
    json.attribute("remarks", llvm::json::Array(stats.remarks));
  });
  os << '\n';
}
