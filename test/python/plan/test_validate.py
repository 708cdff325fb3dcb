"""Scores of plans on a tiny model: masks, kernels, halving, the gate, whole runs."""

import copy
import dataclasses
import json
import math

import pytest
import torch

import planner_model
from conftest import make_plan
from moa.plan import evaluate, kernels, network, schema, validate
from moa.plan.calibration import Item
from moa.plan.cli import main
from moa.plan.errors import PlannerError
from moa.plan.evaluate import (
    HeavyHitters,
    Layout,
    Score,
    Scores,
    Windows,
    batches,
    cross_entropy,
    masked,
    scores,
    shortfall,
)
from moa.plan.jsontext import canonical
from moa.plan.quantise import kept
from moa.plan.runfolder import RunFolder
from moa.plan.span import SpanParams, window_start, window_starts
from moa.plan.validate import Candidate, Validation, check_agreement, dense_plan, masked_scorer
from planner_model import FEW, refused

one_thread, tiny = planner_model.one_thread, planner_model.tiny
pytestmark = pytest.mark.usefixtures("one_thread")
SPAN = dict(sink=16, block=16, min=32)
# Rules differ by layer, KV head and inside a group.
MIXED = make_plan(
    [[0, 0, -64, 64], [128, 32, 0, 0]], [[1, 0.25, 0.5, 0.25], [0, 0.25, 0.75, 0.25]], **SPAN
)
SHORT = make_plan([[32] * 4] * 2, [[0] * 4] * 2, **SPAN)


@pytest.fixture(scope="module")
def net(tiny):
    return network.load(str(tiny), "float32", "cpu", [256])


def plan(document):
    return schema.parse_plan(canonical(document), "plan")


def ids(tokens, seed):
    return tuple(
        torch.randint(1, 250, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()
    )


def needle(tokens=200):
    answers = tuple(ids(n, 10 + n) for n in (4, 1, 5, 3))
    return Item("needle", tokens, ids(tokens - 5, 1), answers[0], 0.5, answers)


def told(tokens=200):
    return Item("summary", tokens, ids(tokens - 7, 2), ids(7, 3))


def seen_by(rule, length):
    """The mask of a head [length, length], from the definition."""
    alpha, beta = rule
    span = max(min(int(alpha + beta * length), length), SPAN["min"])
    local = -(-span // 16) * 16 - 16
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    return (j <= i) & ((j < 16) | (i - j < local))


@pytest.mark.parametrize(
    "item", [needle(), needle(300), told()], ids=["needle", "long", "text"]
)
def test_masks_are_the_definition(net, item):
    """Each candidate by itself through eager attention with an explicit mask."""
    answers = item.candidates or (item.response,)
    length = len(item.prompt) + max(map(len, answers))
    rules = plan(MIXED).rules()

    def attention(module, q, k, v, mask, scaling, **kwargs):
        tokens = q.shape[2]
        seen = torch.stack(
            [seen_by(rule, length)[:tokens, :tokens] for rule in rules[module.layer_idx]]
        )
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        p = torch.softmax((q @ k.mT * scaling).masked_fill(~seen, -torch.inf), -1)
        return (p @ v).transpose(1, 2), None

    planner_model.transformers.AttentionInterface.register("explicit", attention)
    net.model.set_attn_implementation("explicit")
    totals = []
    with torch.no_grad():
        for answer in answers:
            logits = net.model(torch.tensor([item.prompt + answer])).logits[0]
            rows = torch.log_softmax(logits[len(item.prompt) - 1 : -1], -1)
            totals.append(float(rows.gather(1, torch.tensor(answer)[:, None]).sum()))
    net.model.set_attn_implementation("sdpa")
    found = masked_scorer(net, Candidate("mixed", plan(MIXED)))([item])[0]
    assert found.ce == pytest.approx(-totals[0] / len(item.response), abs=1e-4)
    if item.candidates:
        assert found.margin == pytest.approx(totals[0] - max(totals[1:]), abs=1e-3)
        assert found.first == (totals[0] > max(totals[1:]))
    else:
        assert found.margin is None and found.first is None
    assert net.config._attn_implementation == "sdpa"


def test_the_dense_plan_is_the_model_itself(net):
    item = told()
    with torch.no_grad():
        logits = net.model(torch.tensor([item.prompt + item.response])).logits[0, -8:-1]
    want = float(cross_entropy(logits, torch.tensor(item.response)))
    dense = masked_scorer(net, Candidate("dense", dense_plan(net.config)))([item])[0]
    assert dense.ce == pytest.approx(want, abs=1e-5)
    assert masked_scorer(net, Candidate("m", plan(MIXED)))([item])[0].ce != pytest.approx(
        want, abs=1e-4
    )


@pytest.mark.parametrize("tokens", [200, 197])
def test_rows_behind_the_prompt_see_it_in_8_bits(net, tokens):
    """Each candidate by itself: what is complete behind the sink's block is rounded, in
    the heads that say so, for the rows of the answer alone."""
    document = MIXED | {"kv": {"format": [["e4m3", 16], [16, "int8"]]}}
    item, rules = needle(tokens), plan(document).rules()
    past, formats = len(item.prompt), plan(document).formats(2)
    whole = past // 64 * 64

    def attention(module, q, k, v, mask, scaling, **kwargs):
        layer, count = module.layer_idx, q.shape[2]
        held = []
        for x in (k[0], v[0]):
            x = x.clone()
            for head, form in enumerate(formats[layer]):
                if form != "16":
                    x[head, 64:whole] = kept(x[head, 64:whole][None], form)[0]
            held.append(x[None])
        length = past + max(map(len, item.candidates))
        seen = torch.stack([seen_by(rule, length)[:count, :count] for rule in rules[layer]])

        def attend(k, v):
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
            p = torch.softmax((q @ k.mT * scaling).masked_fill(~seen, -torch.inf), -1)
            return p @ v

        out = torch.cat([attend(k, v)[:, :, :past], attend(*held)[:, :, past:]], 2)
        return out.transpose(1, 2), None

    planner_model.transformers.AttentionInterface.register("held", attention)
    net.model.set_attn_implementation("held")
    totals = []
    with torch.no_grad():
        for answer in item.candidates:
            logits = net.model(torch.tensor([item.prompt + answer])).logits[0]
            rows = torch.log_softmax(logits[past - 1 : -1], -1)
            totals.append(float(rows.gather(1, torch.tensor(answer)[:, None]).sum()))
    net.model.set_attn_implementation("sdpa")
    found = masked_scorer(net, Candidate("held", plan(document)))([item])[0]
    assert found.ce == pytest.approx(-totals[0] / len(item.response), abs=1e-4)
    assert found.margin == pytest.approx(totals[0] - max(totals[1:]), abs=1e-3)
    plain = masked_scorer(net, Candidate("plain", plan(MIXED)))([item])[0]
    assert abs(found.ce - plain.ce) > 1e-4


def test_kernels_and_masks_agree_in_8_bits(net):
    document = MIXED | {"kv": {"format": [["e4m3", 16], ["int8", "int8"]]}}
    model = copy.deepcopy(net.model).bfloat16()
    half = network.Network(model, net.tokenizer, "half")
    wanted = masked_scorer(half, Candidate("held", plan(document)))([needle()])[0]
    found = kernels.KernelScorer(model, plan(document), 256).score(needle())
    check_agreement("held", found, wanted, torch.bfloat16)
    plain = masked_scorer(half, Candidate("plain", plan(MIXED)))([needle()])[0]
    assert found.ce != pytest.approx(plain.ce, abs=1e-3)


@pytest.mark.parametrize("length_rule", ["request", "row"])
@pytest.mark.parametrize("item", [needle(), told()], ids=["needle", "text"])
def test_kernels_and_masks_agree(net, item, length_rule):
    document = MIXED | {"span": SPAN | {"length": length_rule}}
    wanted = masked_scorer(net, Candidate("mixed", plan(document)))([item])[0]
    scorer = kernels.KernelScorer(net.model, plan(document), 256)
    found = scorer.score(item)
    assert found.ce == pytest.approx(wanted.ce, abs=1e-4)
    assert (found.margin is None) == (wanted.margin is None)
    if found.margin is not None:
        assert found.margin == pytest.approx(wanted.margin, abs=1e-3)
    check_agreement("mixed", found, wanted, torch.float32)
    # A second item takes the pages of the first.
    stats = scorer.pages.stats
    assert scorer.score(item) == found and scorer.pages.stats == stats
    assert net.config._attn_implementation == "sdpa"
    assert not hasattr(net.model, "moa")
    assert (
        scorer.model.model.layers[0].mlp.up_proj.weight
        is net.model.model.layers[0].mlp.up_proj.weight
    )


def test_disagreement_is_told():
    with pytest.raises(
        PlannerError, match="x: compiled kernels give margin 2.0, masks in torch 1.0"
    ):
        check_agreement("x", Score(1.0, True, 2.0), Score(1.0, True, 1.0), torch.float32)
    with pytest.raises(PlannerError, match="give ce nan.*--engine masked"):
        check_agreement("x", Score(math.nan, True), Score(1.0, True), torch.float32)


def whole(views, heads, rows, keys):
    """The views as masks [heads, rows, keys]; each head must be there once."""
    seen, told = torch.zeros(heads, rows, keys, dtype=torch.bool), []
    for view in views:
        told += view.heads.tolist()
        for head in view.heads.tolist():
            seen[head][:, view.keys] = view.mask
    assert sorted(told) == list(range(heads))
    return seen


def test_blocks_are_windows_beside_the_sink():
    import numpy as np

    sight = Windows.of_blocks(np.array([[0, 2], [3, 2]]), 4, 3, 11, torch.device("cpu"))
    layout = Layout.of(11, 0, 0, torch.device("cpu"))
    for layer, blocks in enumerate([[0, 2], [3, 2]]):
        seen = whole(sight.views(layer, slice(5, 11), layout), heads=2, rows=6, keys=11)
        for head, count in enumerate(blocks):
            i, j = torch.arange(5, 11)[:, None], torch.arange(11)[None]
            want = (j < 3) | ((i - j < 4 * count) & (j <= i))
            assert torch.equal(seen[head], want & (j <= i))


@pytest.mark.parametrize("cap", [None, 0.5])
def test_heavy_hitters_keep_what_weighs_most(cap):
    """Three query heads on one KV head; the prompt's weight decides, then the recent."""
    torch.manual_seed(0)
    query, key = torch.randn(3, 12, 8), torch.randn(1, 12, 8)
    layout = Layout.of(10, 2, 1, torch.device("cpu"))
    sight = HeavyHitters(6)
    sight.saw(0, query, key, Scores(0.4, cap), layout)
    scores = query[:, :10] @ key[:, :10].mT * 0.4
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    future = torch.ones(10, 10).triu(1).bool()
    weight = torch.softmax(scores.masked_fill(future, -torch.inf), -1).sum((0, 1))
    heavy = set(weight[:7].topk(3).indices.tolist()) | {7, 8, 9}
    seen = whole(sight.views(0, slice(0, 12), layout), heads=3, rows=12, keys=12)
    for head in range(3):
        assert torch.equal(seen[head, :10], torch.ones(10, 12).tril().bool())
        # Two answers of one token, which do not see each other.
        assert seen[head, 10:, 10:].tolist() == [[True, False], [False, True]]
        for row in (10, 11):
            assert set(seen[head, row, :10].nonzero()[:, 0].tolist()) == heavy
    with pytest.raises(PlannerError, match="H2O keeps at least 2"):
        HeavyHitters(1)


@pytest.mark.parametrize("room", [0, 200 * 200, 1 << 30])
def test_a_batch_scores_as_each_item_alone(net, monkeypatch, room):
    """Also where rows are masked in several parts, and masks are kept between layers."""
    monkeypatch.setitem(evaluate.ROWS, "cpu", 96)
    items = [needle(), dataclasses.replace(needle(), prompt=ids(195, 7))]
    windows = lambda length: Windows.of_plan(plan(MIXED), length, net.device)
    alone = [scores(net.model, [item], windows)[0] for item in items]
    monkeypatch.setitem(evaluate.KEPT, "cpu", room)
    for found, want in zip(scores(net.model, items, windows), alone, strict=True):
        assert found.ce == pytest.approx(want.ce, abs=1e-4)
        assert found.margin == pytest.approx(want.margin, abs=1e-3)
    with pytest.raises(PlannerError, match="expected items of one form"):
        scores(net.model, [needle(), told()], windows)
    with pytest.raises(PlannerError, match="expected one sequence at a time, found 2"):
        scores(net.model, items, HeavyHitters)
    assert net.config._attn_implementation == "sdpa"


def test_batches_have_one_form_and_fit(monkeypatch):
    items = [needle(), told(), needle(), needle(300), needle()]
    cpu = torch.device("cpu")
    assert [len(batch) for batch in batches(items, cpu)] == [1] * 5
    monkeypatch.setitem(evaluate.BATCH, "cpu", 2 * (195 + 4 * 5) + 1)
    found = list(batches(items, cpu))
    assert [len(batch) for batch in found] == [2, 1, 1, 1]
    assert found[0] == [items[0], items[2]] and found[1] == [items[4]]


@pytest.mark.parametrize("per_row", [False, True])
def test_starts_of_all_rows_are_those_of_each(per_row):
    params = SpanParams(sink=16, block=16, min=32, per_row=per_row)
    for alpha, beta in ((32, 0.0), (-64, 0.5), (0, 1.0), (48, 0.25), (500, 0.0)):
        for n in (1, 31, 200):
            want = [window_start(alpha, beta, row, n, params) for row in range(n)]
            assert window_starts(alpha, beta, n, params).tolist() == want


def test_windows_of_a_models_own_are_not_measured():
    own = schema.make_plan([[0, 0]], [[1, 1]], {"span": {"window": [128]}})
    with pytest.raises(PlannerError, match="span/window: models with windows of their own"):
        Windows.of_plan(own, 256, torch.device("cpu"))


def test_h2o_of_everything_is_dense(net):
    item = needle()
    everything = scores(net.model, [item], lambda length: HeavyHitters(2 * length))[0]
    dense = masked_scorer(net, Candidate("dense", dense_plan(net.config)))([item])[0]
    assert everything.ce == pytest.approx(dense.ce, abs=1e-5)
    few = masked_scorer(net, Candidate("h2o", h2o=0.1))([item])[0]
    assert few.ce != pytest.approx(dense.ce, abs=1e-4)


def test_losses():
    logits = torch.tensor([[3.0, 1.0, 0.5], [0.0, 2.0, 5.0]])
    assert float(shortfall(logits, torch.tensor([0, 1]))) == pytest.approx((-2 + 3) / 2)


def test_an_error_gives_the_model_back(net):
    layout = Layout.of(4, 0, 0, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="inside"), masked(net.model, None, layout):
        raise RuntimeError("inside")
    assert net.config._attn_implementation == "sdpa"


@pytest.fixture
def scored(net, tmp_path, monkeypatch):
    """Candidates whose scores are made up; counts what is scored."""
    items = [needle(100 + i) for i in range(6)] + [told(100 + i) for i in range(6)]
    calls = []

    def scorer(network, candidate):
        def made_up(items):
            calls.extend((candidate.name, item.hash) for item in items)
            loss = 0.0 if candidate.name == "dense" else float(candidate.name[-1])
            return [
                Score(1 + loss, True, 10 - loss if item.candidates else None) for item in items
            ]

        return made_up

    monkeypatch.setattr(validate, "masked_scorer", scorer)
    folder = RunFolder(tmp_path)
    names = [f"plan-{i}" for i in range(5)]
    candidates = [Candidate("dense", dense_plan(net.config), reference=True)]
    candidates += [
        Candidate(name, plan(make_plan([[32 + i] * 4] * 2, [[0] * 4] * 2, **SPAN)))
        for i, name in enumerate(names)
    ]
    make = lambda: Validation(folder, net, items, 128, "masked")
    return make, candidates, calls


def test_halving_gives_all_items_to_the_best_three(scored):
    make, candidates, calls = scored
    lines = make().run(candidates)
    counts = {c.name: sum(name == c.name for name, _ in calls) for c in candidates}
    assert counts == {
        "dense": 12, "plan-0": 12, "plan-1": 12, "plan-2": 12, "plan-3": 3, "plan-4": 3,
    }  # fmt: skip
    assert len(lines) == len(calls)
    before = len(calls)
    assert [dict(line) for line in make().run(candidates)] == [dict(line) for line in lines]
    assert len(calls) == before


def test_scores_go_on_after_a_torn_line(scored, tmp_path):
    make, candidates, calls = scored
    make().run(candidates)
    path = tmp_path / "validate/128.jsonl"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    kept = path.read_text().count("\n")
    before = len(calls)
    make().run(candidates)
    assert len(calls) - before == whole.count("\n") - kept
    assert sorted(path.read_text().splitlines()) == sorted(whole.splitlines())
    path.write_text("nonsense\n")
    with pytest.raises(PlannerError, match="128.jsonl:1: expected a line of JSON"):
        make()


def test_sets_of_plans_that_cannot_be(scored, net, tmp_path):
    make, candidates, _ = scored
    with pytest.raises(PlannerError, match="set of plans is empty.*--plans"):
        make().run(candidates[:1])
    with pytest.raises(PlannerError, match="names of their own"):
        make().run([*candidates, candidates[1]])
    with pytest.raises(PlannerError, match="no items to validate with"):
        Validation(RunFolder(tmp_path / "x"), net, [], 128, "masked")


# The subcommands.


@pytest.fixture
def plans(tmp_path):
    paths = {}
    for name, document in (("mixed", MIXED), ("short", SHORT)):
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(document))
    return paths


def validating(tiny, tmp_path, *more):
    return [
        "validate", str(tiny), "--out", str(tmp_path / "run"), "--length", "256",
        "--items", "3", *FEW, *more,
    ]  # fmt: skip


def test_validate_picks_with_kernels(tiny, plans, tmp_path, capsys):
    command = validating(
        tiny, tmp_path, "--plans", str(plans["mixed"]), "--baselines", str(plans["short"]),
        "--h2o", "0.5", "--tasks", "ce,needle,copy", "--pick", "--gate-margin", "99",
        "--gate-ce", "9",
    )  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "dense: KV density 1.000" in out and "by kernels" in out
    assert "h2o-0.5: KV density 0.500" in out and "by masks, dense prompt" in out
    assert "picked mixed" in out
    chosen = schema.load_plan(tmp_path / "run/plan.json")
    scores = chosen.document["scores"]["validation"]
    assert scores["length"] == 256 and scores["n"] == 9 and scores["ce"] > 0
    assert chosen.rules() == plan(MIXED).rules()
    table = json.loads((tmp_path / "run/validate/256-table.json").read_text())
    assert [row["plan"] for row in table] == ["dense", "mixed", "short", "h2o-0.5"]
    assert table[1]["retrieval"] == 6 and table[1]["ce"]["n"] == 3
    assert main([*command, "--json"]) == 0
    facts = [
        json.loads(line) for line in capsys.readouterr().out.splitlines() if line[0] == "{"
    ]
    assert facts[1]["plan_id"] == plan(MIXED).id


def test_plans_that_are_alike_are_told(tiny, plans, tmp_path, capsys):
    twin = tmp_path / "twin.json"
    twin.write_text(json.dumps(MIXED | {"x-note": "the same rules"}))
    command = validating(
        tiny, tmp_path, "--plans", str(plans["mixed"]), str(twin), "--pick", "--force",
        "--engine", "masked", "--tasks", "needle",
    )  # fmt: skip
    assert main(command) == 0
    note = "mixed and twin differ by less than one standard error: more --items would"
    assert note in capsys.readouterr().out


def test_the_gate_refuses_and_force_picks(tiny, plans, tmp_path, capsys):
    command = validating(
        tiny, tmp_path, "--plans", str(plans["short"]), "--pick", "--engine", "masked",
        "--gate-margin", "-99", "--tasks", "needle",
    )  # fmt: skip
    refused(capsys, command, "no plan is accepted: short answers with", "--force")
    assert not (tmp_path / "run/plan.json").exists()
    assert main([*command, "--force"]) == 0
    assert "(forced)" in capsys.readouterr().out
    assert (tmp_path / "run/plan.json").exists()


def test_what_validate_refuses(tiny, plans, tmp_path, capsys):
    refused(capsys, validating(tiny, tmp_path), "set of plans is empty")
    other = tmp_path / "other.json"
    other.write_text(json.dumps(make_plan([[0] * 6] * 2, [[1] * 6] * 2)))
    refused(capsys, validating(tiny, tmp_path, "--plans", str(other)), "expected 4 query heads")
    text = tmp_path / "text.txt"
    text.write_text("Short. " * 9)
    command = validating(
        tiny, tmp_path / "b", "--plans", str(plans["mixed"]), "--text", str(text)
    )
    refused(capsys, command, "no text of that length", "more text")
    command = validating(tiny, tmp_path, "--plans", str(plans["mixed"]))
    command[command.index("256")] = "4096"
    refused(capsys, command, "length 4096", "max_position_embeddings 1024")
    with pytest.raises(SystemExit):
        main(validating(tiny, tmp_path, "--tasks", "poems"))
    assert "expected some of ce, needle, copy" in capsys.readouterr().err
    command = validating(tiny, tmp_path)
    del command[command.index("--length") : command.index("--length") + 2]
    refused(capsys, command, "expected profile/N/summary.npz, found none")


def test_masks_are_taken_where_there_is_no_compiler(monkeypatch):
    import moa.compiler
    from moa.plan.validate import choose_engine

    assert choose_engine("auto", torch.device("cpu")) == "kernels"
    assert choose_engine("masked", torch.device("cpu")) == "masked"
    assert choose_engine("auto", torch.device("mps")) == "masked"

    def none():
        raise moa.compiler.CompileError("no compiler")

    monkeypatch.setattr(moa.compiler, "find_compiler", none)
    assert choose_engine("auto", torch.device("cpu")) == "masked"


def test_a_whole_run_makes_a_plan_and_a_report(tiny, tmp_path, capsys):
    command = [
        "run", str(tiny), "--out", str(tmp_path), "--lengths", "256,384", "--items", "3",
        "--data", "summarise", *FEW, "--block", "16", "--entries", "--check-rules", "3",
        "--validate-items", "3", "--pareto", "3", "--density", "0.6", "--h2o", "0.5",
        "--gate-margin", "99", "--gate-ce", "9", "--engine", "masked",
    ]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "picked plan-" in out
    page = (tmp_path / "report.html").read_text()
    for part in (
        "Validation",
        "Retrieval",
        "Pareto set",
        "Influence by entry",
        "<svg",
        "random",
    ):
        assert part in page, part
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    import xml.etree.ElementTree as tree

    tree.fromstring(page.removeprefix("<!doctype html>").replace('<meta charset="utf-8">', ""))
    # Three items cover few depths.
    assert json.loads((tmp_path / "run.json").read_text())["steps"]["plans"]["hull"] == "True"
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("item-*.npz")}
    lines = (tmp_path / "validate/576.jsonl").read_text()
    assert main(command) == 0
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("item-*.npz")}
    assert (tmp_path / "validate/576.jsonl").read_text() == lines
    refused(
        capsys, [*command, "--density", "0.5"], "plans was made with other inputs: density was"
    )
    refused(capsys, [*command, "--no-hull"], "hull was True, is False")
    assert main([*command, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("validate 576: 60 items, about")
    assert main(["report", str(tmp_path)]) == 0
