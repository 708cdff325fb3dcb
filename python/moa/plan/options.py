"""Options of the subcommands that run a model, and what is made of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import count, lengths
from .errors import PlannerError
from .formats import FORMATS

if TYPE_CHECKING:
    from .collect import Wish
    from .profile import Settings


def add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder, a .gguf file or a hub id")
    parser.add_argument(
        "--device", default="auto", help="auto (CUDA where there is one), cpu, cuda"
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        default="float32",
        help="of weights and attention; sums are float32",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="RUN",
        help="folder of the run; what is done there is not done again",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--template",
        type=Path,
        metavar="FILE",
        help="chat template (Jinja) for a tokenizer without one",
    )
    parser.add_argument("--budget", type=count, default=48, help="most tokens of a summary")
    parser.add_argument(
        "--max-ce",
        type=float,
        default=3.0,
        metavar="NATS",
        help="highest mean cross-entropy of the answers",
    )
    parser.add_argument(
        "--json", action="store_true", help="progress and results as JSON lines"
    )


def add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lengths",
        type=lengths,
        metavar="N,N",
        help="tokens; default 1/8, 1/4 and 1/2 of the model's longest",
    )
    parser.add_argument("--items", type=count, default=50, help="for each length")
    parser.add_argument(
        "--data",
        default="synthetic,summarise",
        help="synthetic, summarise and text, each alone or with :PATH of text, "
        "or FILE.jsonl; in turn",
    )
    parser.add_argument(
        "--sink", type=count, default=64, help="first tokens that all heads see"
    )
    parser.add_argument(
        "--block", type=count, default=64, help="tokens that spans are rounded to"
    )
    parser.add_argument("--rows", type=count, default=256, help="query rows of a chunk")
    parser.add_argument(
        "--entries", action="store_true", help="keep scores of single entries, for heat maps"
    )
    parser.add_argument(
        "--by-row",
        action="store_true",
        help="keep curves of each block of rows, for plans of the length rule row; "
        "heads x (N / block)^2 numbers an item",
    )
    parser.add_argument(
        "--keep-activations",
        action="store_true",
        help="of all layers: a third faster, more memory",
    )
    parser.add_argument(
        "--check-rules",
        type=int,
        default=8,
        metavar="K",
        help="random windows whose true loss is compared, 0 for none",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the estimated time and memory, and do nothing",
    )


def settings_of(args: argparse.Namespace) -> Settings:
    from .profile import Settings

    if (args.entries or args.by_row) and args.rows % args.block:
        raise PlannerError(
            f"{'--entries' if args.entries else '--by-row'} needs chunks of whole blocks: "
            f"--rows {args.rows} is no multiple of --block {args.block}"
        )
    return Settings(
        args.sink,
        args.block,
        args.rows,
        args.entries,
        not args.keep_activations,
        args.by_row,
        tuple(form for form in args.kv_formats if form != FORMATS[0]),
    )


def default_lengths(max_position: int) -> list[int]:
    return [max_position // 8, max_position // 4, max_position // 2]


def wish_of(args: argparse.Namespace, wanted: list[int], **changes: Any) -> Wish:
    """What to collect for `wanted` lengths."""
    from .collect import Wish, parse_sources

    template = None
    if args.template is not None:
        try:
            template = args.template.read_text(encoding="utf-8")
        except OSError as error:
            raise PlannerError(
                f"{args.template}: cannot be read: {error.strerror}; name a chat template with "
                "--template FILE"
            ) from None
    fields: dict[str, Any] = {
        "lengths": tuple(wanted),
        "items": args.items,
        "seed": args.seed,
        "sink": args.sink,
        "budget": args.budget,
        "max_ce": args.max_ce,
        "template": template,
    }
    if "sources" not in changes:
        fields["sources"] = tuple(parse_sources(args.data))
    return Wish(**(fields | changes))
