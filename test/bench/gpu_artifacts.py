"""Compiles what the GPU benchmarks run, into one folder:

    build/venv/bin/python test/bench/gpu_artifacts.py --output build/bench/artifacts

    layers.moa    32 layers that all have the rules of layer 16 of Llama-3-8B's
                  published plan: a step rotates through the pages of all of them
    one.moa       one such layer
    d64.moa       the same with heads of 64; d256.moa with 8 heads of 256 in groups of 2
    cap.moa, cap256.moa, layers_cap.moa   one.moa, d256.moa and layers.moa for a model
                  with a soft cap of 50
    dense.moa     one layer whose heads see everything (alpha = 0, beta = 1)
    replay.moa    3 small layers of short spans, length rule `request`
    replay_row.moa    the same by the rule `row`, heads of 64 in groups of 3
    replay_window.moa the same as replay.moa for a model with windows of its own
    replay_cap.moa    the same for one with a soft cap that scores reach
    ops.moa       2 such layers of a small model
    ops_window.moa    the same for a model with a window of its own in the first
    vicuna.moa, llama3.moa    the published plans of Vicuna-7B and Llama-3-8B
    vicuna_dense.moa, llama3_dense.moa    the same shapes, whose heads see everything
    kv8_16.moa    4 layers of layer 16's rules that keep bf16; kv8_e4m3.moa and
                  kv8_int8.moa the same in 8 bits
    kv8_mixed.moa     2 small layers whose KV heads keep e4m3, bf16 and int8
    kv8_mixed_row.moa the same by the rule `row`, heads of 64 in groups of 3

`--target cpu` compiles the same for the CPU, where the checks run as well.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import moa

PLANS = Path(__file__).resolve().parents[1] / "Inputs/plans"
LAYER, LAYERS = 16, 32
Q_HEADS, KV_HEADS = 32, 8
CAP = 50.0  # Gemma 2's.


def equal_layers(plan, layer, layers):
    """A plan of `layers` layers with the rules of one layer of `plan`."""
    if not 0 <= layer < len(plan["alphas"]):
        raise ValueError(f"layer {layer}: the plan has layers 0 to {len(plan['alphas']) - 1}")
    rows = {key: [plan[key][layer]] * layers for key in ("alphas", "betas")}
    return {**plan, **rows}


def dense(layers):
    """Layers whose heads see every key before them."""
    return {"alphas": [[0.0] * Q_HEADS] * layers, "betas": [[1.0] * Q_HEADS] * layers}


def short_spans(layers, heads, length_rule, windows=None):
    """Layers of short spans, some of which grow with the input and some do not. windows:
    of each layer the model's own one or None."""
    chosen = random.Random(5)
    spans = [[(chosen.choice((0, 64, 128, 192)), chosen.choice((0.0, 0.1, 0.25, 0.5)))
              for _ in range(heads)] for _ in range(layers)]  # fmt: skip
    spans[0][1] = (0, 1.0)
    own = {"window": windows} if windows else {}
    return {
        "format": "moa-plan", "version": 1, "span": {"length": length_rule, **own},
        "alphas": [[float(alpha) for alpha, _ in row] for row in spans],
        "betas": [[beta for _, beta in row] for row in spans],
    }  # fmt: skip


def published_plan(model):
    return json.loads((PLANS / f"{model}-moa.json").read_text())


#: What KV heads keep in the small layers of 8-bit KV.
MIXED = [["e4m3", 16, "int8"], ["int8", "e4m3", 16]]


def keeping(plan, formats):
    """A plan whose KV heads keep complete pages so."""
    return {"format": "moa-plan", "version": 1, **plan, "kv": {"format": formats}}


def sources():
    """Of each artifact: plan, layers, query heads, KV heads, head size, most tokens and,
    where scores have one, their soft cap."""
    published = published_plan("llama-3-8b")
    one = equal_layers(published, LAYER, 1)
    all_layers = equal_layers(published, LAYER, LAYERS)
    few = {key: [row[:8] for row in one[key]] for key in ("alphas", "betas")}
    four = {key: one[key] * 4 for key in ("alphas", "betas")}
    kv8 = {
        f"kv8_{kept}": (keeping(four, kept), 4, Q_HEADS, KV_HEADS, 128, 1 << 17)
        for kept in (16, "e4m3", "int8")
    }
    return {
        **kv8,
        "kv8_mixed": (keeping(short_spans(2, 12, "request"), MIXED), 2, 12, 3, 128, 4096),
        "kv8_mixed_row": (keeping(short_spans(2, 9, "row"), MIXED), 2, 9, 3, 64, 4096),
        "layers": (all_layers, LAYERS, Q_HEADS, KV_HEADS, 128, 1 << 17),
        "one": (one, 1, Q_HEADS, KV_HEADS, 128, 1 << 17),
        "d64": (one, 1, Q_HEADS, KV_HEADS, 64, 1 << 17),
        "d256": (few, 1, 8, 4, 256, 1 << 17),
        "cap": (one, 1, Q_HEADS, KV_HEADS, 128, 1 << 17, CAP),
        "cap256": (few, 1, 8, 4, 256, 1 << 17, CAP),
        "layers_cap": (all_layers, LAYERS, Q_HEADS, KV_HEADS, 128, 1 << 17, CAP),
        "dense": (dense(1), 1, Q_HEADS, KV_HEADS, 128, 1 << 17),
        "replay": (short_spans(3, 8, "request"), 3, 8, 2, 128, 4096),
        "replay_row": (short_spans(3, 6, "row"), 3, 6, 2, 64, 4096),
        "replay_window": (short_spans(3, 8, "request", [100, None, 333]), 3, 8, 2, 128, 4096),
        "replay_cap": (short_spans(3, 8, "request"), 3, 8, 2, 128, 4096, 2.0),
        "ops": (short_spans(2, 4, "request"), 2, 4, 2, 64, 2048),
        "ops_window": (short_spans(2, 4, "request", [100, None]), 2, 4, 2, 64, 2048),
        "vicuna": (published_plan("vicuna-7b"), 32, 32, 32, 128, 1 << 15),
        "vicuna_dense": (dense(32), 32, 32, 32, 128, 1 << 15),
        "llama3": (published, 32, Q_HEADS, KV_HEADS, 128, 1 << 15),
        "llama3_dense": (dense(32), 32, Q_HEADS, KV_HEADS, 128, 1 << 15),
    }


def build(folder, targets, names=None):
    """Compiles the named artifacts, or all; yields (name, path, seconds)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (plan, layers, q_heads, kv_heads, dim, length, *cap) in sources().items():
        if names and name not in names:
            continue
        artifact = moa.compile(
            plan,
            f"layers={layers},q_heads={q_heads},kv_heads={kv_heads},head_dim={dim}"
            + "".join(f",soft_cap={value}" for value in cap),
            targets, dtype="bf16", max_length=length, out=folder / f"{name}.moa",
        )  # fmt: skip
        yield name, artifact.path, artifact.stats["seconds"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/bench/artifacts"))
    parser.add_argument("--target", default="sm_90a,sm_80")
    parser.add_argument("--only", help=f"of {', '.join(sources())}, separated by commas")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else None
    unknown = set(names or ()) - set(sources())
    if unknown:
        parser.error(f"--only: expected names of {list(sources())}, found {sorted(unknown)}")
    for name, path, seconds in build(args.output, args.target.split(","), names):
        print(f"{name}: {path}, {path.stat().st_size} bytes, {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
