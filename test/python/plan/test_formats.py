"""Keys and values in 8 bits: rounding, bytes, influence, and plans that choose them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from plan_support import make_curves, make_profile, refused, run, schema

from conftest import Rule as Written
from moa.plan import PlannerError, load_plan
from moa.plan.baselines import random_like, uniform_like
from moa.plan.columns import Goal
from moa.plan.curves import Curves
from moa.plan.density import byte_density, kv_density
from moa.plan.formats import kept_bytes, sink_end
from moa.plan.influence import Recorder, attend
from moa.plan.losses import rule_losses
from moa.plan.model import ModelShape
from moa.plan.optimize import solve
from moa.plan.quantise import kept
from moa.plan.rules import FULL, Rule, costs
from moa.plan.search import Request, plan_of, prepare
from moa.plan.span import SpanParams


def codes(form):
    """All values of an 8-bit code, ascending."""
    if form == "int8":
        return np.arange(-127, 128.0)
    steps = [m * 2.0**-9 for m in range(8)]  # Subnormal.
    steps += [(8 + m) * 2.0 ** (e - 10) for e in range(1, 16) for m in range(8)][:-1]
    return np.array(sorted({*steps, *(-s for s in steps)}))


def nearest(x, form):
    """Of a block, in float64, from the definition; ties to the even code."""
    table = codes(form)
    scale = np.float32(np.abs(x).max()) / np.float32(table[-1])
    scaled = (x.astype(np.float32) * (np.float32(1) / scale)).astype(np.float64)
    high = np.clip(np.searchsorted(table, scaled), 1, len(table) - 1)
    low = high - 1
    to_low, to_high = scaled - table[low], table[high] - scaled
    even = (np.arange(len(table)) - len(table) // 2) % 2 == 0
    picks_low = (to_low < to_high) | ((to_low == to_high) & even[low])
    return np.where(picks_low, table[low], table[high]) * np.float64(scale)


@pytest.mark.parametrize("form", ["e4m3", "int8"])
def test_a_block_goes_to_the_nearest_codes(form):
    x = torch.randn(2, 150, 8, generator=torch.Generator().manual_seed(0))
    x[0, :64] *= 1e-3
    x[0, 5, 3], x[1, 64:128] = 0.7, 0.0  # Values far below the largest; zeros.
    x[1, 3, :] = torch.tensor(codes(form)[-9:-1]).float()
    found = kept(x, form)
    assert torch.equal(found[:, 128:], x[:, 128:]) and not found[1, 64:128].any()
    for head, first in ((0, 0), (0, 64), (1, 0)):
        block = x[head, first : first + 64].numpy()
        np.testing.assert_allclose(
            found[head, first : first + 64].numpy(), nearest(block, form), rtol=2e-7
        )
    assert kept(x.bfloat16(), form).dtype == torch.bfloat16
    assert torch.equal(kept(x[:, :63], form), x[:, :63])


def test_bytes_of_a_window():
    assert (sink_end(0), sink_end(1), sink_end(64), sink_end(65)) == (0, 64, 64, 128)
    assert kept_bytes(1000, 64, "16") == 1000
    # Sink and newest block in 16 bits, the rest in half.
    assert kept_bytes(1024, 64, "int8") == 128 + 896 / 2
    assert kept_bytes(1024, 65, "e4m3") == 192 + 832 / 2
    assert kept_bytes(100, 64, "e4m3") == 100


SINK, BLOCK, TOKENS = 6, 16, 150


def measured(form, rows=256, cap=None, **more):
    """A recorder of random attention, and what it was made of."""
    generator = torch.Generator().manual_seed(3)
    make = lambda h: torch.randn(h, TOKENS, 8, generator=generator, dtype=torch.float64)
    q, k, v, upstream = make(4), make(2), make(2), make(4)
    recorder = Recorder(
        1, 4, TOKENS, sink=SINK, block=BLOCK, rows=rows, formats=(form,), **more
    )
    tensors = [x.clone().requires_grad_() for x in (q, k, v)]
    attend(*tensors, 0.3, 0, recorder, cap).backward(upstream)
    return recorder, (q, k, v, upstream)


@pytest.mark.parametrize("form", ["e4m3", "int8"])
@pytest.mark.parametrize("rows", [16, 48, 256])
@pytest.mark.parametrize("cap", [None, 0.8])
def test_the_influence_of_rounding_is_a_derivative(form, rows, cap):
    """Each row's, of the keys in 8 bits that its window shows, by differences."""
    recorder, (q, k, v, upstream) = measured(form, rows, cap, by_row=True)
    i, j = torch.arange(TOKENS)[:, None], torch.arange(TOKENS)
    k2, v2 = (x.repeat_interleave(2, 0)[:, None] for x in (k, v))
    of_k, of_v = (kept(x, form).repeat_interleave(2, 0)[:, None] - x2
                  for x, x2 in ((k, k2), (v, v2)))  # fmt: skip

    def loss(keys, values):
        """[heads, rows], with keys and values of each row its own."""
        scores = torch.einsum("hid,hijd->hij", q, keys) * 0.3
        if cap is not None:
            scores = cap * torch.tanh(scores / cap)
        p = torch.softmax(scores.masked_fill(j > i, -torch.inf), -1)
        return torch.einsum("hij,hijd,hid->hi", p, values, upstream)

    for n in range(0, recorder.blocks + 1, 3):
        seen = (j >= 64) & (j < i // 64 * 64) & (i - j < n * BLOCK)
        step = 1e-4 * seen[None, ..., None]
        after, before = (
            loss(k2 + sign * step * of_k, v2 + sign * step * of_v) for sign in (1, -1)
        )
        change = (after - before) / 2e-4
        torch.testing.assert_close(
            recorder.formats[form][0, :, n], change.abs().sum(1), rtol=1e-7, atol=1e-10
        )
        padded = torch.nn.functional.pad(change.abs(), (0, -TOKENS % BLOCK))
        by_row = padded.view(4, -1, BLOCK).sum(2)
        torch.testing.assert_close(
            recorder.format_rows[form][0, ..., n].double(), by_row, rtol=1e-5, atol=1e-7
        )
    assert recorder.formats[form][0, :, -1].min() > 0


def test_rows_of_a_rule_add_up():
    """Curves by row block, under the rule `row`, against each row's own window."""
    recorder, (q, k, v, upstream) = measured("int8", by_row=True)
    params = SpanParams(SINK, BLOCK, 32, per_row=True)
    curves = Curves(
        np.maximum.accumulate(recorder.absolute.numpy()[..., ::-1], -1)[..., ::-1],
        TOKENS, SINK, BLOCK, 1, 2, "", "", recorder.by_row.numpy(),
        {"int8": recorder.formats["int8"].numpy()},
        {"int8": recorder.format_rows["int8"].numpy()},
    )  # fmt: skip
    i, j = torch.arange(TOKENS)[:, None], torch.arange(TOKENS)
    k2, v2 = (x.repeat_interleave(2, 0) for x in (k, v))
    scores = (q @ k2.mT * 0.3).masked_fill(j > i, -torch.inf)
    dense = torch.softmax(scores, -1) @ v2
    rules = [Rule(38, 0.0), Rule(0, 0.5), Rule(-20, 0.75), FULL]
    found = rule_losses(curves, rules, params, TOKENS)
    found *= curves.curve[..., (32 - SINK) // BLOCK].sum()
    for r, rule in enumerate(rules):
        written = Written(rule.alpha, rule.beta, SINK, BLOCK, 32, per_row=True)
        first = np.array(written.starts(TOKENS, TOKENS))
        # Rows of a block go by the last one's window, in whole blocks.
        ends = np.minimum(np.arange(TOKENS) // BLOCK * BLOCK + BLOCK, TOKENS) - 1
        kept_keys = np.where(first[ends] <= SINK, TOKENS, (ends + 1 - first[ends]) // 16 * 16)
        seen = (j < SINK) | (i - j < torch.from_numpy(kept_keys)[:, None])
        masked = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ v2
        change = ((masked - dense) * upstream).sum(-1).abs().sum(1)
        np.testing.assert_allclose(found[0, :, r], change, rtol=1e-5, atol=1e-6)
    # What is rounded in the windows of each block comes on top.
    more = rule_losses(curves, rules, params, TOKENS, form="int8")
    more = more * curves.curve[..., (32 - SINK) // BLOCK].sum() - found
    np.testing.assert_allclose(
        more[..., 3], recorder.formats["int8"][..., -1].numpy(), rtol=1e-5
    )
    assert (more > 0).all() and more[..., 0].sum() < more[..., 3].sum()


def with_formats(profile, seed=7):
    """The profile with made-up losses of 8 bits: few in some heads, many in others."""
    random = np.random.default_rng(seed)
    curves = {}
    for n, one in profile.curves.items():
        seen = np.linspace(0, 1, one.blocks + 1)
        scale = random.lognormal(-4, 1.5, (one.layers, one.q_heads, 1))
        lost = {"e4m3": 0.4 * scale * seen, "int8": scale * random.uniform(0.1, 2) * seen}
        curves[n] = replace(one, formats=lost)
    return replace(profile, curves=curves)


FORMATS = ("16", "e4m3", "int8")


def test_spans_and_bits_are_chosen_together():
    """Against every choice there is, with losses and bytes from the definition."""
    profile = with_formats(make_profile((512,), layers=2, q_heads=4, kv_heads=2))
    grid = [Rule(128, 0.0), Rule(0, 0.75), FULL]
    curves = profile.curves[512]
    total = curves.curve[..., 1].sum()
    for density in (0.3, 0.45, 0.6, 0.8):
        request = Request({512: density}, grid=grid, formats=FORMATS, rules_per_layer=None)
        search = prepare(profile, request)
        solution = solve(search.problem)
        best = np.inf
        options = list(itertools.product(range(3), FORMATS))
        for chosen in itertools.product(options, repeat=4):
            loss = size = 0.0
            for head, (rule, form) in enumerate(chosen):
                layer, kv = divmod(head, 2)
                blocks = (1, 5, 8)[rule]
                tokens = (128, 384, 512)[rule]
                heads = slice(2 * kv, 2 * kv + 2)
                loss += curves.curve[layer, heads, blocks].sum()
                eight = 0
                if form != "16":
                    loss += curves.formats[form][layer, heads, blocks].sum()
                    eight = tokens - 128
                size += (tokens - eight / 2) / 512
            if size / 4 <= density + 1e-12:
                best = min(best, loss / total)
        assert solution.objective == pytest.approx(best, rel=2e-4)
        model = ModelShape(2, 4, 2, 64)
        plan = plan_of(search, solution, model, _mean(search))
        predicted = plan.document["scores"]["predicted"]["512"]
        assert predicted == pytest.approx(solution.objective)
        assert byte_density(plan, 2, 512) == pytest.approx(float(solution.costs[0]))
        assert byte_density(plan, 2, 512) <= density + 1e-9 and not plan.warnings
        if plan.has_8_bits:
            assert plan.document["budget"] == {"bytes": {"512": density}}
            assert plan.document["density"]["512"]["bytes"] == byte_density(plan, 2, 512)
    # With bits to choose, the same bytes hold more and lose less.
    alone = solve(prepare(profile, Request({512: 0.6}, grid=grid)).problem)
    both = prepare(profile, Request({512: 0.6}, grid=grid, formats=FORMATS))
    better = solve(both.problem)
    assert better.objective < alone.objective
    plan = plan_of(both, better, None, _mean(both))
    assert kv_density(plan, 2, 512) > 0.6 and plan.has_8_bits


def _mean(search):
    return Goal.mean(search.problem)


@pytest.mark.parametrize(
    "more", [{"exact": True}, {"ranks": 2}, {"rules_per_layer": 1}, {"per_row": True}]
)
def test_forms_of_a_request_with_bits(more):
    profile = with_formats(make_profile((512, 1024)))
    request = Request({512: 0.4, 1024: 0.4, 2048: 0.4}, formats=FORMATS, **more)
    search = prepare(profile, request)
    solution = solve(search.problem)
    plan = plan_of(search, solution, None, _mean(search))
    formats = plan.formats(2)
    assert all(byte_density(plan, 2, n) <= 0.4 + 1e-9 for n in request.bounds)
    assert np.mean(list(plan.document["scores"]["predicted"].values())) == pytest.approx(
        solution.objective
    )
    if "ranks" in more:  # A rank of one KV head each.
        for layer, row in zip(formats, plan.rules(), strict=True):
            assert layer[0] == layer[1] and row[:2] == row[2:]
    assert plan.has_8_bits


def test_requests_of_bits_that_cannot_be():
    plain, profile = make_profile(), with_formats(make_profile())
    half = {512: 0.5, 1024: 0.5}
    table = costs([FULL], [512], SpanParams(), FORMATS)
    assert table.shape == (1, 3) and table[0, 0] == 1 and table[0, 1] == (128 + 384 / 2) / 512
    wrong = {
        "measured e4m3, int8 at every length, found no format of 8 bits; .* --kv-formats":
            (plain, {}),
        "expected --on kv with formats of 8 bits, found --on query":
            (profile, {"on": "query"}),
        "expected --kv-formats 16 with a time limit, found 16,e4m3,int8":
            (profile, {"times": ["any"]}),
    }  # fmt: skip
    for message, (source, more) in wrong.items():
        with pytest.raises(PlannerError, match=message):
            prepare(source, Request(half, formats=FORMATS, **more))


def test_plans_of_bits_are_shown_compared_and_handed_on(capsys, tmp_path):
    model, text = ModelShape(1, 4, 2, 64), "layers=1,q_heads=4,kv_heads=2,head_dim=64"
    document = '"kv":{"format":[["e4m3",16]]},"model":{"kv_heads":2}'
    rules = "[[0,0,128,128]]", "[[1,1,0,0]]"
    path = tmp_path / "p.json"
    path.write_text(schema(document, *rules))
    plan = load_plan(path)
    out = run(capsys, "show", path, "--model", text, "--at", "2048")[1]
    assert "KV heads by format of complete pages: 16: 1, e4m3: 1, int8: 0" in out
    # Equal bytes: (128 + 1920 / 2 + 128) / 2 of 2048 tokens.
    assert byte_density(plan, 2, 2048) == 1216 / 4096
    uniform = uniform_like(plan, model, 2048)
    assert kv_density(uniform, 2, 2048) == 1216 / 4096
    swapped = next(
        p for p in (random_like(plan, model, seed) for seed in range(9))
        if p.rules() != plan.rules()
    )  # fmt: skip
    assert swapped.rules()[0] == [(128, 0.0)] * 2 + [(0, 1.0)] * 2
    assert swapped.formats(2) == [["16", "e4m3"]]
    assert byte_density(swapped, 2, 2048) == byte_density(plan, 2, 2048)
    other = tmp_path / "q.json"
    other.write_text(schema(document.replace("e4m3", "int8"), *rules))
    code, out, _ = run(capsys, "diff", path, other)
    assert code == 1 and "sections that differ: kv" in out
    out = run(capsys, "convert", path, tmp_path / "old.json")[1]
    assert "lost: KV heads of 8 bits, model" in out
    out = run(
        capsys, "convert", path, tmp_path / "new.json", "--to", "moa-plan", "--at", "2048"
    )[1]
    assert load_plan(tmp_path / "new.json").document["density"]["2048"]["bytes"] == 1216 / 4096
    out = run(
        capsys, "export", path, "--to", "kvpress", "--at", "2048", "--out", tmp_path / "x"
    )[1]
    assert "lost: KV heads of 8 bits: all keep 16" in out


def test_formats_as_they_are_typed(capsys, tmp_path):
    folder = tmp_path / "run"
    for n, curves in with_formats(make_profile()).curves.items():
        curves.write(folder / f"profile/{n}/summary.npz")
    assert (
        run(capsys, "optimize", folder, "--kv-formats", "int8,16", "--density", "0.6")[0] == 0
    )
    told = load_plan(folder / "plans/plan-1.json").document["provenance"]["solver"]
    assert told["formats"] == ["16", "int8"]
    for wrong in ("8", "int8,int8", "", "fp8"):
        assert f"expected some of 16, e4m3, int8 with commas, found '{wrong}'" in refused(
            capsys, "optimize", folder, "--kv-formats", wrong
        )
    assert "format_int8: expected [3, 4, 9], found [3, 4, 8]" in str(
        faults_of_curves(make_curves(512), formats={"int8": np.ones((3, 4, 8))})
    )
    assert "rows_int8: expected none, found [3, 4, 9]" in str(
        faults_of_curves(make_curves(512), format_rows={"int8": np.ones((3, 4, 9))})
    )
    assert "format_e4m3/0/0/0: expected a finite loss, found nan" in str(
        faults_of_curves(make_curves(512), formats={"e4m3": np.full((3, 4, 9), np.nan)})
    )


def faults_of_curves(curves, **changes):
    with pytest.raises(PlannerError) as found:
        replace(curves, **changes).check()
    return found.value
