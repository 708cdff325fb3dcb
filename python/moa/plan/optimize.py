"""Solves a problem: Dantzig-Wolfe decomposition over layers, with a proven gap.

A column is one layer's whole assignment; only the bounds couple layers. The master
prices the bounds, pricing finds each layer's best assignments at those prices and,
with them, a lower bound that holds for every assignment; at the end integers are
chosen among the columns found.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from .columns import Goal, Pool, meets, pick_greedily
from .errors import PlannerError
from .pricing import Pricer
from .problem import Problem
from .span import Floats, Ints
from .subgradient import ascend

#: The relaxation is solved to this share of its value.
RELAXED_GAP = 1e-6
#: Integers are chosen to this share.
INTEGER_GAP = 1e-4
#: Prices near the optimal ones that are tried for further columns.
NEARBY = 12


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
    pool = pool or Pool(problem)
    names = names or [f"constraint {k}" for k in range(len(problem.bounds))]
    _check_each_bound(problem, names)
    if solver == "auto":
        solver = "highs" if have_highs() else "subgradient"
    deadline = begin + time_limit
    if solver == "subgradient":
        prices, bound, timed_out = ascend(pool, goal, deadline)
    else:
        prices, bound, timed_out = _decompose(pool, goal, begin, deadline, names)
    picked = _integers(pool, goal, prices, solver, deadline)
    if picked is None and not timed_out:
        # The columns that are nearly best do not fit together: more of them.
        _enrich(pool, goal, prices, np.geomspace(3, 0.3, 4 * NEARBY), deadline)
        picked = _integers(pool, goal, prices, solver, deadline)
    if picked is None and timed_out:
        raise PlannerError(
            f"expected a plan within {time_limit:g} s, found none; allow more time"
        )
    if picked is None:
        raise _cannot(problem, names, problem.bounds)
    timed_out = timed_out or time.monotonic() > deadline
    assignment = pool.assignment(picked)
    losses = problem.total_losses(assignment)
    objective = float(goal.weights @ losses)
    return Solution(
        assignment, losses, problem.total_costs(assignment), objective,
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
        priced = pricer.price(*split(problem, goal, prices))
        bound = max(bound, float(priced.values.sum() - prices @ master.limits))
        done = relaxed.objective - bound <= RELAXED_GAP * abs(relaxed.objective)
        if pool.add_all(priced.proposals) and not done:
            continue
        if meets(relaxed.missed, np.zeros(len(prices))):
            break
        if not master.raise_price():
            raise _cannot(problem, names, master.limits + relaxed.missed)
    _enrich(pool, goal, prices, np.geomspace(0.3, 0.01, NEARBY), relaxing)
    return prices, bound, False


def _integers(
    pool: Pool, goal: Goal, prices: Floats, solver: str, deadline: float
) -> Ints | None:
    """A column for each layer; None where no choice that keeps the limits was found."""
    start = pick_greedily(pool, goal, prices)
    if solver == "subgradient":
        return start
    from .master import choose

    return choose(pool, goal, start, INTEGER_GAP, deadline)


def _enrich(pool: Pool, goal: Goal, prices: Floats, spreads: Floats, deadline: float) -> None:
    """Adds columns that are nearly best: those of prices near the given ones, as far
    as each of the spreads."""
    random, pricer = np.random.default_rng(0), Pricer(pool.problem)
    for spread in spreads:
        if time.monotonic() > deadline:
            return
        near = prices * np.exp(random.normal(0, spread, len(prices)))
        pool.add_all(pricer.price(*split(pool.problem, goal, near)).proposals)


def split(problem: Problem, goal: Goal, prices: Floats) -> tuple[Floats, Floats]:
    """Prices of coupling rows as pricing takes them: weights of losses (those of the
    goal and the prices of ceilings), and prices of costs."""
    count = len(problem.bounds)
    weights = goal.weights.copy()
    weights[np.isfinite(goal.ceilings)] += prices[count:]
    return weights, prices[:count]


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
