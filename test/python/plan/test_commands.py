"""moa-plan as it is typed: output forms, exit codes, and every wrong input."""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from plan_support import PLANS, SMOLLM2, refused, run, schema, write_json, write_profile

import moa
from moa.plan import load_model, load_plan
from moa.plan.cli import build_parser, subcommands
from moa.plan.commands import calibrate_cost
from moa.plan.curves import load_curves
from moa.runtime import Context, Module

LLAMA = "layers=32,q_heads=32,kv_heads=8,head_dim=128"


@pytest.fixture
def profiled(tmp_path):
    return write_profile(tmp_path / "run")


def test_every_subcommand_explains_itself(capsys):
    names = set(subcommands())
    assert {"baseline", "calibrate-cost", "check", "convert", "diff", "export", "optimize",
            "show"} <= names  # fmt: skip
    for name in names:
        code, out, _ = run(capsys, name, "--help")
        assert code == 0 and f"moa-plan {name}" in out
    assert refused(capsys).endswith("required: COMMAND; see moa-plan --help")
    assert "invalid choice: 'paint'" in refused(capsys, "paint")
    assert build_parser().prog == "moa-plan"


def test_the_command_is_installed(monkeypatch, capsys):
    project = tomllib.loads((PLANS.parents[2] / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["moa-plan"].split(":")
    monkeypatch.setattr(sys, "argv", ["moa-plan", "nothing"])
    with pytest.raises(SystemExit) as ended:
        getattr(importlib.import_module(module), function)()
    assert ended.value.code == 2
    assert "invalid choice: 'nothing'" in capsys.readouterr().err


def test_check(capsys, tmp_path):
    for path in sorted(PLANS.glob("*.json")):
        code, out, err = run(capsys, "check", path)
        assert code == 0 and not err and load_plan(path).id in out
    assert run(capsys, "check", PLANS / "smollm2-moa.json", "--model", SMOLLM2)[0] == 0
    bad = tmp_path / "p.json"
    bad.write_text(schema('"mask":{"band":"row"}', "[[0.5,0]]"))
    code, out, err = run(capsys, "check", bad)
    assert code == 2 and not err
    assert out.splitlines() == [
        f"{bad}:1: alphas/0/0: expected a whole number of tokens, found 0.5; round it",
        f'{bad}:1: mask/band: expected "token" or "block", found "row"; masks are exact to '
        "the token",
    ]
    code, out, _ = run(capsys, "check", PLANS / "smollm2-moa.json", "--model", LLAMA)
    assert code == 2 and out.count("\n") == 2
    assert "alphas: expected 32 layers, as the model has, found 30" in out
    assert "expected a readable plan file" in refused(capsys, "check", tmp_path / "none.json")
    assert "expected 'head_dim'" in refused(
        capsys, "check", PLANS / "smollm2-moa.json", "--model", "layers=1,q_heads=1"
    )
    bad.write_text(schema('"mask":{"band":"block"}'))
    assert "warning: " in run(capsys, "check", bad)[2]
    code, _, err = run(capsys, "check", PLANS / "llama-3-8b-moa.json", "--at", "1024,8192")
    assert code == 0 and err.startswith("warning: at length 1024 the rules of ")
    assert "375 of 1024 heads fall below the minimum" in err and "8192" not in err


def test_show_as_json_has_the_fixed_form(capsys):
    plan = PLANS / "llama-3-8b-moa.json"
    code, out, err = run(capsys, "show", plan, "--model", LLAMA, "--at", "4096,8k", "--json")
    assert code == 0 and not err
    assert json.loads(out) == {
        "plan_id": load_plan(plan).id,
        "at": {
            "4096": {"query_density": pytest.approx(0.484, abs=5e-4),
                     "kv_density": pytest.approx(0.616, abs=5e-4),
                     "kv_bytes": 330563584, "dense_bytes": 4096 * 32 * 8 * 128 * 4},
            "8192": {"query_density": pytest.approx(0.492, abs=5e-4),
                     "kv_density": pytest.approx(0.655, abs=5e-4),
                     "kv_bytes": pytest.approx(0.655 * 2**30, rel=2e-3),
                     "dense_bytes": 2**30},
        },
    }  # fmt: skip
    out = run(capsys, "show", plan, "--at", "4096", "--json", "--diff", plan)[1]
    found = json.loads(out)
    assert found["at"]["4096"]["kv_bytes"] is None and found["diff"]["heads"] == 0


@pytest.mark.parametrize(
    "rule, form, dtype, window",
    [("request", "16", "f32", "[null,null]"), ("row", "16", "f32", "[null,500]"),
     ("request", '[["e4m3",16],["int8","int8"]]', "bf16", "[300,null]"),
     ("row", '"e4m3"', "f16", "[null,null]")],
)  # fmt: skip
def test_bytes_are_those_that_the_runtime_allocates(
    rule, form, dtype, window, capsys, tmp_path
):
    plan, shape = tmp_path / "p.json", "layers=2,q_heads=4,kv_heads=2,head_dim=64"
    plan.write_text(schema(
        f'"span":{{"length":"{rule}","sink":100,"min":192,"window":{window}}},'
        f'"kv":{{"format":{form}}}',
        "[[0,64,-200,300],[0,0,0,0]]", "[[1,0.25,0.5,0],[0.1,0.7,0.3,0.3]]",
    ))  # fmt: skip
    artifact = moa.compile(str(plan), shape, ["cpu"], dtype=dtype, out=tmp_path / "p.moa")
    done = subprocess.run(
        [moa.programs.find("moa-run"), artifact.path, "--device", "cpu", "--prompt", "780",
         "--new", "53", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    held = json.loads(done.stdout)["kv_bytes"]
    out = run(
        capsys, "show", plan, "--model", shape, "--at", "833", "--dtype", dtype, "--json"
    )[1]
    told = json.loads(out)["at"]["833"]
    assert (told["kv_bytes"], told["dense_bytes"]) == (held["allocated"], held["dense"])


def test_show_in_text(capsys, tmp_path, profiled):
    plan, svg = PLANS / "llama-3-8b-moa.json", tmp_path / "spans.svg"
    code, out, err = run(
        capsys, "show", plan, "--model", LLAMA, "--plot", svg, "--at", "1024",
        "--diff", PLANS / "llama-3-8b-streaming.json",
    )  # fmt: skip
    assert code == 0 and "11 different rules; layers with 1 / 2 / more: 0 / 32 / 0" in out
    assert "KV heads with mixed rules: 136 of 256" in out and "heads differ, in layers" in out
    assert "375 of 1024 heads fall below" in err and svg.read_text().startswith("<svg")
    assert "(not stated: --model tells)" in run(capsys, "show", plan)[1]
    run(capsys, "optimize", profiled)
    out = run(capsys, "show", profiled / "plans/plan-1.json")[1]
    assert "made for 512 to 1024 tokens" in out and "predicted loss" in out
    assert "above the optimum" in out
    scored = json.loads((profiled / "plans/plan-1.json").read_text())
    scored["scores"]["validation"] = {"length": 15360, "ce": 1.23456}
    out = run(capsys, "show", write_json(tmp_path / "scored.json", scored))[1]
    assert "validation: ce 1.235, length 15360" in out
    # A file may say anything of itself.
    scored["scores"] = {"predicted": {"all": None}, "bound_gap": "small", "validation": 3}
    out = run(capsys, "show", write_json(tmp_path / "scored.json", scored))[1]
    assert out.endswith(
        "predicted loss, of that of the shortest spans: all None\n"
        "at most small above the optimum\nvalidation: 3\n"
    )
    assert "compare plans of one model" in refused(
        capsys, "show", plan, "--model", LLAMA, "--diff", PLANS / "smollm2-moa.json"
    )
    assert "expected 30 layers" in refused(capsys, "show", plan, "--model", SMOLLM2)
    for wrong in ("0", "2M", "", "9999999999999"):
        assert "expected a length from 1 to" in refused(capsys, "show", plan, "--at", wrong)


def test_diff(capsys):
    one, other = PLANS / "llama-3-8b-moa.json", PLANS / "llama-3-8b-streaming.json"
    assert run(capsys, "diff", one, one)[:2] == (0, f"the same plan: {load_plan(one).id}\n")
    code, out, _ = run(capsys, "diff", one, other, "--at", "8192", "--model", LLAMA)
    assert code == 1 and "at 8192: KV density 0.655 and 0.500" in out
    code, out, _ = run(capsys, "diff", one, PLANS / "smollm2-moa.json", "--json")
    assert code == 1 and json.loads(out)["shape"] == [[32, 32], [30, 9]]
    assert (
        "layers x heads: 32 x 32 and 30 x 9"
        in run(capsys, "diff", one, PLANS / "smollm2-moa.json")[1]
    )


def test_convert(capsys, tmp_path):
    old, new = PLANS / "smollm2-moa.json", tmp_path / "new.json"
    code, out, _ = run(capsys, "convert", old, new, "--model", SMOLLM2, "--at", "1024,2048")
    assert code == 0 and "lost: nothing" in out
    plan = load_plan(new)
    assert not plan.legacy and plan.model.kv_heads == 3
    assert plan.document["density"]["2048"]["kv"] == pytest.approx(0.5, abs=1e-3)
    assert plan.document["provenance"] == {"from": load_plan(old).id, "legacy": True}
    back = tmp_path / "back.json"
    code, out, _ = run(capsys, "convert", new, back)
    assert code == 0 and "lost: model, provenance" in out
    assert load_plan(back).id == load_plan(old).id
    row = tmp_path / "row.json"
    row.write_text(schema('"span":{"length":"row","sink":4}'))
    out = run(capsys, "convert", row, back)[1]
    assert "lost: sink 4, block 64, least span 128, the length rule 'row'" in out
    assert run(capsys, "convert", row, new, "--to", "moa-plan", "--at", "2048")[0] == 0
    assert load_plan(new).span == load_plan(row).span
    assert "kv" not in load_plan(new).document["density"]["2048"]
    assert "expected 32 layers" in refused(capsys, "convert", old, new, "--model", LLAMA)
    own = tmp_path / "own.json"
    own.write_text(schema('"span":{"window":[256]}'))
    assert "lost: windows of the model's own" in run(capsys, "convert", own, back)[1]
    assert run(capsys, "convert", own, new, "--to", "moa-plan")[0] == 0
    assert load_plan(new).windows == (256,)


def test_windows_of_the_models_own(capsys, tmp_path):
    """A plan as moa.hf.load hands it to the compiler can be read like any other."""
    plan, other = tmp_path / "p.json", tmp_path / "other.json"
    rules = ("[[0,0],[0,0],[0,0]]", "[[1,0.5],[1,0.5],[1,0.5]]")
    plan.write_text(schema('"span":{"window":[256,null,256]},"model":{"kv_heads":1}', *rules))
    other.write_text(schema('"model":{"kv_heads":1}', *rules))
    shape = "layers=3,q_heads=2,kv_heads=1,head_dim=64"
    assert run(capsys, "check", plan, "--model", shape)[0] == 0
    svg = tmp_path / "spans.svg"
    out = run(capsys, "show", plan, "--at", "1024", "--plot", svg)[1]
    assert "layers with a window of the model's own, and no sink: 2 of 256 tokens" in out
    assert "KV density 0.500" in svg.read_text()
    out = run(capsys, "diff", plan, other)[1]
    assert "sections that differ: span" in out and "the rules are the same" in out
    out = run(capsys, "show", plan, "--at", "1024", "--json", "--diff", other)[1]
    assert json.loads(out)["diff"]["at"]["1024"] == {
        "kv_density": 0.5, "other_kv_density": 1.0, "longer": 4, "shorter": 0,
    }  # fmt: skip


def test_convert_a_pattern_of_duo_attention(capsys, tmp_path):
    folder, new = tmp_path / "pattern", tmp_path / "new.json"
    folder.mkdir()
    two = "layers=2,q_heads=4,kv_heads=2,head_dim=64"
    (folder / "full_attention_heads.tsv").write_text("0.9\t0.1\n0.2\t0.8\n")
    config = write_json(folder / "config.json", {"sink_size": 128, "recent_size": 300})
    as_json = write_json(tmp_path / "heads.json", [[0.9, 0.1], [0.2, 0.8]])

    def convert(old, *options):
        code, out, _ = run(capsys, "convert", old, new, "--model", two, *options)
        assert code == 0
        return load_plan(new), out

    plan, out = convert(folder, "--at", "1024")
    assert "0.5 of KV heads keep 128 tokens and the newest 300" in out
    assert plan.rules()[0] == [(0, 1.0)] * 2 + [(428, 0.0)] * 2
    assert plan.rules()[1] == [(428, 0.0)] * 2 + [(0, 1.0)] * 2
    assert plan.span.sink == 128 and not plan.legacy
    # Exactly the keys that DuoAttention keeps: no span is rounded.
    kept = (1024 + 428) / 2 / 1024
    assert plan.document["density"]["1024"]["kv"] == pytest.approx(kept)
    for old in (folder / "full_attention_heads.tsv", folder):
        assert convert(old)[0].rules() == plan.rules()
    plan, _ = convert(as_json, "--sink", "0", "--sparsity", "0.25")
    assert plan.span.sink == 0 and plan.rules()[0] == [(0, 1.0)] * 2 + [(256, 0.0)] * 2
    assert plan.rules()[1] == [(0, 1.0)] * 4
    assert "lost: " in convert(folder, "--to", "two-key")[1] and load_plan(new).legacy

    assert "expected --model for a pattern" in refused(capsys, "convert", folder, new)
    assert "expected scores of 32 layers x 8" in refused(
        capsys, "convert", folder, new, "--model", LLAMA
    )
    assert "with a pattern of DuoAttention alone" in refused(
        capsys, "convert", PLANS / "smollm2-moa.json", new, "--sink", "4"
    )
    write_json(config, {"sink_size": 128})
    assert "config.json: expected recent_size, a number of tokens, found null" in refused(
        capsys, "convert", folder, new, "--model", two
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "full_attention_heads.tsv" in refused(capsys, "convert", empty, new, "--model", two)


def test_optimize(capsys, profiled):
    code, out, err = run(
        capsys,
        "optimize",
        profiled,
        "--density",
        "0.4",
        "--extend",
        "4096",
        "--json",
        "--model",
        "layers=3,q_heads=4,kv_heads=2,head_dim=64",
    )
    assert code == 0 and not err
    (told,) = json.loads(out)["plans"]
    plan = load_plan(told["file"])
    assert told["plan_id"] == plan.id and told["solver"] == "highs" and not told["timed_out"]
    assert all(density <= 0.4 + 1e-9 for density in told["kv_density"].values())
    assert told["gap"] == plan.document["scores"]["bound_gap"]
    assert run(capsys, "check", told["file"])[0] == 0
    code, out, _ = run(
        capsys,
        "optimize",
        profiled,
        "--pareto",
        "3",
        "--bounds",
        "512=0.6,1024=0.3",
        "--out",
        profiled / "set",
    )
    files = sorted(path.name for path in (profiled / "set").iterdir())
    assert code == 0 and len(files) == out.count("\n") > 1
    assert "above the optimum, highs" in out
    # A smaller set leaves no plan of the larger one behind.
    run(capsys, "optimize", profiled, "--out", profiled / "set")
    assert [path.name for path in (profiled / "set").iterdir()] == ["plan-1.json"]
    for more in (["--on", "query"], ["--kv", "exact"], ["--rules-per-layer", "none"],
                 ["--length", "row"], ["--tensor-parallel", "2"], ["--hull"],
                 ["--solver", "subgradient"], ["--grid", "paper"]):  # fmt: skip
        assert run(capsys, "optimize", profiled, "--density", "0.5", *more)[0] == 0, more
    out = run(capsys, "optimize", profiled, "--time-limit", "0")[1]
    assert "time was out" in out


def test_optimize_refuses(capsys, profiled, tmp_path):
    wrong = {
        "expected --density or --bounds, found both": "--density 0.5 --bounds 512=0.5",
        "one bound for length 512, found 0.5 and 0.4": "--bounds 512=0.5,512=0.4",
        "expected LENGTH=DENSITY, found '0.5'": "--bounds 0.5",
        "expected a density above 0, at most 1, found '1.5'": "--density 1.5",
        "expected a density above 0, at most 1, found 'half'": "--density half",
        "a bound for every profiled length, found none for 1024": "--bounds 512=0.5",
        "for every length of --extend, found none for 4096":
            "--bounds 512=0.5,1024=0.5 --extend 4096",
        "expected bounds at profiled lengths or beyond 1024, found 700":
            "--bounds 512=0.5,1024=0.5,700=0.5",
        "density at 512 0.1 (at least 0.25), density at 1024 0.1 (at least 0.125)":
            "--density 0.1",
        "expected 1, 2 or none, found '3'": "--rules-per-layer 3",
        "expected a number from 1 on, found '0'": "--pareto 0",
        "expected seconds, such as 60, found 'nan'": "--time-limit nan",
        "expected --time and --costs together, found one": "--time 1024=50",
        "expected LENGTH[xBATCH]=MICROSECONDS": "--time 1024",
        "expected a readable grid file": "--grid none.json",
        "expected a readable cost table": "--time 1024x4=50 --costs none.json",
        "expected a tensor-parallel degree that divides the 2 heads": "--tensor-parallel 3",
        "expected --kv exact with --on kv": "--kv exact --on query",
    }  # fmt: skip
    for message, options in wrong.items():
        assert message in refused(capsys, "optimize", profiled, *options.split()), message
    assert not (profiled / "plans").exists()
    assert "a profile of 30 layers x 9 query heads, 3 KV heads, as the model has, found 3" in (
        refused(capsys, "optimize", profiled, "--model", SMOLLM2)
    )
    nothing = tmp_path / "nothing"
    assert "profile the model first" in refused(capsys, "optimize", nothing)
    curves = load_curves(profiled / "profile/512/summary.npz")
    for constant in (0, 0.7):
        curves.curve[:] = constant
        curves.write(profiled / "profile/512/summary.npz")
        assert "losses that differ between spans, found none at length 512" in refused(
            capsys, "optimize", profiled
        )


def test_grids_of_files(capsys, profiled, tmp_path):
    grid = write_json(tmp_path / "grid.json", {"rules": [[0, 1.0], [128, 0]]})
    assert run(capsys, "optimize", profiled, "--grid", grid)[0] == 0
    rules = {
        rule for layer in load_plan(profiled / "plans/plan-1.json").rules() for rule in layer
    }
    assert rules <= {(0, 1.0), (128, 0.0)}
    for document, message in (
        ([], "expected an object with a list 'rules', found []"),
        ({"rules": []}, "rules: expected at least one rule"),
        ({"rules": [[0, 1], [0.5, 1]]}, "rules/1: expected [whole alpha, beta of 0 to 1]"),
        ({"rules": [[0, 2]]}, "rules/0: expected [whole alpha"),
        ({"rules": ["full"]}, "rules/0: expected [whole alpha"),
    ):
        write_json(grid, document)
        assert message in refused(capsys, "optimize", profiled, "--grid", grid)


def test_cost_tables_of_files(capsys, profiled, tmp_path):
    path = tmp_path / "costs.json"
    rows = [[span, 1024, 1, 1.0 + span] for span in (128, 512, 1024)]
    good = {"format": "moa-costs", "version": 1, "device": "d", "kv_heads": 2, "rows": rows}
    options = ("--density", "1", "--time", "1k=1500", "--costs", write_json(path, good))
    code, out, _ = run(capsys, "optimize", profiled, *options)
    assert code == 0 and "us at 1024, batch 1: " in out
    for change, message in (
        ({"format": "x"}, 'format: expected "moa-costs", found "x"'),
        ({"version": 2}, "version: expected 1, found 2"),
        ({"device": 3}, "device: expected a text, found 3"),
        ({"kv_heads": 0}, "kv_heads: expected a number from 1 on, found 0"),
        ({"rows": []}, "rows: expected a list of [span, N, batch, us]"),
        ({"rows": [[1, 2, 3]]}, "rows/0: expected [span, N, batch, us], found [1, 2, 3]"),
        ({"rows": [[1, 2, 0.5, 1]]}, "rows/0/2: expected batch as a whole number above 0"),
        ({"rows": [[1, 2, 1, -1]]}, "rows/0/3: expected us as a number above 0, found -1"),
    ):
        write_json(path, good | change)
        assert message in refused(capsys, "optimize", profiled, *options)


def test_baselines(capsys, profiled, tmp_path):
    out, like = tmp_path / "b.json", PLANS / "llama-3-8b-moa.json"
    for options in (
        "dense", "streaming --density 0.25 --sink 4", f"uniform --like {like}",
        f"random --like {like} --seed 3",
    ):  # fmt: skip
        code, said, _ = run(
            capsys, "baseline", *options.split(), "--model", LLAMA, "--out", out
        )
        assert code == 0 and load_plan(out).id in said
        assert run(capsys, "check", out, "--model", LLAMA)[0] == 0
    for kind in ("duo", "fixed", "beta", "layer"):
        assert run(capsys, "baseline", kind, profiled, "--out", out)[0] == 0
        assert load_plan(out).document["provenance"]["baseline"] == kind
    scores = tmp_path / "full_attention_heads.tsv"
    scores.write_text("0.9\t0.1\n0.2\t0.8\n")
    two = "layers=2,q_heads=4,kv_heads=2,head_dim=64"
    options = ("baseline", "duo", "--heads", scores, "--model", two, "--out", out)
    assert run(capsys, *options)[0] == 0
    assert load_plan(out).rules()[0] == [(0, 1.0)] * 2 + [(256, 0.0)] * 2
    as_json = write_json(tmp_path / "heads.json", [[0.9, 0.1], [0.2, 0.8]])
    run(capsys, "baseline", "duo", "--heads", as_json, "--model", two, "--out", tmp_path / "c")
    assert load_plan(tmp_path / "c").id == load_plan(out).id
    os.unlink(out)
    wrong = {
        "expected a run folder to search for 'fixed'": "fixed",
        "expected --model for 'dense', found none": "dense",
        "expected a profile of 30 layers": f"fixed {profiled} --model {SMOLLM2}",
        "expected --like PLAN for 'random', found none": f"random --model {LLAMA}",
        "expected 30 layers": f"uniform --like {like} --model {SMOLLM2}",
        "expected a number from 0 on, found '-1'": f"streaming --sink=-1 --model {LLAMA}",
        "span/sink: expected an integer from 0": f"streaming --sink 2000000 --model {LLAMA}",
        "invalid choice: 'best'": "best",
    }
    for message, options in wrong.items():
        assert message in refused(capsys, "baseline", *options.split(), "--out", out), message
    for text, message in (
        ("", "expected a row of scores for each layer, found none"),
        ("1\t2\n3\n", ":2: expected rows of 2 scores"),
        ("1\tx\n", ":1: expected a number for each KV head, found 'x'"),
        ("1\tnan\n", ":1: expected a number for each KV head, found 'nan'"),
    ):
        scores.write_text(text)
        assert message in refused(
            capsys, "baseline", "duo", "--heads", scores, "--model", two, "--out", out
        )
    assert not out.exists()


def test_calibrate_cost(capsys, tmp_path, monkeypatch):
    out = tmp_path / "costs.json"
    shape = "layers=2,q_heads=4,kv_heads=2,head_dim=64"
    code, said, err = run(
        capsys, "calibrate-cost", "--model", shape, "--at", "192,256", "--spans", "256",
        "--batch", "1,2", "--threads", "1", "--out", out,
    )  # fmt: skip
    assert code == 0 and "6 times" in said and err.count("\n") == 6
    table = json.loads(out.read_text())
    assert table["kv_heads"] == 2 and table["device"]
    assert sorted({tuple(row[:3]) for row in table["rows"]}) == sorted(
        (s, n, b) for s in (192, 256) for n in (192, 256) for b in (1, 2) if s <= n
    )
    assert all(us > 0 for *_, us in table["rows"])
    capped = load_model(f"{shape},soft_cap=50")
    asked = argparse.Namespace(at=[256], dtype="f32", device="cpu")
    artifact = calibrate_cost._compile(tmp_path, capped, 256, asked)
    assert Module(Context(1), str(artifact)).info["soft_cap"] == 50.0
    os.unlink(out)
    again = ("calibrate-cost", "--model", shape, "--at", "512", "--out", out)
    assert "found 100" in refused(capsys, *again, "--at", "100")
    assert "moa-compile failed: " in refused(
        capsys, *again, "--model", "layers=1,q_heads=4,head_dim=72"
    )
    monkeypatch.setattr("moa.programs.find", lambda name: None)
    assert "expected the program moa-compile, found none" in refused(capsys, *again)
    assert not out.exists()


def test_interrupted_and_unread_output(capsys, monkeypatch, profiled):
    from moa.plan.commands import check

    def fail(error):
        def broken(args):
            raise error

        monkeypatch.setattr(check, "run", broken)
        return run(capsys, "check", PLANS / "smollm2-moa.json")

    assert fail(KeyboardInterrupt()) == (130, "", "moa-plan: interrupted\n")
    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stderr", nowhere)
        assert fail(BrokenPipeError())[0] == 0


def test_curves_helpers_reach_the_full_window(profiled):
    curves = load_curves(profiled / "profile/1024/summary.npz")
    assert (curves.curve[..., -1] == 0).all() and (np.diff(curves.curve) <= 0).all()
