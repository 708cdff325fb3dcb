"""Decode of ragged sequences beside equal ones of the same bytes; and one turn more.

64 sequences of lengths drawn once, and as many of one length that needs the same
bytes of keys and values, step in a graph of all layers; a record each. Then, in the
same process, what changes a cache between steps: a fork and its parent take other
rows and each gives what it gave alone, a sequence goes back by `truncate` and takes
the same rows again, one is stored in memory and restored; outputs must be equal bit
for bit. So must 20 replays of a timed step, and 20 prompts of 8192 tokens.

    python test/bench/gpu_ragged.py --artifacts DIR --output FILE

uses the artifacts `layers` and `replay_row` of gpu_artifacts.py.
"""

import argparse
import random
import sys
from pathlib import Path

import record
import torch
from gpu_model import TOLERANCE, Model, need_artifact, need_cuda
from gpu_timing import Timer

import moa

BATCH, SHORTEST, LONGEST = 64, 256, 16384
#: Room behind each prompt.
LEFT = 64
REPEATS, PROMPT = 20, 8192


def equal_length(model, lengths):
    """The length of which as many sequences need the bytes of `lengths`."""
    total = sum(model.needed_bytes(0, n) for n in lengths)
    low, high = min(lengths), max(lengths)
    while low < high:
        middle = (low + high) // 2
        if model.needed_bytes(0, middle) * len(lengths) < total:
            low = middle + 1
        else:
            high = middle
    return low


def step_us(model, timer, lengths):
    """Microseconds a layer of a step of sequences of `lengths`, the bytes that it
    needs, and the error of the longest one's last row in the first layer."""
    held = sum(model.module.kv_bytes(n + LEFT, n + LEFT)[0] for n in lengths)
    dense = model.module.kv_bytes(max(lengths), max(lengths))[1]
    cache = moa.runtime.Cache(model.module, max_bytes=int(1.04 * held) + dense + (64 << 20))
    k, v = (model.randn(max(lengths), model.kv_heads, model.dim) for _ in range(2))
    q = model.randn(max(lengths), model.q_heads, model.dim)
    out = torch.empty_like(q)
    sequences = []
    for n in lengths:
        sequence = moa.runtime.Sequence(cache, n + LEFT)
        for layer in range(model.layers):
            model.attend(cache, layer, [(sequence, q[:n], k[:n], v[:n], out[:n])])
        sequences.append(sequence)
    batch = moa.runtime.Batch(cache, len(lengths), max_length=max(lengths) + LEFT)
    make = lambda heads: model.randn(model.layers, len(lengths), 1, heads, model.dim)
    new_q, new_k, new_v = make(model.q_heads), make(model.kv_heads), make(model.kv_heads)
    new_out = torch.full_like(new_q, float("nan"))
    batch.begin(sequences, stream=model.stream())

    def all_layers():
        for layer in range(model.layers):
            batch.attend(layer, new_q[layer], new_k[layer], new_v[layer], new_out[layer],
                         stream=model.stream())  # fmt: skip

    replay = model.captured(all_layers)
    replay()
    first = new_out.clone()
    for _ in range(REPEATS - 1):
        new_out.fill_(float("nan"))
        replay()
        need_equal("a step again", new_out, first)
    i = lengths.index(max(lengths))
    n = lengths[i]
    error = model.error(
        0, n + LEFT, new_q[0, i], torch.cat([k[:n], new_k[0, i]]),
        torch.cat([v[:n], new_v[0, i]]), new_out[0, i], [n], first=n,
    )  # fmt: skip
    us = timer.repeated(replay, model.layers)
    batch.cancel()
    return us, sum(model.needed_bytes(0, n + 1) for n in lengths), error


def rows(model, cache, sequence, tokens, seed):
    """Outputs of `tokens` rows, made from `seed`, in all layers."""
    outs = []
    for layer in range(model.layers):
        generator = torch.Generator(model.device).manual_seed(1000 * seed + layer)
        q = model.randn(tokens, model.q_heads, model.dim, generator=generator)
        k, v = (
            model.randn(tokens, model.kv_heads, model.dim, generator=generator)
            for _ in range(2)
        )
        out = torch.full_like(q, float("nan"))
        model.attend(cache, layer, [(sequence, q, k, v, out)])
        outs.append(out)
    model.synchronize()
    return torch.stack(outs)


def need_equal(name, mine, other):
    """Raises AssertionError where outputs are not equal bit for bit."""
    if mine.isnan().any() or not torch.equal(mine, other):
        raise AssertionError(f"{name}: outputs differ")


def check_repeats(model):
    """The same prompt, each time by a new sequence."""
    cache = moa.runtime.Cache(model.module, max_bytes=4 << 30)
    first = rows(model, cache, moa.runtime.Sequence(cache, PROMPT), PROMPT, 5)
    for _ in range(REPEATS - 1):
        again = rows(model, cache, moa.runtime.Sequence(cache, PROMPT), PROMPT, 5)
        need_equal("a prompt again", again, first)


def check_turns(model):
    """What changes a cache between steps."""
    cache = moa.runtime.Cache(model.module, max_bytes=64 << 20, rollback_tokens=128)
    length = 1000
    alone = moa.runtime.Sequence(cache, length)
    parent = moa.runtime.Sequence(cache, length)
    first = rows(model, cache, alone, 333, 1)
    need_equal("another sequence", rows(model, cache, parent, 333, 1), first)
    fork = parent.fork()
    expected = rows(model, cache, alone, 5, 2)
    other = rows(model, cache, fork, 5, 3)
    need_equal("a parent beside its fork", rows(model, cache, parent, 5, 2), expected)
    if torch.equal(other, expected):
        raise AssertionError("a fork took other rows and gave the same outputs")
    stored = parent.snapshot()
    expected = rows(model, cache, alone, 70, 4)
    need_equal("behind the fork", rows(model, cache, parent, 70, 4), expected)
    restored = moa.runtime.Sequence.restore(cache, stored)
    need_equal("a restored sequence", rows(model, cache, restored, 70, 4), expected)
    parent.truncate(338)
    need_equal("a truncated sequence", rows(model, cache, parent, 70, 4), expected)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("build/bench/artifacts"))
    parser.add_argument("--output", type=Path, default=Path("build/bench/ragged-gpu.json"))
    parser.add_argument("--commit", help="that the artifacts and the package are of")
    args = parser.parse_args()
    need_cuda()
    torch.manual_seed(0)
    with torch.no_grad():
        check_turns(Model(need_artifact(args.artifacts, "replay_row")))
        print("forks, truncation, snapshot: equal bit for bit", flush=True)
        model, timer = Model(need_artifact(args.artifacts, "layers")), Timer()
        check_repeats(model)
        print(f"{REPEATS} prompts of {PROMPT} tokens: equal bit for bit", flush=True)
        file = record.new_file(
            "ragged-gpu", torch.cuda.get_device_name(), chip=model.chip, commit=args.commit,
            setting={"shape": "llama-3-8b", "plan": "llama-3-8b-moa.json", "layer": 16},
        )  # fmt: skip
        draw = random.Random(0)
        ragged = [int(SHORTEST * (LONGEST / SHORTEST) ** draw.random()) for _ in range(BATCH)]
        equal = [equal_length(model, ragged)] * BATCH
        worst = 0.0
        for lengths in (equal, ragged, equal, ragged):
            us, needed, error = step_us(model, timer, lengths)
            worst = max(worst, error)
            file["records"].append({
                **model.case(kind="decode", batch=BATCH, length=max(lengths), plan="moa"),
                "who": "ours", "mask": "plan", "method": "graph", "us": us,
                "shortest_tokens": min(lengths), "needed_mb": needed * 1e-6,
                "needed_tb_per_s": needed / us * 1e-6, "max_rel_err": error,
                "decoded_tokens_per_s": BATCH / (us * 1e-6 * model.layers),
            })  # fmt: skip
            print(f"{BATCH} sequences of {min(lengths)} to {max(lengths)} tokens: {us:.1f} us a"
                  f" layer, {needed * 1e-6:.0f} MB, error {error:.1e}", flush=True)  # fmt: skip
            torch.cuda.empty_cache()
        record.write(file, args.output)
    times = [found["us"] for found in file["records"]]
    ratio = min(times[0], times[2]) / min(times[1], times[3])
    print(f"tokens/s of ragged over equal: {ratio:.3f}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
