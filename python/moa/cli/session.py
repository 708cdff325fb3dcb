"""One conversation on one elastic cache: feeds what is new, samples, tells numbers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import torch

import moa.hf

from ..hf.graph import decoding
from ..serving.engine import end_tokens
from ..serving.request import Request, Ticket
from ..serving.sampling import choose
from .progress import Progress

#: Rows of a prompt in one call.
CHUNK = 512


@dataclasses.dataclass
class Numbers:
    """Of one answer; bytes are those of the cache at its end."""

    prompt_tokens: int
    fed_tokens: int = 0  # Of the prompt; the others were in the cache.
    finish_reason: str = "interrupted"
    prefill_s: float = 0.0
    decode_s: float = 0.0
    kv_bytes: int = 0
    dense_kv_bytes: int = 0
    tokens: list[int] = dataclasses.field(default_factory=list)

    @property
    def prefill_tokens_per_s(self) -> float:
        return self.fed_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        """Of the tokens behind the first, which the prompt gives."""
        return (len(self.tokens) - 1) / self.decode_s if self.decode_s else 0.0

    def __str__(self) -> str:
        return (
            f"{self.fed_tokens} prompt tokens at {self.prefill_tokens_per_s:.0f}/s, "
            f"{len(self.tokens)} new at {self.decode_tokens_per_s:.1f}/s; KV "
            f"{self.kv_bytes / 2**20:.2f} MiB, dense {self.dense_kv_bytes / 2**20:.2f} MiB"
        )


class Session:
    """model: from moa.hf.load. Prompts that begin with what the cache has seen go on
    from there; others start anew."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self._tokenizer = model, tokenizer
        self._ends = end_tokens(model, tokenizer)
        self.reset()

    def reset(self) -> None:
        self._cache = moa.hf.Cache(self.model)
        self._step = decoding(self.model)
        self._seen: list[int] = []

    def stream(self, request: Request) -> Iterator[str]:
        """The answer's text in pieces; `numbers` tells of it when it is over.

        OutOfRangeError for a prompt that is too long. After any error or interruption
        the session starts anew.
        """
        request.check(self.model.moa.info["max_length"])
        self.numbers = Numbers(len(request.prompt))
        try:
            yield from self._stream(request)
        except BaseException:
            self.reset()
            raise

    def _stream(self, request: Request) -> Iterator[str]:
        numbers, prompt = self.numbers, request.prompt
        if prompt[: len(self._seen)] != self._seen or len(prompt) == len(self._seen):
            self.reset()
        began = time.perf_counter()
        self._cache.expect([len(prompt) + request.max_new_tokens])
        fresh = prompt[len(self._seen) :]
        with Progress("reading the prompt") as progress:
            for at in range(0, len(fresh), CHUNK):
                logits = self._feed(fresh[at : at + CHUNK])
                progress.share = min(1, (at + CHUNK) / len(fresh))
        numbers.fed_tokens = len(fresh)
        numbers.prefill_s = time.perf_counter() - began
        began = time.perf_counter()
        ticket = Ticket(0, request, lambda event: None, self._tokenizer)
        for left in range(request.max_new_tokens, 0, -1):
            token = choose([ticket.sampler], logits)[0]
            piece, reason = ticket.take(token, self._ends, left == 1)
            numbers.tokens.append(token)
            numbers.decode_s = time.perf_counter() - began
            yield piece
            if reason is not None:
                numbers.finish_reason = reason
                break
            logits = self._feed([token])
        numbers.kv_bytes, numbers.dense_kv_bytes = self._cache.kv_bytes, self._cache.dense_bytes

    def _feed(self, tokens: list[int]) -> torch.Tensor:
        """Logits [1, vocabulary] behind the last of the tokens."""
        ids = torch.tensor([tokens], device=self.model.device)
        with torch.inference_mode():
            out = self._step(
                input_ids=ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
        self._seen += tokens
        logits: torch.Tensor = out.logits
        return logits[:, -1]
