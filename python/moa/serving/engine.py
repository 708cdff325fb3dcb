"""Continuous batching: a thread that runs a model over the runtime's scheduler.

Everything of the runtime belongs to that thread. Others hand it requests and
cancellations, and get events back by the function that came with the request.
"""

from __future__ import annotations

import concurrent.futures
import copy
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .. import runtime
from ..errors import Error
from .metrics import Counters
from .packed import PackedModel
from .request import Accepted, End, Piece, Request, Sink, Ticket
from .sampling import choose

T = TypeVar("T")


class QueueFullError(Error):
    """As many requests wait as may."""


class StoppedError(Error):
    """The engine does not run (any more)."""


class Engine:
    """model: from moa.hf.load; tokenizer: its own.

    max_bytes: most bytes of pages, 0 for no limit. max_sequences: requests that run
    at a time; max_waiting: that wait beside them. chunk_tokens: rows of one prompt in
    a step. admission: "optimistic" or "reserved", as of runtime.Scheduler.
    prefix_reuse: requests that begin alike compute that once; for plans with the
    length rule "row". Use it as a context manager, or call start and stop.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_bytes: int = 0,
        max_sequences: int = 64,
        max_waiting: int = 256,
        chunk_tokens: int = 512,
        admission: str = "optimistic",
        prefix_reuse: bool = False,
    ) -> None:
        self.counters = Counters()
        self.max_waiting = max_waiting
        self.max_length: int = model.moa.info["max_length"]
        #: Why the engine stopped by itself, or None.
        self.failure: Exception | None = None
        # Others encode with the caller's while this one decodes.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._ends = end_tokens(model, tokenizer)
        self._pages = runtime.Cache(model.moa.module, max_bytes)
        self._module = model.moa.module
        self._prefix_reuse = prefix_reuse
        if prefix_reuse:
            self._pages.set_prefix_reuse()
        self._model = PackedModel(model, self._pages, max_sequences)
        self._scheduler = runtime.Scheduler(
            self._pages,
            max_sequences,
            max_step_tokens=max(2 * chunk_tokens, max_sequences + chunk_tokens),
            chunk_tokens=chunk_tokens,
            admission=admission,
        )
        self._numbers = itertools.count(1)
        self._tickets: dict[int, Ticket] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._arriving = 0  # Requests in the inbox.
        self._waiting = 0  # In the scheduler, at its last look.
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="moa-engine", daemon=True)

    def start(self) -> Engine:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends what is under way as cancelled, gives pages back and joins the thread."""
        with self._lock:
            self._stopping = True
        self._inbox.put(lambda: None)
        self._thread.join()

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    def submit(self, request: Request, sink: Sink) -> int:
        """The request's number; `sink` gets its events, the first of them Accepted or
        a refusal. OutOfRangeError, QueueFullError, StoppedError: nothing was begun.
        """
        request.check(self.max_length)
        ticket = Ticket(next(self._numbers), request, sink, self._tokenizer)
        with self._lock:
            self._check_running()
            waiting = self._waiting + self._arriving
            if waiting >= self.max_waiting:
                self.counters.ended["rejected"] += 1
                raise QueueFullError(
                    f"{waiting} requests wait already, as many as may: try again later"
                )
            self._arriving += 1
            self._inbox.put(lambda: self._submit(ticket))
        return ticket.number

    def cancel(self, number: int) -> None:
        """Ends a request, whose pages go back; nothing if it has ended."""
        self._inbox.put(lambda: self._cancel(number))

    def call(self, function: Callable[[], T], timeout: float = 60) -> T:
        """What a function returns that runs in the engine's thread, between steps."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        with self._lock:
            self._check_running()
            self._inbox.put(work)
        return future.result(timeout)

    def stats(self) -> dict[str, Any]:
        """{"scheduler", "pages"}: numbers of both, at one moment."""
        return self.call(
            lambda: {"scheduler": self._scheduler.stats, "pages": self._pages.stats}
        )

    def prometheus(self) -> str:
        """The runtime's counters and the engine's, as Prometheus reads them."""

        def both() -> str:
            pages: str = self._pages.prometheus()
            return pages + self.counters.format(self._scheduler.stats)

        return self.call(both)

    def _check_running(self) -> None:
        if self.failure is not None:
            raise StoppedError(f"the engine stopped at an error: {self.failure}")
        if not self.running:
            raise StoppedError("the engine is stopping: no request is taken")

    # Behind this line: the engine's thread.

    def _run(self) -> None:
        try:
            while not self._stopping:
                if not self._step():
                    self._inbox.get()()
                while not self._inbox.empty():
                    self._inbox.get()()
        except Exception as error:
            with self._lock:
                self.failure = error
        with self._lock:
            self._stopping = True
        while not self._inbox.empty():
            self._inbox.get()()
        for ticket in list(self._tickets.values()):
            if self.failure is None:
                self._cancel(ticket.number)
            else:
                self._end(ticket, End("failed", self.failure, ticket.generated))

    def _submit(self, ticket: Ticket) -> None:
        request = ticket.request
        tokens = request.prompt if self._prefix_reuse else None
        try:
            ticket.id = self._scheduler.submit(
                len(request.prompt), request.max_new_tokens, ticket.number, tokens
            )
        except Exception as error:
            self._end(ticket, End("refused", error))
        else:
            self._tickets[ticket.number] = ticket
            self.counters.accepted += 1
            self.counters.prompt_tokens += len(request.prompt)
            ticket.sink(Accepted())
        with self._lock:
            self._arriving -= 1
            self._waiting = self._scheduler.stats["waiting"]

    def _cancel(self, number: int) -> None:
        ticket = self._tickets.get(number)
        if ticket is not None:
            self._scheduler.cancel(ticket.id)
            self._end(ticket, End("cancelled", generated=ticket.generated))

    def _look(self) -> None:
        """Notes how many wait, for those who submit."""
        with self._lock:
            self._waiting = self._scheduler.stats["waiting"]

    def _end(self, ticket: Ticket, end: End) -> None:
        self._tickets.pop(ticket.number, None)
        self._look()
        self.counters.ended[end.reason] += 1
        ticket.sink(end)

    def _step(self) -> bool:
        """One step of the scheduler; False if there is nothing to do."""
        began = time.monotonic()
        entries = self._scheduler.next()
        self._look()
        if not entries:
            return False
        tickets = [self._tickets[entry.user] for entry in entries]
        sampling = [t for entry, t in zip(entries, tickets) if entry.samples]
        try:
            logits = self._model.step(entries, [ticket.tokens for ticket in tickets])
            picks = choose([ticket.sampler for ticket in sampling], logits)
        except Exception as error:
            self._scheduler.abort_step()
            for ticket in tickets:
                self._scheduler.cancel(ticket.id)
                self._end(ticket, End("failed", error, ticket.generated))
            return True
        self._commit(entries, tickets, iter(picks))
        self.counters.count_step(time.monotonic() - began)
        return True

    def _commit(self, entries: list[Any], tickets: list[Ticket], picks: Iterator[int]) -> None:
        """Takes the tokens of a step and tells their requests."""
        events: list[tuple[Ticket, str, End | None]] = []
        stops = []
        for entry, ticket in zip(entries, tickets):
            stops.append(False)
            if not entry.samples:
                continue
            end, error = None, None
            try:
                piece, reason = ticket.take(next(picks), self._ends, entry.last)
            except Exception as raised:  # The tokenizer's.
                piece, reason, error = "", "failed", raised
            if reason is not None:
                stops[-1] = True
                sequence = entry.sequence
                held = sequence.bytes
                dense = self._module.kv_bytes(sequence.length, sequence.seen())[1]
                end = End(reason, error, ticket.generated, held, dense)
            events.append((ticket, piece, end))
        self._scheduler.commit(stops)
        for ticket, piece, end in events:
            self.counters.count_token(ticket)
            ticket.sink(Piece(piece, ticket.tokens[-1]))
            if end is not None:
                self._end(ticket, end)
            elif self._prefix_reuse:
                self._scheduler.add_tokens(ticket.id, ticket.tokens[-1:])
        self._look()


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a text: the model's and the tokenizer's."""
    own = getattr(model.generation_config, "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    return frozenset(int(token) for token in ids if token is not None)
