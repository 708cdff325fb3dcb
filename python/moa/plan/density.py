"""Densities and cache sizes of a plan, as `lib/Plan` computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .formats import FORMATS, kept_bytes
from .model import ModelShape
from .span import PAGE_TOKENS, Floats, Ints, SpanParams, pages, raw_span, spans, window_start

if TYPE_CHECKING:
    from .schema import Plan

#: Bytes of an element of the cache.
DTYPES = {"bf16": 2, "f16": 2, "f32": 4}


def kept_tokens(plan: Plan, kv_heads: int, n: int) -> Ints:
    """Longest span of each KV head, at most `n`: [layers, kv_heads] in tokens."""
    return longest(plan.alphas, plan.betas, plan.layer_spans, kv_heads, n)


def longest(
    alphas: Ints, betas: Floats, layers: Sequence[SpanParams], kv_heads: int, n: int
) -> Ints:
    """[layers, kv_heads]: tokens kept, of rules [layers, q_heads]."""
    each = spans(alphas, betas, n, layers)
    kept: Ints = each.reshape(len(alphas), kv_heads, -1).max(axis=2)
    return kept


def density_of(
    alphas: Ints, betas: Floats, layers: Sequence[SpanParams], kv_heads: int, n: int
) -> float:
    """Mean over KV heads of the largest span / n of the group, each at most 1, of
    rules [layers, q_heads]."""
    kept = longest(alphas, betas, layers, kv_heads, n)
    # Whole tokens are summed, so that the order of heads does not matter.
    return int(kept.sum()) / (float(n) * float(kept.size))


def kv_density(plan: Plan, kv_heads: int, n: int) -> float:
    """Mean over KV heads of the largest span / n of the group, each at most 1."""
    return density_of(plan.alphas, plan.betas, plan.layer_spans, kv_heads, n)


def query_density(plan: Plan, n: int) -> float:
    """Mean over query heads of span / n, each at most 1."""
    return kv_density(plan, plan.q_heads, n)


def byte_density(plan: Plan, kv_heads: int, n: int) -> float:
    """Bytes of the tokens kept, each KV head in its format, over those of the dense
    cache of 16 bits; the KV density where all keep 16 bits."""
    kept = kept_tokens(plan, kv_heads, n)
    return byte_density_of(kept, plan.formats(kv_heads), plan.layer_spans, n)


def byte_density_of(
    kept: Ints, formats: Sequence[Sequence[str]], layers: Sequence[SpanParams], n: int
) -> float:
    """Of tokens [layers, kv_heads] kept in formats [layers][kv_heads]."""
    each = [
        kept_bytes(int(tokens), params.sink, form)
        for row, forms, params in zip(kept, formats, layers, strict=True)
        for tokens, form in zip(row, forms, strict=True)
    ]
    return sum(each) / (float(n) * float(kept.size))


def layer_densities(plan: Plan, kv_heads: int, n: int) -> Floats:
    """KV density of each layer."""
    result: Floats = kept_tokens(plan, kv_heads, n).mean(axis=1) / n
    return result


def kv_bytes(plan: Plan, model: ModelShape, element_bytes: int, n: int, seen: int) -> int:
    """Bytes of pages that one sequence of length rule `n` holds over all layers
    after `seen` tokens. Exact: what the runtime allocates."""
    held = 0
    rows = zip(plan.alphas, plan.betas, plan.formats(model.kv_heads), plan.layer_spans)
    for alphas, betas, formats, params in rows:
        starts = [
            window_start(int(alpha), float(beta), seen, n, params)
            for alpha, beta in zip(alphas, betas, strict=True)
        ]
        least = np.array(starts).reshape(-1, model.group).min(axis=1)
        held += sum(
            pages(seen, min(int(start), seen), params.sink, form != FORMATS[0])
            for start, form in zip(least, formats, strict=True)
        )
    return held * _page_bytes(model, element_bytes)


def dense_kv_bytes(model: ModelShape, element_bytes: int, seen: int) -> int:
    """Bytes of whole pages that a dense cache holds after `seen` tokens."""
    held = pages(seen, 0, 0)
    return model.layers * model.kv_heads * held * _page_bytes(model, element_bytes)


def _page_bytes(model: ModelShape, element_bytes: int) -> int:
    return 2 * PAGE_TOKENS * model.head_dim * element_bytes


def length_warnings(plan: Plan, n: int) -> list[str]:
    """What to tell a user who runs the plan at length `n`, one line each."""
    warnings = []
    if plan.valid and not plan.valid[0] <= n <= plan.valid[1]:
        warnings.append(
            f"length {n} is outside the plan's valid range {plan.valid[0]} to "
            f"{plan.valid[1]}: quality is not known there"
        )
    raw = np.array(
        [raw_span(int(a), float(b), n) for a, b in zip(plan.alphas.ravel(), plan.betas.ravel())]
    )
    above, floored = int((raw > n).sum()), int(((raw < plan.span.min) & (raw < n)).sum())
    if above:
        warnings.append(
            f"at length {n} the rules of {above} of {raw.size} heads exceed the length "
            "and are clipped to it"
        )
    if floored:
        warnings.append(
            f"at length {n} the rules of {floored} of {raw.size} heads fall below the "
            f"minimum span {plan.span.min}, which decides"
        )
    return warnings
