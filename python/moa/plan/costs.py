"""Measured times of decode by span: a table that a plan can be held to.

A file `{"format": "moa-costs", "version": 1, "device": .., "kv_heads": H, "rows":
[[span, N, batch, us], ..]}`: `us` is the time of one layer in which each of its
`kv_heads` heads has that span, at length N and that many sequences. `moa-plan
calibrate-cost` writes it; any other measurement of a layer will do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import PlanError, PlannerError
from .jsontext import line_of, parse, read
from .rules import Rule
from .span import Floats, SpanParams

_COLUMNS = ("span", "N", "batch", "us")


@dataclass(frozen=True)
class CostTable:
    """Times of a layer on one device."""

    file: str
    device: str
    kv_heads: int
    rows: tuple[tuple[int, int, int, float], ...]  #: (span, N, batch, us).

    def head_us(self, rules: Sequence[Rule], n: int, batch: int, params: SpanParams) -> Floats:
        """[rules]: time of one KV head, between measured spans by straight lines."""
        points = sorted((s, us) for s, at, b, us in self.rows if (at, b) == (n, batch))
        if not points:
            cases = sorted({(at, b) for _, at, b, _ in self.rows})
            raise PlannerError(
                f"{self.file}: expected times at length {n} and batch {batch}, found "
                f"(length, batch) {', '.join(map(str, cases))}; measure that case too: "
                "moa-plan calibrate-cost"
            )
        spans, times = zip(*points, strict=True)
        wanted = [rule.tokens(n, params) for rule in rules]
        if min(wanted) < spans[0] or max(wanted) > spans[-1]:
            raise PlannerError(
                f"{self.file}: expected spans {min(wanted)} to {max(wanted)} at length {n} "
                f"and batch {batch}, found {spans[0]} to {spans[-1]}; measure the ends too: "
                "moa-plan calibrate-cost"
            )
        result: Floats = np.interp(wanted, spans, times) / self.kv_heads
        return result


def load_costs(path: str | Path) -> CostTable:
    text = read(path, "cost table")
    document = parse(text, str(path))

    def refuse(key: str, expected: str, found: Any) -> PlanError:
        return PlanError(
            str(path), f"expected {expected}, found {json.dumps(found)[:60]}",
            line=line_of(text, key), key=key,
            cure="make the table again: moa-plan calibrate-cost",
        )  # fmt: skip

    if not isinstance(document, dict) or document.get("format") != "moa-costs":
        found = document.get("format") if isinstance(document, dict) else document
        raise refuse("format", '"moa-costs"', found)
    if document.get("version") != 1:
        raise refuse("version", "1", document.get("version"))
    device, heads = document.get("device"), document.get("kv_heads")
    if not isinstance(device, str):
        raise refuse("device", "a text", device)
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
        raise refuse("kv_heads", "a number from 1 on", heads)
    rows = document.get("rows")
    if not isinstance(rows, list) or not rows:
        raise refuse("rows", "a list of [span, N, batch, us]", rows)
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(_COLUMNS):
            raise refuse(f"rows/{i}", "[span, N, batch, us]", row)
        for j, value in enumerate(row):
            whole = j < 3
            kinds = int if whole else (int, float)
            if not isinstance(value, kinds) or isinstance(value, bool) or value <= 0:
                expected = f"{_COLUMNS[j]} as a {'whole ' if whole else ''}number above 0"
                raise refuse(f"rows/{i}/{j}", expected, value)
    return CostTable(str(path), device, heads, tuple(tuple(row) for row in rows))
