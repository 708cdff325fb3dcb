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

    def draw(self, logits: torch.Tensor) -> int:
        """A token by logits [vocabulary]."""
        scaled = logits.double() / self.sampling.temperature
        values, tokens = self._candidates(torch.softmax(scaled, dim=-1))
        sums = values.cumsum(dim=0)
        point = torch.rand((), dtype=torch.float64, generator=self._random).item()
        # The last sum may round to less than all; `right` never lands on a token of
        # probability 0.
        index = torch.searchsorted(sums, sums[-1] * point, right=True)
        index = index.clamp(max=len(sums) - 1)
        return int(index if tokens is None else tokens[index])

    def _candidates(
        self, probabilities: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Probabilities to draw from, falling, with their tokens; None: of all."""
        size, top_k, top_p = len(probabilities), self.sampling.top_k, self.sampling.top_p
        if top_k:
            values, tokens = probabilities.topk(min(top_k, size))
            values = values / values.sum()
        elif top_p < 1:
            # To sort a whole vocabulary takes longer than to look at its head.
            count = min(64, size)
            values, tokens = probabilities.topk(count)
            while count < size and values.sum() < top_p:
                count = min(8 * count, size)
                values, tokens = probabilities.topk(count)
        else:
            return probabilities, None
        if top_p < 1:
            before = values.cumsum(dim=0) - values
            kept = max(1, int((before < top_p).sum()))
            values, tokens = values[:kept], tokens[:kept]
        return values, tokens


def choose(samplers: list[Sampler], logits: torch.Tensor) -> list[int]:
    """A token for each row of logits [requests, vocabulary]."""
    logits = logits.float()
    picks: list[int] = logits.argmax(dim=-1).tolist()
    for row, sampler in enumerate(samplers):
        if not sampler.sampling.greedy:
            picks[row] = sampler.draw(logits[row])
    return picks
