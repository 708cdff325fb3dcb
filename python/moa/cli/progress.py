"""Says on standard error what goes on, when it takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
import time

#: Seconds without a word.
PATIENCE = 2.0


class Progress:
    """`with Progress("loading x") as progress: ... progress.share = 0.5`.

    On a terminal one line that counts seconds, and per cent where share is set; else
    one line when the patience is over and one at the end.
    """

    def __init__(self, what: str):
        self._what, self._done = what, threading.Event()
        self.share: float | None = None

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _tell(self) -> None:
        if self._done.wait(PATIENCE):
            return
        terminal = sys.stderr.isatty()
        if not terminal:
            print(f"{self._what} ...", file=sys.stderr, flush=True)
        while True:
            if terminal:
                print(f"\r\x1b[K{self._text()}", end="", file=sys.stderr, flush=True)
            if self._done.wait(0.5):
                break
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            print(self._text(), file=sys.stderr, flush=True)

    def _text(self) -> str:
        share = "" if self.share is None else f" {100 * self.share:.0f} %"
        return f"{self._what}:{share} {time.monotonic() - self._began:.0f} s"
