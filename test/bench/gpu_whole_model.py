"""Decode of whole models on a GPU: generate() under a published plan beside SDPA.

Transformers' Llama in the shapes of Vicuna-7B and Llama-3-8B, random bf16 weights.
Caches are filled with random keys and values (moa.runtime.append, DynamicCache's
update), as the time of a decode step does not depend on how they came there; then
generate() makes NEW tokens a sequence, greedily. Measured by events behind the
logits of each step, host included: ours at its largest batch and at the peer's, the
peer (attn_implementation="sdpa" with DynamicCache) at its largest batch. Device
memory is all that the process holds at the end.

    python test/bench/gpu_whole_model.py --artifacts DIR --output build/bench/whole.json

uses the artifacts `vicuna` and `llama3` of gpu_artifacts.py. Every model runs in a
process of its own.
"""

import argparse
import gc
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import record
import torch
import transformers
from gpu_model import Model, need_artifact, need_cuda
from transformers.generation import LogitsProcessor

import moa
import moa.hf

#: KV heads, width of the MLP, vocabulary, rope's base.
SHAPES = {"vicuna": (32, 11008, 32000, 1e4), "llama3": (8, 14336, 128256, 5e5)}
LENGTHS = (4096, 8192, 16384)
NEW = 24
#: Kept free for activations, logits, tables and what the allocator cuts off.
RESERVE = 2 << 30
GREEDY = dict(do_sample=False, pad_token_id=0, eos_token_id=None)
#: Kernels by name; what is in none is the rest.
GROUPS = {
    "attention": r"moa|decode|prepare|fmha|flash|attention",
    "matmul": r"gemm|nvjet|cutlass|xmma|splitK|gemv",
}


def build(shape, attention):
    kv_heads, wide, vocabulary, base = SHAPES[shape]
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=4096, intermediate_size=wide, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=kv_heads, head_dim=128,
        max_position_embeddings=1 << 15, attn_implementation=attention,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


def weight_bytes(model):
    """Of the weights that a step reads: all but the embeddings."""
    embeddings = model.get_input_embeddings().weight
    return sum(w.nbytes for w in model.parameters() if w is not embeddings)


class Clock(LogitsProcessor):
    """Notes when the logits of each step are there."""

    def __init__(self):
        self.events = []

    def __call__(self, input_ids, scores):
        self.events.append(torch.cuda.Event(enable_timing=True))
        self.events[-1].record()
        return scores

    def step_us(self):
        """Median of the steps behind the first three: warm, and captured."""
        torch.cuda.synchronize()
        times = [a.elapsed_time(b) for a, b in zip(self.events[3:], self.events[4:])]
        return statistics.median(times) * 1e3


def generate(model, cache, batch, length, **more):
    """Time of a step: the sequences hold all but NEW of `length` tokens, and one more."""
    ids = torch.randint(0, 1000, (batch, length - NEW), device="cuda")
    clock = Clock()
    with torch.no_grad():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW,
            past_key_values=cache, logits_processor=[clock], **GREEDY, **more,
        )  # fmt: skip
    return clock.step_us()


def used_bytes():
    free, total = torch.cuda.mem_get_info()
    return total - free


class Ours:
    who = "ours"

    def __init__(self, shape, folder, compiled):
        self.path = need_artifact(folder, shape)
        self.model = moa.hf.load(build(shape, "sdpa"), artifact=moa.Artifact(self.path, {}))
        self.layer = Model(self.path)
        self.chip = self.layer.chip
        self.more = {}
        if compiled:
            self.who = "ours_compiled"
            self.more["compile_config"] = transformers.CompileConfig(fullgraph=True)
        self.calls = []
        make = self.model.get_compiled_call
        self.model.get_compiled_call = lambda config: self.note(make(config))

    def note(self, call):
        self.calls.append(call)
        return call

    def sequence_bytes(self, length):
        module, held = self.model.moa.module, (length - NEW - 1, length)
        return max(module.kv_bytes(length, seen)[0] for seen in held)

    def largest(self, length):
        free, _ = torch.cuda.mem_get_info()
        batch = (free - RESERVE) // self.sequence_bytes(length)
        return batch - batch % 8 if batch > 8 else batch

    def fill(self, batch, length):
        past = length - NEW - 1
        pages = moa.runtime.Cache(self.model.moa.module, batch * self.sequence_bytes(length))
        cache = moa.hf.Cache(self.model, pages=pages)
        sequences = [moa.runtime.Sequence(pages, length) for _ in range(batch)]
        k, v = (self.layer.randn(past, self.layer.kv_heads, 128) for _ in range(2))
        for layer in range(32):
            moa.runtime.append(
                pages, layer, [(s, k, v) for s in sequences], self.layer.stream()
            )
        cache.rows.sequences = sequences
        for layer in cache.layers:
            layer.columns = past
        torch.cuda.synchronize()
        return cache

    def needed_bytes(self, batch, length):
        return batch * sum(self.layer.needed_bytes(layer, length) for layer in range(32))

    def details(self, profile):
        """Time of the graph alone, and of its kernels by group."""
        decoder = self.calls[-1].decoder
        (bucket,) = decoder._buckets.values()
        assert decoder.graphs == 1, "the step was not captured"
        found, replay = {}, bucket.graph.replay
        sequences = self.sequences
        bucket.batch.begin(sequences, stream=self.layer.stream())
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        replay()
        start.record()
        for _ in range(5):
            replay()
        end.record()
        torch.cuda.synchronize()
        found["graph_us"] = start.elapsed_time(end) * 1e3 / 5
        if profile:
            found |= by_group(replay)
        bucket.batch.cancel()
        return found

    def run(self, batch, length, profile=False):
        cache = self.fill(batch, length)
        self.sequences = cache.sequences
        us = generate(self.model, cache, batch, length, **self.more)
        found = self.details(profile)
        self.calls.clear()
        held = used_bytes()
        del cache
        self.sequences = None
        clean()
        return us, held, found


class Peer:
    who, chip = "sdpa", None

    def __init__(self, shape, *_):
        self.model = build(shape, "sdpa")
        self.kv_heads = SHAPES[shape][0]

    def sequence_bytes(self, length):
        return 2 * 32 * self.kv_heads * 128 * 2 * length

    def largest(self, length):
        # A layer's new keys stand beside the old ones while they are copied.
        free, _ = torch.cuda.mem_get_info()
        return int((free - RESERVE) / (self.sequence_bytes(length) * (1 + 1.5 / 32)))

    def needed_bytes(self, batch, length):
        return batch * self.sequence_bytes(length)

    def run(self, batch, length, profile=False):
        cache = transformers.DynamicCache(config=self.model.config)
        for layer in range(32):
            k, v = (
                torch.randn(batch, self.kv_heads, length - NEW - 1, 128, device="cuda",
                            dtype=torch.bfloat16) for _ in range(2)
            )  # fmt: skip
            cache.update(k, v, layer)
            del k, v
        us = generate(self.model, cache, batch, length)
        held = used_bytes()
        del cache
        clean()
        return us, held, {}


def clean():
    gc.collect()
    torch.cuda.empty_cache()


def by_group(replay):
    """Kernel time of one replay by group."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        replay()
        torch.cuda.synchronize()
    sums = {f"{group}_us": 0.0 for group in (*GROUPS, "rest")}
    names = {}
    for event in seen.key_averages():
        us = event.device_time_total
        group = next((g for g, p in GROUPS.items() if re.search(p, event.key, re.I)), "rest")
        sums[f"{group}_us"] += us
        names[event.key[:60]] = us
    top = sorted(names.items(), key=lambda item: -item[1])[:12]
    print("; ".join(f"{name} {us:.0f} us" for name, us in top), file=sys.stderr)
    return sums


def read_bandwidth():
    """Bytes a second of the best of some reads of 8 GiB."""
    data = torch.ones(2 << 30, dtype=torch.int32, device="cuda")
    best = 0.0
    for read in (lambda: data.max(), lambda: data.view(torch.float32).sum()):
        read()
        for _ in range(3):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            read()
            end.record()
            end.synchronize()
            best = max(best, data.nbytes / (start.elapsed_time(end) * 1e-3))
    return best


def child(args):
    """Measures one model: prints a line of JSON for each case."""
    shape, who = args.child
    bandwidth = read_bandwidth()
    clean()
    begun = time.perf_counter()
    side = (Peer if who == "sdpa" else Ours)(shape, args.artifacts, who == "ours_compiled")
    weights = weight_bytes(side.model)
    print(f"{shape} {who}: ready in {time.perf_counter() - begun:.1f} s", file=sys.stderr)
    batches = json.loads(args.batches)
    for length in args.lengths:
        largest = side.largest(length)
        cases = [largest]
        if who == "ours" and str(length) in batches:
            cases.insert(0, batches[str(length)])
        for batch in cases:
            begun = time.perf_counter()
            try:
                us, held, more = side.run(batch, length, profile=batch == largest)
            except (torch.OutOfMemoryError, MemoryError) as error:
                print(f"{shape} {who} {length}: batch {batch}: {error}", file=sys.stderr)
                clean()
                batch = int(batch * 0.93)
                us, held, more = side.run(batch, length, profile=True)
            floor = (weights + side.needed_bytes(batch, length)) / bandwidth * 1e6
            print(json.dumps({
                "kind": "model", "who": side.who, "method": "median", "dtype": "bf16",
                "mask": "causal" if who == "sdpa" else "plan", "case": shape, "batch": batch,
                "length": length, "new": NEW, "us": us, "tokens_per_s": batch / us * 1e6,
                "device_bytes": held, "floor_us": floor, "fraction_of_floor": floor / us,
                "kv_bytes": batch * side.sequence_bytes(length), "weight_bytes": weights,
                "read_bytes_per_s": bandwidth, **more,
            }), flush=True)  # fmt: skip
            print(f"  {time.perf_counter() - begun:.1f} s", file=sys.stderr)
    return 0


def spawn(args, shape, who, batches):
    command = [
        sys.executable, __file__, "--child", shape, who, "--artifacts", str(args.artifacts),
        "--batches", json.dumps(batches), "--lengths", *map(str, args.lengths),
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"{shape} {who}: exit code {done.returncode}", flush=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def show(found, peers):
    """A line of the table."""
    peer = peers.get((found["case"], found["length"]))
    ratio = f"{found['tokens_per_s'] / peer['tokens_per_s']:5.2f}x" if peer else ""
    parts = "".join(
        f" {key[:-3]} {found[key] * 1e-3:.2f}"
        for key in ("graph_us", "attention_us", "matmul_us", "rest_us") if key in found
    )  # fmt: skip
    print(
        f"{found['case']:7} {found['length']:6} {found['who']:13} B={found['batch']:4}"
        f" {found['us'] * 1e-3:8.2f} ms {found['tokens_per_s']:8.0f} tok/s {ratio:6}"
        f" {found['device_bytes'] * 1e-9:6.1f} GB floor {found['fraction_of_floor']:.3f}"
        f"{parts}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("build/bench/artifacts"))
    parser.add_argument("--output", type=Path, default=Path("build/bench/whole-model.json"))
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--who", nargs="+", default=["sdpa", "ours"])
    parser.add_argument("--commit", help="of the checkout, for the record")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--batches", default="{}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    need_cuda()
    transformers.logging.set_verbosity_error()
    if args.child:
        return child(args)
    file = record.new_file(
        "model-gpu", torch.cuda.get_device_name(), commit=args.commit,
        packages=("moa", "torch", "transformers"),
        setting={"weights": "random", "layers": 32, "head_dim": 128},
    )  # fmt: skip
    peers = {}
    for shape in args.shapes:
        for who in args.who:
            batches = {r["length"]: r["batch"] for (s, _), r in peers.items() if s == shape}
            for found in spawn(args, shape, who, batches):
                if who == "sdpa":
                    peers[shape, found["length"]] = found
                file["records"].append(found)
                show(found, peers)
    print(f"written to {record.write(file, args.output)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
