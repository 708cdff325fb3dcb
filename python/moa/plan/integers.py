"""From prices to a plan: one assignment for each layer, and how good it must be.

First among the columns that are known, then among all assignments that are nearly the
best at these prices; where those hold every plan that could be better, the gap that is
left is that of the integers alone.
"""

from __future__ import annotations

import time

import numpy as np

from .columns import Goal, Pool, pick_greedily
from .nearby import listable, nearly_best
from .pricing import Pricer
from .span import Floats, Ints

#: Integers are chosen to this share.
INTEGER_GAP = 1e-4
#: How far from the bound assignments are listed at first, as a share of it, and by
#: what more or fewer are listed then.
FIRST_SLACK, WIDER = 1e-3, 4
#: How far from the optimal prices further columns are sought: near, then far.
NEAR, FAR = np.geomspace(0.3, 0.01, 12), np.geomspace(3, 0.3, 48)


def greedily(pool: Pool, goal: Goal, prices: Floats, deadline: float) -> Ints | None:
    """[layers, units] within all limits, with numpy alone; None where none was found."""
    picked = pick_greedily(pool, goal, prices)
    if picked is None:
        # The columns that are nearly best do not fit together: more of them.
        enrich(pool, goal, prices, FAR, deadline)
        picked = pick_greedily(pool, goal, prices)
    return None if picked is None else pool.assignment(picked)


def settle(
    pool: Pool, goal: Goal, prices: Floats, deadline: float
) -> tuple[Ints | None, float]:
    """[layers, units] within all limits, None where none was found, and a lower bound
    of the objective of all plans. Its columns are added to the pool."""
    problem, pricer = pool.problem, Pricer(pool.problem)
    weights, of_costs = goal.weigh(prices)
    least = pricer.price(weights, of_costs).values
    _, limits = pool.uses(goal)
    limited = bool(np.isfinite(goal.ceilings).any())
    root = bound = float(least.sum() - prices @ limits)
    picked = pick_greedily(pool, goal, prices)
    best = None if picked is None else pool.assignment(picked)

    def above(bound: float) -> float:
        """By how much the best plan so far is above a bound."""
        if best is None:
            return np.inf
        return float(goal.weights @ problem.total_losses(best)) - bound

    def close() -> bool:
        return best is not None and above(bound) <= INTEGER_GAP * above(0.0)

    scale = abs(root) + 1e-6 * float(abs(least).sum())
    slack = FIRST_SLACK * scale
    narrowed, done = False, not listable(problem) or close()
    while not done and time.monotonic() < deadline:
        reach = min(slack, above(root))
        listed = nearly_best(pricer, weights, of_costs, least, reach, every=limited)
        if listed is None:
            slack, narrowed = slack / WIDER, True
            done = slack < INTEGER_GAP * scale
            continue
        columns = Pool(problem)
        columns.add_all(listed)
        best, proven = _choose(columns, goal, best, deadline)
        # A plan with other assignments is at least so far above the root.
        bound = max(bound, min(proven, root + reach))
        done = narrowed or above(root) <= slack or close()
        slack *= WIDER
    for spreads in (NEAR, FAR):
        if best is not None and (bound > root or close()):
            break
        enrich(pool, goal, prices, spreads, deadline)
        best, _ = _choose(pool, goal, best, deadline)
    if best is not None:
        pool.add_all(best[:, None])
    return best, bound


def _choose(
    columns: Pool, goal: Goal, best: Ints | None, deadline: float
) -> tuple[Ints | None, float]:
    """The best assignment of these columns and those of `best`, and the bound of both."""
    from .master import choose

    start = None
    if best is not None:
        columns.add_all(best[:, None])
        start = columns.indices(best)
    chosen = choose(columns, goal, start, INTEGER_GAP, deadline)
    return None if chosen.picked is None else columns.assignment(chosen.picked), chosen.bound


def enrich(pool: Pool, goal: Goal, prices: Floats, spreads: Floats, deadline: float) -> None:
    """Adds columns that are nearly best: those of prices near the given ones, as far
    as each of the spreads."""
    random, pricer = np.random.default_rng(0), Pricer(pool.problem)
    for spread in spreads:
        if time.monotonic() > deadline:
            return
        near = prices * np.exp(random.normal(0, spread, len(prices)))
        pool.add_all(pricer.price(*goal.weigh(near)).proposals)
