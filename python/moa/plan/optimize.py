"""Solves a problem: Dantzig-Wolfe decomposition over layers, with a proven gap.

A column is one layer's whole assignment; only the bounds couple layers. The master
prices the bounds, pricing finds each layer's best assignments at those prices and,
with them, a lower bound that holds for every assignment; `integers.py` makes a plan of
that, and raises the bound.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from .columns import Goal, Pool, meets
from .errors import PlannerError
from .integers import greedily, settle
from .pricing import Pricer
from .problem import Problem
from .span import Floats, Ints
from .subgradient import ascend

#: The relaxation is solved to this share of its value.
RELAXED_GAP = 1e-6


@dataclass(frozen=True, eq=False)
class Solution:
    """An assignment and how good it is proven to be."""

    assignment: Ints  #: [layers, units]: indices of rules.
    losses: Floats  #: [objectives]
    costs: Floats  #: [constraints]
    objective: float
    bound: float  #: No assignment has a smaller objective.
    solver: str
    seconds: float
    timed_out: bool

    @property
    def gap(self) -> float:
        """(objective - bound) / objective: by how much it may miss the optimum."""
        if self.objective <= 0:
            return 0.0
        return max(self.objective - self.bound, 0.0) / self.objective


class InfeasibleError(PlannerError):
    """No assignment keeps the bounds; `least` are the least values of each constraint
    that would be possible."""

    def __init__(self, message: str, least: Floats) -> None:
        super().__init__(message)
        self.least = least


def have_highs() -> bool:
    """Whether HiGHS (the package highspy) is installed."""
    try:
        import highspy  # noqa: F401
    except ImportError:
        return False
    return True


def solve(
    problem: Problem,
    goal: Goal | None = None,
    *,
    solver: str = "auto",
    time_limit: float = 600.0,
    pool: Pool | None = None,
    names: list[str] | None = None,
) -> Solution:
    """The best assignment within the problem's bounds.

    goal: default the mean of all objectives. solver: "highs", "subgradient" (numpy
    alone), or "auto": the first where it is installed. time_limit: seconds; when they
    are out, the best so far is returned with its gap. pool: columns of earlier solves
    of this problem; new ones are added. names: what messages call the constraints.
    InfeasibleError where the bounds cannot be kept.
    """
    begin = time.monotonic()
    goal = goal or Goal.mean(problem)
    pool = Pool.uniform(problem) if pool is None else pool
    names = names or [f"constraint {k}" for k in range(len(problem.bounds))]
    _check_each_bound(problem, names)
    if solver == "auto":
        solver = "highs" if have_highs() else "subgradient"
    deadline = begin + time_limit
    if solver == "subgradient":
        prices, bound, timed_out = ascend(pool, goal, deadline)
        found = greedily(pool, goal, prices, deadline)
    else:
        prices, bound, timed_out = _decompose(pool, goal, begin, deadline, names)
        found, proven = settle(pool, goal, prices, deadline)
        bound = max(bound, proven)
    timed_out = timed_out or time.monotonic() > deadline
    if found is None and timed_out:
        raise PlannerError(
            f"expected a plan within {time_limit:g} s, found none; allow more time"
        )
    if found is None:
        raise _cannot(problem, names, problem.bounds)
    losses = problem.total_losses(found)
    objective = float(goal.weights @ losses)
    return Solution(
        found, losses, problem.total_costs(found), objective,
        min(max(bound, 0.0), objective), solver, time.monotonic() - begin, timed_out,
    )  # fmt: skip


def _decompose(
    pool: Pool, goal: Goal, begin: float, deadline: float, names: list[str]
) -> tuple[Floats, float, bool]:
    """Prices of the coupling rows, the lower bound they prove, and whether the time
    was out before they were the best ones."""
    from .master import Master

    problem, pricer, master = pool.problem, Pricer(pool.problem), Master(pool, goal)
    bound, prices = -np.inf, np.zeros(len(master.limits))
    # A fifth of the time is left for choosing integers.
    relaxing = begin + 0.8 * (deadline - begin)
    while True:
        relaxed = master.solve(relaxing)
        if relaxed is None:
            return prices, bound, True
        prices = relaxed.prices
        priced = pricer.price(*goal.weigh(prices))
        bound = max(bound, float(priced.values.sum() - prices @ master.limits))
        done = relaxed.objective - bound <= RELAXED_GAP * abs(relaxed.objective)
        if pool.add_all(priced.proposals) and not done:
            continue
        if meets(relaxed.missed, np.zeros(len(prices))):
            break
        if not master.raise_price():
            raise _cannot(problem, names, master.limits + relaxed.missed)
    return prices, bound, False


def _check_each_bound(problem: Problem, names: list[str]) -> None:
    least = problem.least_costs()
    if not meets(least, problem.bounds):
        raise _cannot(problem, names, np.maximum(least, problem.bounds))


def _cannot(problem: Problem, names: list[str], least: Floats) -> InfeasibleError:
    """`least`: values of the limits that could be kept."""
    limits = problem.bounds
    short = [
        f"{name} {limit:.4g} (at least {possible:.4g})"
        for name, limit, possible in zip(names, limits, least)
        if possible > limit * (1 + 1e-9)
    ]
    what = ", ".join(short) or "all bounds together"
    return InfeasibleError(
        f"expected bounds that some plan can keep, found {what}; raise them, or add "
        "shorter rules to the grid",
        least,
    )
