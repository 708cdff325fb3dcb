"""What a profile will take, before any weights are loaded: time and memory.

Models of one and of two layers of the same sizes, with made-up weights, are
measured on the device at hand; time and memory grow evenly with the layers.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from .calibration import Item
from .evaluate import batch_size
from .influence import Recorder, attend
from .network import DTYPES, Network, dense_attention, geometry, soft_cap
from .profile import Settings, measure, points, sums_on
from .runfolder import peak_mib

#: Probes double their tokens from here until one takes so many seconds.
_LEAST_TOKENS, _LONG_ENOUGH = 64, 0.3
#: Entries of the vocabulary of a probe: logits are computed for few rows.
_VOCABULARY = 256


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of work at one length: what, how often, and what one time takes."""

    what: str
    length: int
    items: int
    seconds_per_item: float
    peak_mib: float


class Machine:
    """Times and memory of a device on a model's shapes; device as torch names it.

    longest: tokens; nothing longer is probed.
    """

    def __init__(self, config: Any, settings: Settings, dtype: str, device: str, longest: int):
        with torch.device("meta"):
            net = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config
            )
        self.config, self.settings = config, settings
        self.shape, self.dtype, self.device = geometry(config), DTYPES[dtype], device
        self.parameters: int = sum(p.numel() for p in net.parameters())
        self._resident = 0.0 if _counts(device) else peak_mib()
        self._time_attention(longest)
        self._time_layers(longest)

    def profile(self, length: int, items: int) -> Estimate:
        """Measuring items."""
        layers, share = self.shape["layers"], length / self._tokens
        rest = max(0.0, self._layer - self._attention * self._work(self._tokens))
        seconds = (self._base + layers * rest) * share
        seconds += layers * self._attention * self._work(length)
        return Estimate("profile", length, items, seconds, self._memory(length))

    def score(self, what: str, length: int, items: int, generated: int = 0) -> Estimate:
        """One forward pass of items, and tokens generated after it."""
        layers, share = self.shape["layers"], length / self._tokens
        rest = max(0.0, self._forward - self._attention_forward * self._work(self._tokens))
        seconds = layers * (rest * share + self._attention_forward * self._work(length))
        together = batch_size(length, torch.device(self.device))
        seconds += generated * (self._head + layers * self._step) / together
        return Estimate(what, length, items, seconds, self._memory(length))

    def _work(self, tokens: int) -> float:
        """Pairs of rows and keys in the chunks of a sequence."""
        return tokens * (tokens + min(self.settings.rows, tokens)) / 2

    def _time_attention(self, longest: int) -> None:
        """Seconds of a pair of one layer's attention: of a measurement and of a forward
        pass."""
        tokens = _LEAST_TOKENS
        while True:
            spent = self._attention_seconds(tokens)
            if sum(spent) >= _LONG_ENOUGH or 2 * tokens > longest:
                break
            tokens *= 2
        self._attention_forward, backward = (s / self._work(tokens) for s in spent)
        again = 2 if self.settings.checkpoint else 1
        self._attention = 2 * again * self._attention_forward + backward

    def _attention_seconds(self, tokens: int) -> tuple[float, float]:
        """A forward pass; the backward passes of both points of the path."""
        shape, settings = self.shape, self.settings
        q, k, v = (
            torch.randn(
                shape[heads], tokens, shape["head_dim"], dtype=self.dtype, device=self.device,
                requires_grad=True,
            )
            for heads in ("q_heads", "kv_heads", "kv_heads")
        )  # fmt: skip
        forward = backward = 0.0
        for point in points(tokens, settings):
            recorder = Recorder(
                1, shape["q_heads"], tokens, sink=settings.sink, block=settings.block,
                rows=settings.rows, point=point, by_row=settings.by_row,
                formats=settings.formats, device=sums_on(torch.device(self.device)),
            )  # fmt: skip
            cap = soft_cap(self.config)
            work = functools.partial(attend, q, k, v, 1.0, 0, recorder, cap)
            out = work()
            upstream = torch.ones_like(out)
            forward += self._seconds(work)
            backward += self._seconds(
                lambda: torch.autograd.grad(out, q, upstream, retain_graph=True)
            )
        return forward / 2, backward

    def _time_layers(self, longest: int) -> None:
        """Seconds of a measurement, of a forward pass and of a step of one layer."""
        small, large = (self._network(layers) for layers in (1, 2))
        self._tokens = _LEAST_TOKENS
        while True:
            item = _item(self._tokens)
            work = lambda: measure(small, item, self.settings)
            seconds = self._seconds(work)
            if seconds >= _LONG_ENOUGH or 2 * self._tokens > longest:
                break
            self._tokens *= 2
        both = self._seconds(lambda: measure(large, item, self.settings))
        self._layer = max(0.0, both - seconds)
        self._base = max(0.0, seconds - self._layer)
        if _counts(self.device):
            self._peaks = [
                self._peak(network, tokens) - self._row_sums(tokens, layers)
                for network, layers in ((small, 1), (large, 2))
                for tokens in (self._tokens // 2, self._tokens)
            ]
        self._forward = self._difference(small, large, item.prompt)
        self._step = self._difference(small, large, item.prompt[:1])
        hidden = int(self.config.hidden_size)
        x, w = (
            torch.randn(n, hidden, dtype=self.dtype, device=self.device)
            for n in (1, 4 * hidden)
        )
        head = self._seconds(lambda: x @ w.T)
        self._head = head * int(self.config.vocab_size) / len(w)

    def _network(self, layers: int) -> Network:
        config = copy.deepcopy(self.config)
        config.num_hidden_layers, config.vocab_size = layers, _VOCABULARY
        config.pad_token_id = config.bos_token_id = config.eos_token_id = None
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
        with torch.device(self.device):
            model = transformers.AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=self.dtype, attn_implementation=dense_attention(config)
            )
        return Network(model.eval().requires_grad_(False), None, "probe")

    def _difference(self, small: Network, large: Network, ids: tuple[int, ...]) -> float:
        """Seconds of a forward pass of one layer."""
        tokens = torch.tensor([ids], device=self.device)
        spent = []
        for network in (small, large):
            with torch.inference_mode():
                spent.append(
                    self._seconds(
                        lambda: network.model(tokens, use_cache=False, logits_to_keep=1)
                    )
                )
        return max(0.0, spent[1] - spent[0])

    def _seconds(self, work: Callable[[], object]) -> float:
        """Less of two runs after one to warm up, unless that one was long."""
        best = float("inf")
        for attempt in range(3):
            begin = time.perf_counter()
            work()
            if self.device.startswith("cuda"):
                torch.cuda.synchronize(self.device)
            spent = time.perf_counter() - begin
            if attempt or spent > 4 * _LONG_ENOUGH:
                best = min(best, spent)
            if best > 4 * _LONG_ENOUGH and best < float("inf"):
                break
        return best

    def _peak(self, network: Network, tokens: int) -> float:
        """Bytes of a measurement beside the weights."""
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        measure(network, _item(tokens), self.settings)
        return torch.cuda.max_memory_allocated(self.device) - before

    def _memory(self, length: int) -> float:
        """MiB: weights, and what a measurement takes beside them."""
        weights = self.parameters * self.dtype.itemsize
        if _counts(self.device):
            short, long = self._tokens // 2, self._tokens
            one, two = (
                low + (high - low) * (length - short) / (long - short)
                for low, high in (self._peaks[:2], self._peaks[2:])
            )
            beside = one + (self.shape["layers"] - 1) * (two - one)
        else:
            beside = self._counted(length)
        beside += self._row_sums(length, self.shape["layers"])
        return (weights + beside) / 2**20 + self._resident

    def _row_sums(self, length: int, layers: int) -> int:
        """Bytes of the sums by row block, which grow with the square of the length: both
        points keep them, for windows and for each format."""
        settings = self.settings
        of_pair = 2 * 4 * (1 + len(settings.formats)) * layers * self.shape["q_heads"]
        return settings.by_row * of_pair * (length // settings.block + 1) ** 2

    def _counted(self, length: int) -> int:
        """Bytes where the device does not count: chunks of attention, activations."""
        settings, size = self.settings, self.dtype.itemsize
        hidden, layers = int(self.config.hidden_size), self.shape["layers"]
        wide = int(getattr(self.config, "intermediate_size", 4 * hidden))
        # For each score of a chunk.
        numbers = (9 if settings.formats else 6) + (soft_cap(self.config) is not None)
        chunk: int = numbers * 4 * self.shape["q_heads"] * min(settings.rows, length) * length
        layer = (6 * wide + 8 * hidden) * length * size
        kept = (
            layer + layers * hidden * length * size if settings.checkpoint else layers * layer
        )
        return chunk + kept


def _counts(device: str) -> bool:
    """Whether torch knows the most memory that was in use at once."""
    return device.startswith("cuda")


def _item(tokens: int) -> Item:
    """A made-up item of so many tokens."""
    ids = torch.randint(1, _VOCABULARY, (tokens,), generator=torch.Generator().manual_seed(0))
    *prompt, last = ids.tolist()
    return Item("needle", tokens, tuple(prompt), (last,))
