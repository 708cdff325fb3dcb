//===- PlanModelTest.cpp - Canonical form, models, bytes, warnings --------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What an accepted plan says about itself, and how it fits a model.
//
//===----------------------------------------------------------------------===//

#include "PlanTestSupport.h"

using namespace moa::plan;

namespace {

std::string message(llvm::Error error) {
  return error ? llvm::toString(std::move(error)) : "accepted";
}

ModelShape smollm2() { return {30, 9, 3, 64, 8192}; }

TEST(Canonical, SortsKeepsAndNormalises) {
  Plan plan = accepted(
      "{\"version\": 1, \"x-note\": {\"b\": [1, 2.50], \"a\": null},\n"
      " \"format\": \"moa-plan\", \"other\": \"\\u00e9\\n\\u0001\",\n"
      " \"alphas\": [[1024, -0.0, 1023.9999999]], \"betas\": [[0, 1, 1e-7]]}");
  EXPECT_EQ(plan.canonical,
            "{\"alphas\":[[1024.0,0.0,1024.0]],\"betas\":[[0.0,1.0,1e-07]],"
            "\"format\":\"moa-plan\",\"other\":\"\xc3\xa9\\n\\u0001\","
            "\"version\":1,\"x-note\":{\"a\":null,\"b\":[1,2.5]}}\n");
  EXPECT_FALSE(plan.legacy);
  EXPECT_EQ(plan.rule(0, 2).alpha, 1024);
}

TEST(Canonical, FloatsAreThoseOfPython) {
  // The right-hand sides are repr() of Python.
  const std::pair<const char *, const char *> floats[] = {
      {"0.1", "0.1"},
      {"123456.789", "123456.789"},
      {"1e15", "1000000000000000.0"},
      {"1e16", "1e+16"},
      {"1.5e300", "1.5e+300"},
      {"0.0001", "0.0001"},
      {"0.00001", "1e-05"},
      {"1.25e-5", "1.25e-05"},
      {"5e-324", "5e-324"},
      {"9007199254740993.0", "9007199254740992.0"},
      {"0.30000000000000004", "0.30000000000000004"},
      {"-0.0", "-0.0"},
      {"12345678901234567890", "12345678901234567890"},
      {"-9223372036854775808", "-9223372036854775808"}};
  for (auto [in, out] : floats) {
    Plan plan = accepted(schema("\"x-f\":" + std::string(in)));
    EXPECT_NE(plan.canonical.find("\"x-f\":" + std::string(out) + "}"),
              std::string::npos)
        << in << " in " << plan.canonical;
  }
}

TEST(Canonical, IsIdempotentAndIdIsStable) {
  Plan plan = accepted(schema("\"x-f\":0.1,\"span\":{\"sink\":4}"));
  Plan again = accepted(plan.canonical);
  EXPECT_EQ(again.canonical, plan.canonical);
  EXPECT_EQ(again.id(), plan.id());
  EXPECT_EQ(plan.idText().size(), 64u);
  EXPECT_EQ(accepted("{\"betas\":[[0]],\"alphas\":[[0]]}").idText(),
            accepted("{\"alphas\" : [[0.0]], \"betas\": [[0e5]]}\n").idText());
  // printf '{"alphas":[[0.0]],"betas":[[0.5]]}\n' | sha256sum
  EXPECT_EQ(accepted("{\"alphas\":[[0]],\"betas\":[[0.5]]}").idText(),
            "8f98657081c4158d919f915be691c540bb28c5dc7635512de64fcf7307e99cf2");
  EXPECT_NE(accepted("{\"alphas\":[[0]],\"betas\":[[0.5]]}").idText(),
            accepted("{\"alphas\":[[0]],\"betas\":[[0.25]]}").idText());
}

TEST(Schema, EveryFieldIsRead) {
  Plan plan = accepted(schema(
      "\"model\":{\"name\":\"m\",\"architecture\":\"Llama\",\"layers\":1,"
      "\"q_heads\":2,\"kv_heads\":1,\"head_dim\":64,\"max_position\":8192},"
      "\"span\":{\"includes_sink\":true,\"sink\":4,\"block\":32,\"round\":"
      "\"up\",\"min\":36,\"length\":\"row\",\"valid\":[2048,8192]},"
      "\"mask\":{\"band\":\"token\",\"prefill\":\"sparse\",\"positions\":"
      "\"absolute\"},\"kv\":{\"policy\":\"group-max\",\"rules_per_layer\":2},"
      "\"budget\":{\"on\":\"kv\",\"bounds\":{\"2048\":0.5}},"
      "\"density\":{\"2048\":{\"query\":0.391,\"kv\":0.5,\"layers\":[0.5]}},"
      "\"scores\":{},\"provenance\":{\"tool\":\"t\"}"));
  EXPECT_TRUE(plan.warnings.empty());
  EXPECT_EQ(plan.model.name, "m");
  EXPECT_EQ(plan.model.kvHeads, 1);
  EXPECT_EQ(plan.model.maxPosition, 8192);
  EXPECT_EQ(plan.valid, (std::array<int64_t, 2>{2048, 8192}));
  for (const moa_span_rule &rule : plan.layerRules(0)) {
    EXPECT_EQ(rule.sink, 4);
    EXPECT_EQ(rule.round_to, 32);
    EXPECT_EQ(rule.min_span, 36);
    EXPECT_EQ(rule.length_rule, MOA_LENGTH_ROW);
  }
  EXPECT_EQ(accepted(schema("\"span\":{\"length\":\"prompt+max_new\"}"))
                .span.lengthRule,
            MOA_LENGTH_REQUEST);
}

TEST(Plan, WindowsOfTheModelBoundSpans) {
  Plan plan = accepted(
      "{\"format\":\"moa-plan\",\"version\":1,\"alphas\":[[0,100],[0,100],[9,"
      "9]],\"betas\":[[1,0.25],[1,0.25],[0,0]],\"span\":{\"window\":[null,300,"
      "1],\"length\":\"row\"}}");
  const int64_t spans[] = {4096, 1152, 300, 300, 1, 1};
  for (int64_t i = 0; i < 6; ++i) {
    const moa_span_rule &rule = plan.rules[i];
    EXPECT_EQ(moa_span(&rule, 4096), spans[i]) << i;
    EXPECT_EQ(rule.sink, i < 2 ? 64 : 0);
    EXPECT_EQ(moa_length_rule_of(&rule), MOA_LENGTH_ROW);
  }
  // All; a sink's page and [704, 1023); [724, 1023) twice; a page twice.
  ModelShape shape{3, 2, 2, 64, 8192};
  EXPECT_EQ(kvBytes(plan, shape, 4, 1, 1023),
            (16 + 6 + 2 * 5 + 2 * 1) * moa_page_bytes(64, 4));
}

TEST(Warnings, OfTheFileAndOfALength) {
  Plan plan = accepted(
      schema("\"mask\":{\"band\":\"block\"},\"span\":{\"valid\":[2048,4096]},"
             "\"model\":{\"max_position\":2048},"
             "\"budget\":{\"bounds\":{\"2048\":0.3}},"
             "\"density\":{\"2048\":{\"kv\":0.5}}"));
  ASSERT_EQ(plan.warnings.size(), 4u);
  EXPECT_NE(plan.warnings[0].find("up to 63 keys more"), std::string::npos);
  EXPECT_NE(plan.warnings[1].find("beyond model/max_position 2048"),
            std::string::npos);
  EXPECT_NE(plan.warnings[2].find("query density is 0.391, above its budget "
                                  "0.300"),
            std::string::npos);
  EXPECT_NE(plan.warnings[3].find("cannot be checked"), std::string::npos);
  EXPECT_TRUE(lengthWarnings(plan, 4096).empty());
  ASSERT_EQ(lengthWarnings(plan, 4097).size(), 1u);
  EXPECT_NE(lengthWarnings(plan, 4097)[0].find("outside the plan's valid"),
            std::string::npos);
  std::vector<std::string> shorter = lengthWarnings(plan, 80);
  ASSERT_EQ(shorter.size(), 3u);
  EXPECT_NE(shorter[1].find("1 of 2 heads exceed"), std::string::npos);
  EXPECT_NE(shorter[2].find("1 of 2 heads fall below"), std::string::npos);
}

TEST(Model, Shapes) {
  EXPECT_EQ(message(checkModelShape(smollm2(), "m")), "accepted");
  auto with = [](int64_t ModelShape::*field, int64_t value) {
    ModelShape model = smollm2();
    model.*field = value;
    return message(checkModelShape(model, "m"));
  };
  for (int64_t dim : {64, 80, 96, 128, 192, 256})
    EXPECT_EQ(with(&ModelShape::headDim, dim), "accepted");
  EXPECT_EQ(with(&ModelShape::headDim, 72),
            "m: head_dim: expected 64, 80, 96, 128, 192 or 256, found 72; "
            "kernels exist for these head dimensions only");
  EXPECT_EQ(with(&ModelShape::kvHeads, 2),
            "m: kv_heads: expected a divisor of q_heads = 9, found 2; each KV "
            "head serves the same number of query heads");
  EXPECT_EQ(with(&ModelShape::qHeads, 51),
            "m: kv_heads: expected at most 16 query heads for each KV head, "
            "found 51 / 3 = 17; this model cannot be compiled yet");
  EXPECT_EQ(with(&ModelShape::layers, 0),
            "m: layers: expected 1 to 65536, found 0; state the model's own "
            "number");
  EXPECT_EQ(with(&ModelShape::kvHeads, 0).substr(0, 37),
            "m: kv_heads: expected 1 to 65536, fou");
  EXPECT_EQ(with(&ModelShape::maxLength, int64_t(1) << 31).substr(0, 15),
            "m: max_length: ");
}

TEST(Model, PlanMustFit) {
  Plan plan = accepted(schema("\"model\":{\"kv_heads\":1,\"head_dim\":64}"));
  ModelShape model = {1, 2, 1, 64, 4096};
  EXPECT_EQ(message(checkAgainstModel(plan, model, "p")), "accepted");
  model.layers = 2;
  EXPECT_EQ(message(checkAgainstModel(plan, model, "p")),
            "p: alphas: expected 2 layers, as the model has, found 1; use the "
            "plan that was made for this model");
  model = {1, 4, 1, 64, 4096};
  EXPECT_EQ(message(checkAgainstModel(plan, model, "p")).substr(0, 58),
            "p: alphas/0: expected 4 query heads, as the model has, fou");
  model = {1, 2, 2, 64, 4096};
  EXPECT_EQ(message(checkAgainstModel(plan, model, "p")).substr(0, 59),
            "p: model/kv_heads: expected 2, as the model has, found 1; u");
  model = {1, 2, 1, 128, 4096};
  EXPECT_EQ(message(checkAgainstModel(plan, model, "p")).substr(0, 44),
            "p: model/head_dim: expected 128, as the mode");
}

TEST(Uniform, DenseAndStreaming) {
  auto dense = makeUniformPlan(2, 4, 0, 1);
  ASSERT_TRUE(static_cast<bool>(dense));
  EXPECT_EQ(queryDensity(*dense, 4096), 1.0);
  EXPECT_EQ(queryDensity(*dense, 1000), 1.0); // Rounding up stops at n.
  auto streaming = makeUniformPlan(2, 4, 512, 0, {4, 1, 5, MOA_LENGTH_ROW});
  ASSERT_TRUE(static_cast<bool>(streaming));
  EXPECT_EQ(queryDensity(*streaming, 4096), 0.125);
  EXPECT_EQ(streaming->rule(1, 3).length_rule, MOA_LENGTH_ROW);
  EXPECT_EQ(streaming->rule(1, 3).sink, 4);
  auto wrong = makeUniformPlan(2, 4, 0, 1.5);
  ASSERT_FALSE(static_cast<bool>(wrong));
  EXPECT_EQ(llvm::toString(wrong.takeError()).substr(0, 46),
            "uniform plan:1: betas/0/0: expected 0 to 1, fo");
  auto none = makeUniformPlan(0, 4, 0, 1);
  ASSERT_FALSE(static_cast<bool>(none));
  llvm::consumeError(none.takeError());
}

TEST(Bytes, WorkedExamples) {
  // One page of fp32 at D = 64: 2 * 64 * 64 * 4 = 32768 bytes.
  const int64_t page = 32768;
  ModelShape model = {1, 2, 1, 64, 8192};
  // Spans at N = 1024: 128 (local 64) and 512 (local 448).
  Plan plan = accepted("{\"alphas\":[[0,0]],\"betas\":[[0,0.5]]}");
  EXPECT_EQ(kvBytes(plan, model, 4, 1024, 0), 0);
  EXPECT_EQ(kvBytes(plan, model, 4, 1024, 1), page);
  EXPECT_EQ(kvBytes(plan, model, 4, 1024, 64), page);
  EXPECT_EQ(kvBytes(plan, model, 4, 1024, 65), 2 * page);
  // Row 640 starts at 640 + 1 - 448 = 193: pages 3..9 and the sink page.
  EXPECT_EQ(kvBytes(plan, model, 4, 1024, 640), 8 * page);
  EXPECT_EQ(kvBytes(plan, model, 2, 1024, 640), 4 * page);
  EXPECT_EQ(denseKvBytes(model, 4, 640), 10 * page);
  // Two KV heads: each keeps its own; 640 + 1 - 64 = 577: page 9 and the sink.
  model.kvHeads = 2;
  EXPECT_EQ(kvBytes(plan, model, 4, 1024, 640), (8 + 2) * page);
  EXPECT_EQ(denseKvBytes(model, 4, 640), 20 * page);
  EXPECT_EQ(denseKvBytes(model, 4, 641), 22 * page);
}

TEST(KvFormat, OfAllOrOfEach) {
  Plan none = accepted(schema(""));
  EXPECT_FALSE(none.hasKv8());
  EXPECT_EQ(none.kvFormat(0, 0), MOA_KV_MODEL);
  Plan all = accepted(schema("\"kv\":{\"format\":\"e4m3\"}"));
  EXPECT_TRUE(all.hasKv8());
  EXPECT_EQ(all.kvFormat(0, 0), MOA_KV_E4M3);
  EXPECT_EQ(all.kvFormat(0, 1), MOA_KV_E4M3);
  EXPECT_NE(all.idText(), none.idText());
  Plan whole = accepted(schema("\"kv\":{\"format\":16}"));
  EXPECT_FALSE(whole.hasKv8());
  Plan each = accepted(schema("\"kv\":{\"format\":[[16,\"int8\"],[16,16]]}",
                              "[[0,64],[0,64]]", "[[0.5,0.25],[0.5,0.25]]"));
  EXPECT_EQ(each.kvFormat(0, 0), MOA_KV_MODEL);
  EXPECT_EQ(each.kvFormat(0, 1), MOA_KV_INT8);
  EXPECT_TRUE(each.hasKv8(0));
  EXPECT_FALSE(each.hasKv8(1));
  EXPECT_TRUE(each.hasKv8());
  // One KV head is no "all".
  Plan one = accepted(schema("\"kv\":{\"format\":[[\"int8\"]]}"));
  llvm::Error error = checkAgainstModel(one, {1, 2, 2, 64, 1024}, "p.json");
  EXPECT_EQ(llvm::toString(std::move(error)),
            "p.json: kv/format/0: expected 2 KV heads, as the model has, found "
            "1; use the plan that was made for this model");
  EXPECT_FALSE(
      static_cast<bool>(checkAgainstModel(one, {1, 2, 1, 64, 1024}, "p.json")));
}

TEST(Bytes, EightBits) {
  // Dense and with sink 64: of 10 blocks the first and the last stay whole, 1
  // to 8 lie in halves of pages 0 to 4.
  Plan plan =
      accepted(schema("\"kv\":{\"format\":\"int8\"}", "[[0,0]]", "[[1,1]]"));
  ModelShape model{1, 2, 1, 64, 1 << 20};
  const int64_t page = 2 * 64 * 64 * 2;
  EXPECT_EQ(kvBytes(plan, model, 2, 1024, 0), 0);
  EXPECT_EQ(kvBytes(plan, model, 2, 1024, 65), 2 * page);
  EXPECT_EQ(kvBytes(plan, model, 2, 1024, 128), 2 * page);
  EXPECT_EQ(kvBytes(plan, model, 2, 1024, 129), 3 * page);
  EXPECT_EQ(kvBytes(plan, model, 2, 1024, 640), 7 * page);
  EXPECT_EQ(kvBytes(plan, model, 2, 1024, 641), 7 * page);
  EXPECT_EQ(kvBytes(plan, model, 2, 1024, 705), 8 * page);
}

TEST(Bytes, DensePlanIsDense) {
  auto dense = makeUniformPlan(30, 9, 0, 1);
  ASSERT_TRUE(static_cast<bool>(dense));
  for (int64_t seen : {0, 1, 63, 64, 65, 1000, 8191})
    EXPECT_EQ(kvBytes(*dense, smollm2(), 2, 8192, seen),
              denseKvBytes(smollm2(), 2, seen));
}

} // namespace
