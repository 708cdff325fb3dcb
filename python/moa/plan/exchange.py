"""Plans from and to other forms: the published two keys, DuoAttention's head scores."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .density import query_density
from .errors import PlanError
from .jsontext import parse, read
from .model import ModelShape
from .schema import Plan, make_plan
from .search import densities

#: The file of scores in a folder of DuoAttention's attn_patterns.
DUO_SCORES = "full_attention_heads.tsv"


@dataclass(frozen=True)
class DuoPattern:
    """scores: [layers][kv_heads]. sink, recent: tokens that a head of low score keeps."""

    scores: list[list[float]]
    sink: int = 64
    recent: int = 256


def is_duo(path: str | Path) -> bool:
    """Whether a path is DuoAttention's: a folder of a pattern, a .tsv, or a JSON array."""
    if Path(path).is_dir() or str(path).endswith(".tsv"):
        return True
    return read(path, "plan file").lstrip().startswith("[")


def read_duo_pattern(path: str | Path) -> DuoPattern:
    """A folder of attn_patterns, or its file of scores, with the config.json beside it."""
    file = Path(path) / DUO_SCORES if Path(path).is_dir() else Path(path)
    scores, told = read_duo(file), file.with_name("config.json")
    if not told.is_file():
        return DuoPattern(scores)
    name = str(told)
    config = parse(read(told, "pattern's configuration"), name)
    sizes = []
    for key in ("sink_size", "recent_size"):
        size = config.get(key) if isinstance(config, dict) else None
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise PlanError(
                name, f"expected {key}, a number of tokens, found {json.dumps(size)[:60]}",
                cure="give config.json of DuoAttention's attn_patterns, or none",
            )  # fmt: skip
        sizes.append(size)
    return DuoPattern(scores, *sizes)


def read_duo(path: str | Path) -> list[list[float]]:
    """DuoAttention's score of each KV head: a .tsv (one line a layer) or a JSON array of
    arrays."""
    text = read(path, "pattern file")
    name = str(path)
    if name.endswith(".json"):
        rows = parse(text, name)
    else:
        rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    if not isinstance(rows, list) or not rows:
        raise _refuse(name, 1, "a row of scores for each layer", "none")
    scores: list[list[float]] = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != len(rows[0]) or not row:
            raise _refuse(name, number, f"rows of {len(rows[0])} scores", json.dumps(row)[:60])
        scores.append([_score(name, number, value) for value in row])
    return scores


def _score(name: str, line: int, value: Any) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise _refuse(name, line, "a number for each KV head", repr(value))
    return score


def _refuse(name: str, line: int, expected: str, found: str) -> PlanError:
    return PlanError(
        name, f"expected {expected}, found {found}", line=line,
        cure="give full_attention_heads.tsv of DuoAttention's attn_patterns",
    )  # fmt: skip


def to_legacy(plan: Plan) -> str:
    """The published two-key form; what it cannot say is lost."""
    document = {key: plan.document[key] for key in ("alphas", "betas")}
    return json.dumps(document, sort_keys=True) + "\n"


def lost_by_legacy(plan: Plan) -> list[str]:
    """What the two keys do not say, as far as it is not the default."""
    span, lost = plan.span, []
    if (span.sink, span.block, span.min) != (64, 64, 128):
        lost.append(f"sink {span.sink}, block {span.block}, least span {span.min}")
    if span.per_row:
        lost.append("the length rule 'row'")
    if any(plan.windows):
        lost.append("windows of the model's own")
    if plan.has_8_bits:
        lost.append("KV heads of 8 bits")
    lost += [key for key in ("model", "scores", "provenance") if key in plan.document]
    return lost


def to_schema(plan: Plan, model: ModelShape | None, at: list[int]) -> Plan:
    """`moa-plan/1` of any plan, with what a model's shape adds."""
    kept = {
        key: value for key, value in plan.document.items()
        if key not in ("format", "version", "alphas", "betas")
    }  # fmt: skip
    if model is not None:
        kept["model"] = kept.get("model", {}) | {
            "layers": model.layers, "q_heads": model.q_heads, "kv_heads": model.kv_heads,
            "head_dim": model.head_dim, "max_position": model.max_length,
        }  # fmt: skip
    span = plan.span
    kept["span"] = kept.get("span", {}) | {
        "includes_sink": True, "sink": span.sink, "block": span.block, "round": "up",
        "min": span.min, "length": "row" if span.per_row else "request",
    }  # fmt: skip
    kept["mask"] = {"band": "token", "prefill": "sparse", "positions": "absolute"}
    kept["provenance"] = kept.get("provenance", {}) | {"from": plan.id}
    if plan.legacy:
        kept["provenance"]["legacy"] = True
    made = make_plan(plan.alphas, plan.betas, kept)
    kept["density"] = {str(n): _densities(made, model, n) for n in at}
    return make_plan(plan.alphas, plan.betas, kept)


def _densities(plan: Plan, model: ModelShape | None, n: int) -> dict[str, Any]:
    if model is None and plan.model.kv_heads is None:
        return {"query": query_density(plan, n)}
    return densities(plan, plan.kv_heads(model), n)
