"""Span arithmetic of whole plans: the functions of `abi/span.h`, none repeated.

The one module of the planner that uses the runtime's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..runtime import SpanRule, resident_count

#: Tokens of one page of the cache, and keys of one block.
PAGE_TOKENS = 64
#: Longest window of a model's own, tokens.
MAX_WINDOW = 1 << 20
#: Longest sequence that anything here is asked about, tokens.
MAX_LENGTH = 1 << 30

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SpanParams:
    """What all rules of a plan, or of a layer, share; tokens."""

    sink: int = 64  #: Counted in every span.
    block: int = 64  #: Spans are rounded up to a multiple of this.
    min: int = 128  #: Least span; above `sink`.
    per_row: bool = False  #: Length rule: `row`, else `request`.
    most: int = 0  #: Of a layer with a window of the model's own: that, and no sink.

    def of_layers(self, windows: Sequence[int | None], layers: int) -> tuple[SpanParams, ...]:
        """The same for each layer, of which some have windows of the model's own."""
        each = windows or (None,) * layers
        return tuple(replace(self, sink=0, most=own) if own else self for own in each)


def _rule(alpha: int, beta: float, params: SpanParams) -> SpanRule:
    # Made anew each time: what is kept until Python ends, nanobind reports as a leak.
    return SpanRule(
        alpha, beta, sink=params.sink, min=params.min, block=params.block,
        per_row=params.per_row, most=params.most,
    )  # fmt: skip


@lru_cache(maxsize=1 << 16)
def span(alpha: int, beta: float, n: int, params: SpanParams) -> int:
    """Span in tokens at length `n`, sink included; may exceed `n`."""
    return int(_rule(alpha, beta, params).span(n))


@lru_cache(maxsize=1 << 20)
def window_start(alpha: int, beta: float, row: int, n: int, params: SpanParams) -> int:
    """First key of the window of row `row`; `n` is ignored under the length rule `row`."""
    return int(_rule(alpha, beta, params).window_start(row, n))


def window_starts(alpha: int, beta: float, n: int, params: SpanParams) -> Ints:
    """First keys of the windows of rows 0 to n - 1 of a sequence of `n` tokens."""
    if params.per_row:
        starts = [window_start(alpha, beta, row, n, params) for row in range(n)]
        return np.array(starts, dtype=np.int64)
    # One span for all rows: the window moves on by a key a row.
    last = window_start(alpha, beta, n - 1, n, params)
    return np.maximum(np.arange(n, dtype=np.int64) - (n - 1) + last, 0)


def raw_span(alpha: int, beta: float, n: int) -> int:
    """What a rule asks for before it is clipped to the length, raised to the least
    span and rounded; tokens, toward zero. For messages alone."""
    return int(alpha + beta * n)


def spans(alphas: Ints, betas: Floats, n: int, layers: Sequence[SpanParams]) -> Ints:
    """Spans in tokens at length `n`, each at most `n`, of rules [layers, q_heads]."""
    rows = [
        [min(span(int(alpha), float(beta), n, params), n) for alpha, beta in zip(*row)]
        for *row, params in zip(alphas, betas, layers, strict=True)
    ]
    return np.array(rows, dtype=np.int64)


def pages(seen: int, start: int, sink: int, kv8: bool = False) -> int:
    """Pages that a KV head holds after `seen` tokens when its deciding window
    starts at `start`; kv8: when it keeps complete blocks in 8 bits."""
    return int(resident_count(seen, start, sink, kv8))
