"""From a model to a plan: profile, optimize, baselines, validate, pick, report.

Each step is that of its own subcommand in the folder RUN; what is done there is not
done again, so a run that was stopped goes on with the same command.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ..arguments import count, length
from ..options import add_network, add_profile, default_lengths
from ..search_options import add_request
from . import baseline, optimize, profile, validate

if TYPE_CHECKING:
    from ..network import Network
    from ..runfolder import RunFolder

#: Options that decide which plans come out.
_ASKED = (
    "density", "bounds", "extend", "on", "kv", "rules_per_layer", "grid", "losses", "hull",
    "length", "tensor_parallel", "time", "costs", "solver", "pareto", "kv_formats",
)  # fmt: skip
#: Items of a length whose needles cover the strata of depth more than once, so that
#: the curves tell of every depth; with fewer, --hull unless it is said otherwise.
DEPTHS_COVERED = 40
#: Plans of the same KV density that the chosen one is compared with.
BASELINES = ("uniform", "random", "duo", "fixed", "layer")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network(parser)
    add_profile(parser)
    add_request(parser)
    parser.set_defaults(hull=None)
    parser.add_argument(
        "--pareto",
        type=count,
        default=1,
        metavar="M",
        help="as of optimize: plans to choose from",
    )
    validate.add_scoring(parser)
    parser.add_argument(
        "--validate-at",
        type=length,
        metavar="N",
        help="tokens; default 1.5 times the longest profiled",
    )
    parser.add_argument("--validate-items", type=count, default=20, help="for each task")


def run(args: argparse.Namespace) -> int:
    from .. import network
    from ..report import write_report
    from ..runfolder import Interrupted, RunFolder

    args.by_row = args.by_row or args.length == "row"
    if args.hull is None:
        args.hull = args.items < DEPTHS_COVERED
    config = network.load_config(args.model)
    shape = network.geometry(config)
    wanted = args.lengths or default_lengths(shape["max_position"])
    at = args.validate_at or min(max(wanted) * 3 // 2, shape["max_position"])
    network.check_config(config, [*wanted, at])
    if not args.extend and args.bounds is None:
        args.extend = sorted({n for n in (at, shape["max_position"]) if n > max(wanted)})
    if args.dry_run:
        machine = profile.machine_of(args, config, max(*wanted, at))
        parts = profile.estimates(machine, args, wanted)
        # Each plan on each item; of the dense model and H2O too.
        scored = args.pareto + len(BASELINES) + len(args.baselines) + 1 + (args.h2o is not None)
        items = args.validate_items * len(args.tasks)
        parts.append(machine.score("fresh", at, items, args.budget))
        parts.append(machine.score("validate", at, items * scored))
        profile.print_estimates(parts, args.json)
        return 0
    folder = RunFolder(args.out)
    try:
        net = network.load(args.model, args.dtype, args.device, [*wanted, at])
        profile.profile(args, net, folder, wanted)
        _plans(args, folder, shape, at)
        _validate(args, net, folder, at)
    except Interrupted as reason:
        print(f"moa-plan: {reason}", file=sys.stderr)
        return 130
    finally:
        if any((folder / "profile").glob("*/summary.npz")):
            print(write_report(folder))
    return 0


def _plans(args: argparse.Namespace, folder: RunFolder, shape: dict[str, int], at: int) -> None:
    """RUN/plans by `optimize`, RUN/baselines by `baseline`."""
    from ..curves import load_profile

    model = (
        f"layers={shape['layers']},q_heads={shape['q_heads']},kv_heads={shape['kv_heads']},"
        f"head_dim={shape['head_dim']},max_length={shape['max_position']}"
    )
    options = {name: str(getattr(args, name)) for name in _ASKED}
    folder.claim("plans", options | {"profile": load_profile(folder.path).sha256, "at": at})
    common = argparse.Namespace(**vars(args))
    common.run_folder, common.model = str(folder.path), model
    first = folder / "plans/plan-1.json"
    if not folder.record().get("plans_written"):
        common.out = str(folder / "plans")
        optimize.run(common)
        folder.note(plans_written=True)
    for kind in BASELINES:
        path = folder / f"baselines/{kind}.json"
        if path.exists():
            continue
        common.kind, common.out, common.like = kind, str(path), str(first)
        common.at, common.heads, common.short = at, None, None
        baseline.run(common)


def _validate(args: argparse.Namespace, net: Network, folder: RunFolder, at: int) -> None:
    """Scores plans and baselines, and picks."""
    settings = argparse.Namespace(**vars(args))
    settings.length, settings.items = at, args.validate_items
    settings.baselines = [*args.baselines, *sorted((folder / "baselines").glob("*.json"))]
    found = validate.candidates(sorted((folder / "plans").glob("*.json")), settings)
    lines = validate.validate(settings, net, folder, found)
    validate.pick(settings, net, folder, found, lines)
