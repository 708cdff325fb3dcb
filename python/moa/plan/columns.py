"""Columns: whole assignments of one layer, kept from one solve to the next.

Also the greedy choice of one column a layer, which a solver falls back on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .problem import Problem
from .span import Floats, Ints

#: How far a bound may be missed by rounding errors, relative to it.
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Goal:
    """What a solve minimises, and what it must keep below."""

    weights: Floats  #: [objectives]: of the losses, in the objective.
    ceilings: Floats  #: [objectives]: most of each loss; infinite for no limit.

    @staticmethod
    def mean(problem: Problem) -> Goal:
        """The mean of all objectives, without further limits."""
        count = problem.objectives
        return Goal(np.full(count, 1 / count), np.full(count, np.inf))

    def weigh(self, prices: Floats) -> tuple[Floats, Floats]:
        """Prices of coupling rows as pricing takes them: weights of losses (the goal's
        and the prices of ceilings), and prices of costs."""
        limited = np.isfinite(self.ceilings)
        costs = len(prices) - int(limited.sum())
        weights = self.weights.copy()
        weights[limited] += prices[costs:]
        return weights, prices[:costs]


class Pool:
    """Columns of all layers, each once."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._seen: dict[tuple[int, bytes], int] = {}
        self._layers: list[int] = []
        self._chosen: list[Ints] = []
        self._losses: list[Floats] = []
        self._costs: list[Floats] = []

    @staticmethod
    def uniform(problem: Problem) -> Pool:
        """Of each option the columns that have it everywhere."""
        pool = Pool(problem)
        uniform = np.repeat(np.arange(problem.options)[:, None], problem.units, axis=1)
        pool.add_all([uniform] * problem.layers)
        return pool

    def __len__(self) -> int:
        return len(self._layers)

    def add(self, layer: int, assignments: Ints) -> int:
        """Adds assignments [.., units] of a layer; how many of them are new."""
        new = []
        for chosen in assignments:
            key = _key(layer, chosen)
            if key not in self._seen:
                self._seen[key] = len(self._seen)
                new.append(chosen)
        if new:
            added = np.stack(new)
            self._layers += [layer] * len(new)
            self._chosen += new
            self._losses += list(self.problem.losses_of(layer, added).T)
            self._costs += list(self.problem.costs_of(added).T)
        return len(new)

    def add_all(self, proposals: Iterable[Ints]) -> int:
        """Adds the assignments of every layer; how many of them are new."""
        return sum(self.add(layer, found) for layer, found in enumerate(proposals))

    @property
    def layers(self) -> Ints:
        """[columns]"""
        return np.array(self._layers, dtype=np.int64)

    @property
    def losses(self) -> Floats:
        """[columns, objectives]"""
        return np.array(self._losses)

    @property
    def costs(self) -> Floats:
        """[columns, constraints]"""
        return np.array(self._costs)

    def uses(self, goal: Goal) -> tuple[Floats, Floats]:
        """What columns use of every coupling row, [columns, rows], and the rows'
        limits: the bounds of costs, then the finite ceilings of losses."""
        limited = np.isfinite(goal.ceilings)
        rows = np.concatenate([self.costs, self.losses[:, limited]], axis=1)
        return rows, np.concatenate([self.problem.bounds, goal.ceilings[limited]])

    def indices(self, assignment: Ints) -> Ints:
        """One column index a layer of an assignment [layers, units] that is here."""
        return np.array([self._seen[_key(k, chosen)] for k, chosen in enumerate(assignment)])

    def assignment(self, picked: Ints) -> Ints:
        """[.., units] of column indices, such as one a layer."""
        return np.stack([self._chosen[column] for column in picked])


def _key(layer: int, chosen: Ints) -> tuple[int, bytes]:
    return layer, chosen.astype(np.int16).tobytes()


def meets(used: Floats, limits: Floats) -> bool:
    return bool((used <= limits + TOLERANCE * np.maximum(1.0, abs(limits))).all())


def pick_greedily(pool: Pool, goal: Goal, prices: Floats) -> Ints | None:
    """A column for each layer that keeps all limits, or None if none was found: the
    best at `prices` [coupling rows], raised as little as makes the limits hold, then
    the changes that gain most while they fit."""
    layers, objective = pool.layers, pool.losses @ goal.weights
    rows, limits = pool.uses(goal)
    scale = np.maximum(limits, 1e-300)
    # Of no price a little, so that raising prices raises all.
    prices = prices + 1e-6 * max(float(objective.max(initial=0)), 1e-12) / scale
    priced, shares = rows @ prices, (rows / scale).sum(axis=1)

    def pick(raised: float) -> Ints:
        """Columns at prices times e^raised; infinite: the ones that use least."""
        value = shares if np.isinf(raised) else objective + np.exp(raised) * priced
        return _least_of_layers(value, layers, pool.problem.layers)

    def fits(picked: Ints) -> bool:
        return meets(rows[picked].sum(axis=0), limits)

    low, high = -2.0, 16.0
    picked = pick(high)
    if not fits(picked):
        repaired = _repair(pick(np.inf), layers, rows / scale, limits / scale)
        if repaired is None:
            return None
        picked = repaired
    else:
        while high - low > 1e-4:
            middle = (low + high) / 2
            tried = pick(middle)
            if fits(tried):
                picked, high = tried, middle
            else:
                low = middle
    while True:
        spare = limits - rows[picked].sum(axis=0)
        gain = objective[picked][layers] - objective
        gain[~(rows - rows[picked][layers] <= spare).all(axis=1)] = 0
        best = int(gain.argmax())
        if gain[best] <= 1e-12 * max(1.0, abs(float(objective[picked].sum()))):
            return picked
        picked[layers[best]] = best


def _repair(picked: Ints, layers: Ints, rows: Floats, limits: Floats) -> Ints | None:
    """Changes one layer after the other as long as limits are missed by less; None
    where that ends before they hold."""
    picked = picked.copy()
    used = rows[picked].sum(axis=0)
    while not meets(used, limits):
        after = used - rows[picked][layers] + rows
        missed = np.maximum(after - limits, 0).sum(axis=1)
        best = int(missed.argmin())
        if missed[best] >= np.maximum(used - limits, 0).sum() - TOLERANCE / 10:
            return None
        picked[layers[best]] = best
        used = rows[picked].sum(axis=0)
    return picked


def _least_of_layers(value: Floats, layers: Ints, count: int) -> Ints:
    order = np.lexsort((value, layers))
    first = np.searchsorted(layers[order], np.arange(count))
    result: Ints = order[first]
    return result
