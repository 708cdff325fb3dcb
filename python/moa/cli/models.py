"""A model under a plan, as the options of the command line ask for it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from ..modelfiles import load_config, load_tokenizer
from ..plan.arguments import length, whole
from . import plans
from .progress import Progress

DTYPES = ("float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """model: of transformers, under the plan; choice: which, and why."""

    model: Any
    tokenizer: Any
    name: str
    choice: plans.Choice

    @property
    def plan_id(self) -> str:
        return str(self.model.moa.info["plan_id"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a hub id, a folder, or a .gguf file")
    parser.add_argument(
        "--plan", default="auto", metavar="PLAN",
        help="a plan file; dense: none; auto (default): plan.json or moa-plan.json beside the "
        "model, or one that is shipped for it, or none, and says which",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of weights and cache; default the checkpoint's"
    )
    parser.add_argument(
        "--device", help="cpu, cuda or cuda:NUMBER; default cuda where there is one"
    )
    parser.add_argument(
        "--threads", type=whole, default=0, help="of attention; default one a core"
    )
    parser.add_argument(
        "--max-length", type=length, metavar="N",
        help="longest sequence in tokens; default the model's",
    )  # fmt: skip


def choose(args: argparse.Namespace) -> tuple[Any, plans.Choice]:
    """The model's text config and its plan; says which plan is used."""
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    config = load_config(args.model).get_text_config(decoder=True)
    choice = plans.choose(args.plan, args.model, config)
    print(f"moa: {choice.line}", file=sys.stderr, flush=True)
    return config, choice


def load(args: argparse.Namespace) -> Loaded:
    """Loads config, tokenizer and weights, and says which plan is used."""
    import torch

    import moa.hf

    from .. import runtime

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    runtime.Context(1, device=device)  # A wrong one is found before minutes of loading.
    _, choice = choose(args)
    place: dict[str, Any] = {} if device == "cpu" else {"device_map": device}
    with Progress(f"loading {args.model}"):
        tokenizer = load_tokenizer(args.model)
        model = moa.hf.load(
            args.model,
            plan=choice.plan,
            dtype=getattr(torch, args.dtype) if args.dtype else None,
            threads=args.threads,
            max_length=args.max_length,
            **place,
        )
    return Loaded(model, tokenizer, plans.model_name(args.model), choice)
