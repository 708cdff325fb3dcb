"""Score plans on fresh items beside the dense model, and pick one.

Writes RUN/fresh/N.jsonl (items), RUN/validate/N.jsonl (scores) and, with --pick,
RUN/plan.json. A plan that is worse than the dense model by more than --gate-margin
or --gate-ce is not picked without --force.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import count, density, length
from ..errors import PlannerError
from ..options import add_network, wish_of

if TYPE_CHECKING:
    from ..network import Network
    from ..runfolder import RunFolder
    from ..validate import Candidate
    from ..verdict import Line, Row

TASKS = {"ce": "summarise", "needle": "needle", "copy": "copy"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network(parser)
    parser.add_argument(
        "--length",
        type=length,
        metavar="N",
        help="tokens; default 1.5 times the longest profiled",
    )
    parser.add_argument(
        "--plans",
        nargs="+",
        type=Path,
        metavar="PLAN",
        help="candidates; default RUN/plans/*.json",
    )
    add_scoring(parser)
    parser.add_argument("--items", type=count, default=50, help="for each task")
    parser.add_argument(
        "--sink", type=count, default=64, help="needles lie behind these tokens"
    )
    parser.add_argument("--pick", action="store_true", help="write the best to RUN/plan.json")


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """Options of how to score, of `run` too."""
    parser.add_argument(
        "--baselines",
        nargs="*",
        type=Path,
        default=[],
        metavar="PLAN",
        help="plans to score on all items and never to pick",
    )
    parser.add_argument(
        "--h2o",
        type=density,
        metavar="D",
        help="also H2O-like selection at this share of the KV bytes",
    )
    parser.add_argument(
        "--tasks",
        type=_tasks,
        default=["ce", "needle"],
        help="of ce, needle and copy, with commas",
    )
    parser.add_argument(
        "--text",
        type=Path,
        metavar="PATH",
        help="a user's text to hide needles in and to summarise",
    )
    parser.add_argument(
        "--engine",
        choices=["auto", "kernels", "masked"],
        default="auto",
        help="compiled kernels, or masks in torch",
    )
    parser.add_argument(
        "--gate-margin",
        type=float,
        default=1.0,
        metavar="NATS",
        help="how much less margin than dense a plan may have",
    )
    parser.add_argument(
        "--gate-ce",
        type=float,
        default=0.1,
        metavar="NATS",
        help="how much more cross-entropy than dense it may have",
    )
    parser.add_argument("--force", action="store_true", help="pick past the gate")


def _tasks(text: str) -> list[str]:
    tasks = [part.strip() for part in text.split(",")]
    if not set(tasks) <= TASKS.keys() or len(set(tasks)) != len(tasks):
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(TASKS)} with commas, found '{text}'"
        )
    return tasks


def run(args: argparse.Namespace) -> int:
    from .. import network
    from ..curves import load_profile
    from ..runfolder import Interrupted, RunFolder

    if args.length is None:
        longest = max(load_profile(args.out).curves)
        args.length = longest * 3 // 2
    paths = args.plans or sorted((args.out / "plans").glob("*.json"))
    found = candidates(paths, args)
    folder = RunFolder(args.out)
    net = network.load(args.model, args.dtype, args.device, [args.length])
    try:
        lines = validate(args, net, folder, found)
        if args.pick:
            pick(args, net, folder, found, lines)
    except Interrupted as reason:
        print(f"moa-plan: {reason}", file=sys.stderr)
        return 130
    return 0


def candidates(paths: Sequence[Path], args: argparse.Namespace) -> list[Candidate]:
    """Plans to choose from, and what they are compared with."""
    from ..schema import load_plan
    from ..validate import Candidate

    found = [Candidate(path.stem, load_plan(path)) for path in paths]
    found += [Candidate(path.stem, load_plan(path), reference=True) for path in args.baselines]
    if args.h2o is not None:
        found.append(Candidate(f"h2o-{args.h2o:g}", h2o=args.h2o, reference=True))
    return found


def validate(
    args: argparse.Namespace, net: Network, folder: RunFolder, found: Sequence[Candidate]
) -> list[Line]:
    """Scores at args.length; the table on stdout."""
    from ..collect import Collector, Source, items_of
    from ..validate import Candidate, Validation, choose_engine, dense_plan
    from ..verdict import DENSE, rows_of

    engine = choose_engine(args.engine, net.device)
    sources = tuple(Source(TASKS[task], args.text) for task in args.tasks)
    wish = wish_of(
        args, [args.length], sources=sources, fresh=True, items=args.items * len(sources)
    )
    items = items_of(folder, "fresh", Collector(net, wish), args.length, args.json)
    shape_faults(net, found)
    scored = [Candidate(DENSE, dense_plan(net.config), reference=True), *found]
    lines = Validation(folder, net, items, args.length, engine, args.json).run(scored)
    rows = rows_of(lines)
    table = [facts(rows[c.name], c, net, args.length) | {"engine": engine} for c in scored]
    write_table(folder, args.length, table)
    for row in table:
        print(json.dumps(row) if args.json else sentence(row))
    return lines


def shape_faults(net: Network, found: Sequence[Candidate]) -> None:
    """PlannerError for a plan of another model."""
    from ..model import ModelShape
    from ..network import geometry
    from ..schema import model_faults

    shape = geometry(net.config)
    model = ModelShape(
        shape["layers"],
        shape["q_heads"],
        shape["kv_heads"],
        shape["head_dim"],
        shape["max_position"],
    )
    for candidate in found:
        if candidate.plan is not None:
            for fault in model_faults(candidate.plan, model, candidate.name):
                raise fault


def facts(row: Row, candidate: Candidate, net: Network, at: int) -> dict[str, Any]:
    """A row of the table, for machines."""
    from ..density import query_density
    from ..network import geometry

    plan = candidate.plan
    kv = candidate.density(geometry(net.config)["kv_heads"], at)
    return row.plain() | {
        "kv_density": kv,
        "query_density": kv if plan is None else query_density(plan, at),
        "sparse_prefill": plan is not None,
        "plan_id": candidate.id,
        "reference": candidate.reference,
    }


def write_table(folder: RunFolder, at: int, table: list[dict[str, Any]]) -> None:
    from ..runfolder import write_json

    write_json(folder / f"validate/{at}-table.json", table)


def sentence(row: dict[str, Any]) -> str:
    from ..verdict import Mean

    margin, margin_change, ce_change = (
        Mean.read(row[key]) for key in ("margin", "margin_change", "ce_change")
    )
    return (
        f"{row['plan']}: KV density {row['kv_density']:.3f}, first {row['first']}/"
        f"{row['retrieval']}, exact {row['exact']}, margin {margin}, less dense's "
        f"{margin_change}, cross-entropy less dense's {ce_change}, by "
        f"{row['engine'] if row['sparse_prefill'] else 'masks, dense prompt'}"
    )


def pick(
    args: argparse.Namespace,
    net: Network,
    folder: RunFolder,
    found: Sequence[Candidate],
    lines: list[Line],
) -> None:
    """Writes the best plan that has all items to RUN/plan.json; PlannerError at the gate."""
    from ..network import geometry
    from ..schema import make_plan
    from ..verdict import DENSE, gate, ranked, rows_of, within_noise

    rows = rows_of(lines)
    everything = rows[DENSE].retrieval + rows[DENSE].ce.n
    shape = geometry(net.config)
    plans = {c.name: c.plan for c in found if not c.reference and c.plan is not None}
    complete = [
        rows[name] for name in plans if rows[name].retrieval + rows[name].ce.n == everything
    ]
    densities = {c.name: c.density(shape["kv_heads"], shape["max_position"]) for c in found}
    order = ranked(complete, densities)
    best = order[0]
    if len(order) > 1 and within_noise(lines, best.plan, order[1].plan):
        print(
            f"note: {best.plan} and {order[1].plan} differ by less than one standard error: "
            "more --items would tell them apart"
        )
    reason = gate(best, args.gate_margin, args.gate_ce)
    if reason and not args.force:
        raise PlannerError(
            f"no plan is accepted: {reason}; raise the density or the gate, or pick it all the "
            "same with --force"
        )
    plan = plans[best.plan]
    scores = dict(plan.document.get("scores", {}))
    scores["validation"] = {
        "length": args.length,
        "ce": best.ce.mean,
        "ce_dense": rows[DENSE].ce.mean,
        "margin": best.margin.mean,
        "margin_dense": rows[DENSE].margin.mean,
        "n": everything,
    }
    scores["validation"] = {k: v for k, v in scores["validation"].items() if v == v}
    sections = {k: v for k, v in plan.document.items() if k not in ("alphas", "betas")}
    make_plan(plan.alphas, plan.betas, sections | {"scores": scores}).write(
        folder / "plan.json"
    )
    folder.log(f"picked {best.plan}" + (f" past the gate: {reason}" if reason else ""))
    print(f"picked {best.plan}: {folder / 'plan.json'}" + (" (forced)" if reason else ""))
