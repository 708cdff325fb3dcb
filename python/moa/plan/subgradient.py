"""The fallback with numpy alone: prices of the bounds by subgradient ascent.

The same pricing and the same kind of lower bound as the decomposition's; the plan is
chosen greedily among the assignments seen on the way.
"""

from __future__ import annotations

import time

import numpy as np

from .columns import Goal, Pool, pick_greedily
from .pricing import Pricer
from .span import Floats

#: Most steps, and after how many without a better bound they are shortened.
STEPS = 300
PATIENCE = 12
#: Share of the objective that is close enough.
ENOUGH = 5e-4


def ascend(pool: Pool, goal: Goal, deadline: float) -> tuple[Floats, float, bool]:
    """Prices of the coupling rows, the lower bound they prove, and whether the time
    was out before the steps were."""
    problem, pricer = pool.problem, Pricer(pool.problem)
    rows, limits = pool.uses(goal)
    scale = np.maximum(limits, 1e-12)
    prices = best_prices = np.zeros(len(limits))
    bound, length, waited = -np.inf, 1.0, 0
    target = _objective(pool, goal, best_prices)
    for step in range(STEPS):
        if time.monotonic() > deadline:
            return best_prices, bound, True
        priced = pricer.price(*goal.weigh(prices))
        value = float(priced.values.sum() - prices @ limits)
        if value > bound:
            best_prices, waited = prices, 0
        else:
            waited += 1
            if waited == PATIENCE:
                prices, length, waited = best_prices, length / 2, 0
        bound = max(bound, value)
        if pool.add_all(priced.proposals) and step % 20 == 19:
            target = min(target, _objective(pool, goal, best_prices))
        if length < 1e-4 or target - bound <= ENOUGH * abs(target):
            break
        assignment = priced.best()
        losses = problem.total_losses(assignment)[np.isfinite(goal.ceilings)]
        used = np.concatenate([problem.total_costs(assignment), losses])
        # Each row in units of its limit, so that none dwarfs the others.
        slope = (used - limits) / scale
        slope[(prices <= 0) & (slope < 0)] = 0
        norm = float(slope @ slope)
        if norm == 0:
            break
        move = length * max(target - value, 1e-9 * abs(target)) / norm
        prices = np.maximum(prices + move * slope / scale, 0)
    return best_prices, bound, False


def _objective(pool: Pool, goal: Goal, prices: Floats) -> float:
    """Objective of the greedy choice; that of the worst columns where there is none."""
    picked = pick_greedily(pool, goal, prices)
    losses = pool.losses @ goal.weights
    if picked is None:
        return float(losses.max() * pool.problem.layers)
    return float(losses[picked].sum())
