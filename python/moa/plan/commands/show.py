"""Show a plan: rules, densities, exact cache sizes, scores; or its heat map."""

from __future__ import annotations

import argparse
import json
import sys

from ..arguments import add_model, add_plan, lengths
from ..density import DTYPES, length_warnings
from ..errors import PlannerError
from ..jsontext import write_atomically
from ..model import load_model
from ..plot import heat_map
from ..schema import load_plan, model_faults
from ..show import describe, describe_differences, differences, lengths_of, summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plan(parser)
    add_model(parser)
    parser.add_argument(
        "--at", type=lengths, metavar="N[,N..]",
        help="total lengths in tokens, such as 4096,8k; default: those the plan tells of",
    )  # fmt: skip
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16", help="of the cache")
    parser.add_argument("--plot", metavar="SVG", help="write a heat map of the spans")
    parser.add_argument("--diff", metavar="OTHER", help="also tell how another plan differs")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    plan = load_plan(args.plan)
    model = load_model(args.model) if args.model else None
    if model is not None:
        for fault in model_faults(plan, model, args.plan):
            raise fault
    at = args.at or lengths_of(plan)
    other = load_plan(args.diff) if args.diff else None
    if other is not None and plan.alphas.shape != other.alphas.shape and model is not None:
        raise PlannerError(
            f"{args.diff}: expected {plan.layers} layers x {plan.q_heads} heads, as "
            f"{args.plan} has, found {other.layers} x {other.q_heads}; compare plans of "
            "one model"
        )
    if args.plot:
        write_atomically(args.plot, heat_map(plan, at, plan.kv_heads(model)))
    if args.json:
        found = summary(plan, model, at, args.dtype)
        if other is not None:
            found["diff"] = differences(plan, other, model, at)
        print(json.dumps(found))
        return 0
    print(describe(plan, args.plan, model, at, args.dtype))
    if other is not None:
        print("\n" + describe_differences(differences(plan, other, model, at)))
    for warning in [*plan.warnings, *(w for n in at for w in length_warnings(plan, n))]:
        print(f"warning: {warning}", file=sys.stderr)
    return 0
