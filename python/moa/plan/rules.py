"""Candidate rules: grids of (alpha, beta), and what a rule costs.

A rule's cost is bytes of keys and values over those of the dense cache of 16 bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import PlanError
from .formats import FORMATS, kept_bytes
from .jsontext import line_of, parse, read
from .span import Floats, SpanParams, span

#: Local rules of the default grid: spans that do not grow, tokens.
LOCAL_SPANS = (128, 256, 512, 1024)


class Rule(NamedTuple):
    """span = alpha + beta * N."""

    alpha: int  #: Tokens.
    beta: float

    def tokens(self, n: int, params: SpanParams) -> int:
        """Tokens kept at length `n`, at most `n`."""
        return min(span(self.alpha, self.beta, n, params), n)

    def cost(self, n: int, params: SpanParams, form: str = FORMATS[0]) -> float:
        """Bytes at length `n`, in a KV head of format `form`, over those of the dense
        cache."""
        return kept_bytes(self.tokens(n, params), params.sink, form) / n


FULL = Rule(0, 1.0)


def merge(rules: Iterable[Rule], lengths: Sequence[int], params: SpanParams) -> list[Rule]:
    """One rule of those that keep equal tokens at all lengths: the full one, else the
    one that is clipped to the length or raised to the least span at the fewest lengths,
    of these that nearest to alpha = 0. Sorted."""

    def order(rule: Rule) -> tuple[bool, int, int, Rule]:
        asked = [rule.alpha + rule.beta * n for n in lengths]
        changed = sum(not params.min <= raw <= n for raw, n in zip(asked, lengths))
        return rule != FULL, changed, abs(rule.alpha), rule

    chosen: dict[tuple[int, ...], Rule] = {}
    for rule in sorted(set(rules), key=order):
        chosen.setdefault(tuple(rule.tokens(n, params) for n in lengths), rule)
    return sorted(chosen.values())


def default_grid(longest: int, lengths: Sequence[int], params: SpanParams) -> list[Rule]:
    """11 alphas, -2/8 to 8/8 of the longest profiled length, times 9 betas, clipped;
    local rules; the full rule. Merged at `lengths`."""
    step = max(longest // 8 // params.block, 1) * params.block
    rules = [Rule(step * i, j / 8) for i in range(-2, 9) for j in range(9)]
    rules += [Rule(local, 0.0) for local in LOCAL_SPANS if params.min <= local < longest]
    return merge([*rules, Rule(params.min, 0.0), FULL], lengths, params)


def paper_grid(shortest: int, longest: int) -> list[Rule]:
    """The published pipeline's 11 x 9 rules less those that ask for nothing at the
    shortest or for more than there is at the longest profiled length: 48 rules at 2048
    and 8192 tokens."""
    rules = [Rule(1024 * i, j / 8) for i in range(-2, 9) for j in range(9)]
    return [
        r for r in rules
        if r.alpha + r.beta * shortest > 0 and r.alpha + r.beta * longest <= longest
    ]  # fmt: skip


def read_grid(path: str | Path) -> list[Rule]:
    """Rules of a file: {"rules": [[alpha, beta], ..]}."""
    text = read(path, "grid file")
    document = parse(text, str(path))

    def refuse(key: str, expected: str, found: Any) -> PlanError:
        return PlanError(
            str(path), f"expected {expected}, found {json.dumps(found)[:60]}",
            line=line_of(text, key), key=key,
            cure='write {"rules": [[0, 1.0], [128, 0.0], [1024, 0.5]]}',
        )  # fmt: skip

    if not isinstance(document, dict) or not isinstance(document.get("rules"), list):
        raise refuse("", "an object with a list 'rules'", document)
    rules = []
    for i, pair in enumerate(document["rules"]):
        numbers = isinstance(pair, list) and all(
            isinstance(x, (int, float)) and not isinstance(x, bool) for x in pair
        )
        if not numbers or len(pair) != 2 or pair[0] != int(pair[0]) or not 0 <= pair[1] <= 1:
            raise refuse(f"rules/{i}", "[whole alpha, beta of 0 to 1]", pair)
        rules.append(Rule(int(pair[0]), float(pair[1])))
    if not rules:
        raise refuse("rules", "at least one rule", [])
    return rules


def costs(
    rules: Sequence[Rule], lengths: Sequence[int], params: SpanParams,
    formats: Sequence[str] = FORMATS[:1],
) -> Floats:  # fmt: skip
    """[lengths, rules * formats]: bytes over those of the dense cache; the formats of a
    rule are consecutive."""
    return np.array(
        [[rule.cost(n, params, f) for rule in rules for f in formats] for n in lengths]
    )
