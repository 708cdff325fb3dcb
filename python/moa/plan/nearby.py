"""All assignments of a layer that are nearly the best at given prices.

At the prices of a lower bound no plan is below the bound plus what any one of its
layers loses against that layer's best. So a plan that beats another has in every layer
one of the assignments within their difference: listed whole, they hold the optimum.
"""

from __future__ import annotations

import numpy as np

from .pricing import Pricer
from .problem import Problem
from .span import Floats, Ints

#: Assignments of all layers together that are listed at most; one of a single rule
#: counts again for each pair of rules it comes up in.
MOST = 20000
#: Most query heads of a KV head whose assignments are listed, two rules each.
MOST_UNITS = 8


def listable(problem: Problem) -> bool:
    """Whether `nearly_best` knows the form of this problem: all but heads of several
    units without a limit on the rules of a layer."""
    if problem.rules_per_layer is None:
        return problem.group == 1
    return problem.group <= MOST_UNITS


def nearly_best(
    pricer: Pricer, weights: Floats, prices: Floats, least: Floats, slack: float,
    *, every: bool,
) -> list[Ints] | None:  # fmt: skip
    """For each layer all assignments [.., units] whose value is at most `slack` above
    `least` [layers], the values that pricing found at these weights and prices. None
    where there are more than MOST, or where the problem is not `listable`. every: also
    those that cost as much as another and have more weighted loss, which may be wanted
    where single losses have ceilings."""
    problem = pricer.problem
    if not listable(problem):
        return None
    each = prices / (problem.layers * problem.kv_heads) @ problem.costs
    losses = np.tensordot(weights, problem.losses, axes=1)
    found, left = [], MOST
    for layer in range(problem.layers):
        # With what rounding makes of the least itself.
        ceiling = float(least[layer]) + slack + 1e-12 * abs(float(least[layer]))
        if problem.rules_per_layer is None:
            listed = _combinations(losses[layer] + each, ceiling, left)
        else:
            listed = _of_pairs(pricer, losses[layer], prices, ceiling, left, every)
        if listed is None:
            return None
        left -= len(listed)
        found.append(listed)
    return found


def _of_pairs(
    pricer: Pricer, losses: Floats, prices: Floats, ceiling: float, most: int, every: bool
) -> Ints | None:
    """Of one layer with at most two rules: `losses` [units, options]."""
    problem, formats = pricer.problem, pricer.problem.formats
    first, second = pricer.pairs
    if problem.rules_per_layer == 1:
        first = second = first[first == second]
    takes = np.arange(1 << problem.group)[:, None] >> np.arange(problem.group) & 1
    values = np.concatenate(
        [
            _pair_values(
                problem, losses, prices, takes, first * formats + f, second * formats + f
            )
            for f in range(formats)
        ],
        axis=1,
    )
    if not every:
        _drop_alike(values, takes)
    found, count = [np.empty((0, problem.units), dtype=np.int64)], 0
    for pair in np.flatnonzero(values.min(axis=1).sum(axis=0) <= ceiling):
        heads = _combinations(values[:, :, pair], ceiling, most)
        if heads is None:
            return None
        form, subset = np.divmod(heads, len(takes))
        rules = np.where(takes[subset], second[pair], first[pair])
        chosen = rules * formats + form[..., None]
        chosen = chosen.reshape(len(heads), problem.units)
        chosen = chosen[_even(chosen, problem.ranks)]
        count += len(chosen)
        if count > most:
            return None
        found.append(chosen)
    return np.unique(np.concatenate(found), axis=0)


def _pair_values(
    problem: Problem, losses: Floats, prices: Floats, takes: Ints, first: Ints, second: Ints
) -> Floats:
    """[KV heads, subsets, pairs]: value of KV heads of which the units of `takes`
    [subsets, group] have the second option of a pair, the others the first."""
    costs, group, heads = problem.costs, problem.group, problem.kv_heads
    one = losses[:, first].reshape(heads, group, -1)
    change = losses[:, second].reshape(heads, group, -1) - one
    values: Floats = one.sum(axis=1)[:, None] + np.einsum("sg,hgp->hsp", takes, change)
    priced = prices / (problem.layers * heads)
    mixed = priced @ np.maximum(costs[:, first], costs[:, second])
    some = takes.any(axis=1, keepdims=True)
    every = takes.all(axis=1, keepdims=True)
    values += np.where(some, mixed, priced @ costs[:, first])
    values += np.where(every, priced @ costs[:, second] - mixed, 0)
    values[:, 1:, first == second] = np.inf  # The same again.
    return values


def _drop_alike(values: Floats, takes: Ints) -> None:
    """Leaves the best of the subsets that mix two options: all of them cost the same.
    `values` [KV heads, formats x subsets, pairs] are infinite for the others."""
    mixed = np.flatnonzero(takes.any(axis=1) & ~takes.all(axis=1))
    if len(mixed) < 2:
        return
    of_formats = values.reshape(len(values), -1, len(takes), values.shape[2])
    each = of_formats[:, :, mixed]
    best = each.argmin(axis=2)[:, :, None] == np.arange(len(mixed))[:, None]
    of_formats[:, :, mixed] = np.where(best, each, np.inf)


def _combinations(values: Floats, ceiling: float, most: int) -> Ints | None:
    """All choices [.., owners] of one option for each owner of `values` [owners,
    options] whose sum is at most `ceiling`, not below the least of them; None where
    there are more than `most`."""
    least = values.min(axis=1)
    extra = values - least[:, None]
    room = ceiling - float(least.sum())
    chosen: Ints = values.argmin(axis=1)[None]
    sums = np.zeros(1)
    for owner in np.flatnonzero((extra <= room).sum(axis=1) > 1):
        options = np.flatnonzero(extra[owner] <= room)
        raised = sums[:, None] + extra[owner, options]
        kept, taken = np.nonzero(raised <= room)
        if len(kept) > most:
            return None
        chosen, sums = chosen[kept], raised[kept, taken]
        chosen[:, owner] = options[taken]
    return chosen


def _even(chosen: Ints, ranks: int) -> Ints:
    """Which assignments [.., units] give each rank as many heads of each rule."""
    each = np.sort(chosen.reshape(len(chosen), ranks, -1), axis=2)
    same: Ints = (each == each[:, :1]).all(axis=(1, 2))
    return same
