"""A request as the engine knows it, and what the engine tells about it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from ..errors import OutOfRangeError
from .sampling import Sampler, Sampling
from .text import TextStream


@dataclasses.dataclass(frozen=True)
class Request:
    """prompt: its tokens. stops: strings that end the text. ignore_eos: go on past
    the tokens that end a text, to max_new_tokens.
    """

    prompt: list[int]
    max_new_tokens: int
    sampling: Sampling = Sampling()
    stops: tuple[str, ...] = ()
    ignore_eos: bool = False

    def check(self, max_length: int) -> None:
        """OutOfRangeError for what no cache of sequences of max_length could serve."""
        prompt, new = len(self.prompt), self.max_new_tokens
        if prompt < 1:
            raise OutOfRangeError("the prompt has no tokens; expected at least 1")
        if new < 1:
            raise OutOfRangeError(f"{new} new tokens are asked for; expected at least 1")
        if prompt >= max_length:
            raise OutOfRangeError(
                f"the prompt has {prompt} tokens; the maximum context length is {max_length}, "
                "1 new token at least included: shorten the prompt"
            )
        if prompt + new > max_length:
            raise OutOfRangeError(
                f"the prompt has {prompt} tokens and {new} new ones are asked for; the maximum "
                f"context length is {max_length}: ask for at most {max_length - prompt} new "
                "tokens, or shorten the prompt"
            )


@dataclasses.dataclass(frozen=True)
class Accepted:
    """The request waits for its turn, or has it."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A token was sampled; text: what it made certain, maybe none."""

    text: str
    token: int


@dataclasses.dataclass(frozen=True)
class End:
    """The last event. reason: "stop", "length", "cancelled", "refused" (it could never
    run) or "failed"; error: why, of the last two. kv_bytes: pages that the sequence
    held at its end, dense_bytes: what a dense cache would have.
    """

    reason: str
    error: Exception | None = None
    generated: int = 0
    kv_bytes: int = 0
    dense_bytes: int = 0


Event: TypeAlias = Accepted | Piece | End
#: Called in the engine's thread; it must not block.
Sink: TypeAlias = Callable[[Event], None]


class Ticket:
    """A request under way; of the engine's thread alone but for `number`."""

    def __init__(self, number: int, request: Request, sink: Sink, tokenizer: Any) -> None:
        self.number, self.request, self.sink = number, request, sink
        self.id = 0  # In the scheduler; 0 before and after it is there.
        self.tokens = list(request.prompt)
        self.sampler = Sampler(request.sampling)
        self.text = TextStream(tokenizer, request.prompt, request.stops)
        self.submitted = time.monotonic()

    @property
    def generated(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    def take(self, token: int, ends: frozenset[int], last: bool) -> tuple[str, str | None]:
        """A sampled token: the text that it makes certain, and why the request ends."""
        self.tokens.append(token)
        if token in ends and not self.request.ignore_eos:
            return self.text.finish(), "stop"
        piece = self.text.push(token)
        if self.text.stopped:
            return piece, "stop"
        if last:
            piece += self.text.finish()
            return piece, "stop" if self.text.stopped else "length"
        return piece, None
