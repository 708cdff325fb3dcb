"""From profiles to plans: losses of rules, bounds, length rules, baselines."""

from dataclasses import replace

import numpy as np
import pytest
from plan_support import PLANS, make_curves, make_profile

from conftest import Rule as Written
from moa.plan import PlannerError, load_plan
from moa.plan.baselines import (
    dense,
    duo_of_heads,
    random_like,
    searched,
    streaming,
    uniform_like,
)
from moa.plan.columns import Goal
from moa.plan.costs import CostTable
from moa.plan.curves import Profile
from moa.plan.density import kv_density, layer_densities, query_density
from moa.plan.losses import rule_losses, total_loss
from moa.plan.model import ModelShape
from moa.plan.optimize import solve
from moa.plan.pareto import combine, pareto
from moa.plan.rules import FULL, Rule, default_grid, merge, paper_grid
from moa.plan.search import Request, TimeLimit, plan_of, predicted_losses, prepare
from moa.plan.span import SpanParams

MODEL = ModelShape(3, 4, 2, 64, 4096)
HALF = {512: 0.5, 1024: 0.5}


def optimise(profile, request, goal=None):
    search = prepare(profile, request)
    solution = solve(search.problem, goal, names=search.names)
    return search, solution, plan_of(search, solution, MODEL, goal or Goal.mean(search.problem))


def test_grids():
    assert len(paper_grid(2048, 8192)) == 48
    published = {
        Rule(int(a), float(b))
        for path in PLANS.glob("*-moa.json") if not path.name.startswith("smollm2")
        for layer in load_plan(path).rules() for a, b in layer
    }  # fmt: skip
    assert published <= set(paper_grid(2048, 8192))
    params, lengths = SpanParams(), [2048, 4096, 8192, 16384]
    grid = default_grid(8192, lengths, params)
    assert FULL in grid and Rule(256, 0.0) in grid and grid == sorted(set(grid))
    spans = [tuple(rule.tokens(n, params) for n in lengths) for rule in grid]
    assert len(set(spans)) == len(spans) and (128,) * 4 in spans
    # Equal ones become the full rule, or the one nearest to alpha = 0.
    assert merge([Rule(4096, 0.0), FULL, Rule(4096, 0.5)], [2048, 4096], params) == [FULL]
    assert merge([Rule(-200, 0.0), Rule(128, 0.0)], [2048], params) == [Rule(128, 0.0)]
    # Or rather the one that asks for what it gets.
    assert merge([Rule(0, 0.0), Rule(128, 0.0)], [2048], params) == [Rule(128, 0.0)]
    assert Rule(128, 0.0) in grid and Rule(0, 0.0) not in grid


def test_losses_at_the_profiled_length():
    curves, params = make_curves(1024), SpanParams()
    rules = [Rule(128, 0.0), Rule(0, 0.5), FULL]
    losses = rule_losses(curves, rules, params, 1024)
    total = total_loss(curves, params)
    assert total == pytest.approx(curves.curve[..., 1].sum())
    for rule, blocks in zip(range(3), (1, 7, 16)):
        np.testing.assert_allclose(losses[..., rule], curves.curve[..., blocks] / total)
    assert losses[..., 0].sum() == pytest.approx(1) and (losses[..., 2] == 0).all()
    # Sink and window need not be whole blocks: what does not fill one counts for nothing.
    part = rule_losses(curves, [Rule(200, 0.0)], replace(params, block=1), 1024)
    np.testing.assert_allclose(part[..., 0], curves.curve[..., 2] / total)


def test_losses_beyond_and_below():
    curves, params = make_curves(1024), SpanParams()
    beyond = rule_losses(curves, [Rule(0, 0.25), Rule(0, 0.5), FULL], params, 4096)
    at = rule_losses(curves, [Rule(0, 0.25), Rule(0, 0.5), FULL], params, 1024)
    np.testing.assert_allclose(beyond, at)  # Equal shares lose alike.
    # Shares below the shortest profiled window lose what that loses, and no more.
    short = rule_losses(curves, [Rule(128, 0.0), Rule(0, 0.125)], params, 16384)
    np.testing.assert_allclose(short[..., 0], short[..., 1])
    assert short[..., 0].sum() == pytest.approx(1)
    between = rule_losses(curves, [Rule(0, 0.28)], params, 4096)
    assert (between[..., 0] <= at[..., 0]).all() and (between[..., 0] >= at[..., 1]).all()
    with pytest.raises(PlannerError, match="expected a length of at least 1024, .* found 512"):
        rule_losses(curves, [FULL], params, 512)
    nothing = replace(curves, curve=curves.curve * 0)
    with pytest.raises(PlannerError, match="expected losses that differ .* found none at"):
        rule_losses(nothing, [FULL], params, 1024)
    with pytest.raises(PlannerError, match="at least 512, which was profiled, found 300"):
        predicted_losses(
            make_profile(), np.zeros((3, 4), int), np.ones((3, 4)), params, [300], False
        )


def test_hull_gives_near_full_windows_their_share():
    curves, params = make_curves(1024), SpanParams()
    stairs = replace(curves, curve=np.where(np.arange(17) < 14, 1.0, 0.0) * np.ones((3, 4, 1)))
    rules = [Rule(128, 0.0), Rule(0, 0.5), Rule(0, 0.9375), FULL]
    plain, hull = (rule_losses(stairs, rules, params, 1024, hull=h) for h in (False, True))
    assert (plain[..., 2] == 0).all() and (hull[..., 3] == 0).all()
    np.testing.assert_allclose(hull[..., 2], plain[..., 0] * (1 - 0.9375) / (1 - 0.125))
    np.testing.assert_array_equal(hull[..., :2], plain[..., :2])


def test_losses_by_row():
    curves, params = make_curves(1024, rows=True), SpanParams(per_row=True)
    rules = [Rule(128, 0.0), Rule(0, 0.5), FULL]
    losses = rule_losses(curves, rules, params, 1024) * total_loss(curves, params)
    # By hand: row block q ends at row 64 q + 63.
    for r, rule in enumerate([Written(128, 0.0, per_row=True), Written(0, 0.5, per_row=True)]):
        first = rule.starts(1024, 1024)
        want = 0
        for q in range(16):
            row = 64 * q + 63
            blocks = 16 if first[row] <= 64 else (row + 1 - first[row]) // 64
            want = want + curves.rows[:, :, q, blocks]
        np.testing.assert_allclose(losses[..., r], want)
    assert (losses[..., 2] == 0).all()
    # The rule of requests has the same windows in all rows and loses less.
    request = rule_losses(curves, rules, SpanParams(), 1024) * total_loss(curves, params)
    assert (losses[..., 1] >= request[..., 1] - 1e-12).all()


def test_a_plan_keeps_its_bounds_and_says_what_it_is():
    profile = make_profile()
    request = Request(HALF | {4096: 0.4}, hull=True)
    search, solution, plan = optimise(profile, request)
    assert search.lengths == [512, 1024, 4096] and search.profiled == 2
    for n, bound in request.bounds.items():
        assert kv_density(plan, 2, n) <= bound + 1e-9
    document = plan.document
    assert plan.warnings == () and plan.valid == (512, 4096)
    assert document["budget"] == {"on": "kv", "bounds": {"512": 0.5, "1024": 0.5, "4096": 0.4}}
    assert document["model"]["kv_heads"] == 2 and document["model"]["head_dim"] == 64
    made = document["provenance"]
    assert made["profile_sha256"] == profile.sha256 and made["estimator"] == "set-abs"
    assert made["lengths"] == [512, 1024] and made["extend"] == [4096]
    assert made["solver"]["hull"] and made["row_losses"] == "unused"
    predicted = document["scores"]["predicted"]
    assert np.mean(list(predicted.values())) == pytest.approx(solution.objective)
    assert document["scores"]["bound_gap"] == solution.gap < 0.05
    again = optimise(profile, request)[2]
    assert again.id == plan.id


def test_plans_of_signed_losses():
    """Heads whose sizes are noise are short: the bytes go to those that lose."""
    curves, half = make_curves(1024), {1024: 0.5}
    middle = np.arange(3)[:, None, None] == 1
    signed = replace(curves, signed=np.where(middle, curves.curve[:, :2], 0))
    profile = Profile({1024: signed}, "5a" * 32)
    plan, sizes = (
        optimise(profile, Request(half, losses=kind))[2] for kind in ("auto", "sizes")
    )
    assert layer_densities(plan, 2, 1024).tolist() == [128 / 1024, 1, 128 / 1024]
    assert layer_densities(sizes, 2, 1024)[1] < 1
    assert plan.document["provenance"]["estimator"] == "set-signed"
    assert plan.document["scores"]["predicted"]["1024"] == 0
    assert optimise(profile, Request(half, losses="signed"))[2].id == plan.id
    # What is known in sizes alone, or where nothing else is.
    assert optimise(Profile({1024: curves}, "5a" * 32), Request(half))[2].id == sizes.id
    eight = replace(signed, formats={"e4m3": 0.01 * curves.curve[..., ::-1]})
    for option, more in {
        "--on query": {"on": "query"}, "--kv exact": {"exact": True},
        "--length row": {"per_row": True}, "--kv-formats": {"formats": ("16", "e4m3")},
    }.items():  # fmt: skip
        by_size = prepare(Profile({1024: eight}, "5a" * 32), Request(half, **more))
        assert by_size.profile.any.estimator == "set-abs"
        with pytest.raises(PlannerError, match=f"expected --losses sizes with {option}, found"):
            prepare(by_size.profile, Request(half, losses="signed", **more))


@pytest.mark.parametrize(
    "request_",
    [
        Request(HALF, on="query"), Request(HALF, exact=True), Request(HALF, rules_per_layer=1),
        Request(HALF, rules_per_layer=None), Request(HALF, ranks=2),
        Request(HALF, per_row=True), Request(HALF, grid=[FULL, Rule(128, 0.0)]),
    ],
    ids=["query", "exact", "one_rule", "free", "ranks", "row", "grid"],
)  # fmt: skip
def test_forms_of_a_request(request_):
    _, solution, plan = optimise(make_profile(), request_)
    density = query_density if request_.on == "query" else lambda p, n: kv_density(p, 2, n)
    assert all(density(plan, n) <= 0.5 + 1e-9 for n in HALF)
    rules = plan.rules()
    if request_.rules_per_layer:
        assert max(len(set(layer)) for layer in rules) <= request_.rules_per_layer
    if request_.ranks == 2:
        for layer in rules:
            assert sorted(layer[:2]) == sorted(layer[2:])
    if not request_.exact and request_.on == "kv":
        assert all(layer[h] == layer[h + 1] for layer in rules for h in (0, 2))
    assert plan.span.per_row == request_.per_row
    kept = plan.document["provenance"]["row_losses"]
    assert kept == ("of the whole length" if request_.per_row else "unused")


def test_row_losses_are_used_where_they_were_kept():
    profile = make_profile(rows=True)
    plan = optimise(profile, Request(HALF, per_row=True))[2]
    assert plan.document["provenance"]["row_losses"] == "by row block"


def test_requests_that_cannot_be():
    profile = make_profile()
    table = CostTable("t.json", "cpu", 2, ((128, 1024, 1, 10.0), (1024, 1024, 1, 40.0)))
    limit = TimeLimit(1024, 1, 50.0, table)
    wrong = {
        "a bound for every profiled length, found none for 1024; add 1024=": {
            "bounds": {512: 1}
        },
        "at profiled lengths or beyond 1024, found 700": {"bounds": HALF | {700: 0.5}},
        "--kv exact with --on kv": {"exact": True, "on": "query"},
        "--on kv with a time limit": {"on": "query", "times": [limit]},
        "divides the 2 heads, decided one by one, found 3;": {"ranks": 3},
        "found 2 with --kv exact": {"ranks": 2, "exact": True},
        "at most 2 rules in a layer with a tensor-parallel": {
            "ranks": 2,
            "rules_per_layer": None,
        },
        r"density at 512 0.1 \(at least 0.25\)": {"bounds": {512: 0.1, 1024: 0.5}},
    }
    for message, change in wrong.items():
        with pytest.raises(PlannerError, match=message):
            optimise(profile, Request(**({"bounds": HALF} | change)))


def test_times_bound_a_plan():
    profile = make_profile()
    rows = tuple((s, 1024, 4, 5.0 + s / 16) for s in range(128, 1088, 64))
    table = CostTable("t.json", "cpu", 2, rows)
    dense_us = 3 * (5 + 64)
    loose = Request({512: 1.0, 1024: 1.0}, times=[TimeLimit(1024, 4, dense_us, table)])
    tight = replace(loose, times=[TimeLimit(1024, 4, dense_us / 2, table)])
    search, solution, _ = optimise(profile, loose)
    assert search.names[-1] == "us at 1024, batch 4"
    assert solution.costs[-1] <= dense_us
    _, solution, plan = optimise(profile, tight)
    # By hand: each KV head is half a layer of such heads.
    tokens = [[rule[0] + rule[1] * 1024 for rule in layer[::2]] for layer in plan.rules()]
    params = SpanParams()
    tokens = [
        [Rule(*rule).tokens(1024, params) for rule in layer[::2]] for layer in plan.rules()
    ]
    us = sum((5 + t / 16) / 2 for layer in tokens for t in layer)
    assert us == pytest.approx(solution.costs[-1]) and us <= dense_us / 2
    assert plan.document["provenance"]["solver"]["times"][0]["us"] == dense_us / 2
    with pytest.raises(PlannerError, match=r"us at 1024, batch 4 1 \(at least"):
        optimise(profile, replace(loose, times=[TimeLimit(1024, 4, 1.0, table)]))
    with pytest.raises(PlannerError, match=r"expected times at length 512 and batch 4, found "):
        optimise(profile, replace(loose, times=[TimeLimit(512, 4, 1.0, table)]))
    short = CostTable("t.json", "cpu", 2, rows[:3])
    with pytest.raises(PlannerError, match="expected spans 128 to 1024 .* found 128 to 256"):
        optimise(profile, replace(loose, times=[TimeLimit(1024, 4, 1e3, short)]))


def test_pareto_set():
    profile = make_profile((512, 1024), layers=4, q_heads=4, kv_heads=4)
    search = prepare(profile, Request({512: 0.6, 1024: 0.3, 2048: 0.3}))
    weights = search.objectives()
    assert [list(w) for w in weights] == [[1, 0, 0], [0, 0.5, 0.5]]
    # One plan weighs profiled lengths alike too, however many are extrapolated.
    assert search.goal().weights.tolist() == [0.5, 0.25, 0.25]
    problem = combine(search.problem, weights)
    calls = []
    points = pareto(problem, 4, progress=lambda done, most: calls.append((done, most)))
    assert len(points) > 1 and calls[0] == (1, 2 + 4)
    values = np.array([point.values for point in points])
    for i, one in enumerate(values):
        for k, other in enumerate(values):
            assert i == k or not (other <= one).all()
    assert (np.diff(values[:, -1]) >= 0).all()
    # The ends are the least of each objective.
    for k in range(2):
        alone = Goal(np.eye(2)[k], np.full(2, np.inf))
        assert values[:, k].min() <= solve(problem, alone).objective * 1.02 + 1e-12
    (single,) = pareto(combine(search.problem, [np.ones(3) / 3]), 5)
    assert single.goal.weights.tolist() == [1]


def test_plain_baselines():
    assert kv_density(dense(MODEL), 2, 4096) == 1
    paper = streaming(MODEL, 0.25, 4)
    assert paper.span.sink == 4 and kv_density(paper, 2, 4096) == 0.25
    like = load_plan(PLANS / "llama-3-8b-moa.json")
    llama = ModelShape(32, 32, 8, 128)
    for n in (4096, 5000, 8192):
        uniform = uniform_like(like, llama, n)
        want, got = kv_density(like, 8, n), kv_density(uniform, 8, n)
        # Bytes are equal but for less than two tokens a head.
        assert want - 2 / n < got <= want and len({*uniform.rules()[0]}) == 1
        assert kv_density(streaming(llama, 0.33), 8, n) == pytest.approx(0.33, abs=1 / n)
    shuffled = random_like(like, llama, 1)
    for n in (4096, 65536):
        assert kv_density(shuffled, 8, n) == kv_density(like, 8, n)
    heads = lambda p: sorted(
        tuple(row[k : k + 4]) for row in p.rules() for k in range(0, 32, 4)
    )
    assert heads(shuffled) == heads(like) and shuffled.id != like.id
    assert random_like(like, llama, 1).id == shuffled.id != random_like(like, llama, 2).id
    scores = [[0.9, 0.1], [0.5, 0.6], [0.0, 0.2]]
    duo = duo_of_heads(scores, MODEL, 0.5, 16, 116)
    assert duo.rules()[0] == [(0, 1.0)] * 2 + [(116, 0.0)] * 2
    assert kv_density(duo, 2, 4096) == pytest.approx((3 * 4096 + 3 * 116) / (6 * 4096))
    with pytest.raises(PlannerError, match="3 layers x 2 KV heads, .* found 2 x 2"):
        duo_of_heads(scores[:2], MODEL, 0.5, 16, 116)


def test_short_spans_hold_the_sink():
    with pytest.raises(PlannerError, match="short spans of at least 17 tokens, .* found 16"):
        duo_of_heads([[1, 1]] * 3, MODEL, 0.5, 16, 16)
    with pytest.raises(PlannerError, match="short spans of at least 128 tokens, .* found 64"):
        searched("duo", make_profile(), Request(HALF), short=64)


def test_searched_baselines():
    profile = make_profile(layers=6, q_heads=8, kv_heads=4)
    model = ModelShape(6, 8, 4, 64)
    request = Request(HALF | {2048: 0.5})
    ours = optimise(profile, request)[0]
    best = solve(ours.problem)
    for kind in ("duo", "fixed", "beta", "layer"):
        plan = searched(kind, profile, request, short=256, model=model)
        assert plan.document["provenance"]["baseline"] == kind
        assert kv_density(plan, 4, 1024) <= 0.5 + 1e-9
        rules = {rule for layer in plan.rules() for rule in layer}
        if kind == "duo":
            assert rules <= {(0, 1.0), (256, 0.0)}
        elif kind == "fixed":
            assert all(beta == 0 for _, beta in rules)
        elif kind == "beta":
            assert all(alpha == 0 for alpha, _ in rules)
            predicted = plan.document["scores"]["predicted"].values()
            assert np.mean(list(predicted)) >= best.bound
        else:
            assert all(len(set(layer)) == 1 for layer in plan.rules())
    with pytest.raises(PlannerError, match="expected one of duo, fixed, beta, layer"):
        searched("other", profile, request)


@pytest.mark.parametrize("at, kept_at", [(512, 512), (700, 1024), (1024, 1024), (3000, 3000)])
def test_spans_that_do_not_grow_keep_the_budget_of_one_length(at, kept_at):
    profile = make_profile(layers=6, q_heads=8, kv_heads=4)
    request = Request({512: 0.5, 1024: 0.5, 2048: 0.5})
    block = 64 / kept_at / 24
    for kind in ("duo", "fixed"):
        plan = searched(kind, profile, request, at=at)
        got = kv_density(plan, 4, kept_at)
        # The bytes of one head between all and a short span, or of a rule's step.
        step = (1 - 128 / kept_at) / 24 if kind == "duo" else max(1 / 16 / 24, block)
        assert 0.5 - 1.01 * step <= got <= 0.5 + 1e-9, (kind, got)
    assert searched("duo", profile, request).document["budget"]["bounds"]["512"] == 1.0
    rules = {
        rule for layer in searched("duo", profile, request, at=at).rules() for rule in layer
    }
    assert rules <= {(0, 1.0), (min(256, kept_at // 4), 0.0)}


def test_one_length_and_one_head():
    curves = make_curves(512, layers=1, q_heads=1, kv_heads=1)
    profile = Profile({512: curves}, "")
    _, _, plan = optimise(profile, Request({512: 1.0}))
    assert plan.rules() == [[(0, 1.0)]]
