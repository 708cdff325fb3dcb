"""Make a plan to compare with.

  dense      every head sees everything
  streaming  (0, --density) in every head; --sink 4 as in StreamingLLM's paper
  uniform    one share for all heads, at the KV density that --like has at --at
  random     the rules of --like on other KV heads
  duo        each KV head all or --short tokens: by the curves of a run folder, or by
             DuoAttention's own scores (--heads)
  fixed      spans that do not grow
  beta       shares of the length alone
  layer      one rule for all heads of a layer

The last four need a run folder of `moa-plan profile`, but for duo with --heads. duo and
fixed are chosen for the length --at and keep the budget there.
"""

from __future__ import annotations

import argparse

from ..arguments import add_model, count, density, length, whole
from ..baselines import (
    SEARCHED,
    dense,
    duo_of_heads,
    random_like,
    searched,
    streaming,
    uniform_like,
)
from ..curves import load_profile
from ..errors import PlannerError
from ..exchange import read_duo
from ..model import ModelShape, load_model
from ..schema import Plan, load_plan, model_faults
from ..search_options import add_request, request_of

_KINDS = ("dense", "streaming", "uniform", "random", *SEARCHED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=_KINDS)
    parser.add_argument("run_folder", nargs="?", metavar="RUN", help="folder of a profile")
    add_model(parser)
    parser.add_argument("--out", required=True, metavar="PLAN", help="the plan to write")
    parser.add_argument(
        "--sink", type=whole, default=64, help="tokens always seen (default 64)"
    )
    parser.add_argument("--like", metavar="PLAN", help="the plan to match")
    parser.add_argument(
        "--at", type=length, metavar="N",
        help="tokens; default 8192 for uniform, the longest profiled for duo and fixed",
    )  # fmt: skip
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument(
        "--short", type=count, metavar="TOKENS",
        help="span of duo's short heads, default 256, or half of the budget if that is less",
    )  # fmt: skip
    parser.add_argument("--heads", metavar="FILE", help="DuoAttention's scores, .tsv or .json")
    parser.add_argument(
        "--sparsity", type=density, default=0.5, help="share of duo's short heads with --heads"
    )
    add_request(parser)


def run(args: argparse.Namespace) -> int:
    plan = _make(args)
    plan.write(args.out)
    print(f"{args.out}: id {plan.id}")
    return 0


def _make(args: argparse.Namespace) -> Plan:
    kind = args.kind
    if kind in SEARCHED and not (kind == "duo" and args.heads):
        if args.run_folder is None:
            raise PlannerError(
                f"expected a run folder to search for '{kind}', found none; profile the model "
                "first: moa-plan profile MODEL --out RUN"
            )
        profile = load_profile(args.run_folder)
        model = load_model(args.model) if args.model else None
        if model is not None:
            profile.check_model(model)
        return searched(
            kind, profile, request_of(args, profile), short=args.short, at=args.at,
            model=model, solver=args.solver, time_limit=args.time_limit,
        )  # fmt: skip
    if args.model is None:
        raise PlannerError(
            f"expected --model for '{kind}', found none; give the model's config.json or "
            "layers=32,q_heads=32,kv_heads=8,head_dim=128"
        )
    return _of_model(args, load_model(args.model))


def _of_model(args: argparse.Namespace, model: ModelShape) -> Plan:
    if args.kind == "dense":
        return dense(model)
    if args.kind == "streaming":
        return streaming(model, args.density or 0.5, args.sink)
    if args.kind == "duo":
        return duo_of_heads(
            read_duo(args.heads), model, args.sparsity, args.sink, args.short or 256
        )
    if args.like is None:
        raise PlannerError(
            f"expected --like PLAN for '{args.kind}', found none; name the plan to match"
        )
    like = load_plan(args.like)
    for fault in model_faults(like, model, args.like):
        raise fault
    if args.kind == "uniform":
        return uniform_like(like, model, args.at or 8192)
    return random_like(like, model, args.seed)
