"""What a plan is, in text and as JSON; and how two plans differ."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from .density import DTYPES, dense_kv_bytes, kept_tokens, kv_bytes, kv_density, query_density
from .formats import FORMATS
from .model import ModelShape
from .schema import Plan
from .span import spans


def lengths_of(plan: Plan) -> list[int]:
    """Lengths worth showing where nobody named any: those the plan tells of."""
    budget = plan.document.get("budget", {})
    stated = plan.document.get("density") or budget.get("bounds") or budget.get("bytes")
    if stated:
        return sorted(int(n) for n in stated)
    low, high = plan.valid or (4096, plan.model.max_position or 65536)
    shown: list[int] = []
    while low < high and len(shown) < 8:
        shown.append(low)
        low *= 2
    return [*shown, high]


def shape_of(plan: Plan, model: ModelShape | None) -> ModelShape | None:
    """The model's shape, as given or as the plan states it; None where unknown."""
    if model is not None:
        return model
    stated = plan.model
    if stated.kv_heads is None or stated.head_dim is None:
        return None
    return ModelShape(plan.layers, plan.q_heads, stated.kv_heads, stated.head_dim)


def summary(plan: Plan, model: ModelShape | None, at: list[int], dtype: str) -> dict[str, Any]:
    """The fixed form of `moa-plan show --json`: N is the total length. Bytes are null
    where neither the plan nor --model tells the head size."""
    shape = shape_of(plan, model)
    element = DTYPES[dtype]
    return {
        "plan_id": plan.id,
        "at": {
            str(n): {
                "query_density": query_density(plan, n),
                "kv_density": kv_density(plan, plan.kv_heads(model), n),
                "kv_bytes": kv_bytes(plan, shape, element, n, n) if shape else None,
                "dense_bytes": dense_kv_bytes(shape, element, n) if shape else None,
            }
            for n in at
        },
    }


def describe(plan: Plan, file: str, model: ModelShape | None, at: list[int], dtype: str) -> str:
    """Text of `moa-plan show`."""
    kv_heads = plan.kv_heads(model)
    rules = plan.rules()
    distinct = {rule for layer in rules for rule in layer}
    per_layer = [len(set(layer)) for layer in rules]
    group = plan.q_heads // kv_heads
    mixed = sum(
        len(set(layer[k : k + group])) > 1
        for layer in rules for k in range(0, plan.q_heads, group)
    )  # fmt: skip
    span = plan.span
    lines = [
        f"{file}: {'two-key plan' if plan.legacy else 'moa-plan/1'}, id {plan.id}",
        f"{plan.layers} layers x {plan.q_heads} query heads, {kv_heads} KV heads"
        + ("" if model or plan.model.kv_heads else " (not stated: --model tells)"),
        f"length rule {'row' if span.per_row else 'request'}, sink {span.sink}, block "
        f"{span.block}, least span {span.min}"
        + (f", made for {plan.valid[0]} to {plan.valid[1]} tokens" if plan.valid else ""),
        f"{len(distinct)} different rules; layers with 1 / 2 / more: "
        f"{per_layer.count(1)} / {per_layer.count(2)} / {sum(n > 2 for n in per_layer)}; "
        f"KV heads with mixed rules: {mixed} of {plan.layers * kv_heads}",
        *_windows(plan),
        *_formats(plan, kv_heads),
        "",
        f"{'N':>8} {'query density':>14} {'KV density':>11} {'layers':>13} "
        f"{'KV bytes':>14} {'dense bytes':>14}",
    ]
    for n, found in summary(plan, model, at, dtype)["at"].items():
        each = kept_tokens(plan, kv_heads, int(n)).mean(axis=1) / int(n)
        bytes_of = [f"{found[key] or '-':>14}" for key in ("kv_bytes", "dense_bytes")]
        lines.append(
            f"{n:>8} {found['query_density']:>14.3f} {found['kv_density']:>11.3f} "
            f"{each.min():>6.2f}-{each.max():<6.2f} {' '.join(bytes_of)}"
        )
    return "\n".join([*lines, *_scores(plan)])


def _windows(plan: Plan) -> list[str]:
    """How many layers have which window of the model's own; nothing where none has."""
    counts = Counter(window for window in plan.windows if window is not None)
    each = ", ".join(f"{count} of {window} tokens" for window, count in sorted(counts.items()))
    return [f"layers with a window of the model's own, and no sink: {each}"] if each else []


def _formats(plan: Plan, kv_heads: int) -> list[str]:
    """How many KV heads keep which format; nothing where all keep 16 bits."""
    if not plan.has_8_bits:
        return []
    each = [form for row in plan.formats(kv_heads) for form in row]
    counts = ", ".join(f"{form}: {each.count(form)}" for form in FORMATS)
    return [f"KV heads by format of complete pages: {counts}"]


def _listed(section: Any) -> str:
    """Keys, shortest first, and their values; of fractions four digits."""
    if not isinstance(section, dict):
        return str(section)
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in sorted(section.items(), key=lambda each: (len(each[0]), each[0]))
    )


def _scores(plan: Plan) -> list[str]:
    """What a plan says of itself; a file may hold anything there."""
    scores, lines = plan.document.get("scores", {}), []
    if scores.get("predicted"):
        told = _listed(scores["predicted"])
        lines.append(f"predicted loss, of that of the shortest spans: {told}")
    if "bound_gap" in scores:
        gap = scores["bound_gap"]
        told = f"{gap:.3%}" if isinstance(gap, (int, float)) else f"{gap}"
        lines.append(f"at most {told} above the optimum")
    if scores.get("validation"):
        lines.append(f"validation: {_listed(scores['validation'])}")
    return ["", *lines] if lines else []


def differences(
    plan: Plan, other: Plan, model: ModelShape | None, at: list[int]
) -> dict[str, Any]:
    """How `other` differs from `plan`."""
    result: dict[str, Any] = {"plan_id": plan.id, "other_id": other.id}
    sections = (plan.document.keys() | other.document.keys()) - {"alphas", "betas"}
    result["sections"] = sorted(
        key for key in sections if plan.document.get(key) != other.document.get(key)
    )
    if plan.alphas.shape != other.alphas.shape:
        result["shape"] = [list(plan.alphas.shape), list(other.alphas.shape)]
        return result
    changed = (plan.alphas != other.alphas) | (plan.betas != other.betas)
    result["heads"] = int(changed.sum())
    result["layers"] = [int(layer) for layer in np.flatnonzero(changed.any(axis=1))]
    result["at"] = {}
    for n in at:
        longer = spans(other.alphas, other.betas, n, other.layer_spans) - spans(
            plan.alphas, plan.betas, n, plan.layer_spans
        )
        result["at"][str(n)] = {
            "kv_density": kv_density(plan, plan.kv_heads(model), n),
            "other_kv_density": kv_density(other, other.kv_heads(model), n),
            "longer": int((longer > 0).sum()),
            "shorter": int((longer < 0).sum()),
        }
    return result


def describe_differences(found: dict[str, Any]) -> str:
    """Text of `moa-plan diff`."""
    if found["plan_id"] == found["other_id"]:
        return f"the same plan: {found['plan_id']}"
    lines = [f"plans {found['plan_id'][:16]} and {found['other_id'][:16]}"]
    if found["sections"]:
        lines.append(f"sections that differ: {', '.join(found['sections'])}")
    if "shape" in found:
        mine, other = (" x ".join(map(str, shape)) for shape in found["shape"])
        return "\n".join([*lines, f"layers x heads: {mine} and {other}"])
    if not found["heads"]:
        return "\n".join([*lines, "the rules are the same"])
    layers = ", ".join(map(str, found["layers"]))
    lines.append(f"{found['heads']} heads differ, in layers {layers}")
    for n, at in found["at"].items():
        lines.append(
            f"at {n}: KV density {at['kv_density']:.3f} and {at['other_kv_density']:.3f}; "
            f"{at['longer']} heads longer, {at['shorter']} shorter"
        )
    return "\n".join(lines)
