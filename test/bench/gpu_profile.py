"""Profiling one item of a model of Llama-3-8B's sizes: time, peak memory, estimates.

The weights are random, so the influence says nothing; the work is the same. What
`moa-plan profile --dry-run` estimates stands beside what came. Exit code 1 where
one is off by more than --tolerance.
"""

import argparse
import sys
import time
from pathlib import Path

import record
import torch
import transformers
from gpu_model import need_cuda

from moa.plan.calibration import Item
from moa.plan.estimate import Machine
from moa.plan.network import DTYPES, Network
from moa.plan.profile import Settings, measure

SIZES = dict(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=32768,
    rope_theta=500000.0, tie_word_embeddings=False,
)  # fmt: skip
ANSWER = 8


def item_of(tokens, vocabulary):
    pick = torch.Generator().manual_seed(tokens)
    ids = torch.randint(vocabulary, (tokens,), generator=pick).tolist()
    return Item("needle", tokens, tuple(ids[:-ANSWER]), tuple(ids[-ANSWER:]))


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="8192,16384")
    parser.add_argument("--layers", type=int, default=SIZES["num_hidden_layers"])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--tolerance", type=float, default=0.25)
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--commit", help="of the checkout, for the record")
    args = parser.parse_args(arguments)
    need_cuda()
    lengths = [int(n) for n in args.lengths.split(",")]
    config = transformers.LlamaConfig(**(SIZES | {"num_hidden_layers": args.layers}))
    settings = Settings(rows=args.rows)
    begin = time.perf_counter()
    machine = Machine(config, settings, args.dtype, "cuda", max(lengths))
    probing = time.perf_counter() - begin
    torch.cuda.empty_cache()
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=DTYPES[args.dtype], attn_implementation="sdpa"
        )
    network = Network(model.eval().requires_grad_(False), None, "random Llama-3-8B")
    file = record.new_file(
        "plan-profile", torch.cuda.get_device_name(), commit=args.commit,
        packages=("moa", "torch", "transformers"),
        setting={"rows": args.rows, "weights": "random", "points": 2},
    )  # fmt: skip
    print(f"estimating took {probing:.1f} s")
    off = []
    for length in lengths:
        item = item_of(length, config.vocab_size)
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        measure(network, item, settings)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        peak = torch.cuda.max_memory_allocated() / 2**20
        told = machine.profile(length, 1)
        off += [told.seconds_per_item / seconds - 1, told.peak_mib / peak - 1]
        print(
            f"{length}: {seconds:.2f} s, {peak:.0f} MiB; estimated "
            f"{told.seconds_per_item:.2f} s ({off[-2]:+.0%}), {told.peak_mib:.0f} MiB "
            f"({off[-1]:+.0%})",
            flush=True,
        )
        file["records"].append(
            {"kind": "profile", "who": "ours", "method": "wall", "mask": "causal",
             "length": length, "layers": args.layers, "q_heads": 32, "kv_heads": 8,
             "head_dim": 128, "dtype": args.dtype, "us": seconds * 1e6,
             "peak_mb": peak * 2**20 / 1e6, "estimated_us": told.seconds_per_item * 1e6,
             "estimated_peak_mb": told.peak_mib * 2**20 / 1e6}
        )  # fmt: skip
    print(f"written to {record.write(file, args.output / 'plan-profile-gpu.json')}")
    return 0 if max(map(abs, off)) <= args.tolerance else 1


if __name__ == "__main__":
    sys.exit(main())
