"""Model shapes, densities and cache sizes: as `test/unit/Plan` has them."""

import json
import subprocess

import numpy as np
import pytest
from plan_support import PLANS, schema

import moa
from moa.plan import PlanError, load_model, load_plan, make_plan, parse_plan
from moa.plan.density import (
    dense_kv_bytes,
    kv_bytes,
    kv_density,
    layer_densities,
    length_warnings,
    query_density,
)
from moa.plan.model import ModelShape, parse_model_config, parse_model_text
from moa.runtime import Context, Module

WRONG_TEXTS = [
    "layers=2,q_heads=4", "layers=0,q_heads=4,head_dim=64", "layers=2x,q_heads=4,head_dim=64",
    "layers=2,heads=4,head_dim=64", "layers=2,layers=3,q_heads=4,head_dim=64",
    "layers=2,q_heads=4,kv_heads=3,head_dim=64",
    *(f"layers=2,q_heads=4,head_dim=64,soft_cap={cap}"
      for cap in ("", "0", "-50", "9e-7", "1048577", "1e400", "nan", "inf", "fifty", "5_0")),
    "soft_cap=50,layers=2,soft_cap=50",
]  # fmt: skip
WRONG_CONFIGS = [
    '{\n"num_hidden_layers": 2,\n"num_attention_heads": 9,\n"num_key_value_heads": 2,\n'
    '"head_dim": 64}',
    "[]", "{}",
    '{"num_hidden_layers": 2,\n"num_attention_heads": "9"}',
    '{"num_hidden_layers": 2,\n"num_attention_heads": 9,\n"hidden_size": 577}',
    '{"text_config": {"num_hidden_layers": 2,\n"num_attention_heads": 0}}',
    *('{"num_hidden_layers": 2, "num_attention_heads": 9, "head_dim": 64,\n'
      f'"attn_logit_softcapping": {cap}}}'
      for cap in ("0", "-50.5", "9e-7", "1048577", "true", '"50"', "[50]")),
    '{"text_config": {"num_hidden_layers": 2, "num_attention_heads": 9, "head_dim": 64,\n'
    '"attn_logit_softcapping": 0.0}}',
]  # fmt: skip


def compiler_says(tmp_path, model):
    """What moa-compile says against a model, on one line."""
    (tmp_path / "p.json").write_text('{"alphas":[[0]],"betas":[[0]]}')
    done = subprocess.run(
        [moa.compiler.find_compiler(), "p.json", "--emit", "moa", "-o", "-", "--model", model],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    error, note = done.stderr.strip().split("\n")
    return error.replace(" error: ", " ", 1) + "; " + note.split("note: ", 1)[1]


def compiled_cap(model):
    """The soft cap that moa-compile reads from a model."""
    plan = {"alphas": [[0] * 4] * 2, "betas": [[1] * 4] * 2}
    path = moa.compile({"format": "moa-plan", "version": 1, **plan}, model, dtype="f32").path
    return Module(Context(1), str(path)).info["soft_cap"]


@pytest.mark.parametrize("text", WRONG_TEXTS)
def test_wrong_texts(text, tmp_path):
    with pytest.raises(PlanError) as found:
        parse_model_text(text)
    assert str(found.value) == compiler_says(tmp_path, text)


@pytest.mark.parametrize("text", WRONG_CONFIGS)
def test_wrong_configs(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(PlanError) as found:
        parse_model_config(text, "config.json")
    assert str(found.value) == compiler_says(tmp_path, "config.json")


def test_texts_and_configs(tmp_path):
    assert parse_model_text("head_dim=128, q_heads=32, layers=32") == ModelShape(
        32, 32, 32, 128, 131072
    )
    config = {
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "hidden_size": 576, "head_dim": None, "max_position_embeddings": 8192,
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    want = ModelShape(30, 9, 3, 64, 8192)
    assert load_model(str(path)) == load_model(str(tmp_path)) == want and want.group == 3
    nested = {
        "text_config": {"num_hidden_layers": 2, "num_attention_heads": 8, "head_dim": 256}
    }
    assert parse_model_config(json.dumps(nested), "c") == ModelShape(2, 8, 8, 256)
    capped = "layers=2,q_heads=4,head_dim=64,soft_cap={}"
    for text, cap in (("50", 50.0), ("0.7", float(np.float32(0.7))), ("+.5e2", 50.0),
                      ("9.5367431640625e-07", 2.0**-20), ("1048576.", 2.0**20)):  # fmt: skip
        assert parse_model_text(capped.format(text)).soft_cap == cap
        assert compiled_cap(capped.format(text)) == cap
    nested["text_config"]["attn_logit_softcapping"] = 0.7
    assert parse_model_config(json.dumps(nested), "c").soft_cap == float(np.float32(0.7))
    nested["text_config"]["attn_logit_softcapping"] = None
    assert parse_model_config(json.dumps(nested), "c").soft_cap == 0.0
    with pytest.raises(PlanError, match="none: cannot read the model's configuration: No such"):
        load_model("none")


#: planner.md 3.1: name, layers, query heads, KV heads, different rules, layers with one,
#: densities of query and KV heads at 4k to 64k, percent of groups with mixed rules.
PUBLISHED = [
    ("vicuna-7b-moa", 32, 32, 32, 9, 0, ".484 .492 .496 .498 .499",
     ".484 .492 .496 .498 .499", 0),
    ("vicuna-13b-moa", 40, 40, 40, 15, 0, ".484 .484 .484 .484 .484",
     ".484 .484 .484 .484 .484", 0),
    ("llama-3-8b-moa", 32, 32, 8, 11, 0, ".484 .492 .495 .496 .497",
     ".616 .655 .673 .682 .686", 53),
    ("llama-3-70b-moa", 80, 64, 8, 17, 2, ".488 .491 .483 .479 .477",
     ".662 .661 .642 .632 .628", 53),
    ("llama-3.2-1b-moa", 16, 32, 8, 11, 0, ".486 .484 .464 .454 .449",
     ".658 .659 .633 .620 .613", 63),
    ("llama-3.2-3b-moa", 28, 24, 8, 15, 1, ".487 .468 .446 .436 .430",
     ".575 .551 .525 .514 .509", 34),
]  # fmt: skip


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row[0])
def test_published_plans(row):
    name, layers, q_heads, kv_heads, distinct, single, query, kv, mixed = row
    plan = load_plan(PLANS / f"{name}.json")
    assert plan.alphas.shape == (layers, q_heads) and plan.legacy and not plan.warnings
    lengths = [4096 << i for i in range(5)]
    text = lambda values: " ".join(f"{value:.3f}"[1:] for value in values)
    assert text(query_density(plan, n) for n in lengths) == query
    assert text(kv_density(plan, kv_heads, n) for n in lengths) == kv
    rules = plan.rules()
    assert len({rule for layer in rules for rule in layer}) == distinct
    counts = [len(set(layer)) for layer in rules]
    assert counts.count(1) == single and max(counts) <= 2
    group = q_heads // kv_heads
    differ = [
        len(set(layer[k : k + group])) > 1 for layer in rules for k in range(0, q_heads, group)
    ]
    assert 100 * np.mean(differ) == pytest.approx(mixed, abs=0.51)
    assert (plan.alphas % 1024 == 0).all() and (plan.betas * 8 % 1 == 0).all()
    each = np.array([layer_densities(plan, q_heads, n) for n in lengths])
    assert each.min() >= 0.065 and each.max() <= 0.955
    uniform = load_plan(PLANS / f"{name.replace('-moa', '-streaming')}.json")
    assert query_density(uniform, 8192) == 0.5 and {*uniform.rules()[0]} == {(0, 0.5)}


def test_small_plans():
    plan = load_plan(PLANS / "smollm2-moa.json")
    text = " ".join(f"{kv_density(plan, 3, 512 << i):.3f}" for i in range(5))
    assert text == "0.500 0.500 0.500 0.529 0.544"


def test_bytes():
    page = 32768  # One page of f32 at D = 64: 2 * 64 * 64 * 4 bytes.
    one, two = ModelShape(1, 2, 1, 64), ModelShape(1, 2, 2, 64)
    plan = parse_plan('{"alphas":[[0,0]],"betas":[[0,0.5]]}', "")
    held = {seen: kv_bytes(plan, one, 4, 1024, seen) // page for seen in (0, 1, 64, 65, 640)}
    assert held == {0: 0, 1: 1, 64: 1, 65: 2, 640: 8}
    assert kv_bytes(plan, one, 2, 1024, 640) == 4 * page
    assert kv_bytes(plan, two, 4, 1024, 640) == 10 * page
    assert dense_kv_bytes(one, 4, 640) == 10 * page and dense_kv_bytes(two, 4, 641) == 22 * page
    dense = make_plan(np.zeros((30, 9)), np.ones((30, 9)))
    smollm2 = ModelShape(30, 9, 3, 64, 8192)
    for seen in (0, 1, 63, 64, 65, 1000, 8191):
        assert kv_bytes(dense, smollm2, 2, 8192, seen) == dense_kv_bytes(smollm2, 2, seen)


def test_warnings_of_a_length():
    plan = parse_plan(schema('"span":{"valid":[2048,4096]}'), "p.json")
    assert length_warnings(plan, 4096) == []
    outside, above, below = length_warnings(plan, 80)
    assert "length 80 is outside the plan's valid range 2048 to 4096" in outside
    assert "1 of 2 heads exceed" in above and "1 of 2 heads fall below" in below
    short = length_warnings(load_plan(PLANS / "llama-3-8b-moa.json"), 1024)
    assert "375 of 1024 heads fall below the minimum span 128" in short[-1]
