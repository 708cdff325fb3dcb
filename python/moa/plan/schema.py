"""Plan files: `moa-plan/1`, the published two-key files, and the plan id.

A `Plan` passed every check. Rules, messages and the canonical form are those of
`lib/Plan`; the id is the one that the compiler and the runtime print.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import jsontext
from .errors import PlanError, PlannerError
from .formats import FORMATS
from .model import ModelShape
from .reader import Reader
from .span import Floats, Ints, SpanParams


@dataclass(frozen=True)
class PlanModel:
    """The model that a plan says it was made for; None where it does not."""

    name: str | None = None
    architecture: str | None = None
    layers: int | None = None
    q_heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    max_position: int | None = None  #: Tokens.


@dataclass(frozen=True, eq=False)
class Plan:
    """A span rule for every query head of every layer. Value type: equal by id."""

    alphas: Ints  #: [layers, q_heads], tokens. Read-only.
    betas: Floats  #: [layers, q_heads], in [0, 1]. Read-only.
    span: SpanParams  #: What layers share that have no window of the model's own.
    model: PlanModel
    valid: tuple[int, int] | None  #: Shortest and longest length it was made for.
    legacy: bool  #: A two-key file: everything but the rules is a default.
    warnings: tuple[str, ...]  #: Faults that do not stop it from being used.
    document: Mapping[str, Any] = field(repr=False)  #: Whole, unknown keys included.
    #: [layers][KV heads]: what a KV head keeps of complete blocks, of `formats.FORMATS`;
    #: [layers][1] of one for all; empty where nothing is said: 16 bits.
    kv_formats: tuple[tuple[str, ...], ...] = ()
    format_columns: int | None = None  #: KV heads that kv/format has a row of, if rows.
    #: Of each layer the window of the model's own, or None; empty where none has one.
    windows: tuple[int | None, ...] = ()

    @property
    def layers(self) -> int:
        return int(self.alphas.shape[0])

    @property
    def q_heads(self) -> int:
        return int(self.alphas.shape[1])

    @cached_property
    def canonical(self) -> str:
        """The document with sorted keys, no spaces, shortest floats, a newline."""
        return jsontext.canonical(self.document)

    @cached_property
    def id(self) -> str:
        """SHA-256 of the canonical form, 64 lower-case hexadecimal digits."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)

    def rules(self) -> list[list[tuple[int, float]]]:
        """(alpha, beta) of each query head of each layer."""
        return [
            [(int(a), float(b)) for a, b in zip(*rows, strict=True)]
            for rows in zip(self.alphas, self.betas, strict=True)
        ]

    @cached_property
    def layer_spans(self) -> tuple[SpanParams, ...]:
        """What the rules of each layer share."""
        return self.span.of_layers(self.windows, self.layers)

    def kv_heads(self, model: ModelShape | None = None) -> int:
        """KV heads of the model, else those that the plan states, else one for each
        query head."""
        if model is not None:
            return model.kv_heads
        return self.model.kv_heads or self.q_heads

    @property
    def has_8_bits(self) -> bool:
        """Whether some KV head keeps complete blocks in 8 bits."""
        return any(form != FORMATS[0] for row in self.kv_formats for form in row)

    def formats(self, kv_heads: int) -> list[list[str]]:
        """Format of each KV head [layers][kv_heads] of a model with so many; PlannerError
        where the plan states formats of another number."""
        if self.format_columns not in (None, kv_heads):
            raise PlannerError(
                f"kv/format/0: expected {kv_heads} KV heads, as the model has, found "
                f"{self.format_columns}; use the plan that was made for this model"
            )
        rows = self.kv_formats or ((FORMATS[0],),) * self.layers
        return [list(row) * (kv_heads // len(row)) for row in rows]

    def write(self, path: str | Path) -> None:
        """Writes the canonical form, whole or not at all: `sha256sum` prints the id."""
        jsontext.write_atomically(path, self.canonical)


def _plan_of(reader: Reader) -> Plan:
    shape = (reader.layers, reader.q_heads)
    alphas = np.array(reader.alphas, dtype=np.int64).reshape(shape)
    betas = np.array(reader.betas, dtype=np.float64).reshape(shape)
    alphas.flags.writeable = betas.flags.writeable = False
    return Plan(
        alphas, betas, reader.span, PlanModel(**reader.model), reader.valid, reader.legacy,
        tuple(reader.warnings), reader.document, tuple(map(tuple, reader.kv_formats)),
        reader.format_columns, tuple(reader.windows),
    )  # fmt: skip


def parse_plan(text: str, file: str) -> Plan:
    """Reads and checks a plan; `file` is only used in messages. PlanError."""
    reader = Reader(text, file)
    if reader.faults:
        raise reader.faults[0]
    return _plan_of(reader)


def load_plan(path: str | Path) -> Plan:
    """Reads and checks the plan in a file."""
    return parse_plan(jsontext.read(path), str(path))


def make_plan(
    alphas: Any, betas: Any, sections: Mapping[str, Any] | None = None, name: str = "plan"
) -> Plan:
    """A `moa-plan/1` of matrices [layers][q_heads] and further sections (`span`,
    `model`, ..), checked as a file would be. `name` is only used in messages."""
    document = {
        "format": "moa-plan",
        "version": 1,
        "alphas": np.asarray(alphas, dtype=np.float64).tolist(),
        "betas": np.asarray(betas, dtype=np.float64).tolist(),
        **(sections or {}),
    }
    return parse_plan(jsontext.canonical(document), name)


def faults_of(text: str, file: str, model: ModelShape | None = None) -> list[PlanError]:
    """All that is wrong with a plan file, by itself and for a model."""
    try:
        reader = Reader(text, file)
    except PlanError as error:
        return [error]
    if reader.faults:
        return list(reader.faults)
    return [] if model is None else model_faults(_plan_of(reader), model, file)


def model_faults(plan: Plan, model: ModelShape, file: str) -> list[PlanError]:
    """Where a plan is not one for this model."""
    stated = [
        ("alphas", plan.layers, model.layers, " layers"),
        ("alphas/0", plan.q_heads, model.q_heads, " query heads"),
        ("model/kv_heads", plan.model.kv_heads, model.kv_heads, ""),
        ("model/head_dim", plan.model.head_dim, model.head_dim, ""),
        ("kv/format/0", plan.format_columns, model.kv_heads, " KV heads"),
    ]
    return [
        PlanError(
            file,
            f"expected {expected}{unit}, as the model has, found {found}",
            key=key,
            cure="use the plan that was made for this model",
        )
        for key, found, expected, unit in stated
        if found is not None and found != expected
    ]
