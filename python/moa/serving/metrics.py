"""What an engine did, as numbers and as Prometheus' text."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .request import Ticket

#: Of the scheduler: name, kind, text, key of its stats.
_SCHEDULER = (
    ("requests_running", "gauge", "Requests whose sequence has pages.", "running"),
    ("requests_waiting", "gauge", "Requests that wait.", "waiting"),
    ("preemptions_total", "counter", "Requests that gave their pages up.", "preemptions"),
    ("kv_limit_bytes", "gauge", "Most of the KV cache, 0 for no limit.", "limit_bytes"),
    ("rows_again_total", "counter", "Rows fed again after that.", "rows_again"),
)


class Counters:
    """Written in the engine's thread, but for rejections."""

    def __init__(self) -> None:
        self.accepted = 0
        #: By reason: those of request.End, and "rejected" (the queue was full).
        self.ended: collections.Counter[str] = collections.Counter()
        self.prompt_tokens = self.generated_tokens = 0
        self.steps, self.step_seconds = 0, 0.0
        self.first_tokens, self.first_token_seconds = 0, 0.0

    def count_step(self, seconds: float) -> None:
        self.steps += 1
        self.step_seconds += seconds

    def count_token(self, ticket: Ticket) -> None:
        self.generated_tokens += 1
        if ticket.generated == 1:
            self.first_tokens += 1
            self.first_token_seconds += time.monotonic() - ticket.submitted

    def format(self, scheduler: dict[str, Any]) -> str:
        """Prometheus' text; scheduler: stats of runtime.Scheduler."""
        lines: list[str] = []

        def add(name: str, kind: str, text: str, *values: tuple[str, float]) -> None:
            lines.append(f"# HELP moa_serve_{name} {text}")
            lines.append(f"# TYPE moa_serve_{name} {kind}")
            lines.extend(f"moa_serve_{name}{labels} {value}" for labels, value in values)

        def add_pair(name: str, text: str, total: float, count: int) -> None:
            lines.append(f"# HELP moa_serve_{name} {text}")
            lines.append(f"# TYPE moa_serve_{name} summary")
            lines.append(f"moa_serve_{name}_sum {total:.6f}")
            lines.append(f"moa_serve_{name}_count {count}")

        for name, kind, text, key in _SCHEDULER:
            add(name, kind, text, ("", scheduler[key]))
        add("requests_accepted_total", "counter", "Requests taken in.", ("", self.accepted))
        ended = [(f'{{reason="{reason}"}}', n) for reason, n in sorted(self.ended.items())]
        add("requests_ended_total", "counter", "Requests that ended, by reason.", *ended)
        add("prompt_tokens_total", "counter", "Of requests taken in.", ("", self.prompt_tokens))
        add("generated_tokens_total", "counter", "Tokens sampled.", ("", self.generated_tokens))
        add_pair("step_seconds", "Steps of the model.", self.step_seconds, self.steps)
        add_pair(
            "time_to_first_token_seconds",
            "From a request's arrival to its first token.",
            self.first_token_seconds,
            self.first_tokens,
        )
        return "\n".join(lines) + "\n"
