"""One HTML page about a model under a plan: spans, KV bytes and tokens/s.

Spans of each head at the lengths of --at, bytes of the KV cache over length beside a
dense one, and tokens/s beside dense SDPA: measured here as `moa bench` does, or read
from what `moa bench --json` printed (--bench), which needs no weights.
"""

from __future__ import annotations

import argparse
import json
from html import escape
from pathlib import Path
from typing import Any

from ..plan.arguments import lengths
from . import bench, models

_DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_STYLE = (
    "body { font: 15px/1.45 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em } "
    "figure { margin: 1em 0; overflow-x: auto } figcaption { color: #444 } "
    "pre { overflow-x: auto; background: #f5f5f5; padding: .8em }"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    models.add_arguments(parser)
    parser.add_argument("--at", type=lengths, metavar="N[,N..]",
                        help="lengths of the heat map; default the plan's")  # fmt: skip
    parser.add_argument("--bench", metavar="FILE", help="a record of moa bench --json")
    bench.add_measuring(parser)
    parser.add_argument("--output", "-o", default="report.html", metavar="HTML")


def run(args: argparse.Namespace) -> int:
    from ..plan.jsontext import write_atomically

    if args.bench:
        record = read_record(args.bench)
        config, choice = models.choose(args)
    else:
        loaded = models.load(args)
        config, choice = loaded.model.config.get_text_config(decoder=True), loaded.choice
        record = bench.measure_model(args, loaded)
    write_atomically(args.output, page(config, choice.plan, choice.line, args.at, record))
    print(args.output)
    return 0


def read_record(path: str) -> dict[str, Any]:
    """ValueError where a file is not a record of `moa bench`."""
    try:
        record: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        for line in record["results"]:
            for who in ("moa", bench.dense_of(record)):
                float(line[who]["prefill_tokens_per_s"] + line[who]["decode_tokens_per_s"])
        str(record["model"] + record["device"] + record["dtype"])
        if not record["results"]:
            raise KeyError("results")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a record of moa bench --json ({error!r}): write one with "
            "moa bench MODEL --json"
        ) from error
    return record


def page(
    config: Any, plan: str | dict[str, Any], line: str, at: list[int] | None,
    record: dict[str, Any],
) -> str:  # fmt: skip
    """The page as HTML; at: lengths of the heat map, None for the plan's own."""
    from ..compiler import shape_of
    from ..plan.jsontext import canonical
    from ..plan.model import parse_model_text
    from ..plan.plot import heat_map
    from ..plan.schema import load_plan, model_faults, parse_plan
    from ..plan.show import describe, lengths_of

    read = load_plan(plan) if isinstance(plan, str) else parse_plan(canonical(plan), "dense")
    shape = parse_model_text(shape_of(config))
    name = plan if isinstance(plan, str) else "dense"
    for fault in model_faults(read, shape, name):
        raise fault
    dtype = _DTYPES[record["dtype"]]
    most = config.max_position_embeddings
    shown = [n for n in at or lengths_of(read) if n <= most] or [most]
    parts = [
        f"<h1>{escape(record['model'])}</h1><p>{escape(line)}</p>",
        f"<pre>{escape(describe(read, name, shape, shown, dtype))}</pre>",
        _figure(
            heat_map(read, shown, shape.kv_heads),
            "Span of each head as a share of the length; lines part KV heads.",
        ),
        _bytes(read, shape, dtype, most),
        _speeds(record),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(record['model'])} under a plan</title><style>{_STYLE}</style></head>"
        f"<body>\n{''.join(parts)}</body></html>\n"
    )


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _bytes(plan: Any, shape: Any, dtype: str, most: int) -> str:
    """KV cache of one sequence that ends at N, over N."""
    from ..plan.density import DTYPES, dense_kv_bytes, kv_bytes
    from ..plan.plot import chart

    at = sorted({max(1, most * part // 32) for part in range(1, 33)})
    ours = [kv_bytes(plan, shape, DTYPES[dtype], n, n) / 2**20 for n in at]
    dense = [dense_kv_bytes(shape, DTYPES[dtype], n) / 2**20 for n in at]
    picture = chart(
        {"plan": (at, ours), "dense": (at, dense)},
        title=f"KV cache of one sequence, {dtype}", x="tokens", y="MiB",
    )  # fmt: skip
    return _figure(picture, f"At {most} tokens {ours[-1]:.1f} MiB, dense {dense[-1]:.1f} MiB.")


def _speeds(record: dict[str, Any]) -> str:
    from ..plan.plot import chart

    at = [line["prompt_tokens"] for line in record["results"]]
    where = f"{record['device']}, {record['dtype']}"
    dense = bench.dense_of(record)
    label = "dense SDPA" if dense == "sdpa" else f"dense, {dense}"
    text = ""
    for what in ("prefill", "decode"):
        series = {
            name: (at, [line[who][f"{what}_tokens_per_s"] for line in record["results"]])
            for name, who in (("plan", "moa"), (label, dense))
        }
        picture = chart(series, title=what, x="prompt tokens", y="tokens/s")
        text += _figure(picture, f"{what} on {where}, one sequence, medians.")
    return text
