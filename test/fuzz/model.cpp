//===- model.cpp - Fuzzing the readers of model shapes --------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Parses bytes as a config.json and as the text of an option.
//
//===----------------------------------------------------------------------===//

#include "moa/Plan/Model.h"

using namespace moa::plan;

static void take(llvm::Expected<ModelShape> shape) {
  if (!shape)
    llvm::consumeError(shape.takeError());
  else
    llvm::consumeError(checkModelShape(*shape, "model"));
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  llvm::StringRef text(reinterpret_cast<const char *>(data), size);
  take(parseModelConfig(text, "config.json"));
  take(parseModelText(text));
  return 0;
}
