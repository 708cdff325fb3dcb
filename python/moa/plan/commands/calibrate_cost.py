"""Time decode on this machine by span: the table that optimize --costs takes.

For each span a plan in which all heads of one layer have it is compiled and run. The
result is one file for all lengths and batches; it holds for the shape and type it was
made with.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ... import programs
from ..arguments import add_model, count, lengths
from ..errors import PlannerError
from ..jsontext import canonical, write_atomically
from ..model import ModelShape, load_model
from ..schema import make_plan

#: Tokens decoded for one measurement.
STEPS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, required=True)
    parser.add_argument(
        "--at", type=lengths, required=True, metavar="N[,N..]", help="total lengths in tokens"
    )
    parser.add_argument("--batch", type=lengths, default=[1], metavar="B[,B..]")
    parser.add_argument(
        "--spans", type=lengths, metavar="S[,S..]",
        help="spans in tokens; default: powers of two from 128, and each length itself",
    )  # fmt: skip
    parser.add_argument("--dtype", choices=("bf16", "f16", "f32"), default="bf16")
    parser.add_argument("--device", default="cpu", help="as moa-run takes it (default cpu)")
    parser.add_argument("--threads", type=count, help="of the CPU (default: one a core)")
    parser.add_argument("--out", required=True, metavar="FILE")


def run(args: argparse.Namespace) -> int:
    model = load_model(args.model)
    least = min(args.at)
    if least <= 128 + STEPS:
        raise PlannerError(
            f"expected lengths above {128 + STEPS}, found {least}; time a length that is served"
        )
    wanted = args.spans or [128 << i for i in range(24)]
    spans = sorted({s for s in wanted if s < max(args.at)} | set(args.at))
    rows = []
    with tempfile.TemporaryDirectory(prefix="moa-plan-") as folder:
        for span in spans:
            artifact = _compile(Path(folder), model, span, args)
            for n in (n for n in args.at if span <= n):
                for batch in args.batch:
                    us = _decode_us(artifact, n, batch, args)
                    rows.append([span, n, batch, us])
                    print(f"span {span} at {n}, batch {batch}: {us:.1f} us", file=sys.stderr)
    device = platform.processor() or platform.machine()
    table = {
        "format": "moa-costs", "version": 1, "kv_heads": model.kv_heads, "rows": rows,
        "device": device if args.device == "cpu" else args.device,
    }  # fmt: skip
    write_atomically(args.out, canonical(table))
    print(f"{args.out}: {len(rows)} times")
    return 0


def _run(name: str, *arguments: object) -> str:
    program = programs.find(name)
    if program is None:
        raise PlannerError(
            f"expected the program {name}, found none; run `make build`, or install the wheel"
        )
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise PlannerError(f"{name} failed: {said}; mend what it names")
    return done.stdout


def _compile(folder: Path, model: ModelShape, span: int, args: argparse.Namespace) -> Path:
    """An artifact of one layer whose heads all have this span."""
    shape = (1, model.q_heads)
    make_plan(np.full(shape, span), np.zeros(shape)).write(folder / "plan.json")
    one = (
        f"layers=1,q_heads={model.q_heads},kv_heads={model.kv_heads},"
        f"head_dim={model.head_dim},max_length={max(args.at)}"
    )
    if model.soft_cap:
        one += f",soft_cap={model.soft_cap}"
    target = ("--target", "cpu") if args.device == "cpu" else ()
    artifact = folder / f"{span}.moa"
    _run("moa-compile", folder / "plan.json", "--model", one, "--dtype", args.dtype, *target,
         "-o", artifact)  # fmt: skip
    return artifact


def _decode_us(artifact: Path, n: int, batch: int, args: argparse.Namespace) -> float:
    """Median time of a decode step of the layer, microseconds."""
    threads = ("--threads", args.threads) if args.threads else ()
    case = ("--device", args.device, "--batch", batch, "--prompt", n - STEPS, "--new", STEPS)
    told = json.loads(_run("moa-run", artifact, "--bench", "--json", *case, *threads))
    return float(told["decode"]["ms"]) * 1e3
