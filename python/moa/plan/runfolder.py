"""The folder of a run: what was asked, what is done, and under which key.

Every file is put in place whole, so a killed run loses the item it was at. A step
is keyed by all that decides its outcome; another key is refused by field.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TextIO

from .errors import PlannerError
from .jsontext import write_atomically


class RunFolder:
    """A run's files below `path`; made where it is not there."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlannerError(
                f"{self.path}: expected a folder for the run: {error.strerror}; name another "
                "with --out"
            ) from None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def record(self) -> dict[str, Any]:
        """run.json: options, versions, the keys of steps."""
        path = self / "run.json"
        if not path.exists():
            return {"steps": {}}
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            record["steps"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise PlannerError(
                f"{path}: is not a run's record; choose another folder with --out"
            ) from None
        return record

    def note(self, **fields: Any) -> None:
        """Puts fields into run.json."""
        write_json(self / "run.json", self.record() | fields)

    def claim(self, step: str, key: Mapping[str, Any]) -> str:
        """Ties a step to its key and returns the key's hash.

        PlannerError, naming the fields, where the step was done under another.
        """
        wanted = json.loads(json.dumps(key))
        record = self.record()
        known = record["steps"].get(step)
        if known is None:
            record["steps"][step] = wanted
            write_json(self / "run.json", record)
        elif known != wanted:
            fields = sorted(
                f
                for f in known.keys() | wanted.keys()
                if known.get(f, None) != wanted.get(f, None)
            )
            changes = ", ".join(f"{f} was {known.get(f)}, is {wanted.get(f)}" for f in fields)
            raise PlannerError(
                f"{self.path}: {step} was made with other inputs: {changes}; "
                "choose another folder with --out, or the options of before"
            )
        return digest(wanted)

    def log(self, text: str) -> None:
        """Adds a line with the time to log.txt."""
        with open(self / "log.txt", "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")


def digest(value: Any) -> str:
    """SHA-256 of a value's JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Puts JSON in place whole, indented."""
    write_atomically(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; a last line that was cut off is left out."""
    if not path.exists():
        return []
    lines = []
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            lines.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            raise PlannerError(
                f"{path}:{number}: expected a line of JSON; delete the file: it is made anew"
            ) from None
    return lines


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Puts a file of JSON lines in place whole."""
    write_atomically(path, "".join(map(_line, lines)))


class Lines:
    """A file of JSON lines that grows: `known` are those that an earlier run has added."""

    def __init__(self, path: Path):
        self.path, self.known = path, read_lines(path)
        # A line that was cut off when that run was killed goes.
        write_lines(path, self.known)

    def add(self, lines: Iterable[Mapping[str, Any]]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(map(_line, lines))
            file.flush()
            os.fsync(file.fileno())


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"


class Progress:
    """One line on stderr, rewritten on a terminal; JSON lines where asked.

    Ctrl-C while it is active ends the work after the current item.
    """

    def __init__(
        self, what: str, total: int, *, as_json: bool = False, out: TextIO | None = None
    ):
        self.what, self.total, self.as_json = what, total, as_json
        self.out = out if out is not None else sys.stderr
        self.done = self.skipped = 0
        self.begin = time.monotonic()
        self._stopped = False
        self._handler: Any = None

    def __enter__(self) -> Progress:
        self._handler = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGINT, self._handler)
        if not self.as_json and self.out.isatty() and self.done:
            print(file=self.out)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True

    def skip(self) -> None:
        """An item that an earlier run has done."""
        self.skipped += 1

    def step(self) -> None:
        """An item is done. Interrupted where Ctrl-C was pressed meanwhile."""
        self.done += 1
        seconds = (time.monotonic() - self.begin) / self.done
        left = self.total - self.done - self.skipped
        facts = {
            "step": self.what,
            "done": self.done + self.skipped,
            "total": self.total,
            "seconds_per_item": round(seconds, 2),
            "seconds_left": round(seconds * left, 1),
            "peak_mib": round(peak_mib()),
        }
        if self.as_json:
            print(json.dumps(facts), file=self.out, flush=True)
        else:
            line = (
                f"{self.what}: {facts['done']}/{self.total}, {seconds:.1f} s an item, "
                f"{clock(seconds * left)} left, peak {facts['peak_mib']} MiB"
            )
            ending = "" if self.out.isatty() else "\n"
            print(f"\r{line}" if not ending else line, end=ending, file=self.out, flush=True)
        if self._stopped and left:
            raise Interrupted(
                f"stopped after {facts['done']} of {self.total} ({self.what}); the same "
                "command goes on from here"
            )


class Interrupted(Exception):
    """Ctrl-C was pressed; all items so far are kept."""


def clock(seconds: float) -> str:
    """Hours, minutes and seconds for people."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def peak_mib() -> float:
    """Most memory that this process had resident, MiB; on a CUDA device too."""
    import resource

    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if torch.cuda.is_available():
        peak += torch.cuda.max_memory_allocated() / 2**20
    return peak
