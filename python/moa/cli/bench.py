"""Measure a model under a plan beside transformers' dense SDPA, in one process.

A model with soft caps on its scores, which SDPA does not have, is measured beside its
eager attention. For each prompt length: prefill and decode tokens/s (medians of runs that
take turns; steps are made as generate() makes them) and bytes of the KV cache. --json
prints one object, units in the names of its keys; it also has the processor time of the
process (all its threads), which tells more than the clock where other work runs beside.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from ..plan.arguments import count, lengths
from . import models
from .progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

#: Steps ahead of those that are timed: on a GPU the second captures a graph.
WARM = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    models.add_arguments(parser)
    add_measuring(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def add_measuring(parser: argparse.ArgumentParser) -> None:
    """What is measured; `moa report` has it too."""
    parser.add_argument("--lengths", type=lengths, default=[512, 2048], metavar="N[,N..]",
                        help="prompt tokens; default 512,2k")  # fmt: skip
    parser.add_argument("--new", type=count, default=32, metavar="M",
                        help="tokens decoded behind the prompt; default 32")  # fmt: skip
    parser.add_argument("--repeat", type=count, default=3, metavar="R", help="default 3")


def run(args: argparse.Namespace) -> int:
    record = measure_model(args, models.load(args))
    if args.json:
        print(json.dumps(record))
    else:
        print_table(record)
    return 0


def measure_model(args: argparse.Namespace, loaded: models.Loaded) -> dict[str, Any]:
    """The record of all lengths asked for."""
    import torch
    import transformers

    most = loaded.model.moa.info["max_length"]
    if max(args.lengths) + WARM + args.new > most:
        raise ValueError(
            f"{max(args.lengths)} prompt tokens and {WARM} + {args.new} new ones exceed the "
            f"model's {most}: ask for less by --lengths or --new"
        )
    model = loaded.model
    dense = "eager" if model.moa.info["soft_cap"] else "sdpa"
    record: dict[str, Any] = {
        "model": loaded.name,
        "plan": loaded.choice.line,
        "plan_id": loaded.plan_id,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention_threads": args.threads or os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "new_tokens": args.new,
        "repeats": args.repeat,
        "dense": dense,
        "results": [],
    }
    with Progress("measuring") as progress:
        for at, prompt in enumerate(args.lengths):
            record["results"].append(measure(model, dense, prompt, args.new, args.repeat))
            progress.share = (at + 1) / len(args.lengths)
    return record


def measure(model: Any, dense: str, prompt: int, new: int, repeat: int) -> dict[str, Any]:
    """One length, beside the attention that transformers calls `dense`; the methods take
    turns, so that both meet the same machine."""
    import torch

    generator = torch.Generator().manual_seed(prompt)
    ids = torch.randint(
        0, model.config.get_text_config().vocab_size, (1, prompt), generator=generator
    )
    ids = ids.to(model.device)
    runs: dict[str, list[dict[str, Any]]] = {"moa": [], dense: []}
    for name in runs:
        one_run(model, name, ids[:, :64], 1)
    for _ in range(repeat):
        for name, times in runs.items():
            times.append(one_run(model, name, ids, new))
    result: dict[str, Any] = {"prompt_tokens": prompt}
    for name, times in runs.items():
        middle = {key: statistics.median(run[key] for run in times) for key in times[0]}
        result[name] = {
            "prefill_tokens_per_s": prompt / middle["prefill_s"],
            "decode_tokens_per_s": new / middle["decode_s"],
            "prefill_cpu_s": middle["prefill_cpu_s"],
            "decode_cpu_ms_per_token": 1e3 * middle["decode_cpu_s"] / new,
            "kv_bytes": times[0]["kv_bytes"],
        }
    return result


def one_run(model: Any, name: str, ids: Tensor, new: int) -> dict[str, Any]:
    """Seconds of the prompt and of `new` tokens behind it, WARM more ahead of these;
    bytes at the end.
    """
    import torch
    import transformers

    import moa.hf
    from moa.hf.graph import decoding

    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        cache: Any
        if name == "moa":
            cache = moa.hf.Cache(model)
            cache.expect([ids.shape[1] + WARM + new])
            step = decoding(model)
        else:
            cache = transformers.DynamicCache(config=model.config)
            step = model
        with torch.inference_mode():
            began = _now(model)
            _feed(model, ids, cache)
            read = _now(model)
            for _ in range(WARM):
                _feed(step, ids[:, :1], cache)
            middle = _now(model)
            for _ in range(new):
                _feed(step, ids[:, :1], cache)
            ended = _now(model)
    finally:
        model.set_attn_implementation(before)
    return {
        "prefill_s": read[0] - began[0],
        "decode_s": ended[0] - middle[0],
        "prefill_cpu_s": read[1] - began[1],
        "decode_cpu_s": ended[1] - middle[1],
        "kv_bytes": _bytes(cache),
    }


def _feed(step: Any, ids: Tensor, cache: Any) -> None:
    step(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)


def _now(model: Any) -> tuple[float, float]:
    """Seconds of the clock and of the processor, when all work until now is done."""
    if model.device.type == "cuda":
        import torch

        torch.cuda.synchronize(model.device)
    return time.perf_counter(), time.process_time()


def _bytes(cache: Any) -> int:
    """Of the keys and values that a cache holds."""
    held = getattr(cache, "kv_bytes", None)
    if held is not None:
        return int(held)
    return sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))


def dense_of(record: dict[str, Any]) -> str:
    """What a record measured beside."""
    return str(record.get("dense", "sdpa"))


def print_table(record: dict[str, Any]) -> None:
    dense_name = dense_of(record)
    print(f"{record['model']} on {record['device']}, {record['dtype']}, {record['plan']}")
    print(f"{'':>8}  {'prefill tokens/s':^23}  {'decode tokens/s':^23}  {'KV MiB':^21}")
    print(f"{'prompt':>8}" + 3 * f"  {'moa':>7} {dense_name:>7} {'ratio':>7}")
    for line in record["results"]:
        text = f"{line['prompt_tokens']:8}"
        for key, unit in (
            ("prefill_tokens_per_s", 1), ("decode_tokens_per_s", 1), ("kv_bytes", 2**20)
        ):  # fmt: skip
            ours, dense = line["moa"][key] / unit, line[dense_name][key] / unit
            text += f"  {ours:7.1f} {dense:7.1f} {ours / dense:7.2f}"
        print(text)
    sys.stdout.flush()
