"""Scores plans on fresh items, beside the dense model, and keeps every score.

With the compiled kernels where they can run, else with masks in torch; where
kernels score, masks score the first item too, and both must agree.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

import moa

from ..errors import Error
from .calibration import Item
from .density import byte_density
from .errors import PlannerError
from .evaluate import HeavyHitters, Score, Windows, answers_of, batches, scores
from .network import Network, geometry
from .runfolder import Lines, Progress, RunFolder, digest
from .schema import Plan, make_plan
from .verdict import DENSE, Line, ranked, rows_of

#: Largest difference of kernels and masks, nats, by type of the model.
AGREEMENT = {torch.float32: 5e-3, torch.float16: 0.1, torch.bfloat16: 0.5}
#: How many plans go on after a quarter of the items.
FINALISTS = 3


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Something to score: a plan, or H2O-like selection at a density.

    reference: scored on all items, never picked.
    """

    name: str
    plan: Plan | None = None
    h2o: float = 0.0
    reference: bool = False

    @property
    def id(self) -> str:
        return self.plan.id if self.plan is not None else f"h2o-{self.h2o:g}"

    def density(self, kv_heads: int, length: int) -> float:
        """Share of the dense KV bytes."""
        return byte_density(self.plan, kv_heads, length) if self.plan is not None else self.h2o


def dense_plan(config: Any) -> Plan:
    """Everything sees everything: the plan that others are compared with."""
    shape = geometry(config)
    size = (shape["layers"], shape["q_heads"])
    return make_plan(np.zeros(size), np.ones(size))


#: Scores items of one form (`evaluate.form_of`).
Scorer = Callable[[Sequence[Item]], list[Score]]


def masked_scorer(network: Network, candidate: Candidate) -> Scorer:
    """Scores with masks in torch."""
    if candidate.plan is None:
        kept = lambda length: HeavyHitters(int(candidate.h2o * length))
        return lambda items: [scores(network.model, [item], kept)[0] for item in items]
    plan = candidate.plan
    known: dict[int, Windows] = {}

    def windows(length: int) -> Windows:
        if length not in known:
            known[length] = Windows.of_plan(plan, length, network.device)
        return known[length]

    return lambda items: scores(network.model, items, windows)


def choose_engine(wanted: str, device: torch.device) -> str:
    """`kernels` or `masked`; `auto` takes kernels where they can be compiled and run."""
    if wanted != "auto":
        return wanted
    if device.type not in ("cpu", "cuda"):
        return "masked"
    with contextlib.suppress(ImportError, Error):
        from . import kernels

        kernels.check()
        return "kernels"
    return "masked"


class Validation:
    """The scores of one length in `validate/N.jsonl`, by plan and item."""

    def __init__(
        self,
        folder: RunFolder,
        network: Network,
        items: Sequence[Item],
        length: int,
        engine: str,
        as_json: bool = False,
    ):
        if not items:
            raise PlannerError("there are no items to validate with; raise --items")
        self.network, self.items, self.length = network, list(items), length
        self.engine, self.as_json = engine, as_json
        step = f"validate/{length}"
        folder.claim(
            step,
            network.identity
            | {
                "items": digest([item.hash for item in items]),
                "engine": engine,
                "version": moa.__version__,
            },
        )
        self.lines = Lines(folder / f"{step}.jsonl")
        self.known = {(line["id"], line["item"]): line for line in self.lines.known}

    @property
    def first(self) -> int:
        """Items that all plans get: a quarter, and one of each kind at least."""
        return max(len(self.items) // 4, len({item.kind for item in self.items}))

    def run(self, candidates: Sequence[Candidate]) -> list[Line]:
        """Scores all candidates; those that are no reference by successive halving.

        Returns the lines of these candidates, under their names.
        """
        names = [c.name for c in candidates]
        if not any(not c.reference for c in candidates):
            raise PlannerError(
                "the set of plans is empty; optimise first (moa-plan optimize RUN), or name "
                "plans with --plans"
            )
        if DENSE not in names or len(set(names)) != len(names):
            raise PlannerError(f"plans must have names of their own beside 'dense': {names}")
        quarter = self.first
        open_ = [c for c in candidates if not c.reference]
        with Progress(
            f"validate {self.length}", self._total(candidates), as_json=self.as_json
        ) as progress:
            lines: list[Line] = []
            halving = len(open_) > FINALISTS
            for candidate in candidates:
                all_items = candidate.reference or not halving
                chosen = self.items if all_items else self.items[:quarter]
                lines += self._score(candidate, chosen, progress)
            if halving:
                for candidate in self._best(open_, lines):
                    lines += self._score(candidate, self.items[quarter:], progress)
        return lines

    def score(self, work: Sequence[tuple[Candidate, Sequence[Item]]]) -> list[Line]:
        """Scores each candidate on its items, all of them; without halving."""
        total = sum(len(items) for _, items in work)
        with Progress(f"validate {self.length}", total, as_json=self.as_json) as progress:
            return [
                line
                for candidate, items in work
                for line in self._score(candidate, items, progress)
            ]

    def _total(self, candidates: Sequence[Candidate]) -> int:
        open_ = sum(not c.reference for c in candidates)
        last = min(open_, FINALISTS)
        whole = len(candidates) - open_ + last
        return whole * len(self.items) + (open_ - last) * self.first

    def _best(self, candidates: Sequence[Candidate], lines: Sequence[Line]) -> list[Candidate]:
        rows = rows_of(lines)
        kv_heads = geometry(self.network.config)["kv_heads"]
        densities = {c.name: c.density(kv_heads, self.length) for c in candidates}
        best = ranked([rows[c.name] for c in candidates], densities)[:FINALISTS]
        by_name = {c.name: c for c in candidates}
        return [by_name[row.plan] for row in best]

    def _score(
        self, candidate: Candidate, items: Sequence[Item], progress: Progress
    ) -> Iterator[Line]:
        missing = []
        for item in items:
            known = self.known.get((candidate.id, item.hash))
            if known is None:
                missing.append(item)
            else:
                progress.skip()
                yield known | {"plan": candidate.name}
        if not missing:
            return
        scorer = self._scorer(candidate, missing[0])
        for together in batches(missing, self.network.device):
            lines = [
                self._line(candidate, item, found)
                for item, found in zip(together, scorer(together), strict=True)
            ]
            self.lines.add(lines)
            for line in lines:
                self.known[candidate.id, line["item"]] = line
                yield line
                progress.step()

    def _line(self, candidate: Candidate, item: Item, found: Score) -> dict[str, Any]:
        if not math.isfinite(found.ce):
            raise PlannerError(
                f"{candidate.name}: the cross-entropy of an item is {found.ce}; validate "
                "in float32 (--dtype float32), or look at the model's weights"
            )
        return {
            "plan": candidate.name,
            "id": candidate.id,
            "item": item.hash,
            "kind": item.kind,
            "depth": item.depth,
            "ce": found.ce,
            "exact": found.exact,
            "margin": found.margin,
        }

    def _scorer(self, candidate: Candidate, item: Item) -> Scorer:
        """Of the engine; kernels must agree with masks on `item`."""
        masked = masked_scorer(self.network, candidate)
        if self.engine == "masked" or candidate.plan is None:
            return masked
        from .kernels import KernelScorer

        wanted = masked([item])[0]
        longest = max(len(i.prompt) + max(map(len, answers_of(i))) for i in self.items)
        try:
            scorer = KernelScorer(self.network.model, candidate.plan, longest)
            found = scorer.score(item)
        except Error as error:
            raise PlannerError(f"{candidate.name}: {error}; or take --engine masked") from error
        check_agreement(candidate.name, found, wanted, self.network.model.dtype)
        return lambda items: [scorer.score(item) for item in items]


def check_agreement(name: str, found: Score, wanted: Score, dtype: torch.dtype) -> None:
    """PlannerError where kernels and masks score an item differently."""
    limit = AGREEMENT[dtype]
    for field in ("ce", "margin"):
        ours, theirs = getattr(found, field), getattr(wanted, field)
        if (ours is None) != (theirs is None) or (
            ours is not None and not abs(ours - theirs) <= limit * max(1.0, abs(theirs))
        ):
            raise PlannerError(
                f"{name}: compiled kernels give {field} {ours}, masks in torch {theirs}, at "
                f"most {limit:g} may lie between; please report this, and validate with "
                "--engine masked"
            )
