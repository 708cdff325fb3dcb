"""The master problem in HiGHS: how to mix columns, then which one of each layer.

Coupling rows are the bounds of costs and the ceilings of losses; each has a slack at
a high price, so that the relaxation always has a solution.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import highspy
import numpy as np

from .columns import TOLERANCE, Goal, Pool, meets
from .span import Floats, Ints

#: Price of missing a limit by all of it, in units of the largest objective: the first,
#: and the highest that is tried before a limit counts as one that cannot be kept.
SLACK_PRICE, HIGHEST_PRICE = 1e4, 1e8
#: Nodes of branch and bound for integers: what is found by then is taken. Unlike a time
#: it gives the same plan on every machine.
MOST_NODES = 3000


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Optimum of the relaxation over the columns there are."""

    objective: float  #: With the price of slack.
    prices: Floats  #: [coupling rows], of 0 or more.
    missed: Floats  #: [coupling rows]: by how much a limit is missed.


class Master:
    """The relaxation; columns are added as pricing finds them."""

    def __init__(self, pool: Pool, goal: Goal) -> None:
        self._pool, self._goal = pool, goal
        self._layers = pool.problem.layers
        self._columns = 0
        _, limits = pool.uses(goal)
        self.limits = limits
        self._scale = np.maximum(limits, 1e-12)
        worst = float((pool.losses @ goal.weights).max(initial=0))
        self._unit = max(worst, 1e-12)
        self._model = _quiet()
        self._price = SLACK_PRICE
        infinity = highspy.kHighsInf
        for _ in range(self._layers):
            self._model.addRow(1.0, 1.0, 0, _NONE, _NOTHING)
        for limit, scale in zip(limits, self._scale):
            self._model.addRow(-infinity, limit / scale, 0, _NONE, _NOTHING)
        for row in range(len(limits)):
            self._model.addCol(
                SLACK_PRICE, 0.0, infinity, 1,
                np.array([self._layers + row], dtype=np.int32), np.array([-1.0]),
            )  # fmt: skip

    def solve(self, deadline: float) -> Relaxed | None:
        """Takes the pool's new columns in; None where `deadline` (time.monotonic)
        passed first."""
        self._take_columns()
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        self._model.setOptionValue("time_limit", self._model.getRunTime() + left)
        self._model.run()
        if self._model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        solution = self._model.getSolution()
        duals = np.array(solution.row_dual)[self._layers :]
        values = np.array(solution.col_value)
        return Relaxed(
            objective=self._model.getInfo().objective_function_value * self._unit,
            prices=np.maximum(-duals, 0) * self._unit / self._scale,
            missed=values[: len(self.limits)] * self._scale,
        )

    def raise_price(self) -> bool:
        """Makes missing a limit dearer; False where it is as dear as it gets."""
        if self._price >= HIGHEST_PRICE:
            return False
        self._price *= 100
        count = len(self.limits)
        slacks = np.arange(count, dtype=np.int32)
        self._model.changeColsCost(count, slacks, np.full(count, self._price))
        return True

    def _take_columns(self) -> None:
        new = slice(self._columns, None)
        rows, _ = self._pool.uses(self._goal)
        rows = rows[new] / self._scale
        starts, indices, values = _sparse(self._pool.layers[new], rows, self._layers)
        costs = self._pool.losses[new] @ self._goal.weights / self._unit
        count = len(costs)
        if count:
            self._model.addCols(
                count, costs, np.zeros(count), np.full(count, highspy.kHighsInf),
                len(indices), starts, indices, values,
            )  # fmt: skip
        self._columns += count


@dataclass(frozen=True, eq=False)
class Chosen:
    """Integers over the columns there are."""

    picked: Ints | None  #: A column of each layer; None where none was found.
    bound: float  #: No choice of these columns has a smaller objective.


def choose(
    pool: Pool, goal: Goal, start: Ints | None, relative_gap: float, deadline: float
) -> Chosen:
    """One column for each layer, within all limits, of the least objective. `start`: a
    choice to begin with, and the answer where the time is out before a better one is
    found."""
    rows, limits = pool.uses(goal)
    objective = pool.losses @ goal.weights
    count, owned, scale = len(pool), pool.problem.layers, np.maximum(limits, 1e-12)
    unit = max(float(objective.max(initial=0)), 1e-12)
    model = _quiet()
    lower = np.concatenate([np.ones(owned), np.full(len(limits), -highspy.kHighsInf)])
    upper = np.concatenate([np.ones(owned), limits / scale])
    for low, high in zip(lower, upper):
        model.addRow(low, high, 0, _NONE, _NOTHING)
    starts, indices, values = _sparse(pool.layers, rows / scale, owned)
    model.addCols(
        count, objective / unit, np.zeros(count), np.ones(count), len(indices), starts,
        indices, values,
    )  # fmt: skip
    integer = np.full(count, highspy.HighsVarType.kInteger.value, dtype=np.uint8)
    model.changeColsIntegrality(count, np.arange(count, dtype=np.int32), integer)
    model.setOptionValue("mip_rel_gap", relative_gap)
    model.setOptionValue("mip_max_nodes", MOST_NODES)
    model.setOptionValue("time_limit", max(deadline - time.monotonic(), 0.05))
    if start is not None:
        model.setSolution(owned, np.sort(start).astype(np.int32), np.ones(owned))
    model.run()
    info = model.getInfo()
    bound = info.mip_dual_bound * unit
    if model.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        bound = np.inf
    found = np.array(model.getSolution().col_value)
    if len(found) != count or info.primal_solution_status != _FEASIBLE:
        return Chosen(start, bound)
    picked = np.flatnonzero(found > 0.5)
    picked = picked[np.argsort(pool.layers[picked])]
    whole = np.array_equal(pool.layers[picked], np.arange(owned))
    if not whole or not meets(rows[picked].sum(axis=0), limits):
        return Chosen(start, bound)
    return Chosen(picked, bound)


_FEASIBLE = 2  # Of HiGHS: the solution keeps all rows.
_NONE = np.array([], dtype=np.int32)
_NOTHING = np.array([], dtype=np.float64)


def _quiet() -> highspy.Highs:
    model = highspy.Highs()  # type: ignore[no-untyped-call]
    model.setOptionValue("output_flag", False)
    model.setOptionValue("threads", 1)
    # As exact as limits are checked afterwards.
    model.setOptionValue("primal_feasibility_tolerance", TOLERANCE)
    model.setOptionValue("mip_feasibility_tolerance", TOLERANCE)
    return model


def _sparse(owners: Ints, rows: Floats, owned: int) -> tuple[Ints, Ints, Floats]:
    """Columns as HiGHS takes them: starts, rows, values. Each has a one in its owner's
    row, then all coupling rows."""
    count, width = len(rows), rows.shape[1] + 1
    indices = np.empty((count, width), dtype=np.int32)
    indices[:, 0] = owners
    indices[:, 1:] = owned + np.arange(width - 1)
    values = np.concatenate([np.ones((count, 1)), rows], axis=1)
    starts = (np.arange(count) * width).astype(np.int32)
    return starts, indices.ravel(), values.ravel()
