"""Decode of whole models on a GPU: generate() under a published plan beside SDPA.

Transformers' Llama in the shapes of Vicuna-7B and Llama-3-8B, random bf16 weights,
which all sides share. Caches are filled with random keys and values
(moa.runtime.append, DynamicCache's update), as the time of a decode step does not
depend on how they came there; then generate() makes NEW tokens a sequence, greedily.
Measured by events behind the logits of each step, host included, after rows of
three layers were checked against float64:

    sdpa           attn_implementation="sdpa" with DynamicCache
    ours           under the published plan; also at the batch of `sdpa`
    ours_dense     a dense paged engine: the same code and kernels under a plan that
                   keeps everything
    ours_compiled  `ours`, its layers made by torch.compile before they are captured

each at its largest batch. Device memory is all that the process holds at the end.

    python test/bench/gpu_whole_model.py --artifacts DIR --output build/bench/whole.json

uses the artifacts `vicuna`, `llama3`, `vicuna_dense` and `llama3_dense` of
gpu_artifacts.py. Every shape runs in a process of its own; the file is written after
each measurement.
"""

import argparse
import copy
import gc
import json
import re
import statistics
import subprocess
import sys
import time
import traceback
from pathlib import Path

import record
import torch
import transformers
from gpu_model import TOLERANCE, Model, need_artifact, need_cuda
from transformers.generation import LogitsProcessor

import moa
import moa.hf
import moa.ops

#: KV heads, width of the MLP, vocabulary, rope's base.
SHAPES = {"vicuna": (32, 11008, 32000, 1e4), "llama3": (8, 14336, 128256, 5e5)}
LENGTHS = (4096, 8192, 16384)
WHO = ("sdpa", "ours", "ours_dense", "ours_compiled")
NEW = 16
#: Kept free for activations, logits, tables and what the allocator cuts off.
RESERVE = 2 << 30
GREEDY = dict(do_sample=False, pad_token_id=0, eos_token_id=None)
#: Kernels by name; what is in none is the rest.
GROUPS = {
    "attention": r"moa|decode|prepare|fmha|flash|attention",
    "matmul": r"gemm|nvjet|cutlass|xmma|splitK|gemv",
}


def build(shape):
    kv_heads, wide, vocabulary, base = SHAPES[shape]
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=4096, intermediate_size=wide, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=kv_heads, head_dim=128,
        max_position_embeddings=1 << 15, attn_implementation="sdpa",
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = transformers.LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


def twin(model):
    """Another model of the same weights."""
    shared = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


def weight_bytes(model):
    """Of the weights that a step reads: all but the embeddings."""
    embeddings = model.get_input_embeddings().weight
    return sum(w.nbytes for w in model.parameters() if w is not embeddings)


class Clock(LogitsProcessor):
    """Notes when the logits of each step are there."""

    def __init__(self):
        self.events, self.host = [], []

    def __call__(self, input_ids, scores):
        self.events.append(torch.cuda.Event(enable_timing=True))
        self.events[-1].record()
        self.host.append(time.perf_counter())
        return scores

    def step_us(self):
        """Median of the steps behind the first three: warm, and captured."""
        torch.cuda.synchronize()
        times = [a.elapsed_time(b) for a, b in zip(self.events[3:], self.events[4:])]
        return statistics.median(times) * 1e3

    def first_s(self):
        """Of the first step behind the prompt, which torch.compile works in."""
        return self.host[1] - self.host[0]


def generate(model, cache, batch, length, **more):
    """Its clock: sequences hold all but NEW of `length` tokens when it begins."""
    ids = torch.randint(0, 1000, (batch, length - NEW), device="cuda")
    clock = Clock()
    with torch.no_grad():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW,
            past_key_values=cache, logits_processor=[clock], **GREEDY, **more,
        )  # fmt: skip
    return clock


def used_bytes():
    free, total = torch.cuda.mem_get_info()
    return total - free


class Ours:
    """The model under the plan of an artifact."""

    def __init__(self, model, path, compiled=False):
        self.model = moa.hf.load(twin(model), artifact=moa.Artifact(path, {}))
        self.layer = Model(path)
        self.compiled = compiled
        self.decoding = None
        make = self.model.get_compiled_call
        self.model.get_compiled_call = lambda config: self.note(make(config))

    def note(self, decoding):
        self.decoding = decoding
        return decoding

    def sequence_bytes(self, length):
        module, held = self.model.moa.module, (length - NEW - 1, length)
        return max(module.kv_bytes(length, seen)[0] for seen in held)

    def largest(self, length):
        free, _ = torch.cuda.mem_get_info()
        return (free - RESERVE) // self.sequence_bytes(length)

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

    def check(self, length):
        """Largest error of the last row of three layers against float64."""
        layer, past, stream = self.layer, length - 1, self.layer.stream()
        pages = moa.runtime.Cache(self.model.moa.module, self.sequence_bytes(length))
        sequence = moa.runtime.Sequence(pages, length)
        q = layer.randn(1, 1, layer.q_heads, 128)
        k, v = (layer.randn(length, layer.kv_heads, 128) for _ in range(2))
        for number in range(32):
            moa.runtime.append(pages, number, [(sequence, k[:past], v[:past])], stream)
        batch = moa.ops.Batch(pages, 1)
        batch.begin([sequence], stream=stream)
        new = (k[None, past:], v[None, past:])
        out = [moa.ops.decode(batch.handle, q, *new, number) for number in range(32)]
        batch.end()
        worst = max(
            layer.error(number, length, q[0], k, v, out[number][0], [past], first=past)
            for number in (0, 16, 31)
        )
        if not worst <= TOLERANCE:
            raise AssertionError(f"error {worst:.2g}, expected at most {TOLERANCE}")
        return {"max_rel_err": worst}

    def needed_bytes(self, batch, length):
        return batch * sum(self.layer.needed_bytes(layer, length) for layer in range(32))

    def details(self, sequences, profile):
        """Time of the graph alone, and of its kernels by group."""
        decoder = self.decoding.decoder
        (bucket,) = decoder._buckets.values()
        assert decoder.graphs == 1, "the step was not captured"
        found, replay = {}, bucket.graph.replay
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

    def run(self, batch, length, profile):
        """Time of a step, device memory, and what else there is to tell."""
        more, cache = {}, self.fill(batch, length)
        if self.compiled:
            more["compile_config"] = transformers.CompileConfig(fullgraph=True)
        clock = generate(self.model, cache, batch, length, **more)
        found = self.details(cache.sequences, profile)
        if self.compiled:
            found["compile_s"] = clock.first_s()
        self.decoding, held = None, used_bytes()
        return clock.step_us(), held, found


class Peer:
    """The model as it is."""

    def __init__(self, model):
        self.model = twin(model)
        self.kv_heads = model.config.num_key_value_heads

    def sequence_bytes(self, length):
        return 2 * 32 * self.kv_heads * 128 * 2 * length

    def largest(self, length):
        # A layer's new keys stand beside the old ones while they are copied.
        free, _ = torch.cuda.mem_get_info()
        return int((free - RESERVE) / (self.sequence_bytes(length) * (1 + 1.5 / 32)))

    def check(self, length):
        return {}

    def needed_bytes(self, batch, length):
        return batch * self.sequence_bytes(length)

    def run(self, batch, length, profile):
        cache = transformers.DynamicCache(config=self.model.config)
        for layer in range(32):
            k, v = (
                torch.randn(batch, self.kv_heads, length - NEW - 1, 128, device="cuda",
                            dtype=torch.bfloat16) for _ in range(2)
            )  # fmt: skip
            cache.update(k, v, layer)
            del k, v
        return generate(self.model, cache, batch, length).step_us(), used_bytes(), {}


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
        names[f"{event.key[:60]} x{event.count}"] = us
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


def fitting(side, batch, length, profile):
    """`run` of a side at this batch, or at one that fits where this does not."""
    while True:
        clean()
        try:
            return batch, *side.run(batch, length, profile)
        except (torch.OutOfMemoryError, MemoryError) as error:
            print(f"batch {batch} of {length} tokens: {error}", file=sys.stderr)
        batch -= -(-batch // 32)


def child(args):
    """Measures one shape; prints a line of JSON for each case."""
    shape = args.child
    bandwidth = read_bandwidth()
    clean()
    model = build(shape)
    weights = weight_bytes(model)
    artifact, dense = (
        need_artifact(args.artifacts, name) for name in (shape, f"{shape}_dense")
    )
    make = {
        "sdpa": lambda: Peer(model),
        "ours": lambda: Ours(model, artifact),
        "ours_dense": lambda: Ours(model, dense),
        "ours_compiled": lambda: Ours(model, artifact, compiled=True),
    }
    sides = {who: make[who]() for who in args.who}
    for length in args.lengths:
        peer = None
        for who, side in sides.items():
            case = {
                "kind": "model", "who": who, "method": "median", "dtype": "bf16",
                "mask": "causal" if who in ("sdpa", "ours_dense") else "plan",
                "case": shape, "length": length, "new": NEW,
            }  # fmt: skip
            clean()
            largest = side.largest(length)
            try:
                checked = side.check(length)
                equal = [peer] if who == "ours" and peer else []
                for batch in [*args.batches, *equal, largest]:
                    begun = time.perf_counter()
                    batch, us, held, more = fitting(side, batch, length, batch == largest)
                    floor = (weights + side.needed_bytes(batch, length)) / bandwidth * 1e6
                    print(json.dumps({
                        **case, "batch": batch, "us": us, "tokens_per_s": batch / us * 1e6,
                        "device_bytes": held, "floor_us": floor,
                        "fraction_of_floor": floor / us,
                        "kv_bytes": batch * side.sequence_bytes(length),
                        "weight_bytes": weights, "read_bytes_per_s": bandwidth,
                        **checked, **more,
                    }), flush=True)  # fmt: skip
                    print(f"  {time.perf_counter() - begun:.1f} s", file=sys.stderr)
                    if who == "sdpa":
                        peer = batch  # In the end the largest.
            except Exception as error:  # The others are worth having.
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}".split("\n")[0][:200]
                print(json.dumps({**case, "skipped": reason}), flush=True)
    return 0


def spawn(args, shape):
    """Records of a shape, as they come."""
    command = [
        sys.executable, __file__, "--child", shape, "--artifacts", str(args.artifacts),
        "--who", *args.who, "--lengths", *map(str, args.lengths),
        "--batches", *map(str, args.batches),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout:
            if line.startswith("{"):
                yield json.loads(line)
    if running.returncode:
        print(f"{shape}: exit code {running.returncode}", flush=True)


def show(found, others):
    """A line of the table, with tokens/s beside those of `others` at the largest batch."""
    head = f"{found['case']:7} {found['length']:6} {found['who']:13}"
    if "skipped" in found:
        print(f"{head} {found['skipped']}", flush=True)
        return
    ratios = "".join(
        f" {found['tokens_per_s'] / other['tokens_per_s']:5.2f}x {who}"
        for who, other in others.items() if who in ("sdpa", "ours_dense")
    )  # fmt: skip
    parts = "".join(
        f" {key[:-3]} {found[key] * 1e-3:.2f}"
        for key in ("graph_us", "attention_us", "matmul_us", "rest_us") if key in found
    )  # fmt: skip
    compiled = f" compiled in {found['compile_s']:.0f} s" if "compile_s" in found else ""
    print(
        f"{head} B={found['batch']:4}"
        f" {found['us'] * 1e-3:8.2f} ms {found['tokens_per_s']:8.0f} tok/s{ratios}"
        f" {found['device_bytes'] * 1e-9:6.1f} GB floor {found['fraction_of_floor']:.3f}"
        f"{parts}{compiled}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifacts", type=Path, default=Path("build/bench/artifacts"))
    parser.add_argument("--output", type=Path, default=Path("build/bench/whole-model.json"))
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument(
        "--batches", nargs="*", type=int, default=[], help="besides the largest"
    )
    parser.add_argument("--who", nargs="+", default=list(WHO), choices=WHO)
    parser.add_argument("--commit", help="of the checkout, for the record")
    parser.add_argument("--child", choices=SHAPES, help=argparse.SUPPRESS)
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
    for shape in args.shapes:
        latest = {length: {} for length in args.lengths}
        for found in spawn(args, shape):
            file["records"].append(found)
            record.write(file, args.output)
            at = latest[found["length"]]
            if "skipped" not in found:
                at[found["who"]] = found
            show(found, at)
    print(f"written to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
