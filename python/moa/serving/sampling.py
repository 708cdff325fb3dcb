"""How a token is chosen from logits: `Sampling` says how, a `Sampler` does it.

A request's tokens depend on its own logits and seed, never on what else is in the
batch.
"""

from __future__ import annotations

import dataclasses
import math

import torch


@dataclasses.dataclass(frozen=True)
class Sampling:
    """temperature: 0 takes the likeliest token. top_p: the likeliest tokens that
    together have this probability. top_k: the likeliest so many, 0 for all.
    seed: of the random numbers, None for one that differs each time.

    ValueError for values out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 100):
            raise ValueError(f"temperature is {self.temperature}, expected 0 to 100")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected above 0, at most 1")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}, expected 0 (all) or more")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}, expected a whole number of 64 bits")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1


class Sampler:
    """One request's: a `Sampling` and its own random numbers."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def point(self) -> float:
        """The next random number, of 0 to 1."""
        return torch.rand((), dtype=torch.float64, generator=self._random).item()


def choose(samplers: list[Sampler], logits: torch.Tensor) -> list[int]:
    """A token for each row of logits [requests, vocabulary]."""
    logits = logits.float()
    picks: list[int] = logits.argmax(dim=-1).tolist()
    # Rows of like options are drawn together: on a GPU each call costs, whatever it does.
    alike: dict[tuple[int, float], list[int]] = {}
    for row, sampler in enumerate(samplers):
        how = sampler.sampling
        if not how.greedy:
            alike.setdefault((how.top_k, how.top_p), []).append(row)
    for rows in alike.values():
        for row, token in zip(rows, _draw([samplers[row] for row in rows], logits[rows])):
            picks[row] = token
    return picks


def _draw(samplers: list[Sampler], logits: torch.Tensor) -> list[int]:
    """Tokens by logits [requests, vocabulary] of samplers of one top_k and top_p."""
    temperatures = [[own.sampling.temperature] for own in samplers]
    scaled = logits.double() / logits.new_tensor(temperatures, dtype=torch.float64)
    values, tokens = _candidates(torch.softmax(scaled, dim=-1), samplers[0].sampling)
    sums = values.cumsum(dim=-1)
    points = logits.new_tensor([[own.point()] for own in samplers], dtype=torch.float64)
    # `right` never lands on a token of probability 0.
    index = torch.searchsorted(sums, sums[:, -1:] * points, right=True)
    index = index.clamp(max=sums.shape[1] - 1)
    drawn: list[int] = (index if tokens is None else tokens.gather(1, index))[:, 0].tolist()
    return drawn


def _candidates(
    probabilities: torch.Tensor, sampling: Sampling
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """[requests, candidates]: probabilities to draw from, falling, 0 for no candidate,
    with their tokens; None: of all tokens.
    """
    size, top_k, top_p = probabilities.shape[1], sampling.top_k, sampling.top_p
    if top_k:
        values, tokens = probabilities.topk(min(top_k, size))
        values = values / values.sum(dim=-1, keepdim=True)
    elif top_p < 1:
        # To sort a whole vocabulary takes longer than to look at its head.
        count = min(64, size)
        values, tokens = probabilities.topk(count)
        while count < size and bool((values.sum(dim=-1) < top_p).any()):
            count = min(8 * count, size)
            values, tokens = probabilities.topk(count)
    else:
        return probabilities, None
    if top_p < 1:
        before = values.cumsum(dim=-1) - values
        values = values * (before < top_p)
    return values, tokens
