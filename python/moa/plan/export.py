"""A plan for other programs: FlexAttention, FlashInfer, windows of vLLM and TensorRT-LLM,
kvpress.

Each form keeps what that program can say and tells what is lost. Tables are made by
our own span arithmetic for the lengths that are asked for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .schema import Plan
from .span import PAGE_TOKENS, Ints, spans, window_start

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Exported:
    """What to write, and what of the plan it does not say."""

    data: bytes
    lost: list[str]


def starts(plan: Plan, layer: int, head: int, n: int) -> Ints:
    """[n]: first key of the window of each row."""
    alpha, beta = int(plan.alphas[layer, head]), float(plan.betas[layer, head])
    params = plan.layer_spans[layer]
    if params.per_row:
        return np.array([window_start(alpha, beta, i, n, params) for i in range(n)])
    # Under `request` a window moves on by a key a row.
    last = window_start(alpha, beta, n - 1, n, params)
    reach = (n - 1 - last) if last else n
    return np.maximum(np.arange(n) - reach, 0)


def visible(plan: Plan, layer: int, head: int, n: int) -> Mask:
    """[n, n]: which key (second) each row sees."""
    i, j = np.arange(n)[:, None], np.arange(n)
    start = starts(plan, layer, head, n)[:, None]
    seen: Mask = (j <= i) & ((j < plan.layer_spans[layer].sink) | (j >= start))
    return seen


_FLEX = '''"""Masks of plan {id}
for torch.nn.attention.flex_attention. Made by moa-plan export; exact to the token.

    mask = create_block_mask(mask_mod(layer, n, device), B=None, H={heads}, Q_LEN=n, KV_LEN=n)
    flex_attention(q, k, v, block_mask=mask, enable_gqa=True)

n is {meaning}; those below.
"""

import torch

#: So many tokens every row of a layer sees from the first on.
SINK = {sink}
#: For each n, runs (step, rows) of each different window: its first key moves on by
#: `step` a row for so many rows, from 0.
RUNS = {runs}
#: The window of each head of each layer: an index into RUNS[n].
WINDOW = {window}


def starts(layer, n, device="cpu"):
    """[heads, n]: first key of each row's window."""
    if n not in RUNS:
        raise ValueError(f"expected n of {{sorted(RUNS)}}, got {{n}}; export it with --at")
    tables = []
    for runs in RUNS[n]:
        steps, rows = torch.tensor(runs).T
        tables.append(torch.repeat_interleave(steps, rows).cumsum(0))
    return torch.stack(tables)[torch.tensor(WINDOW[n][layer])].to(device)


def mask_mod(layer, n, device="cpu"):
    """The mask function of a layer: (batch, head, row, key) -> whether the row sees it."""
    start, sink = starts(layer, n, device), SINK[layer]

    def mask(b, h, q_idx, kv_idx):
        return (kv_idx <= q_idx) & ((kv_idx < sink) | (kv_idx >= start[h, q_idx]))

    return mask
'''


def to_flex(plan: Plan, kv_heads: int, at: Sequence[int]) -> Exported:
    """A Python module with mask functions."""
    runs: dict[int, list[list[tuple[int, int]]]] = {}
    window: dict[int, list[list[int]]] = {}
    for n in at:
        known: dict[tuple[tuple[int, int], ...], int] = {}
        window[n] = [
            [
                known.setdefault(_runs(starts(plan, layer, head, n)), len(known))
                for head in range(plan.q_heads)
            ]
            for layer in range(plan.layers)
        ]
        runs[n] = [list(run) for run in known]
    text = _FLEX.format(
        id=plan.id, heads=plan.q_heads, runs=runs, window=window,
        sink=[params.sink for params in plan.layer_spans],
        meaning="the sequence's length" if plan.span.per_row else
        "the length that spans are for, prompt and answer together",
    )  # fmt: skip
    return Exported(text.encode(), [
        f"lengths other than {', '.join(map(str, at))}",
        "the elastic cache: all keys are held",
    ])  # fmt: skip


def _runs(first: Ints) -> tuple[tuple[int, int], ...]:
    steps = np.diff(first, prepend=0)
    ends = np.flatnonzero(np.append(np.diff(steps) != 0, True))
    rows = np.diff(ends, prepend=-1)
    return tuple((int(steps[end]), int(count)) for end, count in zip(ends, rows))


def to_flashinfer(plan: Plan, kv_heads: int, at: Sequence[int]) -> Exported:
    """An .npz of block maps, as `VariableBlockSparseAttentionWrapper.plan` takes them:
    for each length `map_N` [layers, kv_heads, blocks, blocks], and `block`."""
    arrays: dict[str, object] = {"block": np.int64(PAGE_TOKENS), "plan_id": np.str_(plan.id)}
    group = plan.q_heads // kv_heads
    for n in at:
        count = -(-n // PAGE_TOKENS)
        low = np.arange(count) * PAGE_TOKENS
        maps = np.zeros((plan.layers, kv_heads, count, count), dtype=bool)
        for layer in range(plan.layers):
            for head in range(plan.q_heads):
                # The first row of a block sees furthest back.
                first = starts(plan, layer, head, n)[low] // PAGE_TOKENS
                j = np.arange(count)
                sees = (j <= j[:, None]) & (
                    (j * PAGE_TOKENS < plan.layer_spans[layer].sink) | (j >= first[:, None])
                )
                maps[layer, head // group] |= sees
        arrays[f"map_{n}"] = maps
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return Exported(buffer.getvalue(), [
        f"exactness to the token: blocks of {PAGE_TOKENS} keys are seen whole, also beyond "
        "the diagonal",
        "rules of query heads: those of a KV head see what the longest sees",
        f"lengths other than {', '.join(map(str, at))}",
        "the elastic cache: all keys are held",
    ])  # fmt: skip


def _layer_spans(plan: Plan, n: int) -> list[int]:
    """The longest span of each layer, at most n."""
    longest = spans(plan.alphas, plan.betas, n, plan.layer_spans).max(axis=1)
    return [min(int(span), n) for span in longest]


def to_vllm_window(plan: Plan, kv_heads: int, at: Sequence[int]) -> Exported:
    """JSON of one window a layer and length, as sliding-window layers take it."""
    windows = {
        str(n): [None if span == n else span for span in _layer_spans(plan, n)] for n in at
    }
    document = {"plan_id": plan.id, "sliding_window": windows}
    return Exported(json.dumps(document, sort_keys=True).encode() + b"\n", [
        "differences between the heads of a layer: all get its longest span",
        f"the sink: the first {plan.span.sink} tokens are forgotten, the window is as much "
        "longer",
        "growth: a window holds for one length",
    ])  # fmt: skip


def to_trtllm_window(plan: Plan, kv_heads: int, at: Sequence[int]) -> Exported:
    """JSON of one window a layer and length, as `KvCacheConfig(max_attention_window=..,
    sink_token_length=..)` takes it. Its windows have the sink inside, as our spans do."""
    document = {
        "plan_id": plan.id, "sink_token_length": plan.span.sink,
        "max_attention_window": {str(n): _layer_spans(plan, n) for n in at},
    }  # fmt: skip
    lost = [
        "differences between the heads of a layer: all get its longest span",
        "the sink, in versions without sink_token_length: leave it out there",
        "growth: a window holds for one length",
    ]
    if plan.span.sink and any(plan.windows):
        lost.append("windows of the model's own: such layers have no sink, there all have one")
    return Exported(json.dumps(document, sort_keys=True).encode() + b"\n", lost)


def to_kvpress(plan: Plan, kv_heads: int, at: Sequence[int]) -> Exported:
    """JSON for kvpress: `PerLayerCompressionPress(StreamingLLMPress(n_sink=..), ..)`."""
    ratios = {}
    for n in at:
        each = spans(plan.alphas, plan.betas, n, plan.layer_spans)
        kept = each.reshape(plan.layers, kv_heads, -1).max(axis=2).mean(axis=1)
        ratios[str(n)] = [float(1 - tokens / n) for tokens in kept]
    document = {
        "plan_id": plan.id, "press": "PerLayerCompressionPress",
        "inner": "StreamingLLMPress", "n_sink": plan.span.sink, "compression_ratios": ratios,
    }  # fmt: skip
    return Exported(json.dumps(document, sort_keys=True).encode() + b"\n", [
        "differences between the heads of a layer: all keep the layer's mean",
        "prefill: it is dense, and the cache is cut once, at its end",
        "the window's movement while tokens are generated",
    ])  # fmt: skip


FORMS: dict[str, Callable[[Plan, int, Sequence[int]], Exported]] = {
    "flex": to_flex,
    "flashinfer": to_flashinfer,
    "vllm-window": to_vllm_window,
    "trtllm-window": to_trtllm_window,
    "kvpress": to_kvpress,
}
