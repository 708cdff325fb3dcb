"""The solver against every assignment there is, and against itself."""

import numpy as np
import pytest
from solver_support import FORMS, allowed, assignments, best, cost_of, make_problem, small

from moa.plan import PlannerError
from moa.plan.columns import Goal, Pool, meets, pick_greedily
from moa.plan.nearby import listable
from moa.plan.optimize import InfeasibleError, have_highs, solve
from moa.plan.pricing import Pricer
from moa.plan.problem import Problem


@pytest.mark.parametrize("form", FORMS)
def test_pricing_is_exact(form):
    for seed in range(6):
        problem = make_problem(seed, rules=small(form) + 1, objectives=2, **FORMS[form])
        random = np.random.default_rng(seed)
        weights, prices = random.uniform(0, 1, 2), random.uniform(0, 3, 2) * (seed % 3 > 0)
        priced = Pricer(problem).price(weights, prices)
        for layer in range(problem.layers):
            value = lambda c: float(
                weights @ problem.losses[:, layer, np.arange(problem.units), c].sum(axis=1)
                + prices @ cost_of(problem, c)
            )
            least = min(map(value, assignments(problem)))
            found = priced.proposals[layer]
            assert all(allowed(problem, chosen) for chosen in found)
            assert priced.values[layer] == pytest.approx(least, rel=1e-12)
            assert value(found[0]) == pytest.approx(least, rel=1e-12)
            np.testing.assert_allclose(problem.costs_of(found[0]), cost_of(problem, found[0]))
        np.testing.assert_array_equal(priced.best()[0], priced.proposals[0][0])


@pytest.mark.parametrize("solver", ["highs", "subgradient"])
@pytest.mark.parametrize("form", FORMS)
def test_optimum_by_enumeration(form, solver):
    for seed in range(4):
        problem = make_problem(seed, rules=small(form), **FORMS[form])
        goal = Goal.mean(problem)
        want = best(problem, goal)
        solution = solve(problem, solver=solver)
        assert solution.bound <= want + 1e-9 <= solution.objective + 2e-9
        assert solution.objective - want <= solution.gap * solution.objective + 1e-9
        assert meets(solution.costs, problem.bounds)
        assert all(allowed(problem, chosen) for chosen in solution.assignment)
        np.testing.assert_allclose(
            sum(cost_of(problem, chosen) for chosen in solution.assignment), solution.costs
        )
        assert not solution.timed_out and solution.solver == solver


def test_ceilings_by_enumeration():
    for seed in range(8):
        problem = make_problem(seed, rules=3, objectives=2)
        free = solve(problem, Goal(np.array([1.0, 0.0]), np.full(2, np.inf)))
        goal = Goal(np.array([0.0, 1.0]), np.array([free.losses[0] * 1.5 + 1e-6, np.inf]))
        want = best(problem, goal)
        solution = solve(problem, goal)
        assert solution.bound <= want + 1e-9 and want <= solution.objective + 1e-9
        assert solution.losses[0] <= goal.ceilings[0] * (1 + 1e-9)
        fallback = solve(problem, goal, solver="subgradient")
        assert fallback.bound <= want + 1e-9 and want <= fallback.objective + 1e-9


def big_problem(objectives=1, **form):
    random = np.random.default_rng(3)
    share = np.linspace(0.05, 1, 8)
    costs = np.stack([share, np.sqrt(share)])
    size = random.lognormal(0, 1.5, (objectives, 12, 8, 1))
    need = random.uniform(0.1, 1, (objectives, 12, 8, 1))
    losses = size * np.maximum(0, 1 - share / need)
    return Problem(losses, costs, np.array([0.5, 0.6]), **form)


@pytest.mark.parametrize("form", FORMS)
def test_gaps_of_a_larger_problem(form):
    problem = big_problem(**FORMS[form])
    solution = solve(problem)
    # Integers of twelve layers cannot use all of a bound; that they are the best is
    # proven where all assignments that could be in a better plan are listed.
    assert solution.gap <= (1e-4 if listable(problem) else 2e-2)
    assert meets(solution.costs, problem.bounds)
    fallback = solve(problem, solver="subgradient")
    assert fallback.gap <= 0.08 and meets(fallback.costs, problem.bounds)
    # Each bound is below each plan.
    assert max(solution.bound, fallback.bound) <= min(
        solution.objective, fallback.objective
    ) * (1 + 1e-9)


def test_exact_groups_are_never_worse_than_uniform_ones():
    problem = big_problem(group=4)
    shape = (problem.objectives, problem.layers, problem.kv_heads, problem.group, -1)
    uniform = Problem(problem.losses.reshape(shape).sum(axis=3), problem.costs, problem.bounds)
    exact, simple = solve(problem), solve(uniform)
    assert exact.objective <= simple.objective * (1 + 1e-3)
    assert exact.bound <= simple.objective


def test_columns_are_used_again():
    problem = big_problem()
    pool = Pool.uniform(problem)
    first = solve(problem, pool=pool)
    columns = len(pool)
    second = solve(problem, pool=pool)
    assert second.objective == pytest.approx(first.objective, rel=1e-4)
    assert len(pool) < 1.2 * columns
    assert pool.add(0, first.assignment[:1]) == 0


def test_bounds_that_nothing_keeps():
    problem = make_problem(0)
    low = Problem(problem.losses, problem.costs, problem.costs.min(axis=1) * [0.5, 1.0])
    for solver in ("highs", "subgradient"):
        with pytest.raises(InfeasibleError) as found:
            solve(low, solver=solver, names=["density at 512", "density at 1024"])
        least = problem.costs[0].min()
        assert f"density at 512 {low.bounds[0]:.4g} (at least {least:.4g})" in str(found.value)
        assert "density at 1024" not in str(found.value)
        assert found.value.least[0] == pytest.approx(least)
    # Each bound could be kept, both together cannot.
    costs = np.array([[0.2, 0.8], [0.8, 0.2]])
    apart = Problem(np.ones((1, 2, 4, 2)), costs, np.array([0.3, 0.3]))
    for solver in ("highs", "subgradient"):
        with pytest.raises(InfeasibleError, match="expected bounds that some plan can keep"):
            solve(apart, solver=solver)
        with pytest.raises(PlannerError, match="expected a plan within 0 s, found none"):
            solve(apart, solver=solver, time_limit=0)
    with pytest.raises(InfeasibleError) as found:
        solve(apart, solver="highs", names=["one", "other"])
    assert (found.value.least >= apart.bounds).all()
    assert found.value.least.sum() == pytest.approx(1.0, abs=1e-6)


def test_bounds_that_only_the_cheapest_rules_keep():
    """However much a loss outweighs the others, a bound is not missed for it."""
    losses = np.zeros((1, 4, 8, 3))
    losses[..., 0], losses[0, 0, 0, 0] = 1e-3, 1e6
    costs = np.array([[0.1, 0.1001, 1.0]])
    problem = Problem(losses, costs, np.array([0.1 + 1e-4 / 32]))
    solution = solve(problem)
    assert solution.assignment[0, 0] == 1 and (solution.assignment > 0).sum() == 1
    tight = Problem(losses, costs, np.array([0.1]))
    assert (solve(tight).assignment == 0).all()


def test_ceilings_that_nothing_keeps():
    problem = big_problem(objectives=2)
    goal = Goal(np.array([0.0, 1.0]), np.array([1e-9, np.inf]))
    with pytest.raises(InfeasibleError):
        solve(problem, goal)


@pytest.mark.parametrize("solver", ["highs", "subgradient"])
def test_time_out_gives_the_best_so_far(solver):
    problem = big_problem()
    solution = solve(problem, solver=solver, time_limit=0.0)
    assert solution.timed_out and meets(solution.costs, problem.bounds)
    assert 0 <= solution.bound <= solution.objective and 0 < solution.gap <= 1


def test_losses_of_nothing_have_no_gap():
    problem = make_problem(0)
    none = Problem(problem.losses * 0, problem.costs, problem.bounds)
    for solver in ("highs", "subgradient"):
        solution = solve(none, solver=solver)
        assert solution.objective == 0 and solution.gap == 0


def test_solver_is_chosen_by_what_is_installed(monkeypatch):
    assert have_highs()
    assert solve(make_problem(0)).solver == "highs"
    monkeypatch.setitem(__import__("sys").modules, "highspy", None)
    assert not have_highs()
    assert solve(make_problem(0)).solver == "subgradient"


def test_greedy_choice_keeps_limits():
    for seed in range(20):
        problem = make_problem(seed, layers=4)
        pool, goal = Pool.uniform(problem), Goal.mean(problem)
        pool.add_all(Pricer(problem).price(np.ones(1), np.ones(2)).proposals)
        picked = pick_greedily(pool, goal, np.zeros(2))
        assert sorted(pool.layers[picked]) == list(range(4))
        assert meets(pool.costs[picked].sum(axis=0), problem.bounds)
