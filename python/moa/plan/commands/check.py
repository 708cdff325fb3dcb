"""Check a plan, by itself and for a model.

Prints one line a fault and exits with 2, or what the plan is and exits with 0.
"""

from __future__ import annotations

import argparse
import sys

from ..arguments import add_model, add_plan, lengths
from ..density import length_warnings
from ..jsontext import read
from ..model import load_model
from ..schema import faults_of, parse_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plan(parser)
    add_model(parser)
    parser.add_argument(
        "--at", type=lengths, metavar="N[,N..]", default=[],
        help="also warn of what happens at these total lengths, in tokens",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    model = load_model(args.model) if args.model else None
    text = read(args.plan)
    faults = faults_of(text, args.plan, model)
    for fault in faults:
        print(fault)
    if faults:
        return 2
    plan = parse_plan(text, args.plan)
    for warning in [*plan.warnings, *(w for n in args.at for w in length_warnings(plan, n))]:
        print(f"warning: {warning}", file=sys.stderr)
    kind = "two-key plan" if plan.legacy else "moa-plan/1"
    print(f"{args.plan}: {kind}, {plan.layers} layers x {plan.q_heads} heads, id {plan.id}")
    return 0
