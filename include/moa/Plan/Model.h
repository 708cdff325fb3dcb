//===- Model.h - Shape of a model's attention -------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What the compiler must know of a model: how many layers and heads of which
// size, and how long a sequence may get. Read from a command line or from a
// Hugging Face config.json.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_PLAN_MODEL_H
#define MOA_PLAN_MODEL_H

#include "moa/Plan/Plan.h"

namespace moa::plan {

/// Longest sequence served where nobody said otherwise, tokens.
constexpr int64_t kDefaultMaxLength = 131072;

/// Reads
/// `layers=30,q_heads=9,kv_heads=3,head_dim=64[,max_length=8192][,soft_cap=50]`,
/// in any order; kv_heads defaults to q_heads. Errors are PlanErrors.
llvm::Expected<ModelShape> parseModelText(llvm::StringRef text);

/// Reads the keys of a Hugging Face configuration: num_hidden_layers,
/// num_attention_heads, num_key_value_heads (default: num_attention_heads),
/// head_dim (default: hidden_size / num_attention_heads),
/// max_position_embeddings and attn_logit_softcapping; inside `text_config`
/// where the file has one. `fileName` is only used in messages.
llvm::Expected<ModelShape> parseModelConfig(llvm::StringRef json,
                                            llvm::StringRef fileName);

/// What `--model` takes: the text form where `argument` has a '=' and names no
/// file, a path to a config.json, or a folder that holds one.
llvm::Expected<ModelShape> loadModel(llvm::StringRef argument);

} // namespace moa::plan

#endif // MOA_PLAN_MODEL_H
