"""What scores say: paired differences with standard errors, ranks, the dense gate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import PlannerError

DENSE = "dense"


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over `n` items and its standard error; NaN where n is too small."""

    mean: float
    error: float
    n: int

    @staticmethod
    def of(values: Sequence[float]) -> Mean:
        n = len(values)
        if not n:
            return Mean(math.nan, math.nan, 0)
        mean = math.fsum(values) / n
        if n < 2:
            return Mean(mean, math.nan, n)
        variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
        return Mean(mean, math.sqrt(variance / n), n)

    def plain(self) -> dict[str, float | int | None]:
        """For JSON, which has no NaN."""
        mean, error = (None if math.isnan(v) else v for v in (self.mean, self.error))
        return {"mean": mean, "error": error, "n": self.n}

    @staticmethod
    def read(value: Mapping[str, Any]) -> Mean:
        """What `plain` made."""
        mean, error = (math.nan if value[k] is None else value[k] for k in ("mean", "error"))
        return Mean(mean, error, value["n"])

    def __str__(self) -> str:
        if not self.n:
            return "-"
        return f"{self.mean:+.3f}" + ("" if math.isnan(self.error) else f" ({self.error:.3f})")


#: A line of validate/N.jsonl: plan, item, kind, depth, ce, exact, margin.
Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """A plan beside the dense model on the same items; nats."""

    plan: str
    first: int  #: Items whose right candidate is the likeliest.
    exact: int  #: Items of retrieval answered token by token.
    retrieval: int  #: Items with candidates.
    margin: Mean  #: Log-probability of the right candidate over the best wrong one.
    margin_change: Mean  #: Paired, this plan's less the dense model's.
    ce: Mean  #: Cross-entropy of the items without candidates.
    ce_change: Mean  #: Paired.
    by_depth: dict[str, Mean]  #: Margin of needles by thirds of depth.

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in fields.items():
            if isinstance(value, Mean):
                fields[name] = value.plain()
        fields["by_depth"] = {label: mean.plain() for label, mean in self.by_depth.items()}
        return fields


def rows_of(lines: Sequence[Line]) -> dict[str, Row]:
    """A row for each plan; the lines must have those of the dense model."""
    plans: dict[str, dict[str, Line]] = {}
    for line in lines:
        plans.setdefault(line["plan"], {})[line["item"]] = line
    if DENSE not in plans:
        raise PlannerError("the scores lack the dense model's; validate again")
    return {name: _row(name, found, plans[DENSE]) for name, found in plans.items()}


def _row(name: str, found: Mapping[str, Line], dense: Mapping[str, Line]) -> Row:
    # Halving leaves a plan with fewer items; dense has all that any plan has.
    hidden = [line for line in found.values() if line["margin"] is not None]
    told = [line for line in found.values() if line["margin"] is None]
    thirds = {"0 to 1/3": (0.0, 1 / 3), "1/3 to 2/3": (1 / 3, 2 / 3), "2/3 to 1": (2 / 3, 1.01)}
    return Row(
        plan=name,
        first=sum(line["margin"] > 0 for line in hidden),
        exact=sum(bool(line["exact"]) for line in hidden),
        retrieval=len(hidden),
        margin=Mean.of([line["margin"] for line in hidden]),
        margin_change=_change(hidden, dense, "margin"),
        ce=Mean.of([line["ce"] for line in told]),
        ce_change=_change(told, dense, "ce"),
        by_depth={
            label: Mean.of([r["margin"] for r in hidden if low <= (r["depth"] or 0) < high])
            for label, (low, high) in thirds.items()
        },
    )


def _change(lines: Sequence[Line], dense: Mapping[str, Line], field: str) -> Mean:
    return Mean.of(
        [line[field] - dense[line["item"]][field] for line in lines if line["item"] in dense]
    )


def ranked(rows: Sequence[Row], densities: Mapping[str, float]) -> list[Row]:
    """Best first, by the mean of the ranks in margin and in cross-entropy.

    Ties go to the lower KV density at the longest length, then to the plan whose worse
    loss is less, in standard errors.
    """
    places: dict[str, list[int]] = {row.plan: [] for row in rows}
    for field, sign in (("margin_change", -1.0), ("ce_change", 1.0)):
        means: dict[str, Mean] = {row.plan: getattr(row, field) for row in rows}
        values = {plan: sign * mean.mean for plan, mean in means.items() if mean.n}
        order = sorted(values.values())
        for plan, value in values.items():
            places[plan].append(order.index(value))
    return sorted(
        rows,
        key=lambda row: (
            sum(places[row.plan]) / max(1, len(places[row.plan])),
            round(densities[row.plan], 6),
            max(-_errors(row.margin_change), _errors(row.ce_change)),
            row.plan,
        ),
    )


def _errors(change: Mean) -> float:
    """A change in standard errors; 0 where that is not known."""
    return change.mean / change.error if change.n > 1 and change.error else 0.0


def within_noise(lines: Sequence[Line], best: str, second: str) -> bool:
    """Whether the best two differ by less than one standard error, in margin and in CE."""
    by_plan = {
        name: {line["item"]: line for line in lines if line["plan"] == name}
        for name in (best, second)
    }
    for field, has_margin in (("margin", True), ("ce", False)):
        values = [
            line[field] - by_plan[second][item][field]
            for item, line in by_plan[best].items()
            if item in by_plan[second] and (line["margin"] is not None) == has_margin
        ]
        mean = Mean.of(values)
        if mean.n > 1 and abs(mean.mean) > mean.error:
            return False
    return True


def gate(row: Row, margin: float, ce: float) -> str | None:
    """Why a plan is not accepted, or None: how much worse than dense it may be, nats."""
    if row.margin_change.n and row.margin_change.mean < -margin:
        return (
            f"{row.plan} answers with {-row.margin_change.mean:.2f} nats less margin than the "
            f"dense model (standard error {row.margin_change.error:.2f}, "
            f"{row.margin_change.n} items), at most {margin:g} is accepted"
        )
    if row.ce_change.n and row.ce_change.mean > ce:
        return (
            f"{row.plan} has {row.ce_change.mean:.3f} nats more cross-entropy than the dense "
            f"model (standard error {row.ce_change.error:.3f}, {row.ce_change.n} items), at "
            f"most {ce:g} is accepted"
        )
    return None
