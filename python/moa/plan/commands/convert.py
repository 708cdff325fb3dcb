"""Rewrite a plan in another form.

OLD is a published two-key file or a moa-plan/1; NEW becomes the other, or what --to
says. What is lost is told.
"""

from __future__ import annotations

import argparse

from ..arguments import add_model, add_plan, lengths
from ..exchange import lost_by_legacy, to_legacy, to_schema
from ..jsontext import write_atomically
from ..model import load_model
from ..schema import load_plan, model_faults


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plan(parser, "old")
    add_plan(parser, "new")
    add_model(parser)
    parser.add_argument("--to", choices=("moa-plan", "two-key"), help="default: the other one")
    parser.add_argument(
        "--at",
        type=lengths,
        default=[],
        metavar="N[,N..]",
        help="lengths to state densities of",
    )


def run(args: argparse.Namespace) -> int:
    plan = load_plan(args.old)
    model = load_model(args.model) if args.model else None
    if model is not None:
        for fault in model_faults(plan, model, args.old):
            raise fault
    to = args.to or ("moa-plan" if plan.legacy else "two-key")
    if to == "two-key":
        write_atomically(args.new, to_legacy(plan))
        lost = lost_by_legacy(plan)
        print(f"{args.new}: id {load_plan(args.new).id}; lost: {', '.join(lost) or 'nothing'}")
        return 0
    made = to_schema(plan, model, args.at)
    made.write(args.new)
    print(f"{args.new}: id {made.id}; lost: nothing")
    return 0
