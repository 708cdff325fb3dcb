"""The optimisation problem of a plan: what each option loses and costs in each head.

A unit takes one option, a rule and a format: a KV head (all its query heads alike), or a
query head. The problem knows nothing of profiles and files; `losses.py` makes it from
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .span import Floats, Ints


@dataclass(frozen=True, eq=False)
class Problem:
    """Minimise weighted losses under bounds on the mean cost of a KV head."""

    #: [objectives, layers, units, options]; of 0 or more. Option `rule * formats +
    #: format` is a rule in a format.
    losses: Floats
    #: [constraints, options]: of one KV head.
    costs: Floats
    #: [constraints]: on the mean of costs over layers and KV heads.
    bounds: Floats
    #: Units that share a KV head, consecutive; the KV head costs what its dearest
    #: unit costs. 1 where units are decided one by one.
    group: int = 1
    #: Most different rules in a layer: 1, 2, or None for no limit. Without a limit
    #: the units of one KV head still take at most 2.
    rules_per_layer: int | None = 2
    #: Ranks that share the KV heads of a layer, consecutive runs of equal size; each
    #: rank has as many heads of each rule as every other, so bytes are even at any
    #: length. 1: no such constraint.
    ranks: int = 1
    #: Formats of each rule. The units of a KV head share one, and the limit on rules of
    #: a layer does not count them.
    formats: int = 1

    def __post_init__(self) -> None:
        assert self.losses.ndim == 4 and self.costs.shape[1] == self.options
        assert self.options % self.formats == 0
        assert self.formats == 1 or self.ranks == 1
        assert self.units % (self.group * self.ranks) == 0
        assert self.rules_per_layer in (1, 2, None)
        assert self.ranks == 1 or (self.group == 1 and self.rules_per_layer is not None)

    @property
    def objectives(self) -> int:
        return int(self.losses.shape[0])

    @property
    def layers(self) -> int:
        return int(self.losses.shape[1])

    @property
    def units(self) -> int:
        return int(self.losses.shape[2])

    @property
    def options(self) -> int:
        return int(self.losses.shape[3])

    @property
    def rules(self) -> int:
        return self.options // self.formats

    @property
    def kv_heads(self) -> int:
        return self.units // self.group

    def losses_of(self, layer: int, chosen: Ints) -> Floats:
        """[objectives, ..]: losses of assignments [.., units] of one layer."""
        picked = self.losses[:, layer, np.arange(self.units), chosen]
        result: Floats = picked.sum(axis=-1)
        return result

    def costs_of(self, chosen: Ints) -> Floats:
        """[constraints, ..]: costs of assignments [.., units] of a layer; their sum
        over layers is what `bounds` bounds."""
        each = self.costs[:, chosen].reshape(-1, *chosen.shape[:-1], self.kv_heads, self.group)
        result: Floats = each.max(axis=-1).sum(axis=-1) / (self.layers * self.kv_heads)
        return result

    def total_losses(self, assignment: Ints) -> Floats:
        """[objectives] of a whole assignment [layers, units]."""
        each = [self.losses_of(layer, chosen) for layer, chosen in enumerate(assignment)]
        result: Floats = np.sum(each, axis=0)
        return result

    def total_costs(self, assignment: Ints) -> Floats:
        """[constraints] of a whole assignment [layers, units]."""
        result: Floats = self.costs_of(assignment).sum(axis=-1)
        return result

    def least_costs(self) -> Floats:
        """[constraints]: the least mean cost that any assignment has, each by itself."""
        result: Floats = self.costs.min(axis=1)
        return result
