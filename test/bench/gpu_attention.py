"""Attention of one layer on a CUDA device, beside what torch offers.

Shape and plan: Llama-3-8B (32 query heads, 8 KV heads, head size 128), layer 16
of its published plan, bf16. One call of `moa.runtime.attend` (tables to the
device, append, attention) is captured in a CUDA graph, so that no host time is
in the figures, and replayed beside dense causal cuDNN and FlashAttention-2 on
the same inputs, in the same process. Outputs are checked against float64 rows
first. Useful FLOPs are 4 * D * visible pairs; needed bytes count, per KV head,
the longest span of its group.

Two ways of timing, both medians over the device's events: `ms` flushes the L2
cache by reading another buffer; `do_bench_ms` is triton's, whose flush writes and
leaves the timed kernel to pay for the write-back.

Needs torch and triton with CUDA, and the package `moa`. With --artifact an
artifact that was compiled elsewhere is used: of the plan, for sm_90a, bf16, with
--max-length 131072.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from triton.testing import do_bench

import moa

PLAN = Path(__file__).resolve().parents[1] / "Inputs/plans/llama-3-8b-moa.json"
HQ, HKV, D, LAYER = 32, 8, 128, 16
GROUP = HQ // HKV
TOLERANCE = 8e-3


class Timer:
    """Times device work."""

    def __init__(self):
        self.flush = torch.ones(128 << 20, dtype=torch.int32, device="cuda")

    def clean(self, run, repeats=30):
        """Median milliseconds with a cache that holds other, clean lines."""
        taken = []
        for _ in range(repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.flush.max()
            self.flush.max()
            start.record()
            run()
            end.record()
            end.synchronize()
            taken.append(start.elapsed_time(end))
        return statistics.median(taken)

    def both(self, run):
        run()
        torch.cuda.synchronize()
        flushed = do_bench(run, warmup=30, rep=120, return_mode="median")
        return {"ms": self.clean(run), "do_bench_ms": flushed}


def randn(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


class Layer:
    """Layer 16 of an artifact on the device."""

    def __init__(self, artifact):
        self.context = moa.runtime.Context(device="cuda")
        self.module = moa.runtime.Module(self.context, str(artifact))
        self.rules = [self.module.rule(LAYER, head) for head in range(HQ)]
        self.sink = self.rules[0].sink

    def attend(self, cache, entries):
        stream = torch.cuda.current_stream().cuda_stream
        moa.runtime.attend(cache, LAYER, entries, stream=stream)

    def captured(self, cache, entries):
        """A graph of one call."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.attend(cache, entries)
        return graph

    def visible(self, length, head, rows):
        """Keys that each of `rows` sees, as float64."""
        local = self.rules[head].local(length)
        start = torch.clamp(rows + 1 - local, min=0)
        behind = (rows + 1 - start) + torch.clamp(rows + 1, max=self.sink)
        return torch.where(start <= self.sink, rows + 1, behind)

    def error(self, length, q, k, v, out, rows, first=0):
        """Largest error of rows against float64, relative to the row's norm;
        q and out begin at row `first`."""
        worst = 0.0
        keys = torch.arange(length, device="cuda")
        for row in rows:
            for head in range(0, HQ, 5):
                start = max(0, row + 1 - self.rules[head].local(length))
                seen = (keys <= row) & ((keys < self.sink) | (keys >= start))
                own = k[seen, head // GROUP].double()
                p = torch.softmax(own @ q[row - first, head].double() / math.sqrt(D), 0)
                want = p @ v[seen, head // GROUP].double()
                got = out[row - first, head].double()
                worst = max(worst, float((got - want).norm() / want.norm()))
        return worst


def bench_prefill(layer, timer, length):
    q, k, v = randn(length, HQ, D), randn(length, HKV, D), randn(length, HKV, D)
    out = torch.full_like(q, float("nan"))
    cache = moa.runtime.Cache(layer.module, max_bytes=4 << 30)
    # A first sequence brings the memory that a second one's capture finds.
    warm = moa.runtime.Sequence(cache, length)
    layer.attend(cache, [(warm, q, k, v, out)])
    torch.cuda.synchronize()
    del warm
    out.fill_(float("nan"))
    sequence = moa.runtime.Sequence(cache, length)
    graph = layer.captured(cache, [(sequence, q, k, v, out)])
    graph.replay()
    torch.cuda.synchronize()
    rows = [0, 63, 64, 127, 128, length // 3, length // 2 + 1, length - 1]
    error = layer.error(length, q, k, v, out, rows)
    error = math.inf if out.isnan().any() else error
    positions = torch.arange(length, dtype=torch.float64)
    pairs = sum(float(layer.visible(length, h, positions).sum()) for h in range(HQ))
    useful, dense = 4 * D * pairs, 4 * D * HQ * length * (length + 1) / 2

    row = {"kind": "prefill", "length": length, "max_rel_err": error,
           "density": useful / dense, "ours": timer.both(graph.replay)}  # fmt: skip
    row["ours"]["useful_tflop_per_s"] = useful / row["ours"]["ms"] * 1e-9
    heads_first = [t.transpose(0, 1)[None].contiguous() for t in (q, k, v)]
    backends = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash2": SDPBackend.FLASH_ATTENTION}
    for name, backend in backends.items():
        expanded = [heads_first[0]] + [
            t.repeat_interleave(GROUP, 1).contiguous() for t in heads_first[1:]
        ]
        with sdpa_kernel(backend):
            run = lambda t=expanded: F.scaled_dot_product_attention(*t, is_causal=True)
            row[name] = timer.both(run)
        row[name]["tflop_per_s"] = dense / row[name]["ms"] * 1e-9
        del expanded
    row["rate_over_cudnn"] = row["ours"]["useful_tflop_per_s"] / row["cudnn"]["tflop_per_s"]
    row["speedup_over_cudnn"] = row["cudnn"]["ms"] / row["ours"]["ms"]
    return row


def bench_decode(layer, timer, batch, length):
    cache = moa.runtime.Cache(layer.module, max_bytes=24 << 30)
    k, v = randn(length, HKV, D), randn(length, HKV, D)
    past = length - 1
    sequences = []
    for _ in range(batch):
        sequence = moa.runtime.Sequence(cache, length)
        chunk = randn(past, HQ, D)
        layer.attend(cache, [(sequence, chunk, k[:past], v[:past], torch.empty_like(chunk))])
        sequences.append(sequence)
    q = randn(batch, 1, HQ, D)
    out = torch.full_like(q, float("nan"))
    step = [(s, q[i], k[past:], v[past:], out[i]) for i, s in enumerate(sequences)]
    torch.cuda.synchronize()
    graph = layer.captured(cache, step)
    graph.replay()
    torch.cuda.synchronize()
    error = max(layer.error(length, q[i], k, v, out[i], [past], first=past)
                for i in {0, batch - 1})  # fmt: skip
    error = math.inf if out.isnan().any() else error
    last = torch.tensor([float(past)], dtype=torch.float64)
    keys = sum(
        max(float(layer.visible(length, g * GROUP + i, last)) for i in range(GROUP))
        for g in range(HKV)
    )
    needed = 2 * keys * D * 2 * batch
    row = {"kind": "decode", "batch": batch, "length": length, "max_rel_err": error,
           "needed_mb": needed * 1e-6, "ours": timer.both(graph.replay)}  # fmt: skip
    row["ours"]["needed_tb_per_s"] = needed / row["ours"]["ms"] * 1e-9
    dense_q = randn(batch, HQ, 1, D)
    dense_k, dense_v = randn(batch, HKV, length, D), randn(batch, HKV, length, D)
    packed = dense_q.view(batch, HKV, GROUP, D)
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]):
        run = lambda: F.scaled_dot_product_attention(packed, dense_k, dense_v)
        row["sdpa_packed"] = timer.both(run)
    row["speedup_over_sdpa"] = row["sdpa_packed"]["ms"] / row["ours"]["ms"]
    return row


def describe(row):
    ours, error = row["ours"], f"error {row['max_rel_err']:.1e}"
    if row["kind"] == "prefill":
        cudnn = row["cudnn"]
        return (
            f"prefill N={row['length']:<6} ours {ours['ms']:7.3f} ms"
            f" {ours['useful_tflop_per_s']:4.0f} useful TFLOP/s"
            f"  cuDNN {cudnn['ms']:7.3f} ms {cudnn['tflop_per_s']:4.0f}"
            f"  FA2 {row['flash2']['tflop_per_s']:4.0f}"
            f"  rate {row['rate_over_cudnn']:.2f}, time {row['speedup_over_cudnn']:.2f}"
            f" x cuDNN  {error}"
        )
    return (
        f"decode B={row['batch']:<3} N={row['length']:<6} ours {ours['ms'] * 1e3:7.1f} us"
        f" ({ours['do_bench_ms'] * 1e3:.1f} do_bench)"
        f"  {ours['needed_tb_per_s']:.2f} needed TB/s"
        f"  packed SDPA {row['sdpa_packed']['ms'] * 1e3:7.1f} us  {error}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--artifact", type=Path, help="compiled elsewhere; see above")
    parser.add_argument("--prefill", default="4096,8192,16384,32768,65536")
    parser.add_argument("--decode", default="1x8192,1x65536,16x8192,64x8192,16x32768",
                        help="batch x length, ..")  # fmt: skip
    args = parser.parse_args()
    artifact = args.artifact or moa.compile(
        PLAN, f"layers=32,q_heads={HQ},kv_heads={HKV},head_dim={D}", dtype="bf16",
        max_length=1 << 17, targets=["sm_90a", "sm_80"],
    ).path  # fmt: skip
    torch.manual_seed(0)
    layer, timer = Layer(artifact), Timer()
    print(torch.cuda.get_device_name(), layer.module.info["chip"], flush=True)
    rows = []
    with torch.no_grad():
        for length in filter(None, args.prefill.split(",")):
            rows.append(bench_prefill(layer, timer, int(length)))
            print(describe(rows[-1]), flush=True)
        for case in filter(None, args.decode.split(",")):
            rows.append(bench_decode(layer, timer, *map(int, case.split("x"))))
            print(describe(rows[-1]), flush=True)
    result = {
        "schema": 1, "shape": "llama-3-8b", "plan": PLAN.name, "layer": LAYER,
        "dtype": "bf16", "device": torch.cuda.get_device_name(),
        "chip": layer.module.info["chip"], "torch": torch.__version__, "rows": rows,
    }  # fmt: skip
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "attention-gpu.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")
    wrong = [row for row in rows if not row["max_rel_err"] <= TOLERANCE]
    for row in wrong:
        print(f"error: {row['kind']} at {row['length']} is off by {row['max_rel_err']:.2g}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
