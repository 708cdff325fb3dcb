"""Pricing: the best assignments of each layer at given prices, exactly.

With at most two rules in a layer all pairs are tried: each unit takes the cheaper of
the two, and a KV head with several units has three states (all the one, all the
other, mixed at the cost of the dearer). Without a limit each KV head decides alone. A
KV head has its rules in the format that is cheapest for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .problem import Problem
from .span import Floats, Ints

#: Columns of a layer that one pricing proposes.
PROPOSALS = 3


@dataclass(frozen=True, eq=False)
class Priced:
    """What pricing found."""

    #: [layers]: least value of a layer, losses and priced costs together.
    values: Floats
    #: For each layer, assignments [proposals, units], the best first.
    proposals: list[Ints]

    def best(self) -> Ints:
        """[layers, units]: the best assignment of each layer."""
        return np.stack([found[0] for found in self.proposals])


class Pricer:
    """Prices one problem again and again."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        first, second = np.triu_indices(problem.rules)
        self._first, self._second = first.astype(np.int64), second.astype(np.int64)

    @property
    def pairs(self) -> tuple[Ints, Ints]:
        """First and second rule of all pairs, a rule with itself among them."""
        return self._first, self._second

    def price(self, weights: Floats, prices: Floats) -> Priced:
        """`weights` [objectives] of the losses, `prices` [constraints] of the costs,
        none below 0."""
        problem = self.problem
        prices = prices / (problem.layers * problem.kv_heads)
        losses = np.tensordot(weights, problem.losses, axes=1)
        values, proposals = np.empty(problem.layers), []
        for layer in range(problem.layers):
            values[layer], found = self._layer(losses[layer], prices)
            proposals.append(found)
        return Priced(values, proposals)

    def _layer(self, losses: Floats, prices: Floats) -> tuple[float, Ints]:
        problem = self.problem
        if problem.rules_per_layer == 1:
            return self._one_rule(losses, prices)
        if problem.rules_per_layer is None and problem.group == 1:
            value = losses + prices @ problem.costs
            return float(value.min(axis=1).sum()), _nearly_least(value)
        if problem.group > 1:
            return self._groups(losses, prices)
        value, form = self._best_formats(losses + prices @ problem.costs)
        least, chosen = self._pairs(value)
        return least, self._options(chosen, form)

    def _best_formats(self, value: Floats) -> tuple[Floats, Ints]:
        """[owners, rules] of `value` [owners, options]: each rule in its least format,
        and which that is."""
        each = value.reshape(len(value), self.problem.rules, self.problem.formats)
        return each.min(axis=2), each.argmin(axis=2)

    def _options(self, chosen: Ints, form: Ints) -> Ints:
        """Options of rules [.., owners] whose formats are [owners, rules]."""
        owner = np.arange(chosen.shape[1])
        result: Ints = chosen * self.problem.formats + form[owner, chosen]
        return result

    def _one_rule(self, losses: Floats, prices: Floats) -> tuple[float, Ints]:
        """One rule for all; `losses` [units, options]."""
        problem = self.problem
        # A rule costs a KV head the same however many units it has.
        heads = losses.reshape(problem.kv_heads, problem.group, -1).sum(axis=1)
        value, form = self._best_formats(heads + prices @ problem.costs)
        total = value.sum(axis=0)
        best = _least(total)
        chosen = np.repeat(best[:, None], problem.kv_heads, axis=1)
        options = np.repeat(self._options(chosen, form), problem.group, axis=1)
        return float(total[best[0]]), options

    def _pairs(self, value: Floats) -> tuple[float, Ints]:
        """Units one by one, at most two rules; `value` [units, rules]."""
        one, other = value[:, self._first], value[:, self._second]
        if self.problem.ranks > 1:
            return self._even(one, other)
        total = np.minimum(one, other).sum(axis=0)
        best = _least(total)
        chosen = np.where(other[:, best] < one[:, best], self._second[best], self._first[best])
        return float(total[best[0]]), chosen.T

    def _even(self, one: Floats, other: Floats) -> tuple[float, Ints]:
        """As many heads of each rule on each rank: the heads of a rank that gain most
        change from the one rule to the other, equally many on all."""
        ranks = self.problem.ranks
        gain = (one - other).reshape(ranks, -1, one.shape[1])
        order = np.argsort(-gain, axis=1, kind="stable")
        gains = np.take_along_axis(gain, order, axis=1).cumsum(axis=1).sum(axis=0)
        gains = np.concatenate([np.zeros((1, gains.shape[1])), gains])  # [count, pairs]
        total = one.sum(axis=0) - gains.max(axis=0)
        best = _least(total)
        changed = gains.argmax(axis=0)[best]
        place = np.argsort(order[:, :, best], axis=1)  # Of each head in its rank's order.
        chosen = np.where(place < changed, self._second[best], self._first[best])
        return float(total[best[0]]), chosen.reshape(-1, len(best)).T.astype(np.int64)

    def _groups(self, losses: Floats, prices: Floats) -> tuple[float, Ints]:
        """KV heads of several units: `losses` [units, options]."""
        problem, formats = self.problem, self.problem.formats
        first, second = self._first, self._second
        priced = prices @ problem.costs
        shape = (problem.kv_heads, problem.group, len(first))
        states, cheaper = [], []
        for form in range(formats):
            a, b = first * formats + form, second * formats + form
            one, other = losses[:, a], losses[:, b]
            mixed = prices @ np.maximum(problem.costs[:, a], problem.costs[:, b])
            cheaper.append(other < one)
            states += [
                one.reshape(shape).sum(axis=1) + priced[a],
                other.reshape(shape).sum(axis=1) + priced[b],
                np.minimum(one, other).reshape(shape).sum(axis=1) + mixed,
            ]
        every = np.stack(states)  # [formats x state, KV heads, pairs]
        state = every.argmin(axis=0)
        least = np.take_along_axis(every, state[None], axis=0)[0]
        if problem.rules_per_layer is None:
            best = _nearly_least(least).T  # A pair for each KV head.
            value = float(least.min(axis=1).sum())
        else:
            total = least.sum(axis=0)
            pairs = _least(total)
            best = np.broadcast_to(pairs, (problem.kv_heads, len(pairs)))
            value = float(total[pairs[0]])
        # [KV heads, proposals] of pairs, then of each unit the rule of its state.
        state = np.repeat(np.take_along_axis(state, best, axis=1), problem.group, axis=0)
        best = np.repeat(best, problem.group, axis=0)
        unit = np.arange(problem.units)[:, None]
        forms, kind = np.divmod(state, 3)
        takes_second = np.where(
            kind == 2, np.stack(cheaper)[forms, unit, best], kind == 1
        )  # fmt: skip
        chosen = np.where(takes_second, second[best], first[best]) * formats + forms
        return value, chosen.T.astype(np.int64)


def _nearly_least(value: Floats) -> Ints:
    """[proposals, owners]: for each owner of `value` [owners, options] the least
    option; then again with the owner changed whose second option is nearest."""
    best = value.argmin(axis=1)
    proposals = np.repeat(best[None], PROPOSALS, axis=0)
    if value.shape[1] > 1:
        other = value.copy()
        other[np.arange(len(best)), best] = np.inf
        second = other.argmin(axis=1)
        near = np.argsort(other.min(axis=1) - value.min(axis=1), kind="stable")
        for row, owner in enumerate(near[: PROPOSALS - 1], 1):
            proposals[row, owner] = second[owner]
    return proposals.astype(np.int64)


def _least(total: Floats) -> Ints:
    """Indices of the least few, the least first."""
    count = min(PROPOSALS, len(total))
    some = np.argpartition(total, count - 1)[:count]
    result: Ints = some[np.argsort(total[some], kind="stable")].astype(np.int64)
    return result
