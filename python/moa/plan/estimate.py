"""What a profile will take, before any weights are loaded: time and memory.

One layer's attention and a product of matrices are timed on the device at hand;
the rest follows from the config.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from .influence import Recorder, attend
from .network import DTYPES, geometry
from .profile import Settings
from .runfolder import peak_mib

#: Tokens that attention is timed at; its work grows with the square.
_PROBE = 512
#: Rows of the product that is timed.
_ROWS = 256
#: Passes over the weights of an item's measurement: forward and the gradient of the
#: inputs, at two points; and forward again where layers are checkpointed.
_PASSES = {True: 6, False: 4}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of work at one length: what, how often, and what one time takes."""

    what: str
    length: int
    items: int
    seconds_per_item: float
    peak_mib: float


class Machine:
    """Times of a device on a model's shapes; device as torch names it."""

    def __init__(self, config: Any, settings: Settings, dtype: str, device: str):
        with torch.device("meta"):
            net = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config
            )
        self.config, self.settings = config, settings
        self.shape, self.dtype = geometry(config), DTYPES[dtype]
        self.parameters: int = sum(p.numel() for p in net.parameters())
        #: Each token passes these; logits are computed for few.
        self.passed = self.parameters - net.get_input_embeddings().weight.numel()
        hidden = int(config.hidden_size)
        self.rate = _products_per_second(_ROWS, hidden, self.dtype, device)
        self.rate_of_one = _products_per_second(1, hidden, self.dtype, device)
        self.attention = _attention_seconds(self.shape, settings, self.dtype, device)
        self.resident = 0.0 if device.startswith("cuda") else peak_mib()

    def profile(self, length: int, items: int) -> Estimate:
        """Measuring items."""
        passes = _PASSES[self.settings.checkpoint]
        seconds = 2 * self.passed * length * passes / self.rate
        seconds += 2 * self.shape["layers"] * self.attention * (length / _PROBE) ** 2
        return Estimate("profile", length, items, seconds, self._memory(length))

    def score(self, what: str, length: int, items: int, generated: int = 0) -> Estimate:
        """One forward pass of items, and tokens generated after it."""
        seconds = 2 * self.passed * length / self.rate
        # Forward is a third of what was timed.
        seconds += self.shape["layers"] * self.attention / 3 * (length / _PROBE) ** 2
        seconds += 2 * self.parameters * generated / self.rate_of_one
        return Estimate(what, length, items, seconds, self._memory(length))

    def _memory(self, length: int) -> float:
        """MiB: weights, chunks of attention, activations, and what is resident now."""
        settings, size = self.settings, self.dtype.itemsize
        hidden, layers = int(self.config.hidden_size), self.shape["layers"]
        wide = int(getattr(self.config, "intermediate_size", 4 * hidden))
        numbers = 9 if settings.formats else 6  # For each score of a chunk.
        chunk = numbers * 4 * self.shape["q_heads"] * min(settings.rows, length) * length
        layer = (6 * wide + 8 * hidden) * length * size
        kept = (
            layer + layers * hidden * length * size if settings.checkpoint else layers * layer
        )
        # Both points keep sums of all row blocks, for windows and for each format.
        sums = 2 * 4 * (1 + len(settings.formats)) * layers * self.shape["q_heads"]
        rows = settings.by_row * sums * (length // settings.block + 1) ** 2
        total: int = self.parameters * size + chunk + kept + rows
        return total / 2**20 + self.resident


def _seconds(work: Callable[[], object], device: str) -> float:
    """Least of three runs after one to warm up."""
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def _products_per_second(rows: int, hidden: int, dtype: torch.dtype, device: str) -> float:
    """Floating-point operations of a product as a layer has it, per second."""
    x = torch.randn(rows, hidden, dtype=dtype, device=device)
    w = torch.randn(hidden, 4 * hidden, dtype=dtype, device=device)
    return 2 * x.numel() * w.shape[1] / _seconds(lambda: x @ w, device)


def _attention_seconds(
    shape: dict[str, int], settings: Settings, dtype: torch.dtype, device: str
) -> float:
    """Forward twice and backward once of one layer's attention at `_PROBE` tokens."""
    q, k, v = (
        torch.randn(
            shape[heads], _PROBE, shape["head_dim"], dtype=dtype, device=device,
            requires_grad=True,
        )
        for heads in ("q_heads", "kv_heads", "kv_heads")
    )  # fmt: skip
    recorder = Recorder(
        1, shape["q_heads"], _PROBE, sink=settings.sink, block=settings.block,
        rows=settings.rows, by_row=settings.by_row, formats=settings.formats,
    )  # fmt: skip

    def work() -> None:
        with torch.no_grad():
            attend(q, k, v, 1.0, 0, recorder)
        out = attend(q, k, v, 1.0, 0, recorder)
        torch.autograd.grad(out, q, torch.ones_like(out))

    return _seconds(work, device)
