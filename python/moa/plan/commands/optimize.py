"""Make plans from a profile: the least loss within bounds, with a proven gap.

RUN is the folder of `moa-plan profile`. Writes RUN/plans/plan-1.json, or with
--pareto a set in which no plan is worse than another at all profiled lengths.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import add_model, count
from ..columns import Goal, Pool
from ..curves import load_profile
from ..model import load_model
from ..optimize import Solution, solve
from ..pareto import combine, pareto
from ..search import Search, plan_of, prepare
from ..search_options import add_request, request_of
from ..warmstart import key_of, load_columns, save_columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="folder of a profile")
    add_request(parser)
    parser.add_argument(
        "--pareto", type=count, default=1, metavar="M",
        help="ceilings tried for the loss of each length but the longest; 1: one plan of "
        "the least mean loss (default)",
    )  # fmt: skip
    add_model(parser)
    parser.add_argument("--out", metavar="DIR", help="where plans go; default RUN/plans")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    profile = load_profile(args.run_folder)
    model = load_model(args.model) if args.model else None
    if model is not None:
        profile.check_model(model)
    search = prepare(profile, request_of(args, profile))
    path, key = Path(args.run_folder) / "columns.npz", key_of(search.problem)
    problem = (
        search.problem if args.pareto == 1 else combine(search.problem, search.objectives())
    )
    pool = load_columns(path, key, problem)
    found = _one(search, args, pool) if args.pareto == 1 else _set(search, args, pool)
    save_columns(path, key, pool)
    folder = Path(args.out) if args.out else Path(args.run_folder) / "plans"
    told = []
    for i, (solution, goal) in enumerate(found, 1):
        plan = plan_of(search, solution, model, goal)
        path = folder / f"plan-{i}.json"
        plan.write(path)
        told.append({"file": str(path), "plan_id": plan.id, **_facts(search, solution, plan)})
    _remove_older(folder, len(told))
    if args.json:
        print(json.dumps({"plans": told, "rules": len(search.rules)}))
        return 0
    for facts in told:
        print(_line(facts))
    return 0


def _one(search: Search, args: argparse.Namespace, pool: Pool) -> list[tuple[Solution, Goal]]:
    goal = search.goal()
    solution = solve(
        search.problem, goal, solver=args.solver, time_limit=args.time_limit,
        names=search.names, pool=pool,
    )  # fmt: skip
    return [(solution, goal)]


def _set(search: Search, args: argparse.Namespace, pool: Pool) -> list[tuple[Solution, Goal]]:
    weights = search.objectives()
    points = pareto(
        pool.problem, args.pareto, solver=args.solver, time_limit=args.time_limit,
        names=search.names, progress=_progress, pool=pool,
    )  # fmt: skip
    # Goals in terms of all lengths again.
    return [
        (p.solution, Goal(p.goal.weights @ np.array(weights), p.goal.ceilings))
        for p in points
    ]  # fmt: skip


def _progress(done: int, most: int) -> None:
    if sys.stderr.isatty():
        print(f"\rsolve {done}, at most {most} ", end="", file=sys.stderr, flush=True)


def _facts(search: Search, solution: Solution, plan: Any) -> dict[str, Any]:
    document, lengths = plan.document, [str(n) for n in search.lengths]
    return {
        "predicted": {n: document["scores"]["predicted"][n] for n in lengths},
        "kv_density": {n: document["density"][n]["kv"] for n in lengths},
        "query_density": {n: document["density"][n]["query"] for n in lengths},
        "byte_density": {
            n: document["density"][n].get("bytes", document["density"][n]["kv"])
            for n in lengths
        },
        "us": {
            name: float(value)
            for name, value in zip(search.names, solution.costs)
            if name.startswith("us ")
        },
        "gap": solution.gap,
        "solver": solution.solver,
        "seconds": solution.seconds,
        "timed_out": solution.timed_out,
    }


def _line(facts: dict[str, Any]) -> str:
    each = "  ".join(
        f"{n}: loss {facts['predicted'][n]:.4f} at KV {facts['kv_density'][n]:.3f}"
        + (
            f", bytes {facts['byte_density'][n]:.3f}"
            if facts["byte_density"][n] != facts["kv_density"][n]
            else ""
        )
        for n in facts["predicted"]
    )
    tail = ", time was out" if facts["timed_out"] else ""
    times = "".join(f"  {name}: {value:.1f}" for name, value in facts["us"].items())
    return (
        f"{facts['file']}  {each}{times}  (at most {facts['gap']:.3%} above the optimum, "
        f"{facts['solver']}, {facts['seconds']:.1f} s{tail})"
    )


def _remove_older(folder: Path, kept: int) -> None:
    """Plans of an earlier, larger set are not part of this one."""
    i = kept + 1
    while (path := folder / f"plan-{i}.json").exists():
        path.unlink()
        i += 1
