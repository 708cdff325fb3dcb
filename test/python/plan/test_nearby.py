"""Lists of nearly best assignments: complete, and what they prove."""

import numpy as np
import pytest
from solver_support import FORMS, assignments, best, cost_of, make_problem, small

from moa.plan import nearby
from moa.plan.columns import Goal, Pool
from moa.plan.integers import greedily, settle
from moa.plan.nearby import listable, nearly_best
from moa.plan.optimize import solve
from moa.plan.pricing import Pricer

LISTED = [form for form in FORMS if not form.startswith("free_group")]


def priced(problem, seed):
    random = np.random.default_rng(seed)
    weights = random.uniform(0, 1, problem.objectives)
    prices = random.uniform(0, 3, len(problem.bounds))
    return weights, prices, Pricer(problem).price(weights, prices).values


@pytest.mark.parametrize("form", LISTED)
def test_a_list_is_complete(form):
    for seed in range(3):
        problem = make_problem(seed, rules=small(form), objectives=2, **FORMS[form])
        weights, prices, least = priced(problem, seed)
        for slack in (1e-9, 0.3, 5.0):
            listed = nearly_best(Pricer(problem), weights, prices, least, slack, every=True)
            for layer, found in enumerate(listed):
                unit = np.arange(problem.units)
                want = {
                    tuple(c) for c in assignments(problem)
                    if weights @ problem.losses[:, layer, unit, c].sum(axis=1)
                    + prices @ cost_of(problem, c) <= least[layer] + slack
                }  # fmt: skip
                assert want and {tuple(c) for c in found} == want
                assert len(found) == len(want)


@pytest.mark.parametrize("form", ["two_rules", "free"])
def test_lists_that_are_too_long(form, monkeypatch):
    """In all, or those of one layer."""
    problem = make_problem(0, **FORMS[form])
    weights, prices, least = priced(problem, 0)
    count = sum(map(len, nearly_best(Pricer(problem), weights, prices, least, 0.3, every=True)))
    for most, told in ((4 * count, True), (count - 1, False), (1, False)):
        monkeypatch.setattr(nearby, "MOST", most)
        found = nearly_best(Pricer(problem), weights, prices, least, 0.3, every=True)
        assert (found is not None) == told
    unlisted = make_problem(0, **FORMS["free_groups"])
    assert not listable(unlisted)
    assert nearly_best(Pricer(unlisted), *priced(unlisted, 0), 0.3, every=True) is None


@pytest.mark.parametrize("form", ["groups", "group_formats"])
def test_what_costs_the_same_may_be_left_out(form):
    for seed in range(4):
        problem = make_problem(seed, rules=small(form), **FORMS[form])
        weights, prices, least = priced(problem, seed)
        every, few = (
            nearly_best(Pricer(problem), weights, prices, least, 2.0, every=e)
            for e in (True, False)
        )
        assert sum(map(len, few)) < sum(map(len, every))
        unit = np.arange(problem.units)
        for layer, (all_, some) in enumerate(zip(every, few, strict=True)):
            assert {tuple(c) for c in some} <= {tuple(c) for c in all_}
            loss = lambda c: float(problem.losses[0, layer, unit, c].sum())
            cheapest = {}
            for chosen in all_:
                cost = tuple(np.round(cost_of(problem, chosen), 12))
                cheapest[cost] = min(cheapest.get(cost, np.inf), loss(chosen))
            found = {}
            for chosen in some:
                cost = tuple(np.round(cost_of(problem, chosen), 12))
                found[cost] = min(found.get(cost, np.inf), loss(chosen))
            assert found == pytest.approx(cheapest)


@pytest.mark.parametrize("most", [20000, 40, 0])
def test_the_bound_holds_however_few_are_listed(most, monkeypatch):
    """With all, some or none of the assignments listed."""
    monkeypatch.setattr(nearby, "MOST", most)
    gaps = []
    for seed in range(8):
        problem = make_problem(seed, layers=3, rules=3)
        goal = Goal.mean(problem)
        want = best(problem, goal)
        solution = solve(problem)
        assert solution.bound <= want + 1e-9 <= solution.objective + 2e-9
        gaps.append(solution.gap)
    assert (max(gaps) <= 1e-4) == (most == 20000)


@pytest.mark.parametrize("form", FORMS)
def test_any_prices_prove_a_bound(form):
    """Also those that are far from the optimal ones."""
    for seed in range(3):
        problem = make_problem(seed, rules=small(form), **FORMS[form])
        goal, pool = Goal.mean(problem), Pool.uniform(problem)
        prices = np.random.default_rng(seed).uniform(0, 2, 2)
        found, bound = settle(pool, goal, prices, np.inf)
        want = best(problem, goal)
        value = float(goal.weights @ problem.total_losses(found))
        assert bound <= want + 1e-9 <= value + 2e-9
        if listable(problem):
            assert value - bound <= 1e-4 * value + 1e-9
        assert (problem.total_costs(found) <= problem.bounds + 1e-9).all()
        assert pool.assignment(pool.indices(found)).tolist() == found.tolist()
        simple = greedily(pool, goal, prices, np.inf)
        assert (problem.total_costs(simple) <= problem.bounds + 1e-9).all()
