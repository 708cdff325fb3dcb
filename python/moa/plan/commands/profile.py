"""Measure what each window of each head would cost a model.

Writes RUN/calib/N.jsonl, RUN/profile/N/item-*.npz and summary.npz, and how well
the profile predicts the loss of random windows, check.json. Killed, it loses at
most one item: the same command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

from ..arguments import add_kv_formats
from ..options import add_network, add_profile, default_lengths, settings_of, wish_of

if TYPE_CHECKING:
    from ..estimate import Estimate, Machine
    from ..network import Network
    from ..runfolder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_network(parser)
    add_profile(parser)
    add_kv_formats(
        parser,
        "formats whose losses are measured too, for plans that choose spans and bits "
        "together (default 16, which loses nothing)",
    )


def run(args: argparse.Namespace) -> int:
    from .. import network
    from ..runfolder import Interrupted, RunFolder

    config = network.load_config(args.model)
    wanted = args.lengths or default_lengths(network.geometry(config)["max_position"])
    network.check_config(config, wanted)
    if args.dry_run:
        machine = machine_of(args, config, max(wanted))
        print_estimates(estimates(machine, args, wanted), args.json)
        return 0
    folder = RunFolder(args.out)
    try:
        profile(args, network.load(args.model, args.dtype, args.device, wanted), folder, wanted)
    except Interrupted as reason:
        print(f"moa-plan: {reason}", file=sys.stderr)
        return 130
    return 0


def profile(
    args: argparse.Namespace, net: Network, folder: RunFolder, wanted: list[int]
) -> None:
    """All lengths, each with its check; results on stdout."""
    from ..profile import collector_for, profile_length

    settings = settings_of(args)
    collector = collector_for(net, wish_of(args, wanted))
    folder.note(profile=_told(args, net))
    for length in wanted:
        items, measured = profile_length(folder, collector, length, settings, args.json)
        facts: dict[str, Any] = {"length": length, "items": len(items)}
        if args.check_rules > 0:
            facts["check"] = _check(args, net, folder, length, items, measured)
        print(json.dumps(facts) if args.json else _sentence(facts))


def _told(args: argparse.Namespace, net: Network) -> dict[str, Any]:
    import torch
    import transformers

    import moa

    options = {k: str(v) for k, v in vars(args).items() if k not in ("run", "command")}
    versions = {
        "moa": moa.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    attention = {"attention": f"chunks of {args.rows} rows in torch, on {net.device}"}
    return {"options": options, "versions": versions, "model": net.identity | attention}


def _check(
    args: argparse.Namespace,
    net: Network,
    folder: RunFolder,
    length: int,
    items: Any,
    measured: Any,
) -> dict[str, Any]:
    """Compares prediction and truth on up to four items, unless that was done."""
    from ..accuracy import check, correlations
    from ..runfolder import Progress, digest, write_json

    chosen = range(min(4, len(items)))
    key = digest([args.check_rules, args.seed, [items[i].hash for i in chosen]])
    path = folder / f"profile/{length}/check.json"
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known.get("key") == key:
            found: dict[str, Any] = known["correlations"]
            return found
    pairs = []
    with Progress(
        f"check {length}", args.check_rules * len(chosen), as_json=args.json
    ) as shown:
        for pair in check(
            net, [items[i] for i in chosen], [measured[i] for i in chosen],
            settings_of(args), args.check_rules, args.seed,
        ):  # fmt: skip
            pairs.append(pair)
            shown.step()
    result = correlations(pairs)
    listed = [dataclasses.asdict(pair) for pair in pairs]
    write_json(path, {"key": key, "correlations": result, "pairs": listed})
    return result


def _sentence(facts: dict[str, Any]) -> str:
    text = f"length {facts['length']}: {facts['items']} items"
    if "check" in facts:
        signed, absolute = facts["check"]["signed"], facts["check"]["absolute"]
        text += (
            f"; {facts['check']['pairs']} random windows: predicted and true change of loss "
            f"correlate by {_shown(signed['pearson'])}, ranks {_shown(signed['spearman'])}, "
            f"sum of predictions / truth {_shown(signed['predicted_over_true'])}; sizes "
            f"alone: ranks {_shown(absolute['spearman'])}"
        )
    return text


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def machine_of(args: argparse.Namespace, config: Any, longest: int) -> Machine:
    """Times of the device that would be used."""
    from ..estimate import Machine
    from ..network import pick_device

    device = pick_device(args.device)
    return Machine(config, settings_of(args), args.dtype, device, longest)


def estimates(machine: Machine, args: argparse.Namespace, wanted: list[int]) -> list[Estimate]:
    """Of collecting and measuring the items of each length."""
    parts = []
    for n in wanted:
        parts.append(machine.score("calib", n, args.items, args.budget))
        parts.append(machine.profile(n, args.items))
    return parts


def print_estimates(parts: list[Estimate], as_json: bool) -> None:
    """What each part and all of them would take on this machine."""
    from ..runfolder import clock

    for part in parts:
        if as_json:
            print(json.dumps(dataclasses.asdict(part)))
        else:
            print(
                f"{part.what} {part.length}: {part.items} items, about "
                f"{part.seconds_per_item:.1f} s each, "
                f"{clock(part.items * part.seconds_per_item)} in all, {part.peak_mib:.0f} MiB"
            )
    if not as_json:
        total = sum(part.items * part.seconds_per_item for part in parts)
        print(f"about {clock(total)} in all, at the speed that was measured now")
