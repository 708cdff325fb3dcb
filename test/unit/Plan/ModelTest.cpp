//===- ModelTest.cpp - Model shapes, right and wrong ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Both forms of --model: what they yield, and what they say when refused.
//
//===----------------------------------------------------------------------===//

#include "moa/Plan/Model.h"

#include "gtest/gtest.h"

using namespace moa::plan;

static std::string refusal(llvm::Expected<ModelShape> shape) {
  return shape ? "" : llvm::toString(shape.takeError());
}

static std::string refusalOfText(const char *text) {
  return refusal(parseModelText(text));
}

static std::string refusalOfConfig(const char *json) {
  return refusal(parseModelConfig(json, "config.json"));
}

TEST(ModelText, Complete) {
  llvm::Expected<ModelShape> shape = parseModelText(
      "layers=30,q_heads=9,kv_heads=3,head_dim=64,max_length=8192");
  ASSERT_TRUE(bool(shape)) << llvm::toString(shape.takeError());
  EXPECT_EQ(shape->layers, 30);
  EXPECT_EQ(shape->qHeads, 9);
  EXPECT_EQ(shape->kvHeads, 3);
  EXPECT_EQ(shape->headDim, 64);
  EXPECT_EQ(shape->maxLength, 8192);
}

TEST(ModelText, KvHeadsDefaultToQueryHeads) {
  llvm::Expected<ModelShape> shape =
      parseModelText("head_dim=128, q_heads=32, layers=32");
  ASSERT_TRUE(bool(shape)) << llvm::toString(shape.takeError());
  EXPECT_EQ(shape->kvHeads, 32);
  EXPECT_EQ(shape->maxLength, kDefaultMaxLength);
}

TEST(ModelText, SoftCap) {
  for (auto [text, cap] : {std::pair("soft_cap=50", 50.0f),
                           {" soft_cap = 0.5 ", 0.5f},
                           {"soft_cap=1e6", 1e6f}}) {
    llvm::Expected<ModelShape> shape =
        parseModelText(std::string("layers=2,q_heads=4,head_dim=64,") + text);
    ASSERT_TRUE(bool(shape)) << llvm::toString(shape.takeError());
    EXPECT_EQ(shape->softCap, cap);
  }
  for (const char *value : {"0", "-50", "nan", "inf", "1e-7", "2e6", "x", ""})
    EXPECT_NE(refusalOfText(("layers=2,q_heads=4,head_dim=64,soft_cap=" +
                             std::string(value))
                                .c_str())
                  .find("expected a number from 2^-20 to 2^20 for 'soft_cap', "
                        "got '" +
                        std::string(value) + "'"),
              std::string::npos)
        << value;
}

TEST(ModelText, Refusals) {
  EXPECT_EQ(refusalOfText("layers=2,q_heads=4"),
            "--model: expected 'head_dim', found only "
            "'layers=2,q_heads=4'; write --model "
            "layers=32,q_heads=32,kv_heads=8,head_dim=128, or give the model's "
            "config.json");
  EXPECT_NE(refusalOfText("layers=0,q_heads=4,head_dim=64")
                .find("expected a positive number for 'layers', got '0'"),
            std::string::npos);
  EXPECT_NE(refusalOfText("layers=2x,q_heads=4,head_dim=64").find("got '2x'"),
            std::string::npos);
  EXPECT_NE(refusalOfText("layers=2,heads=4,head_dim=64").find("'heads=4'"),
            std::string::npos);
  EXPECT_NE(refusalOfText("layers=2,layers=3,q_heads=4,head_dim=64")
                .find("expected 'layers' once"),
            std::string::npos);
  EXPECT_NE(refusalOfText("layers=2,q_heads=4,kv_heads=3,head_dim=64")
                .find("got 4 and 3"),
            std::string::npos);
}

TEST(ModelConfig, HeadDimFromHiddenSize) {
  llvm::Expected<ModelShape> shape = parseModelConfig(
      R"({"num_hidden_layers": 30, "num_attention_heads": 9,
          "num_key_value_heads": 3, "hidden_size": 576, "head_dim": null,
          "max_position_embeddings": 8192})",
      "config.json");
  ASSERT_TRUE(bool(shape)) << llvm::toString(shape.takeError());
  EXPECT_EQ(shape->layers, 30);
  EXPECT_EQ(shape->kvHeads, 3);
  EXPECT_EQ(shape->headDim, 64);
  EXPECT_EQ(shape->maxLength, 8192);
}

TEST(ModelConfig, NestedTextConfig) {
  llvm::Expected<ModelShape> shape = parseModelConfig(
      R"({"text_config": {"num_hidden_layers": 2, "num_attention_heads": 8,
          "head_dim": 256, "hidden_size": 640}})",
      "config.json");
  ASSERT_TRUE(bool(shape)) << llvm::toString(shape.takeError());
  EXPECT_EQ(shape->kvHeads, 8);
  EXPECT_EQ(shape->headDim, 256);
}

TEST(ModelConfig, SoftCap) {
  auto shapeOf = [](const char *cap) {
    return parseModelConfig(
        std::string(R"({"num_hidden_layers": 2, "num_attention_heads": 8,
          "head_dim": 256, "attn_logit_softcapping": )") +
            cap + "}",
        "config.json");
  };
  for (auto [text, cap] :
       {std::pair("50.0", 50.0f), {"30", 30.0f}, {"null", 0.0f}}) {
    llvm::Expected<ModelShape> shape = shapeOf(text);
    ASSERT_TRUE(bool(shape)) << llvm::toString(shape.takeError());
    EXPECT_EQ(shape->softCap, cap);
  }
  for (const char *value : {"0", "-1.5", "\"50\"", "true", "1e300", "1e-9"})
    EXPECT_EQ(refusal(shapeOf(value))
                  .find("config.json:2: attn_logit_softcapping: expected a "
                        "number from 2^-20 to 2^20, found "),
              0u)
        << value;
}

TEST(ModelConfig, Refusals) {
  std::string text = refusalOfConfig("{\n\"num_hidden_layers\": 2,\n}");
  EXPECT_EQ(text.find("config.json:3:1: expected JSON"), 0u) << text;
  text = refusalOfConfig("[]");
  EXPECT_EQ(text.find("config.json:1: expected a JSON object"), 0u) << text;
  text = refusalOfConfig("{}");
  EXPECT_EQ(text.find("config.json:1: num_hidden_layers: expected a positive "
                      "integer, found no such key"),
            0u)
      << text;
  text = refusalOfConfig("{\"num_hidden_layers\": 2,\n"
                         "\"num_attention_heads\": \"9\"}");
  EXPECT_EQ(text.find("config.json:2: num_attention_heads: expected a positive "
                      "integer, found \"9\""),
            0u)
      << text;
  text = refusalOfConfig("{\"num_hidden_layers\": 2,\n"
                         "\"num_attention_heads\": 9,\n"
                         "\"hidden_size\": 577}");
  EXPECT_EQ(text.find("config.json:3: hidden_size: expected a multiple of "
                      "num_attention_heads = 9, found 577"),
            0u)
      << text;
  text = refusalOfConfig("{\"num_hidden_layers\": 2,"
                         "\"num_attention_heads\": 9,\n"
                         "\"num_key_value_heads\": 2}");
  EXPECT_EQ(text.find("config.json:2: num_key_value_heads: expected a divisor "
                      "of num_attention_heads = 9, found 2"),
            0u)
      << text;
  text = refusalOfConfig("{\"text_config\": {\"num_hidden_layers\": 2,\n"
                         "\"num_attention_heads\": 0}}");
  EXPECT_EQ(text.find("config.json:2: text_config/num_attention_heads: "), 0u)
      << text;
}

TEST(Model, UnreadableFile) {
  std::string text = refusal(loadModel("no-such-folder/config.json"));
  EXPECT_EQ(text.find("no-such-folder/config.json: cannot read"), 0u) << text;
}
