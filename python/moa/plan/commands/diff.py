"""Compare two plans; exit code 1 where they differ."""

from __future__ import annotations

import argparse
import json

from ..arguments import add_model, add_plan, lengths
from ..model import load_model
from ..schema import load_plan
from ..show import describe_differences, differences, lengths_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plan(parser)
    add_plan(parser, "other")
    add_model(parser)
    parser.add_argument("--at", type=lengths, metavar="N[,N..]", help="total lengths in tokens")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    plan, other = load_plan(args.plan), load_plan(args.other)
    model = load_model(args.model) if args.model else None
    found = differences(plan, other, model, args.at or lengths_of(plan))
    print(json.dumps(found) if args.json else describe_differences(found))
    return 0 if plan == other else 1
