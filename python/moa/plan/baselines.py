"""Plans to compare with, through the same plan file: only the rules differ.

All are masks of every phase (prefill is sparse) with positions kept absolute;
compare them at equal bytes of the cache, that is at equal KV density.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .columns import Goal
from .curves import Profile
from .density import byte_density
from .errors import PlannerError
from .formats import written
from .model import ModelShape
from .optimize import solve
from .rules import FULL, Rule
from .schema import Plan, make_plan
from .search import Request, plan_of, prepare, provenance

#: Kinds that are searched in a profile.
SEARCHED = ("duo", "fixed", "beta", "layer")
#: Those of them whose spans do not grow, so that they keep a budget at one length alone.
ONE_LENGTH = ("duo", "fixed")


def _sections(kind: str, model: ModelShape, sink: int = 64, **more: Any) -> dict[str, Any]:
    return {
        "model": {
            "layers": model.layers, "q_heads": model.q_heads, "kv_heads": model.kv_heads,
            "head_dim": model.head_dim, "max_position": model.max_length,
        },
        "span": {"sink": sink, "block": 64, "min": max(128, sink + 64)},
        "provenance": provenance() | {"baseline": kind} | more,
    }  # fmt: skip


def _uniform(kind: str, model: ModelShape, rule: Rule, sink: int, **more: Any) -> Plan:
    shape = (model.layers, model.q_heads)
    sections = _sections(kind, model, sink, **more)
    # Spans of exactly so many tokens: rounded up, all heads would be above the budget.
    sections["span"]["block"] = 1
    return make_plan(np.full(shape, rule.alpha), np.full(shape, rule.beta), sections)


def dense(model: ModelShape) -> Plan:
    """Every head sees everything."""
    return _uniform("dense", model, FULL, 64)


def streaming(model: ModelShape, density: float, sink: int = 64) -> Plan:
    """(0, density) in every head, as the published uniform files; sink 4 is the one of
    StreamingLLM's paper."""
    return _uniform("streaming", model, Rule(0, density), sink)


def uniform_like(plan: Plan, model: ModelShape, n: int) -> Plan:
    """One share of the length for all heads: that of the cache of `plan` at length `n`,
    less what is no whole token."""
    tokens = max(int(byte_density(plan, model.kv_heads, n) * n + 1e-6), plan.span.min)
    return _uniform(
        "uniform", model, Rule(0, min(tokens / n, 1.0)), plan.span.sink, like=plan.id, at=n
    )


def random_like(plan: Plan, model: ModelShape, seed: int) -> Plan:
    """The plan's own rules, with their formats, on other KV heads: what remains without
    the profile."""
    order = np.random.default_rng(seed).permutation(model.layers * model.kv_heads)

    def shuffle(rules: Any) -> Any:
        heads = rules.reshape(model.layers * model.kv_heads, model.group)
        return heads[order].reshape(rules.shape)

    kept = {
        key: plan.document[key] for key in ("span", "mask", "model") if key in plan.document
    }
    if plan.has_8_bits:
        formats = np.array(plan.formats(model.kv_heads)).ravel()[order]
        rows = formats.reshape(model.layers, model.kv_heads).tolist()
        kept["kv"] = {"format": [[written(form) for form in row] for row in rows]}
    more = provenance() | {"baseline": "random", "like": plan.id, "seed": seed}
    return make_plan(shuffle(plan.alphas), shuffle(plan.betas), kept | {"provenance": more})


def duo_of_heads(
    heads: Sequence[Sequence[float]], model: ModelShape, sparsity: float, sink: int, short: int
) -> Plan:
    """From DuoAttention's own score of each KV head [layers, kv_heads]: the share
    `sparsity` of lowest score gets `short` tokens with the sink, the others everything."""
    _check_short(short, sink + 1)
    scores = np.array(heads, dtype=np.float64)
    if scores.shape != (model.layers, model.kv_heads):
        raise PlannerError(
            f"expected scores of {model.layers} layers x {model.kv_heads} KV heads, as the "
            f"model has, found {' x '.join(map(str, scores.shape))}; use the pattern of "
            "this model"
        )
    streams = np.zeros(scores.size, dtype=bool)
    streams[np.argsort(scores.ravel(), kind="stable")[: round(sparsity * scores.size)]] = True
    local = np.repeat(streams.reshape(scores.shape), model.group, axis=1)
    sections = _sections("duo", model, sink, sparsity=sparsity)
    # A span of exactly so many tokens.
    sections["span"] |= {"block": 1, "min": sink + 1}
    return make_plan(
        np.where(local, short, FULL.alpha), np.where(local, 0.0, FULL.beta), sections
    )


def _check_short(short: int, least: int) -> None:
    if short < least:
        raise PlannerError(
            f"expected short spans of at least {least} tokens, sink and a row's own key "
            f"among them, found {short}; raise --short"
        )


def searched(
    kind: str, profile: Profile, request: Request, *, short: int | None = None,
    at: int | None = None, model: ModelShape | None = None, solver: str = "auto",
    time_limit: float = 600.0,
) -> Plan:  # fmt: skip
    """A restricted search by the same curves. duo: each KV head has all or `short`
    tokens; fixed: spans that do not grow; beta: shares of the length alone; layer: one
    rule for all heads of a layer.

    duo and fixed are chosen for one length, `at` (default: the longest profiled), and
    keep the budget there. short: default 256, or half of the budget where that is less.
    """
    at = max(profile.curves) if at is None else at
    if kind in ONE_LENGTH:
        request, at = _at_one_length(profile, request, at)
    if kind == "duo":
        least = max(128, profile.any.sink + profile.any.block)
        block = profile.any.block
        if short is None:
            half = int(request.bounds[at] * at / 2) // block * block
            short = max(least, min(256, half))
        _check_short(short, least)
        request = replace(request, grid=[FULL, Rule(short, 0.0)], rules_per_layer=None)
    elif kind == "fixed":
        step = max(at // 16 // profile.any.block, 1) * profile.any.block
        grid = [Rule(step * i, 0.0) for i in range(1, 17)] + [Rule(128, 0.0), Rule(256, 0.0)]
        request = replace(request, grid=sorted(set(grid)))
    elif kind == "beta":
        request = replace(request, grid=[Rule(0, i / 16) for i in range(17)])
    elif kind == "layer":
        request = replace(request, rules_per_layer=1)
    else:
        raise PlannerError(f"expected one of {', '.join(SEARCHED)}, found '{kind}'")
    search = prepare(profile, request)
    goal = search.goal()
    if kind in ONE_LENGTH:
        weights = np.array([float(n == at) for n in search.lengths])
        goal = Goal(weights, np.full(len(weights), np.inf))
    solution = solve(
        search.problem, goal, solver=solver, time_limit=time_limit, names=search.names
    )
    plan = plan_of(search, solution, model, goal)
    document: Mapping[str, Any] = plan.document
    sections = {
        key: value for key, value in document.items()
        if key not in ("format", "version", "alphas", "betas")
    }  # fmt: skip
    sections["provenance"] = sections["provenance"] | {"baseline": kind}
    return make_plan(plan.alphas, plan.betas, sections)


def _at_one_length(profile: Profile, request: Request, at: int) -> tuple[Request, int]:
    """The request with the budget of one length alone, and that length: `at`, or the
    next profiled one where `at` lies between two."""
    longest = max(profile.curves)
    if at < longest:
        at = min(n for n in profile.curves if n >= at)
    bound = request.bounds[at if at in request.bounds else longest]
    return replace(request, bounds=dict.fromkeys(profile.curves, 1.0) | {at: bound}), at
