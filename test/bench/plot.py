"""Plots results of gpu_attention.py: an SVG of prefill and one of decode a file.

    python test/bench/plot.py [RESULT.json ...]

Without names, all GPU results under results/. The SVGs stand beside the JSON and
are the same for the same results. Needs matplotlib.
"""

import argparse
import sys
from pathlib import Path

import record

RESULTS = Path(__file__).resolve().parent / "results"
NAMES = {
    "ours": "ours", "cudnn": "cuDNN, dense", "flash2": "FlashAttention-2, dense",
    "flex": "FlexAttention, same mask", "jax_mosaic": "JAX Mosaic GPU, dense",
    "sdpa": "torch SDPA, dense",
}  # fmt: skip
COLOURS = {"ours": "#c0392b", "cudnn": "#2c7fb8", "flash2": "#7fcdbb", "flex": "#8856a7",
           "jax_mosaic": "#a6761d", "sdpa": "#2c7fb8"}  # fmt: skip
#: Shades of ours by method, darkest first.
SHADES = {"steps": 1.0, "graph": 0.8, "clean": 0.6, "do_bench": 0.4}
TITLES = {(128, "moa"): "plan, D = 128", (64, "moa"): "plan, D = 64",
          (128, "dense"): "every head dense, D = 128"}  # fmt: skip


def matplotlib():
    """pyplot, set up so that equal figures are equal files."""
    try:
        import matplotlib as library
    except ImportError:
        cure = "pip install matplotlib"
        raise SystemExit(f"error: expected matplotlib, found none; {cure}") from None
    library.use("svg")
    library.rcParams.update({
        "svg.hashsalt": "moa", "svg.fonttype": "none", "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False,
    })  # fmt: skip
    import matplotlib.pyplot as pyplot

    return pyplot


def save(figure, path):
    figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    # An SVG's lines may end in spaces, which a source tree does not want.
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n")
    return path


def in_order(found):
    """Names as NAMES has them."""
    found = set(found)
    return [name for name in NAMES if name in found]


def prefill(pyplot, file, path):
    """Useful TFLOP/s over N, an axis for each shape and plan."""
    methods = ("clean", "queued")
    rows = [r for r in file["records"]
            if r["kind"] == "prefill" and r.get("method") in methods]  # fmt: skip
    shapes = [key for key in TITLES if key in {(r["head_dim"], r["plan"]) for r in rows}]
    if not shapes:
        return None
    figure, axes = pyplot.subplots(
        1, len(shapes), figsize=(4.2 * len(shapes), 3.4), sharey=True, squeeze=False
    )  # fmt: skip
    for axis, shape in zip(axes[0], shapes):
        own = [r for r in rows if (r["head_dim"], r["plan"]) == shape]
        lengths = sorted({r["length"] for r in own})
        for who in in_order(r["who"] for r in own):
            line = sorted(
                (r["length"], r["useful_tflop_per_s"]) for r in own if r["who"] == who
            )
            axis.plot(
                *zip(*line), marker="o", markersize=4, color=COLOURS[who], label=NAMES[who],
                linewidth=2 if who == "ours" else 1.2,
            )  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_xticks(lengths, [str(n) for n in lengths])
        axis.minorticks_off()
        axis.set_xlabel("N, tokens")
        axis.set_title(TITLES[shape])
        axis.grid(axis="y", linewidth=0.4)
    axes[0][0].set_ylim(bottom=0)
    axes[0][0].set_ylabel("useful TFLOP/s (4 D for each pair of the mask)")
    axes[0][0].legend(frameon=False, loc="lower right")
    figure.suptitle(f"Prefill on {file['device']}, bf16", y=1.02)
    return save(figure, path)


def decode(pyplot, file, path):
    """TB/s of needed bytes for each batch: ours by each method, peers by the one
    that is nearest to a model's steps."""
    rows = [r for r in file["records"] if r["kind"] == "decode" and "us" in r]
    if not rows:
        return None
    cases = sorted({(r["batch"], r["length"]) for r in rows})
    by = {(r["who"], r["method"], r["batch"], r["length"]): r for r in rows}
    present = {(r["who"], r["method"]) for r in rows}
    bars = [("ours", method) for method in SHADES if ("ours", method) in present]
    for who in in_order(r["who"] for r in rows if r["who"] != "ours"):
        bars.append((who, "graph" if (who, "graph") in present else "clean"))
    figure, axis = pyplot.subplots(figsize=(1.2 + 1.9 * len(cases), 3.6))
    width = 0.85 / len(bars)
    for i, (who, method) in enumerate(bars):
        for place, case in enumerate(cases):
            found = by.get((who, method, *case))
            if not found:
                continue
            x = place + (i - (len(bars) - 1) / 2) * width
            axis.bar(
                x, found["needed_tb_per_s"], width * 0.95, color=COLOURS[who],
                alpha=SHADES[method] if who == "ours" else 1.0,
            )  # fmt: skip
            us = found["us"]
            axis.annotate(
                f"{us:.1f}" if us < 100 else f"{us:.0f}", (x, found["needed_tb_per_s"]),
                xytext=(0, 2), textcoords="offset points", rotation=90, ha="center",
                va="bottom", fontsize=7,
            )  # fmt: skip
        axis.bar(0, 0, color=COLOURS[who], alpha=SHADES[method] if who == "ours" else 1.0,
                 label=f"{NAMES[who]} ({method.replace('_', ' ')})")  # fmt: skip
    axis.set_xticks(range(len(cases)), [f"{b} x {n}" for b, n in cases])
    axis.set_xlabel("batch x N")
    axis.set_ylabel("TB/s of the bytes that the mask needs")
    axis.set_ylim(top=axis.get_ylim()[1] * 1.1)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axis.set_title(f"Decode of one layer on {file['device']}, bf16; figures on bars: us")
    return save(figure, path)


def plot(path, folder=None):
    """Plots a file; returns the SVGs written, beside it or to `folder`."""
    file = record.read(path)
    pyplot = matplotlib()
    folder = folder or path.parent
    written = []
    for kind in (prefill, decode):
        made = kind(pyplot, file, folder / f"{path.stem}-{kind.__name__}.svg")
        written += [made] if made else []
        pyplot.close("all")
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", type=Path)
    parser.add_argument("--output", type=Path, help="folder of the SVGs")
    args = parser.parse_args()
    for path in args.results or [
        *sorted(RESULTS.glob("attention-gpu-*.json")),
        *sorted(RESULTS.glob("decode-gpu-*.json")),
    ]:
        for made in plot(path, args.output):
            print(f"written to {made}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
