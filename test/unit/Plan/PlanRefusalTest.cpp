//===- PlanRefusalTest.cpp - Every refusal of the plan reader -------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One table: a wrong file and the start of what is said about it, with line
// and key. Each is also one change away from a file that is accepted.
//
//===----------------------------------------------------------------------===//

#include "PlanTestSupport.h"

using namespace moa::plan;

namespace {

struct Refused {
  const char *what;
  std::string text;
  const char *start; ///< Of the message.

  friend std::ostream &operator<<(std::ostream &os, const Refused &refused) {
    return os << refused.what;
  }
};

const Refused kRefused[] = {
    // Not JSON.
    {"empty", "", "p.json:1:1: expected JSON, found syntax error"},
    {"cut_short", "{\"alphas\": [[0]],\n \"betas\": [[0.5]",
     "p.json:2:17: expected JSON, found syntax error while parsing array - "
     "unexpected end of input; expected ']'"},
    {"nan", "{\"alphas\": [[0]],\n\"betas\": [[NaN]]}",
     "p.json:2:12: expected JSON, found syntax error while parsing value - "
     "invalid literal; JSON has no NaN and no Infinity"},
    {"infinity", "{\"alphas\": [[Infinity]], \"betas\": [[1]]}",
     "p.json:1:14: expected JSON, found syntax error"},
    {"overflow", "{\"alphas\": [[1e999]], \"betas\": [[1]]}",
     "p.json:1:18: expected JSON, found"},
    {"comment", "{} // no", "p.json:1:4: expected JSON"},
    {"two_documents", "{\"alphas\":[[0]],\"betas\":[[0]]} {}",
     "p.json:1:32: expected JSON"},
    {"zero_byte", std::string("{\"alphas\":[[0]],\"betas\":[[0]]}\0 x", 34),
     "p.json:1:31: expected JSON, found a zero byte"},
    {"not_utf8", "{\"alphas\":[[0]],\"betas\":[[0]],\"x\":\"\xff\"}",
     "p.json:1:36: expected JSON, found syntax error"},
    {"key_twice", "{\"alphas\":[[0]],\n\"betas\":[[0]],\n\"alphas\":[[1]]}",
     "p.json:3: alphas: expected each key once, found 'alphas' again"},
    {"deep", std::string(100000, '['),
     "p.json:1: expected at most 64 arrays and objects inside each other"},
    {"not_object", "[1, 2]",
     "p.json:1: expected an object with keys alphas and betas, found an array "
     "of 2"},
    // Kind of file.
    {"other_format", "{\"format\":\"x\",\"alphas\":[[0]],\"betas\":[[0]]}",
     "p.json:1: format: expected \"moa-plan\", found \"x\""},
    {"new_version",
     "{\"format\":\"moa-plan\",\n\"version\":2,\n\"alphas\":[[0]],"
     "\"betas\":[[0]]}",
     "p.json:2: version: expected 1, found 2; a newer version"},
    {"no_version", "{\"format\":\"moa-plan\",\"alphas\":[[0]],\"betas\":[[0]]}",
     "p.json:1: version: expected 1, found none"},
    {"span_without_format", "{\"alphas\":[[0]],\"betas\":[[0]],\"span\":{}}",
     "p.json:1: format: expected \"moa-plan\" beside 'span', found none"},
    // The matrices.
    {"no_alphas", "{\"betas\":[[0]]}",
     "p.json:1: alphas: expected an array of 1 to 65536 layers, found none"},
    {"no_betas", "{\"alphas\":[[0]]}", "p.json:1: betas: expected an array"},
    {"no_layers", "{\"alphas\":[],\"betas\":[]}",
     "p.json:1: alphas: expected an array of 1 to 65536 layers, found an array "
     "of 0"},
    {"no_heads", "{\"alphas\":[[]],\"betas\":[[]]}",
     "p.json:1: alphas/0: expected an array of 1 to 65536 query heads, found "
     "an array of 0"},
    {"alphas_number", "{\"alphas\":3,\"betas\":[[0]]}",
     "p.json:1: alphas: expected an array of 1 to 65536 layers, found 3"},
    {"flat", "{\"alphas\":[0],\"betas\":[0]}",
     "p.json:1: alphas/0: expected an array of 1 to 65536 query heads, found "
     "0"},
    {"ragged", "{\"alphas\":[[0,0],\n[0]],\"betas\":[[0,0],[0,0]]}",
     "p.json:2: alphas/1: expected 2 query heads, as alphas/0 has, found 1"},
    {"fewer_betas", "{\"alphas\":[[0],[0]],\n\"betas\":[[0]]}",
     "p.json:2: betas: expected 2 layers, as alphas has, found 1"},
    {"shorter_betas", "{\"alphas\":[[0,0]],\"betas\":[[0]]}",
     "p.json:1: betas/0: expected 2 query heads, as alphas/0 has, found 1"},
    {"alpha_null", "{\"alphas\":[[0,\nnull\n]],\"betas\":[[0,0]]}",
     "p.json:2: alphas/0/1: expected a finite number, found null"},
    {"beta_text", "{\"alphas\":[[0]],\"betas\":[[\"NaN\"]]}",
     "p.json:1: betas/0/0: expected a finite number, found \"NaN\""},
    {"alpha_true", "{\"alphas\":[[true]],\"betas\":[[0]]}",
     "p.json:1: alphas/0/0: expected a finite number, found true"},
    {"alpha_half", "{\"alphas\":[[0],\n[0.5]],\"betas\":[[0],[0]]}",
     "p.json:2: alphas/1/0: expected a whole number of tokens, found 0.5"},
    {"alpha_huge", "{\"alphas\":[[1099511627777]],\"betas\":[[0]]}",
     "p.json:1: alphas/0/0: expected -1099511627776 to 1099511627776 tokens, "
     "found 1099511627777"},
    {"alpha_huge_negative", "{\"alphas\":[[-1e300]],\"betas\":[[0]]}",
     "p.json:1: alphas/0/0: expected -1099511627776 to"},
    {"beta_above", "{\"alphas\":[[0]],\"betas\":[[1.0000001]]}",
     "p.json:1: betas/0/0: expected 0 to 1, found 1.0000001"},
    {"beta_below", "{\"alphas\":[[0]],\"betas\":[[-0.125]]}",
     "p.json:1: betas/0/0: expected 0 to 1, found -0.125"},
    // Sections of moa-plan/1.
    {"span_array", schema("\"span\":[]"),
     "p.json:1: span: expected an object, found an array of 0"},
    {"sink_negative", schema("\"span\":{\"sink\":-1}"),
     "p.json:1: span/sink: expected an integer from 0 to 1048576, found -1"},
    {"sink_half", schema("\"span\":{\"sink\":0.5}"),
     "p.json:1: span/sink: expected an integer"},
    {"block_zero", schema("\"span\":{\"block\":0}"),
     "p.json:1: span/block: expected an integer from 1 to 1048576, found 0"},
    {"min_huge", schema("\"span\":{\"min\":1e18}"),
     "p.json:1: span/min: expected an integer from 1 to 1048576, found 1e+18"},
    {"min_at_sink", schema("\"span\":{\"sink\":128,\"min\":128}"),
     "p.json:1: span/min: expected more than the sink of 128, found 128"},
    {"min_below_default_sink", schema("\"span\":{\"min\":64}"),
     "p.json:1: span/min: expected more than the sink of 64, found 64"},
    {"excludes_sink", schema("\"span\":{\"includes_sink\":false}"),
     "p.json:1: span/includes_sink: expected true, found false"},
    {"round_down", schema("\"span\":{\"round\":\"down\"}"),
     "p.json:1: span/round: expected \"up\", found \"down\""},
    {"length_unknown", schema("\"span\":{\"length\":\"batch\"}"),
     "p.json:1: span/length: expected \"prompt+max_new\" or \"request\" or "
     "\"row\", found \"batch\""},
    {"length_number", schema("\"span\":{\"length\":3}"),
     "p.json:1: span/length: expected"},
    {"valid_reversed", schema("\"span\":{\"valid\":[4096,2048]}"),
     "p.json:1: span/valid: expected [shortest, longest] length in tokens, "
     "found [4096,2048]"},
    {"valid_three", schema("\"span\":{\"valid\":[1,2,3]}"),
     "p.json:1: span/valid: expected"},
    {"valid_text", schema("\"span\":{\"valid\":\"all\"}"),
     "p.json:1: span/valid: expected [shortest, longest] length in tokens, "
     "found \"all\""},
    {"mask_band", schema("\"mask\":{\"band\":\"row\"}"),
     "p.json:1: mask/band: expected \"token\" or \"block\", found \"row\""},
    {"mask_dense_prefill", schema("\"mask\":{\"prefill\":\"dense\"}"),
     "p.json:1: mask/prefill: expected \"sparse\", found \"dense\""},
    {"windows_of_other_layers", schema("\"span\":{\"window\":[1,2]}"),
     "p.json:1: span/window: expected an array of 1 layers, as alphas has, "
     "found an array of 2"},
    {"windows_number", schema("\"span\":{\"window\":64}"),
     "p.json:1: span/window: expected an array of 1 layers"},
    {"window_zero", schema("\"span\":{\"window\":[0]}"),
     "p.json:1: span/window/0: expected null or an integer from 1 to 1048576, "
     "found 0"},
    {"window_long", schema("\"span\":{\"window\":[1048577]}"),
     "p.json:1: span/window/0: expected null or an integer"},
    {"window_text", schema("\"span\":{\"window\":[\"64\"]}"),
     "p.json:1: span/window/0: expected null or an integer"},
    {"mask_positions", schema("\"mask\":{\"positions\":\"window\"}"),
     "p.json:1: mask/positions: expected \"absolute\", found \"window\""},
    {"model_layers", schema("\"model\":{\"layers\":2}"),
     "p.json:1: model/layers: expected 1, as alphas has, found 2"},
    {"model_heads", schema("\"model\":{\"q_heads\":4}"),
     "p.json:1: model/q_heads: expected 2, as alphas/0 has, found 4"},
    {"model_kv_heads", schema("\"model\":{\"kv_heads\":3}"),
     "p.json:1: model/kv_heads: expected a divisor of the 2 query heads, found "
     "3"},
    {"model_name", schema("\"model\":{\"name\":7}"),
     "p.json:1: model/name: expected a text, found 7"},
    {"kv_policy", schema("\"kv\":{\"policy\":\"min\"}"),
     "p.json:1: kv/policy: expected \"group-max\" or \"per-query-head\""},
    {"rules_per_layer", schema("\"kv\":{\"rules_per_layer\":1}"),
     "p.json:1: alphas/0: expected at most 1 different rules in a layer, as "
     "kv/rules_per_layer says, found 2"},
    {"kv_format", schema("\"kv\":{\"format\":8}"),
     "p.json:1: kv/format: expected 16, \"e4m3\" or \"int8\", found 8"},
    {"kv_format_name", schema("\"kv\":{\"format\":[[\"e4m3\",\"fp8\"]]}"),
     "p.json:1: kv/format/0/1: expected 16, \"e4m3\" or \"int8\", found "
     "\"fp8\""},
    {"kv_format_layers", schema("\"kv\":{\"format\":[[16],[16]]}"),
     "p.json:1: kv/format: expected 1 layers, as alphas has, found 2"},
    {"kv_format_row", schema("\"kv\":{\"format\":[\"int8\"]}"),
     "p.json:1: kv/format/0: expected an array of KV heads, a divisor of the 2 "
     "query heads, found \"int8\""},
    {"kv_format_heads", schema("\"kv\":{\"format\":[[16,16,16]]}"),
     "p.json:1: kv/format/0: expected an array of KV heads, a divisor of the 2 "
     "query heads, found an array of 3"},
    {"kv_format_ragged",
     schema("\"kv\":{\"format\":[[16],[16,16]]}", "[[0,64],[0,64]]",
            "[[0.5,0.25],[0.5,0.25]]"),
     "p.json:1: kv/format/1: expected 1 KV heads, as kv/format/0 has, found 2"},
    {"kv_format_model",
     schema("\"model\":{\"kv_heads\":1},\"kv\":{\"format\":[[16,16]]}"),
     "p.json:1: kv/format/0: expected 1 KV heads, as model/kv_heads has, found "
     "2"},
    {"budget_on", schema("\"budget\":{\"on\":\"both\"}"),
     "p.json:1: budget/on: expected \"kv\" or \"query\", found \"both\""},
    {"budget_bound", schema("\"budget\":{\"bounds\":{\"2048\":1.5}}"),
     "p.json:1: budget/bounds/2048: expected a density above 0, at most 1, "
     "found 1.5"},
    {"budget_length", schema("\"budget\":{\"bounds\":{\"2k\":0.5}}"),
     "p.json:1: budget/bounds/2k: expected a length from 1 to"},
    {"density_wrong", schema("\n\"density\":{\"2048\":\n{\"query\":0.5}}"),
     "p.json:3: density/2048/query: expected 0.3906, as alphas and betas give, "
     "found 0.5"},
    {"density_kv_wrong",
     schema("\"model\":{\"kv_heads\":1},"
            "\"density\":{\"2048\":{\"query\":0.3906,\"kv\":0.39}}"),
     "p.json:1: density/2048/kv: expected 0.5000"},
    {"density_text", schema("\"density\":{\"2048\":\"half\"}"),
     "p.json:1: density/2048: expected an object with query and kv"},
    {"scores_array", schema("\"scores\":[]"),
     "p.json:1: scores: expected an object, found an array of 0"},
    {"provenance_text", schema("\"provenance\":\"me\""),
     "p.json:1: provenance: expected an object, found \"me\""},
};

class PlanRefusal : public testing::TestWithParam<Refused> {};

TEST_P(PlanRefusal, NamesPlaceAndReason) {
  std::string message = refusal(GetParam().text);
  EXPECT_EQ(message.substr(0, strlen(GetParam().start)), GetParam().start)
      << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(All, PlanRefusal, testing::ValuesIn(kRefused),
                         [](const auto &info) { return info.param.what; });

TEST(PlanRefusals, MissingFile) {
  auto plan = loadPlan("no-such-plan.json");
  ASSERT_FALSE(static_cast<bool>(plan));
  EXPECT_EQ(llvm::toString(plan.takeError()),
            "no-such-plan.json: expected a readable plan file, found: No such "
            "file or directory");
}

TEST(PlanRefusals, CarryTheirParts) {
  auto plan = parsePlan("{\"alphas\":[[0]],\n\"betas\":[[2]]}", "p.json");
  ASSERT_FALSE(static_cast<bool>(plan));
  bool handled = false;
  llvm::handleAllErrors(plan.takeError(), [&](const PlanError &error) {
    handled = true;
    EXPECT_EQ(error.file, "p.json");
    EXPECT_EQ(error.line, 2u);
    EXPECT_EQ(error.column, 0u);
    EXPECT_EQ(error.key, "betas/0/0");
    EXPECT_EQ(error.message, "expected 0 to 1, found 2");
    EXPECT_EQ(error.cure, "beta is a share of the length");
  });
  EXPECT_TRUE(handled);
}

} // namespace
