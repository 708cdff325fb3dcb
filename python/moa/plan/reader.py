"""From a JSON document to the parts of a plan, with everything that is wrong in it.

Each check names the key path, what was expected, what was found, and the cure, in
the order and the words of `lib/Plan/PlanJson.cpp`; the compiler stops at the
first fault, this reader goes on to the next.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .density import byte_density_of, density_of, longest
from .errors import PlanError
from .formats import FORMATS, written
from .jsontext import canonical, line_of, parse
from .span import MAX_LENGTH, MAX_WINDOW, SpanParams

#: Largest magnitude of alpha, tokens.
MAX_ALPHA = 1 << 40
#: Largest sink, rounding block and least span, tokens.
MAX_SPAN_PARAMETER = 1 << 20
#: Most query heads of a layer, and most layers.
MAX_SIZE = 1 << 16
#: How far a density in a file may be from the recomputed one.
DENSITY_TOLERANCE = 1e-3

_ABSENT = object()
_UNKNOWN = "leave the key out if it is not known"
_ROWS = "both keys hold one row per layer, one number per query head"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _describe(value: object) -> str:
    """'-3', '"abc"', 'an array of 2': what a message calls a value."""
    if value is _ABSENT:
        return "none"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    text = canonical(value)[:-1]
    return text if len(text.encode()) <= 60 else text[:57] + "..."


def _getter(within: dict[str, Any]) -> Callable[[str], object]:
    return lambda key: within.get(key, _ABSENT)


class Reader:
    """Reads one document on construction; PlanError only where it is not JSON."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.faults: list[PlanError] = []
        self.warnings: list[str] = []
        self.layers = self.q_heads = 0
        self.alphas: list[int] = []  #: Layer-major.
        self.betas: list[float] = []
        self.span = SpanParams()
        self.model: dict[str, Any] = {}
        self.valid: tuple[int, int] | None = None
        self.legacy = False
        self.kv_formats: list[list[str]] = []  #: See `Plan.kv_formats`.
        self.format_columns: int | None = None
        self.windows: list[int | None] = []  #: See `Plan.windows`.
        self.document: dict[str, Any] = {}
        document = parse(text, file)
        if not isinstance(document, dict):
            self._fault(
                "", "an object with keys alphas and betas", _describe(document),
                "pass a plan file",
            )  # fmt: skip
            return
        self.document = document
        if not self._format():
            return
        self._rules()
        self._span()
        self._mask()
        self._model()
        self._kv()
        self._budget()
        self._density()
        for name in ("scores", "provenance"):
            self._section(name)

    def _fault(self, key: str, expected: str, found: str, cure: str) -> None:
        self.faults.append(
            PlanError(
                self.file,
                f"expected {expected}, found {found}",
                line=line_of(self.text, key),
                key=key,
                cure=cure,
            )  # fmt: skip
        )

    def _section(self, name: str) -> dict[str, Any]:
        value = self.document.get(name, _ABSENT)
        if isinstance(value, dict):
            return value
        if value is not _ABSENT:
            self._fault(
                name, "an object", _describe(value), "leave the key out to take its defaults"
            )
        return {}

    def _integer(
        self, path: str, value: object, low: int, high: int, default: int, cure: str
    ) -> int:
        if value is _ABSENT:
            return default
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = float(value)
            if low <= number <= high and number == math.floor(number):
                return int(number)
        self._fault(path, f"an integer from {low} to {high}", _describe(value), cure)
        return default

    def _choice(self, path: str, value: object, choices: list[str], cure: str) -> str:
        if value is _ABSENT:
            return ""
        if isinstance(value, str) and value in choices:
            return value
        expected = '"' + '" or "'.join(choices) + '"'
        self._fault(path, expected, _describe(value), cure)
        return ""

    def _format(self) -> bool:
        """Legacy or moa-plan/1; whether the rest can be understood."""
        kind = self.document.get("format", _ABSENT)
        version = self.document.get("version", _ABSENT)
        before = len(self.faults)
        if kind is _ABSENT:
            for key in ("version", "span", "mask", "model", "kv"):
                if key in self.document:
                    self._fault(
                        "format", f"\"moa-plan\" beside '{key}'", "none",
                        'add "format": "moa-plan", "version": 1, or keep only alphas '
                        "and betas",
                    )  # fmt: skip
                    break
            self.legacy = True
        elif kind != "moa-plan":
            self._fault(
                "format", '"moa-plan"', _describe(kind),
                "leave the key out for a file of alphas and betas alone",
            )  # fmt: skip
        elif isinstance(version, (bool, float)) or version != 1:
            self._fault(
                "version", "1", _describe(version), "a newer version needs a newer compiler"
            )
        return len(self.faults) == before

    def _matrix(self, key: str) -> list[list[Any]]:
        """One of the two matrices: equal rows of numbers; empty where it is not."""
        rows = self.document.get(key, _ABSENT)
        before = len(self.faults)
        if not isinstance(rows, list) or not 0 < len(rows) <= MAX_SIZE:
            self._fault(key, f"an array of 1 to {MAX_SIZE} layers", _describe(rows), _ROWS)
            return []
        self.layers = self.layers or len(rows)
        if len(rows) != self.layers:
            self._fault(key, f"{self.layers} layers, as alphas has", str(len(rows)), _ROWS)
        for layer, row in enumerate(rows):
            path = f"{key}/{layer}"
            if not isinstance(row, list) or not 0 < len(row) <= MAX_SIZE:
                expected = f"an array of 1 to {MAX_SIZE} query heads"
                self._fault(path, expected, _describe(row), _ROWS)
                continue
            self.q_heads = self.q_heads or len(row)
            if len(row) != self.q_heads:
                expected = f"{self.q_heads} query heads, as alphas/0 has"
                self._fault(path, expected, str(len(row)), _ROWS)
            for head, value in enumerate(row):
                if not _is_number(value):
                    self._fault(
                        f"{path}/{head}", "a finite number", _describe(value),
                        "JSON has no NaN and no Infinity",
                    )  # fmt: skip
        return rows if len(self.faults) == before else []

    def _rules(self) -> None:
        alphas, betas = self._matrix("alphas"), self._matrix("betas")
        if not alphas or not betas:
            return
        for layer in range(self.layers):
            for head in range(self.q_heads):
                self._rule(alphas[layer], betas[layer], layer, head)

    def _rule(self, alphas: list[Any], betas: list[Any], layer: int, head: int) -> None:
        """Takes one rule; writes it back as the canonical floats."""
        alpha, beta = float(alphas[head]), float(betas[head])
        where = f"{layer}/{head}"
        whole = 0
        if abs(alpha) > MAX_ALPHA:
            self._fault(
                f"alphas/{where}", f"-{MAX_ALPHA} to {MAX_ALPHA} tokens",
                _describe(alphas[head]), "alpha counts tokens",
            )  # fmt: skip
        elif abs(alpha - round(alpha)) > 1e-6:
            self._fault(
                f"alphas/{where}", "a whole number of tokens", _describe(alphas[head]),
                "round it",
            )  # fmt: skip
        else:
            whole = round(alpha)
        if not 0 <= beta <= 1:
            self._fault(
                f"betas/{where}", "0 to 1", _describe(betas[head]),
                "beta is a share of the length",
            )  # fmt: skip
        alphas[head], betas[head] = float(whole), beta or 0.0  # No negative zero.
        self.alphas.append(whole)
        self.betas.append(betas[head])

    def _span(self) -> None:
        within = self._section("span")
        get = _getter(within)
        most = MAX_SPAN_PARAMETER
        sink = self._integer(
            "span/sink", get("sink"), 0, most, 64, "sink counts tokens; 0 means none"
        )
        block = self._integer(
            "span/block", get("block"), 1, most, 64, "spans are rounded up to a multiple of it"
        )
        least = self._integer(
            "span/min", get("min"), 1, most, 128, "a row sees at least itself beside the sink"
        )
        if least <= sink:
            self._fault(
                "span/min", f"more than the sink of {sink}", str(least),
                "a row sees at least itself beside the sink",
            )  # fmt: skip
        includes = get("includes_sink")
        if includes is not _ABSENT and includes is not True:
            self._fault(
                "span/includes_sink", "true", _describe(includes),
                "add the sink to every alpha",
            )  # fmt: skip
        self._choice("span/round", get("round"), ["up"], "spans are rounded up to whole blocks")
        length = self._choice(
            "span/length", get("length"), ["prompt+max_new", "request", "row"],
            "see the length rules: per request or per row",
        )  # fmt: skip
        self.span = SpanParams(sink, block, least, length == "row")
        self._valid(get("valid"))
        self._windows(get("window"))

    def _valid(self, valid: object) -> None:
        if valid is _ABSENT:
            return
        if isinstance(valid, list) and len(valid) == 2:
            low, high = valid
            whole = all(isinstance(n, int) and not isinstance(n, bool) for n in valid)
            if whole and 1 <= low <= high <= MAX_LENGTH:
                self.valid = (low, high)
                return
        found = canonical(valid)[:-1][:60] if isinstance(valid, list) else _describe(valid)
        self._fault("span/valid", "[shortest, longest] length in tokens", found, _UNKNOWN)

    def _windows(self, rows: object) -> None:
        """span/window: of each layer the window of the model's own, or null."""
        if rows is _ABSENT:
            return
        if not isinstance(rows, list) or len(rows) != self.layers:
            self._fault(
                "span/window", f"an array of {self.layers} layers, as alphas has",
                _describe(rows), "leave the key out if no layer has a window of its own",
            )  # fmt: skip
            return
        before = len(self.faults)
        for layer, window in enumerate(rows):
            whole = isinstance(window, int) and not isinstance(window, bool)
            if window is not None and not (whole and 1 <= window <= MAX_WINDOW):
                self._fault(
                    f"span/window/{layer}", f"null or an integer from 1 to {MAX_WINDOW}",
                    _describe(window), "the window counts tokens, the query's own too",
                )  # fmt: skip
        if len(self.faults) == before:
            self.windows = rows

    def _mask(self) -> None:
        within = self._section("mask")
        get = _getter(within)
        band = self._choice(
            "mask/band", get("band"), ["token", "block"], "masks are exact to the token"
        )
        if band == "block":
            self.warnings.append(
                f'{self.file}: mask/band is "block", masks here are exact to the token: a '
                f"prefill row sees up to {self.span.block - 1} keys more"
            )
        self._choice(
            "mask/prefill", get("prefill"), ["sparse"], "every phase obeys the same mask"
        )
        self._choice(
            "mask/positions", get("positions"), ["absolute"],
            "keys are stored rotated at their absolute position",
        )  # fmt: skip

    def _model(self) -> None:
        within = self._section("model")
        for key in ("name", "architecture"):
            value = within.get(key, _ABSENT)
            if isinstance(value, str):
                self.model[key] = value
            elif value is not _ABSENT:
                self._fault(f"model/{key}", "a text", _describe(value), _UNKNOWN)
        for key in ("layers", "q_heads", "kv_heads", "head_dim", "max_position"):
            value = within.get(key, _ABSENT)
            number = self._integer(f"model/{key}", value, 1, MAX_LENGTH, 0, _UNKNOWN)
            if number:
                self.model[key] = number
        stated = self.model.get
        if self.layers and stated("layers", self.layers) != self.layers:
            self._fault(
                "model/layers", f"{self.layers}, as alphas has", str(stated("layers")),
                "one row of alphas per layer",
            )  # fmt: skip
        if self.q_heads and stated("q_heads", self.q_heads) != self.q_heads:
            self._fault(
                "model/q_heads", f"{self.q_heads}, as alphas/0 has", str(stated("q_heads")),
                "one alpha per query head",
            )  # fmt: skip
        kv_heads = stated("kv_heads")
        if kv_heads and self.q_heads % kv_heads:
            self._fault(
                "model/kv_heads", f"a divisor of the {self.q_heads} query heads",
                str(kv_heads), "each KV head serves the same number of query heads",
            )  # fmt: skip
        longest = stated("max_position")
        if self.valid and longest and self.valid[1] > longest:
            self.warnings.append(
                f"{self.file}: span/valid reaches {self.valid[1]}, beyond "
                f"model/max_position {longest}"
            )

    def _kv(self) -> None:
        within = self._section("kv")
        if "format" in within:
            self._kv_formats(within["format"])
        self._choice(
            "kv/policy", within.get("policy", _ABSENT), ["group-max", "per-query-head"],
            "a KV head keeps the longest span of its group",
        )  # fmt: skip
        most = self._integer(
            "kv/rules_per_layer", within.get("rules_per_layer", _ABSENT), 1, MAX_SIZE, 0,
            "leave the key out for no limit",
        )  # fmt: skip
        if not most or self.faults:
            return
        for layer in range(self.layers):
            part = slice(layer * self.q_heads, (layer + 1) * self.q_heads)
            distinct = len(set(zip(self.alphas[part], self.betas[part], strict=True)))
            if distinct > most:
                self._fault(
                    f"alphas/{layer}",
                    f"at most {most} different rules in a layer, as kv/rules_per_layer says",
                    str(distinct), "raise kv/rules_per_layer or plan again",
                )  # fmt: skip

    def _kv_format(self, path: str, value: object) -> str:
        names = {written(form): form for form in FORMATS}
        if isinstance(value, (int, str)) and not isinstance(value, bool) and value in names:
            return names[value]
        self._fault(
            path, '16, "e4m3" or "int8"', _describe(value),
            "a KV head keeps complete pages in the model's 16 bits or in 8",
        )  # fmt: skip
        return FORMATS[0]

    def _kv_formats(self, value: object) -> None:
        """kv/format: one format for all, or a row per layer with one per KV head."""
        cure = "give one format for all, or one row per layer with one format per KV head"
        if not isinstance(value, list):
            self.kv_formats = [[self._kv_format("kv/format", value)]] * self.layers
            return
        if len(value) != self.layers:
            self._fault(
                "kv/format", f"{self.layers} layers, as alphas has", str(len(value)), cure
            )
            return
        for layer, row in enumerate(value):
            path = f"kv/format/{layer}"
            heads = len(row) if isinstance(row, list) else 0
            if not heads or self.q_heads % heads:
                self._fault(
                    path,
                    f"an array of KV heads, a divisor of the {self.q_heads} query heads",
                    _describe(row), cure,
                )  # fmt: skip
                continue
            if self.format_columns is None:
                self.format_columns = self.model.get("kv_heads") or heads
            if heads != self.format_columns:
                like = "model/kv_heads" if self.model.get("kv_heads") else "kv/format/0"
                self._fault(
                    path, f"{self.format_columns} KV heads, as {like} has", str(heads), cure
                )
                continue
            self.kv_formats.append(
                [self._kv_format(f"{path}/{head}", each) for head, each in enumerate(row)]
            )

    def _lengths(self, path: str, within: dict[str, Any]) -> Iterator[tuple[str, int, Any]]:
        """Yields (path, length, value) of an object whose keys are lengths."""
        for key in sorted(within):
            n = int(key) if re.fullmatch("[0-9]{1,18}", key) else 0
            if 1 <= n <= MAX_LENGTH:
                yield f"{path}/{key}", n, within[key]
            else:
                self._fault(
                    f"{path}/{key}", f"a length from 1 to {MAX_LENGTH} as key",
                    json.dumps(key, ensure_ascii=False), "keys are total lengths in tokens",
                )  # fmt: skip

    def _real_density(self, on: str, n: int) -> float | None:
        """Density that the rules give; None where it cannot be known."""
        kv_heads = self.q_heads if on == "query" else self.model.get("kv_heads")
        if self.faults or not kv_heads:
            return None
        shape = (self.layers, self.q_heads)
        alphas = np.array(self.alphas).reshape(shape)
        betas = np.array(self.betas).reshape(shape)
        spans = self.span.of_layers(self.windows, self.layers)
        if on == "byte" and self.kv_formats:
            kept = longest(alphas, betas, spans, kv_heads, n)
            rows = [row * (kv_heads // len(row)) for row in self.kv_formats]
            return byte_density_of(kept, rows, spans, n)
        return density_of(alphas, betas, spans, kv_heads, n)

    def _budget(self) -> None:
        within = self._section("budget")
        on = self._choice(
            "budget/on", within.get("on", _ABSENT), ["kv", "query"],
            "a budget bounds one of the two densities",
        )  # fmt: skip
        on = on or "query"
        for key, of in (("bounds", on), ("bytes", "byte")):
            bounds = within.get(key, {})
            if not isinstance(bounds, dict):
                self._fault(
                    f"budget/{key}", "an object of length: density", _describe(bounds),
                    "leave the key out for no budget",
                )  # fmt: skip
                continue
            for path, n, bound in self._lengths(f"budget/{key}", bounds):
                if not _is_number(bound) or not 0 < bound <= 1:
                    self._fault(
                        path, "a density above 0, at most 1", _describe(bound),
                        "1 is the dense cache",
                    )  # fmt: skip
                    continue
                real = self._real_density(of, n)
                if real is not None and real > bound + DENSITY_TOLERANCE:
                    self.warnings.append(
                        f"{self.file}: {path}: the plan's {of} density is {real:.3f}, above "
                        f"its budget {bound:.3f}"
                    )

    def _density(self) -> None:
        for path, n, at in self._lengths("density", self._section("density")):
            if not isinstance(at, dict):
                self._fault(
                    path, "an object with query and kv", _describe(at),
                    "densities are derived; leave them out",
                )  # fmt: skip
                continue
            for on in ("query", "kv"):
                found = at.get(on, _ABSENT)
                if found is _ABSENT:
                    continue
                if on == "kv" and "kv_heads" not in self.model:
                    self.warnings.append(
                        f"{self.file}: {path}/kv cannot be checked without model/kv_heads"
                    )
                    continue
                real = self._real_density(on, n)
                if real is None:
                    continue
                if not _is_number(found) or abs(found - real) > DENSITY_TOLERANCE:
                    self._fault(
                        f"{path}/{on}", f"{real:.4f}, as alphas and betas give",
                        _describe(found),
                        "the rules were changed after the plan was made; leave the "
                        "densities out or plan again",
                    )  # fmt: skip
