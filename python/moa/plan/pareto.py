"""Pareto sets by the augmented epsilon-constraint method.

One objective is minimised with a little of the others added, which are held below a
grid of ceilings between their best value and their value where others are best.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .columns import Goal, Pool
from .optimize import InfeasibleError, Solution, solve
from .problem import Problem
from .span import Floats

#: Weight of the other objectives beside the one that is minimised.
AUGMENT = 1e-3
#: Relative difference of losses below which two plans are one.
SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Point:
    """A plan of the set."""

    values: Floats  #: [objectives]
    solution: Solution
    goal: Goal


def combine(problem: Problem, objectives: Sequence[Floats]) -> Problem:
    """The problem whose objectives are weighted sums of the given one's."""
    losses = np.tensordot(np.array(objectives), problem.losses, axes=1)
    return Problem(
        losses, problem.costs, problem.bounds, problem.group, problem.rules_per_layer,
        problem.ranks,
    )  # fmt: skip


def pareto(
    problem: Problem, steps: int, *, solver: str = "auto", time_limit: float = 600.0,
    names: list[str] | None = None, progress: Callable[[int, int], None] | None = None,
    pool: Pool | None = None,
) -> list[Point]:  # fmt: skip
    """Plans none of which is worse than another in all objectives, by rising value of
    the last, which is the one minimised. `steps`: ceilings tried for each other
    objective. time_limit: seconds for each solve. progress: called with solves done
    and the most there will be. pool: as of `solve`."""
    count = problem.objectives
    pool = Pool.uniform(problem) if pool is None else pool
    most = count + steps ** (count - 1)
    done = 0

    def run(goal: Goal) -> Point:
        nonlocal done
        found = solve(
            problem, goal, solver=solver, time_limit=time_limit, pool=pool, names=names
        )
        done += 1
        if progress:
            progress(done, most)
        return Point(found.losses, found, goal)

    free = np.full(count, np.inf)
    payoff = [run(Goal(_primary(count, k), free)) for k in range(count)]
    if count == 1:
        return payoff
    table = np.array([point.values for point in payoff])
    low, high = table.min(axis=0), table.max(axis=0)
    grids = [np.linspace(high[k], low[k], steps) for k in range(count - 1)]
    points = list(payoff)
    for ceilings in itertools.product(*grids):
        limits = np.array([*ceilings, np.inf])
        # The ceiling is met up to the gap that integers leave.
        limits[:-1] *= 1 + 1e-4
        if any(_makes_idle(point, limits) for point in points):
            continue
        try:
            points.append(run(Goal(_primary(count, count - 1), limits)))
        except InfeasibleError:
            done += 1  # No plan below these ceilings.
    return _undominated(points)


def _primary(count: int, k: int) -> Floats:
    weights = np.full(count, AUGMENT)
    weights[k] = 1
    return weights


def _makes_idle(point: Point, limits: Floats) -> bool:
    """Whether a solve at `limits` would find `point` again: it keeps them, and was
    found under limits at least as loose."""
    same_goal = point.goal.weights[-1] == 1
    within = bool((point.values <= limits * (1 + 1e-9)).all())
    return same_goal and within and bool((point.goal.ceilings >= limits).all())


def _undominated(points: list[Point]) -> list[Point]:
    """Points that no other is as good as in all objectives; of equal ones the first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: tuple(p.values[::-1])):
        slack = SAME * np.maximum(np.abs(point.values), 1e-12)
        if not any((other.values <= point.values + slack).all() for other in kept):
            kept.append(point)
    return kept
