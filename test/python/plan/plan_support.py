"""Shared by the planner's tests: plan texts, profiles made up, the command line."""

import json
from pathlib import Path

import numpy as np

from moa.plan.cli import main
from moa.plan.curves import Curves, Profile

PLANS = Path(__file__).resolve().parents[2] / "Inputs" / "plans"
SMOLLM2 = "layers=30,q_heads=9,kv_heads=3,head_dim=64,max_length=8192"


def schema(more="", alphas="[[0,64]]", betas="[[0.5,0.25]]"):
    """moa-plan/1 of one layer and two heads with further members."""
    return (
        f'{{"format":"moa-plan","version":1,"alphas":{alphas},"betas":{betas}'
        + (f",{more}" if more else "")
        + "}"
    )


def make_curves(length, layers=3, q_heads=4, kv_heads=2, seed=0, rows=False, **more):
    """Curves of heads that differ: some lose only what is near, some what is far."""
    random = np.random.default_rng(seed)
    blocks = -(-length // 64)
    n = np.arange(blocks + 1)
    size = random.lognormal(0, 1, (layers, q_heads, 1))
    reach = random.uniform(0.05, 1.2, (layers, q_heads, 1)) * blocks
    curve = size * np.maximum(0, 1 - n / reach) ** 2 * (n < blocks) + 0.05 * size * (
        1 - n / blocks
    )
    by_row = None
    if rows:
        # Row block q sees q + 1 blocks: what a longer window has beyond adds nothing.
        q = np.arange(blocks)[:, None]
        part = np.maximum(0, 1 - n / (q + 1))
        by_row = size[..., None] * part**2 / blocks
        curve = by_row.sum(axis=2)
    return Curves(
        curve=curve, length=length, sink=64, block=64, items=8, kv_heads=kv_heads,
        model_config_sha256="c0" * 32, estimator="set-abs", rows=by_row, **more,
    )  # fmt: skip


def make_profile(lengths=(512, 1024), **shape):
    return Profile({n: make_curves(n, seed=n, **shape) for n in lengths}, "5a" * 32)


def write_profile(folder, lengths=(512, 1024), **shape):
    """A run folder as profiling leaves it."""
    for n in lengths:
        make_curves(n, seed=n, **shape).write(Path(folder) / f"profile/{n}/summary.npz")
    return Path(folder)


def run(capsys, *arguments):
    """(exit code, standard output, standard error) of moa-plan."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # Of argparse.
        code = stopped.code
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, *arguments):
    """The one line that a refused command prints; it must exit with 2 and print no
    result."""
    code, out, err = run(capsys, *arguments)
    assert code == 2, (code, out, err)
    assert not out and err.endswith("\n") and err.count("\n") == 1, err
    assert err.startswith("moa-plan") and "error: " in err
    return err.split("error: ", 1)[1].rstrip("\n")


def write_json(path, document):
    Path(path).write_text(json.dumps(document))
    return path
