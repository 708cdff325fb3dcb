"""Write a plan for another program, and tell what is lost.

flex           Python module of FlexAttention mask functions, exact to the token
flashinfer     .npz of block maps of each KV head
vllm-window    JSON of one sliding window for each layer
trtllm-window  JSON of one window for each layer and the sink, for TensorRT-LLM
kvpress        JSON of a compression ratio for each layer
"""

from __future__ import annotations

import argparse

from ..arguments import add_model, add_plan, lengths
from ..export import FORMS
from ..jsontext import write_atomically
from ..model import load_model
from ..schema import load_plan, model_faults


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plan(parser)
    parser.add_argument("--to", choices=sorted(FORMS), required=True)
    parser.add_argument(
        "--at", type=lengths, required=True, metavar="N[,N..]", help="total lengths in tokens"
    )
    parser.add_argument("--out", required=True, metavar="FILE")
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    plan = load_plan(args.plan)
    model = load_model(args.model) if args.model else None
    if model is not None:
        for fault in model_faults(plan, model, args.plan):
            raise fault
    made = FORMS[args.to](plan, plan.kv_heads(model), args.at)
    write_atomically(args.out, made.data)
    print(f"{args.out}: of plan {plan.id}")
    for what in [*made.lost, *["KV heads of 8 bits: all keep 16"] * plan.has_8_bits]:
        print(f"lost: {what}")
    return 0
