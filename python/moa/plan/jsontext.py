"""JSON as the compiler reads it: positions, no key twice, one canonical form.

Python's reader would let pass what `lib/Plan/JsonText.cpp` refuses (keys given
twice, NaN, numbers that overflow, nesting without bound), and tells no lines.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import PlanError

#: Most arrays and objects inside each other that a file may hold.
MAX_DEPTH = 64
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_NOT_FINITE = "JSON has no NaN and no Infinity; write a finite number"


def _integer(text: str) -> int | float:
    """Beyond 64 bits an integer is read as a float, as the compiler does."""
    if len(text) > 20:
        return float(text)
    value = int(text)
    return value if -(1 << 63) <= value < 1 << 64 else float(text)


class _Walk:
    """Goes through the tokens of a text and knows the key path of each value."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file

    def position(self, offset: int) -> tuple[int, int]:
        start = self.text.rfind("\n", 0, offset) + 1
        return self.text.count("\n", 0, offset) + 1, offset - start + 1

    def fail(self, message: str, offset: int, cure: str, key: str = "") -> PlanError:
        line, column = self.position(offset)
        return PlanError(
            self.file, message, line=line, column=0 if key else column, key=key, cure=cure
        )

    def values(self) -> Iterator[tuple[list[str | int], str, int]]:
        """Yields (path, token, offset) of each value; of arrays and objects "[" or "{".
        The path is one list, changed as the walk goes on. The text is JSON as far as
        the walk goes.
        """
        path: list[str | int] = []  # For each open array or object: the key or index read.
        seen: list[set[str]] = []  # Keys of each; unused for arrays.
        named = False  # A key was read and its value is still to come.
        for match in _TOKEN.finditer(self.text):
            token, offset = match[0], match.start()
            if token in "}]":
                path.pop()
                seen.pop()
                continue
            if token == ":":
                continue
            if token == ",":
                if isinstance(path[-1], int):
                    path[-1] += 1
                continue
            if path and isinstance(path[-1], str) and not named and token[0] == '"':
                path[-1] = str(json.loads(token))
                if path[-1] in seen[-1]:
                    raise self.fail(
                        f"expected each key once, found '{path[-1]}' again",
                        offset,
                        "keep the one that is meant",
                        "/".join(map(str, path)),
                    )
                seen[-1].add(path[-1])
                named = True
                continue
            named = False
            yield path, token, offset
            if token in "{[":
                if len(path) == MAX_DEPTH:
                    line, _ = self.position(offset)
                    raise PlanError(
                        self.file,
                        f"expected at most {MAX_DEPTH} arrays and objects inside each "
                        "other, found more",
                        line=line,
                        cure="a plan nests two deep",
                    )
                path.append("" if token == "{" else 0)
                seen.append(set())

    def check(self) -> None:
        for _, token, offset in self.values():
            number = token.lstrip("-")
            if number in ("NaN", "Infinity") or (
                number[0] in "0123456789" and math.isinf(float(number))
            ):
                raise self.fail(f"expected JSON, found {token}", offset, _NOT_FINITE)


def parse(text: str, file: str) -> Any:
    """The document in `text`; PlanError, with line and column, where it is not JSON."""
    walk = _Walk(text, file)
    try:
        document = json.loads(text, parse_int=_integer)
        walk.check()
        canonical(document).encode()
    except RecursionError:
        walk.check()  # Finds that there are too many arrays inside each other.
        raise
    except json.JSONDecodeError as error:
        raise PlanError(
            file,
            f"expected JSON, found: {error.msg}",
            line=error.lineno,
            column=error.colno,
        ) from None
    except UnicodeEncodeError:
        raise PlanError(file, "expected JSON, found half of a surrogate pair", line=1) from None
    return document


def read(path: str | Path, what: str = "plan file") -> str:
    """The text of a file; PlanError where it cannot be read or is not UTF-8."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PlanError(
            str(path), f"expected a readable {what}, found: {error.strerror}"
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise PlanError(
            str(path), "expected JSON, found bytes that are not UTF-8", line=line, column=column
        ) from None


def line_of(text: str, key: str) -> int:
    """Line, from 1, of the value at a key path such as `alphas/3/2`; for an absent
    last part the line where its parent starts."""
    walk = _Walk(text, "")
    lines = {"/".join(map(str, path)): offset for path, _, offset in walk.values()}
    while key and key not in lines:
        key = key.rpartition("/")[0]
    return walk.position(lines.get(key, 0))[0]


def canonical(value: Any) -> str:
    """Sorted keys, no spaces, shortest round-trip floats, newline at the end."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"


def write_atomically(path: str | Path, data: str | bytes) -> None:
    """Puts a file in place whole: a killed program leaves the old one or the new one."""
    path = Path(path)
    raw = data.encode() if isinstance(data, str) else data
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise PlanError(
            str(path), f"expected a place to write to, found: {error.strerror}"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise PlanError(
            str(path), f"expected a place to write to, found: {error.strerror}"
        ) from None
