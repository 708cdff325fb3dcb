"""How well a profile predicts: the true loss change of random windows beside it.

Heads get windows at random; the model runs with exactly these masks, and the
change of the loss stands beside the sum of the heads' predictions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from .calibration import Item
from .evaluate import Layout, Windows, loss_of, masked
from .network import Network, geometry
from .profile import Measured, Settings
from .span import Floats, Ints


@dataclasses.dataclass(frozen=True)
class Pair:
    """What was predicted for one item under one set of windows, and what came."""

    item: int
    dense: float  #: First order at the dense point.
    midpoint: float  #: First order half way.
    signed: float  #: Their mean.
    absolute: float  #: The sum of the sizes of rows' changes, which plans are made of.
    true: float


def random_windows(blocks: int, shape: dict[str, int], count: int, seed: int) -> Iterator[Ints]:
    """`count` windows in blocks [layers, q_heads], from few short heads to all; alike
    within a KV head's group."""
    pick = np.random.default_rng(seed)
    size = (shape["layers"], shape["kv_heads"])
    for index in range(count):
        shortened = pick.random(size) < (index + 1) / count
        windows = np.where(shortened, pick.integers(1, blocks + 1, size), blocks)
        yield np.repeat(windows, shape["q_heads"] // shape["kv_heads"], axis=1)


@torch.inference_mode()
def true_loss(network: Network, item: Item, windows: Ints, settings: Settings) -> float:
    """The item's loss under windows in blocks [layers, q_heads]."""
    device = network.device
    ids = torch.tensor([item.prompt + item.response], device=device)
    sight = Windows.of_blocks(windows, settings.block, settings.sink, item.tokens, device)
    layout = Layout.of(item.tokens, 0, 0, device)
    with masked(network.model, sight, layout):
        keep = len(item.response) + 1
        logits = network.model(ids, use_cache=False, logits_to_keep=keep).logits[0, :-1]
    return float(loss_of(item, device)(logits.float()))


def check(
    network: Network,
    items: Sequence[Item],
    measured: Sequence[Measured],
    settings: Settings,
    count: int,
    seed: int,
) -> Iterator[Pair]:
    """`count` random windows for each of the items."""
    shape = geometry(network.config)
    for index, (item, known) in enumerate(zip(items, measured, strict=True)):
        blocks = known.signed.shape[-1] - 1
        for windows in random_windows(blocks, shape, count, seed + index):
            chosen = windows[None, ..., None]
            sums = np.take_along_axis(known.signed, chosen, -1).sum((1, 2, 3), dtype=np.float64)
            sizes = np.take_along_axis(known.absolute, chosen, -1).sum((1, 2, 3))
            yield Pair(
                item=index,
                dense=float(sums[0]),
                midpoint=float(sums[1]),
                signed=float(sums.mean()),
                absolute=float(sizes.mean()),
                true=true_loss(network, item, windows, settings) - known.loss,
            )


def correlations(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Pearson and rank correlation of each prediction with the truth, and the ratio of
    their sums; over all pairs, each item's values divided by its largest true change."""
    largest: dict[int, float] = {}
    for pair in pairs:
        largest[pair.item] = max(largest.get(pair.item, 0.0), abs(pair.true))
    scale = np.array([max(largest[pair.item], 1e-12) for pair in pairs])
    true = np.array([pair.true for pair in pairs])
    result: dict[str, Any] = {"pairs": len(pairs)}
    for name in ("dense", "midpoint", "signed", "absolute"):
        guess = np.array([getattr(pair, name) for pair in pairs])
        result[name] = {
            "pearson": _correlation(guess / scale, true / scale),
            "spearman": _correlation(_ranks(guess / scale), _ranks(true / scale)),
            "predicted_over_true": float(guess.sum() / true.sum()) if true.sum() else None,
        }
    return result


def _ranks(values: Floats) -> Floats:
    order = np.argsort(values, kind="stable")
    ranks = np.empty(len(values))
    ranks[order] = np.arange(len(values))
    return ranks


def _correlation(a: Floats, b: Floats) -> float | None:
    """None where one of them does not vary."""
    if len(a) < 2 or not a.std() or not b.std():
        return None
    return float(np.corrcoef(a, b)[0, 1])
