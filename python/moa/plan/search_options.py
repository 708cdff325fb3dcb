"""What `optimize` and the searched baselines are asked for, from the command line."""

from __future__ import annotations

import argparse
import re

from .arguments import add_kv_formats, count, density, length, lengths, seconds
from .costs import load_costs
from .curves import Profile
from .errors import PlannerError
from .rules import paper_grid, read_grid
from .search import Request, TimeLimit


def bounds(text: str) -> dict[int, float]:
    """`2048=0.5,4096=0.4`."""
    found: dict[int, float] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"expected LENGTH=DENSITY, found '{part}'")
        n, d = length(key), density(value)
        if found.setdefault(n, d) != d:
            raise argparse.ArgumentTypeError(
                f"expected one bound for length {n}, found {found[n]:g} and {d:g}"
            )
    return found


def time_limit(text: str) -> tuple[int, int, float]:
    """`8192x16=350`: length, batch, microseconds."""
    match = re.fullmatch(r"([0-9]+k?)(?:x([0-9]+))?=([0-9.]+)", text)
    us = float(match[3]) if match and re.fullmatch(r"[0-9]+(\.[0-9]*)?", match[3]) else 0.0
    if match is None or us <= 0:
        raise argparse.ArgumentTypeError(
            f"expected LENGTH[xBATCH]=MICROSECONDS, such as 8192x16=350, found '{text}'"
        )
    return length(match[1]), count(match[2] or "1"), us


def rules_per_layer(text: str) -> int | None:
    if text not in ("1", "2", "none"):
        raise argparse.ArgumentTypeError(f"expected 1, 2 or none, found '{text}'")
    return None if text == "none" else int(text)


def add_request(parser: argparse.ArgumentParser) -> None:
    """The options of a search."""
    parser.add_argument(
        "--density", type=density, metavar="D",
        help="most of the dense cache at every length (default 0.5)",
    )  # fmt: skip
    parser.add_argument(
        "--bounds", type=bounds, metavar="N=D[,N=D..]", help="a density for each length"
    )
    parser.add_argument(
        "--extend", type=lengths, metavar="N[,N..]", default=[],
        help="lengths beyond the profiled ones that are bounded too; their losses are "
        "extrapolated at equal shares of the length",
    )  # fmt: skip
    parser.add_argument(
        "--on", choices=("kv", "query"), default="kv",
        help="which density is bounded (default kv: the cache's)",
    )  # fmt: skip
    parser.add_argument(
        "--kv", choices=("group", "exact"), default="group",
        help="one rule for all query heads of a KV head, or a rule for each",
    )  # fmt: skip
    parser.add_argument(
        "--rules-per-layer", type=rules_per_layer, default=2, metavar="1|2|none",
        help="most different rules in a layer (default 2)",
    )  # fmt: skip
    parser.add_argument(
        "--grid", default="default", metavar="default|paper|FILE",
        help='candidate rules; FILE: {"rules": [[alpha, beta], ..]}',
    )  # fmt: skip
    parser.add_argument(
        "--losses", choices=("auto", "signed", "sizes"), default="auto",
        help="what a window costs: the signed sum of its rows' changes, or the sum of their "
        "sizes; auto: signed where the profile has them for what is asked",
    )  # fmt: skip
    parser.add_argument(
        "--hull", action=argparse.BooleanOptionalAction, default=False,
        help="a near-full window loses at least its share of what the shortest loses: for "
        "profiles whose items cover few depths; `run` does so below 40 items a length",
    )  # fmt: skip
    parser.add_argument(
        "--length", choices=("request", "row"), default="request", help="length rule"
    )
    parser.add_argument(
        "--tensor-parallel", type=count, default=1, metavar="RANKS",
        help="each of so many ranks gets as many heads of each rule of a layer",
    )  # fmt: skip
    parser.add_argument(
        "--time", type=time_limit, action="append", default=[], metavar="N[xBATCH]=US",
        help="most microseconds of a decode step over all layers; needs --costs",
    )  # fmt: skip
    parser.add_argument("--costs", metavar="FILE", help="times of calibrate-cost")
    add_kv_formats(
        parser,
        "what a KV head may keep of complete pages, chosen with its span; densities are "
        "then those of bytes (default 16; needs a profile that measured the others)",
    )
    parser.add_argument("--solver", choices=("auto", "highs", "subgradient"), default="auto")
    parser.add_argument(
        "--time-limit", type=seconds, default=600.0, metavar="S",
        help="seconds for a solve; the best plan so far is taken then (default 600)",
    )  # fmt: skip


def request_of(args: argparse.Namespace, profile: Profile) -> Request:
    """The request; PlannerError where options contradict each other."""
    if args.density is not None and args.bounds is not None:
        raise PlannerError(
            "expected --density or --bounds, found both; name every length in --bounds, or "
            "leave it out"
        )
    if bool(args.time) != bool(args.costs):
        raise PlannerError(
            "expected --time and --costs together, found one; make a table with "
            "moa-plan calibrate-cost"
        )
    chosen = args.bounds
    if chosen is None:
        chosen = dict.fromkeys([*profile.curves, *args.extend], args.density or 0.5)
    for n in args.extend:
        if n not in chosen:
            raise PlannerError(
                f"expected a bound for every length of --extend, found none for {n}; add "
                f"{n}=DENSITY to --bounds"
            )
    grid = None
    if args.grid == "paper":
        grid = paper_grid(min(profile.curves), max(profile.curves))
    elif args.grid != "default":
        grid = read_grid(args.grid)
    table = load_costs(args.costs) if args.costs else None
    return Request(
        bounds=chosen, on=args.on, exact=args.kv == "exact",
        rules_per_layer=args.rules_per_layer, ranks=args.tensor_parallel,
        losses=args.losses, hull=args.hull, per_row=args.length == "row", grid=grid,
        times=[TimeLimit(n, batch, us, table) for n, batch, us in args.time] if table else (),
        formats=args.kv_formats,
    )  # fmt: skip
