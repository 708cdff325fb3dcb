"""From a profile and what is asked for to the problem, and from its solution to a plan."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .columns import Goal
from .costs import CostTable
from .curves import Profile
from .density import byte_density, kv_density, layer_densities, query_density
from .errors import PlannerError
from .formats import FORMATS, written
from .losses import rule_losses
from .model import ModelShape
from .optimize import Solution
from .problem import Problem
from .rules import Rule, costs, default_grid
from .schema import Plan, make_plan
from .span import Floats, Ints, SpanParams


@dataclass(frozen=True)
class TimeLimit:
    """Most time of one decode step over all layers."""

    length: int  #: Tokens.
    batch: int
    us: float
    table: CostTable


@dataclass(frozen=True)
class Request:
    """What a plan is asked to keep; bounds of every profiled length, and of those it
    is extended to."""

    bounds: Mapping[int, float]  #: Length in tokens: share of the dense cache.
    on: str = "kv"  #: Which density is bounded: "kv" or "query".
    exact: bool = False  #: Query heads of one KV head may differ.
    rules_per_layer: int | None = 2
    ranks: int = 1  #: Tensor-parallel ranks that must hold equal bytes in each layer.
    #: Losses of windows: "signed" sums, "sizes", or "auto": signed where they are there
    #: and nothing asked for is known in sizes alone.
    losses: str = "auto"
    hull: bool = False  #: See `losses.rule_losses`.
    per_row: bool = False  #: Length rule `row` instead of `request`.
    grid: Sequence[Rule] | None = None  #: Candidates; None: the default grid.
    times: Sequence[TimeLimit] = field(default=())
    #: What KV heads may keep of complete blocks, of `formats.FORMATS`.
    formats: Sequence[str] = FORMATS[:1]


@dataclass(frozen=True, eq=False)
class Search:
    """A problem with what its numbers mean."""

    problem: Problem
    request: Request
    profile: Profile
    params: SpanParams
    rules: list[Rule]
    lengths: list[int]  #: Profiled, then extended: an objective each.
    names: list[str]  #: Of the constraints.

    @property
    def profiled(self) -> int:
        """How many of `lengths` were profiled."""
        return len(self.profile.curves)

    def objectives(self) -> list[Floats]:
        """A weight vector for each profiled length; the longest takes the extended
        lengths along, whose losses are its own, extrapolated."""
        weights = []
        for i in range(self.profiled):
            weight = np.zeros(len(self.lengths))
            weight[i] = 1
            if i == self.profiled - 1:
                weight[i:] = 1 / (len(self.lengths) - i)
            weights.append(weight)
        return weights

    def goal(self) -> Goal:
        """The least mean loss of the profiled lengths, each with those it stands for."""
        return Goal(np.mean(self.objectives(), axis=0), np.full(len(self.lengths), np.inf))

    def query_rules(self, assignment: Ints) -> tuple[Ints, Floats]:
        """alphas and betas [layers, q_heads] of an assignment [layers, units]."""
        repeat = self.profile.any.q_heads // self.problem.units
        chosen = np.repeat(assignment, repeat, axis=1) // len(self.request.formats)
        alphas = np.array([rule.alpha for rule in self.rules])[chosen]
        betas = np.array([rule.beta for rule in self.rules])[chosen]
        return alphas, betas

    def kv_formats(self, assignment: Ints) -> list[list[str]]:
        """Format of each KV head [layers][kv_heads] of an assignment [layers, units]."""
        if self.request.on == "query":
            return [list(FORMATS[:1]) * self.profile.any.kv_heads] * len(assignment)
        group = self.problem.units // self.profile.any.kv_heads
        formats = self.request.formats
        return [[formats[i % len(formats)] for i in row[::group]] for row in assignment]

    def predicted(
        self, alphas: Ints, betas: Floats, formats: Sequence[Sequence[str]] | None = None
    ) -> dict[int, float]:
        """Loss of any plan at every length, as a share of that of the shortest spans;
        formats [layers][kv_heads], all 16 bits where none are given."""
        return predicted_losses(
            self.profile, alphas, betas, self.params, self.lengths, self.request.hull, formats
        )


def predicted_losses(
    profile: Profile, alphas: Ints, betas: Floats, params: SpanParams,
    lengths: Sequence[int], hull: bool, formats: Sequence[Sequence[str]] | None = None,
) -> dict[int, float]:  # fmt: skip
    """See `Search.predicted`; the plan must have the profile's sink."""
    about = profile.any
    if formats is None:
        formats = [FORMATS[:1] * about.kv_heads] * about.layers
    forms = np.repeat(np.array(formats), about.q_heads // about.kv_heads, axis=1)
    rules = sorted({Rule(int(a), float(b)) for a, b in zip(alphas.ravel(), betas.ravel())})
    index = {rule: i for i, rule in enumerate(rules)}
    chosen = np.array(
        [[index[Rule(int(a), float(b))] for a, b in zip(*row)] for row in zip(alphas, betas)]
    )
    result = {}
    for n in lengths:
        result[n] = 0.0
        for form in np.unique(forms):
            losses = rule_losses(
                source_of(profile, n), rules, params, n, hull=hull, form=str(form)
            )
            each = np.take_along_axis(losses, chosen[..., None], axis=2)[..., 0]
            result[n] += float(each[forms == form].sum())
    return result


def source_of(profile: Profile, n: int) -> Any:
    """Curves that tell losses at length `n`: its own, else of the longest below."""
    below = [length for length in profile.curves if length <= n]
    if not below:
        raise PlannerError(
            f"expected a length of at least {min(profile.curves)}, which was profiled, found "
            f"{n}; profile that length too"
        )
    return profile.curves[max(below)]


def prepare(profile: Profile, request: Request) -> Search:
    """The problem of a request; PlannerError where it cannot be one."""
    _check_formats(request, profile)
    if _signed(request, profile):
        profile = profile.by_sign()
    about = profile.any
    params = SpanParams(
        about.sink, about.block, max(128, about.sink + about.block), request.per_row
    )
    lengths = _lengths(profile, request)
    _check_heads(request, about.q_heads, about.kv_heads)
    grid = request.grid or default_grid(max(profile.curves), lengths, params)
    rules = [Rule(*rule) for rule in grid]
    per_query = request.exact or request.on == "query"
    losses = []
    for n in lengths:
        source = source_of(profile, n)
        of_formats = [
            rule_losses(source, rules, params, n, hull=request.hull, form=form)
            for form in request.formats
        ]
        # The formats of a rule are consecutive.
        each = np.stack(of_formats, axis=-1).reshape(about.layers, about.q_heads, -1)
        if not per_query:
            shape = (about.layers, about.kv_heads, -1, each.shape[2])
            each = each.reshape(shape).sum(axis=2)
        losses.append(each)
    heads = about.layers * about.kv_heads
    rows = [*costs(rules, lengths, params, request.formats)]
    bounds = [request.bounds[n] for n in lengths]
    names = [f"density at {n}" for n in lengths]
    for limit in request.times:
        rows.append(limit.table.head_us(rules, limit.length, limit.batch, params) * heads)
        bounds.append(limit.us)
        names.append(f"us at {limit.length}, batch {limit.batch}")
    group = about.q_heads // about.kv_heads if request.exact else 1
    # Ranks are even in bytes where they are so in rules with their formats.
    formats = len(request.formats) if request.ranks == 1 else 1
    problem = Problem(
        np.array(losses), np.array(rows), np.array(bounds), group,
        request.rules_per_layer, request.ranks, formats,
    )  # fmt: skip
    return Search(problem, request, profile, params, rules, lengths, names)


def _lengths(profile: Profile, request: Request) -> list[int]:
    """Profiled lengths, then those beyond."""
    for n in profile.curves:
        if n not in request.bounds:
            raise PlannerError(
                f"expected a bound for every profiled length, found none for {n}; add "
                f"{n}=DENSITY to --bounds, or give --density"
            )
    longest = max(profile.curves)
    extended = sorted(n for n in request.bounds if n not in profile.curves)
    for n in extended:
        if n < longest:
            raise PlannerError(
                f"expected bounds at profiled lengths or beyond {longest}, found {n}; "
                "profile that length too"
            )
    return [*profile.curves, *extended]


def _check_heads(request: Request, q_heads: int, kv_heads: int) -> None:
    if request.exact and request.on == "query":
        raise PlannerError(
            "expected --kv exact with --on kv, found --on query; a bound on query heads "
            "decides each by itself already"
        )
    if request.on == "query" and request.times:
        raise PlannerError(
            "expected --on kv with a time limit, found --on query; times are those of KV heads"
        )
    units = q_heads if request.on == "query" else kv_heads
    if request.ranks > 1 and (units % request.ranks or request.exact):
        raise PlannerError(
            f"expected a tensor-parallel degree that divides the {units} heads, decided one "
            f"by one, found {request.ranks}{' with --kv exact' if request.exact else ''}; "
            "choose another degree, or leave --kv exact out"
        )
    if request.ranks > 1 and request.rules_per_layer is None:
        raise PlannerError(
            "expected at most 2 rules in a layer with a tensor-parallel degree, found no "
            "limit; give --rules-per-layer 2"
        )


def _signed(request: Request, profile: Profile) -> bool:
    """Whether losses are those of signed sums. They are KV heads' alone, of spans alone, and
    not kept by row block."""
    unknown = [
        option for option, asked in (
            ("--on query", request.on == "query"), ("--kv exact", request.exact),
            ("--kv-formats", any(form != FORMATS[0] for form in request.formats)),
            ("--length row", request.per_row),
        ) if asked
    ]  # fmt: skip
    if request.losses == "auto":
        return profile.has_signs and not unknown
    if request.losses == "signed" and unknown:
        raise PlannerError(
            f"expected --losses sizes with {', '.join(unknown)}, found --losses signed; signed "
            "sums are those of KV heads, whole windows and 16 bits"
        )
    return request.losses == "signed"


def _check_formats(request: Request, profile: Profile) -> None:
    eight = [form for form in request.formats if form != FORMATS[0]]
    if not eight:
        return
    missing = [form for form in eight if form not in profile.formats]
    if missing:
        raise PlannerError(
            f"expected a profile that measured {', '.join(missing)} at every length, found "
            f"{', '.join(sorted(profile.formats)) or 'no format of 8 bits'}; profile again "
            f"with --kv-formats {','.join(eight)}"
        )
    if request.on == "query":
        raise PlannerError(
            "expected --on kv with formats of 8 bits, found --on query; bits are those of a "
            "KV head's cache"
        )
    if request.times:
        raise PlannerError(
            "expected --kv-formats 16 with a time limit, found "
            f"{','.join(request.formats)}; the times of --costs are those of 16 bits"
        )


def plan_of(search: Search, solution: Solution, model: ModelShape | None, goal: Goal) -> Plan:
    """The plan of a solution, with densities, predicted losses and where it is from."""
    request, about = search.request, search.profile.any
    alphas, betas = search.query_rules(solution.assignment)
    formats = search.kv_formats(solution.assignment)
    shape: dict[str, Any] = {
        "layers": about.layers, "q_heads": about.q_heads, "kv_heads": about.kv_heads,
    }  # fmt: skip
    if about.model_config_sha256:
        shape["config_sha256"] = about.model_config_sha256
    if model is not None:
        shape |= {"head_dim": model.head_dim, "max_position": model.max_length}
    params = search.params
    sections: dict[str, Any] = {
        "model": shape,
        "span": {
            "includes_sink": True, "sink": params.sink, "block": params.block, "round": "up",
            "min": params.min, "length": "row" if params.per_row else "request",
            "valid": [min(search.lengths), max(search.lengths)],
        },
        "mask": {"band": "token", "prefill": "sparse", "positions": "absolute"},
        "kv": {"policy": "group-max"},
    }  # fmt: skip
    bounds = {str(n): bound for n, bound in request.bounds.items()}
    if any(form != FORMATS[0] for row in formats for form in row):
        sections["kv"]["format"] = [[written(form) for form in row] for row in formats]
        sections["budget"] = {"bytes": bounds}
    else:
        sections["budget"] = {"on": request.on, "bounds": bounds}
    if request.rules_per_layer:
        sections["kv"]["rules_per_layer"] = request.rules_per_layer
    plan = make_plan(alphas, betas, sections)
    predicted = search.predicted(alphas, betas, formats)
    return make_plan(alphas, betas, sections | {
        "density": {str(n): densities(plan, about.kv_heads, n) for n in search.lengths},
        "scores": {
            "predicted": {str(n): value for n, value in predicted.items()},
            "bound_gap": solution.gap,
        },
        "provenance": provenance() | {
            "profile_sha256": search.profile.sha256,
            "lengths": list(search.profile.curves),
            "extend": search.lengths[search.profiled :],
            "estimator": about.estimator, "items": about.items,
            "row_losses": _row_losses(search),
            "solver": {
                "name": solution.solver, "timed_out": solution.timed_out,
                "weights": [float(w) for w in goal.weights], "rules": len(search.rules),
                "hull": request.hull, "exact": request.exact, "ranks": request.ranks,
                "formats": list(request.formats),
                "times": [
                    {"length": t.length, "batch": t.batch, "us": t.us, "device": t.table.device}
                    for t in request.times
                ],
            },
        },
    })  # fmt: skip


def _row_losses(search: Search) -> str:
    """Which losses the length rule `row` was judged by."""
    if not search.params.per_row:
        return "unused"
    kept = all(curves.rows is not None for curves in search.profile.curves.values())
    return "by row block" if kept else "of the whole length"


def densities(plan: Plan, kv_heads: int, n: int) -> dict[str, Any]:
    """The `density` of a plan file at one length."""
    found: dict[str, Any] = {
        "query": query_density(plan, n),
        "kv": kv_density(plan, kv_heads, n),
        "layers": layer_densities(plan, kv_heads, n).tolist(),
    }
    if plan.has_8_bits:
        found["bytes"] = byte_density(plan, kv_heads, n)
    return found


def provenance() -> dict[str, Any]:
    """Who made a plan, and when."""
    from .. import __version__

    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"tool": "moa-plan", "tool_version": __version__, "created": today}
