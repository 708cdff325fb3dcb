"""Losses of rules, from the curves of a profile: at profiled lengths and beyond.

A KV head of 8 bits loses what its rounded keys and values cost beside what its window
hides. Losses of a length are shares of what the model loses there when every head has the
shortest span, so that lengths weigh alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .curves import Curves
from .errors import PlannerError
from .formats import FORMATS
from .rules import Rule
from .span import Floats, SpanParams, window_start


def rule_losses(
    curves: Curves, rules: Sequence[Rule], params: SpanParams, n: int, *, hull: bool = False,
    form: str = FORMATS[0],
) -> Floats:  # fmt: skip
    """[layers, q_heads, rules]: loss of each rule at length `n` in a KV head of format
    `form`.

    Beyond the profiled length a span loses what the same share of the profiled length
    loses there, and never more than the shortest span. Under the length rule `row`, and
    where the profile kept curves of row blocks, each block of rows counts at its own
    length. hull: a near-full window loses at least its share of what the shortest loses,
    as if what matters could lie anywhere, not only where the calibration items had it.
    """
    if n < curves.length:
        raise PlannerError(
            f"expected a length of at least {curves.length}, which was profiled, found {n}; "
            "profile that length too"
        )
    losses = _losses(curves, curves.curve, curves.rows, rules, params, n)
    if hull:
        shortest = _at(curves, curves.curve, params.min, n, params)[..., None]
        tokens = np.array([rule.tokens(n, params) for rule in rules])
        share = (1 - tokens / n) / max(1 - params.min / n, 1e-9)
        losses = np.maximum(losses, shortest * np.clip(share, 0, 1))
    if form != FORMATS[0]:
        rows = curves.format_rows.get(form)
        losses = losses + _losses(curves, curves.formats[form], rows, rules, params, n)
    return losses / total_loss(curves, params)


def total_loss(curves: Curves, params: SpanParams) -> float:
    """Loss when every head has the shortest span; PlannerError where it is nothing."""
    shortest = _at(curves, curves.curve, params.min, curves.length, params)
    total = float(shortest.sum())
    if total - float(curves.curve[..., -1].sum()) <= 1e-12 * total:
        raise PlannerError(
            f"expected losses that differ between spans, found none at length "
            f"{curves.length}; profile with items that the dense model answers"
        )
    return total


def _losses(
    curves: Curves, curve: Floats, rows: Floats | None, rules: Sequence[Rule],
    params: SpanParams, n: int,
) -> Floats:  # fmt: skip
    """[layers, q_heads, rules] of a curve and, where they were kept, its row blocks."""
    if params.per_row and rows is not None and n == curves.length:
        return _row_losses(curves, rows, rules, params)
    each = [_at(curves, curve, rule.tokens(n, params), n, params) for rule in rules]
    return np.stack(each, axis=-1)


def _at(curves: Curves, curve: Floats, tokens: int, n: int, params: SpanParams) -> Floats:
    """[layers, q_heads]: loss of a span of `tokens` at length `n`."""
    if tokens >= n:
        return np.asarray(curve[..., -1])
    window = max(tokens * (curves.length / n), params.min) - curves.sink
    place = min(window / curves.block, float(curves.blocks))
    if n == curves.length:
        place = np.floor(place)  # A window of fewer keys than a block has none of it.
    low = int(place)
    share = place - low
    high = min(low + 1, curves.blocks)
    result: Floats = (1 - share) * curve[..., low] + share * curve[..., high]
    return result


def _row_losses(
    curves: Curves, rows: Floats, rules: Sequence[Rule], params: SpanParams
) -> Floats:
    """Each block of rows at the window of its last row."""
    count = rows.shape[2]
    losses = np.zeros((*rows.shape[:2], len(rules)))
    blocks = np.arange(count)
    for r, rule in enumerate(rules):
        windows = []
        for q in range(count):
            row = min((q + 1) * curves.block, curves.length) - 1
            start = window_start(rule.alpha, rule.beta, row, curves.length, params)
            full = start <= curves.sink
            windows.append(
                curves.blocks if full else min((row + 1 - start) // curves.block, curves.blocks)
            )
        losses[..., r] = rows[:, :, blocks, windows].sum(axis=-1)
    return losses
