"""Rewrite a plan in another form.

OLD is a published two-key file or a moa-plan/1; NEW becomes the other, or what --to
says. OLD may also be a pattern of DuoAttention: a folder of its attn_patterns, the
full_attention_heads.tsv of one, or its scores as a JSON array of arrays; the share
--sparsity of KV heads with the lowest scores then keeps --sink and --recent tokens, the
others everything. What is lost is told.
"""

from __future__ import annotations

import argparse

from ..arguments import add_model, add_plan, density, lengths, whole
from ..baselines import duo_of_heads
from ..errors import PlannerError
from ..exchange import is_duo, lost_by_legacy, read_duo_pattern, to_legacy, to_schema
from ..jsontext import write_atomically
from ..model import ModelShape, load_model
from ..schema import Plan, load_plan, model_faults


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
    duo = parser.add_argument_group("patterns of DuoAttention")
    duo.add_argument(
        "--sparsity", type=density, metavar="SHARE",
        help="of KV heads that keep few tokens; default 0.5",
    )  # fmt: skip
    for name, default in (("sink", 64), ("recent", 256)):
        duo.add_argument(
            f"--{name}", type=whole, metavar="TOKENS",
            help=f"default that of config.json beside the scores, else {default}",
        )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    model = load_model(args.model) if args.model else None
    if is_duo(args.old):
        plan, to = _of_duo(args, model), args.to or "moa-plan"
    else:
        _refuse_options_of_duo(args)
        plan = load_plan(args.old)
        to = args.to or ("moa-plan" if plan.legacy else "two-key")
        if model is not None:
            for fault in model_faults(plan, model, args.old):
                raise fault
    if to == "two-key":
        write_atomically(args.new, to_legacy(plan))
        lost = lost_by_legacy(plan)
        print(f"{args.new}: id {load_plan(args.new).id}; lost: {', '.join(lost) or 'nothing'}")
        return 0
    made = to_schema(plan, model, args.at)
    made.write(args.new)
    print(f"{args.new}: id {made.id}; lost: nothing")
    return 0


def _of_duo(args: argparse.Namespace, model: ModelShape | None) -> Plan:
    pattern = read_duo_pattern(args.old)
    if model is None:
        raise PlannerError(
            "expected --model for a pattern of DuoAttention, found none; give the model's "
            "config.json or layers=32,q_heads=32,kv_heads=8,head_dim=128"
        )
    sink = pattern.sink if args.sink is None else args.sink
    recent = pattern.recent if args.recent is None else args.recent
    sparsity = args.sparsity or 0.5
    plan = duo_of_heads(pattern.scores, model, sparsity, sink, sink + recent)
    print(f"{args.old}: {sparsity:g} of KV heads keep {sink} tokens and the newest {recent}")
    return plan


def _refuse_options_of_duo(args: argparse.Namespace) -> None:
    given = [name for name in ("sparsity", "sink", "recent") if getattr(args, name) is not None]
    if given:
        raise PlannerError(
            f"expected --{given[0]} with a pattern of DuoAttention alone, found the plan "
            f"{args.old}; leave it out"
        )
