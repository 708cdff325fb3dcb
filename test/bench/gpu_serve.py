"""Continuous batching (`moa.serving.Engine`) of a random model on a GPU.

    python test/bench/gpu_serve.py --compile DIR --plan PLAN       # where the compiler is
    python test/bench/gpu_serve.py --artifacts DIR --output OUT    # where the GPU is

Checks that greedy tokens in float32 are those of each request alone, then measures
tokens/s of many requests together, greedily and sampled, and of one at a time (shape
of Llama-3.2-1B, bfloat16).
"""

import argparse
import queue
import sys
import time
from pathlib import Path

import record
import torch
import transformers

import moa.hf
from moa.compiler import Artifact, compile
from moa.serving import End, Engine, Piece, Request, Sampling

SMALL = dict(
    vocab_size=499, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=64,
    max_position_embeddings=2048, initializer_range=0.3, bos_token_id=None, eos_token_id=None,
)  # fmt: skip
LARGE = dict(
    vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
    num_attention_heads=32, num_key_value_heads=8, head_dim=64,
    max_position_embeddings=16384, bos_token_id=None, eos_token_id=None,
)  # fmt: skip
SMALL_PLAN = {
    "format": "moa-plan", "version": 1,
    "alphas": [[0, 0, -64, 64], [128, 32, 0, 0]],
    "betas": [[1, 0.25, 0.5, 0.25], [0, 0.25, 0.75, 0.25]],
    "span": {"sink": 64, "block": 64, "min": 128},
}  # fmt: skip
GREEDY, SAMPLED = Sampling(temperature=0), Sampling(temperature=0.8, seed=1)
PROMPT = 1024


class Numbers:
    """A tokenizer that writes tokens as numbers."""

    eos_token_id = None

    def decode(self, ids, **_):
        return "".join(f"{token} " for token in ids)


def model(sizes, artifact, dtype):
    torch.manual_seed(0)
    with torch.device("cuda"):
        made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).to(dtype)
    return moa.hf.load(made, artifact=Artifact(artifact, {}))


def prompts(count, vocabulary, least, most):
    chance = torch.Generator().manual_seed(count)
    sizes = torch.randint(least, most + 1, (count,), generator=chance).tolist()
    return [torch.randint(0, vocabulary, (n,), generator=chance).tolist() for n in sizes]


def answers(engine, requests):
    """Tokens of each request, all under way at once."""
    ended, tokens = queue.SimpleQueue(), [[] for _ in requests]

    def sink(number, event):
        if isinstance(event, Piece):
            tokens[number].append(event.token)
        elif isinstance(event, End):
            ended.put(event)

    for number, request in enumerate(requests):
        engine.submit(request, lambda event, number=number: sink(number, event))
    for _ in requests:
        event = ended.get(timeout=300)
        if event.reason != "length":
            sys.exit(f"error: a request ended as {event}")
    return tokens


def check(folder):
    """Whether greedy tokens are those of moa.hf's generate, and all pages came back."""
    small = model(SMALL, folder / "small.moa", torch.float32)
    asked = prompts(24, SMALL["vocab_size"], 1, 900)
    with Engine(small, Numbers(), max_sequences=12) as engine:
        got = answers(engine, [Request(ids, 40, GREEDY) for ids in asked])
        left = engine.stats()["pages"]["pages_used"]
    same = 0
    for ids, tokens in zip(asked, got):
        row = torch.tensor([ids], device="cuda")
        alone = small.generate(
            row, attention_mask=torch.ones_like(row), max_new_tokens=40, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        same += alone[0, len(ids) :].tolist() == tokens
    print(f"{same} of {len(asked)} requests as each alone, {left} pages left", flush=True)
    return same == len(asked) and not left


def measure(folder, count, new):
    """Records of the phases, and whether all pages came back."""
    large, records = model(LARGE, folder / "large.moa", torch.bfloat16), []
    with Engine(large, Numbers(), max_sequences=count) as engine:
        for name, together, sampling in (
            ("warm", count, SAMPLED), ("one by one", 1, GREEDY), ("greedy", count, GREEDY),
            ("sampled", count, SAMPLED),
        ):  # fmt: skip
            asked = prompts(together, LARGE["vocab_size"], PROMPT, PROMPT)
            torch.cuda.synchronize()
            began = time.perf_counter()
            answers(engine, [Request(ids, new, sampling) for ids in asked])
            took = time.perf_counter() - began
            records.append({
                "kind": "serve", "who": "ours", "method": "wall", "mask": "plan",
                "case": name, "dtype": "bf16", "batch": together, "requests": together,
                "prompt": PROMPT, "new": new, "us": 1e6 * took,
                "tokens_per_s": together * new / took,
            })  # fmt: skip
            print(f"{name}: {together * new / took:.0f} tokens/s, {took:.2f} s", flush=True)
        left = engine.stats()["pages"]["pages_used"]
    for entry in records[2:]:
        entry["ratio_to_one_by_one"] = entry["tokens_per_s"] / records[1]["tokens_per_s"]
    return records[1:], not left


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", type=Path, metavar="DIR")
    parser.add_argument("--plan", help="of Llama-3.2-1B's shape, for --compile")
    parser.add_argument("--artifacts", type=Path, metavar="DIR")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--commit", help="of the checkout, for the record")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if args.compile:
        args.compile.mkdir(parents=True, exist_ok=True)
        for name, plan, sizes, dtype in (
            ("small", SMALL_PLAN, SMALL, "f32"), ("large", args.plan, LARGE, "bf16"),
        ):  # fmt: skip
            compile(
                plan, sizes, ["sm_90a"], dtype=dtype, out=args.compile / f"{name}.moa",
                max_length=sizes["max_position_embeddings"],
            )  # fmt: skip
        return 0
    if not torch.cuda.is_available():
        print("no CUDA device: nothing is measured")
        return 0
    same = check(args.artifacts)
    records, returned = measure(args.artifacts, args.requests, args.new)
    if args.output:
        file = record.new_file(
            "serve-gpu", torch.cuda.get_device_name(), commit=args.commit,
            packages=("moa", "torch", "transformers"),
            setting={"weights": "random", "shape": "Llama-3.2-1B"},
        )  # fmt: skip
        record.write({**file, "records": records}, args.output)
    return 0 if same and returned else 1


if __name__ == "__main__":
    sys.exit(main())
