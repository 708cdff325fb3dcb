"""Attention of one layer on the CPU, beside what torch offers: `make bench`.

Shape and plan: Llama-3-8B (32 query heads, 8 KV heads, head size 128), layer 16
of its published plan. Prefill against dense causal SDPA and FlexAttention with
the plan's mask; decode against dense SDPA with the group packed into the query
axis. All in one process, on the same inputs and as many threads; outputs are
checked against float64 rows first. Useful FLOPs are 4 * D * visible pairs;
needed bytes count, per KV head, the longest span of its group.
"""

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

import record
import torch
import torch.nn.functional as F

import moa

PLAN = Path(__file__).resolve().parents[1] / "Inputs/plans/llama-3-8b-moa.json"
HQ, HKV, D, LAYER = 32, 8, 128, 16
GROUP = HQ // HKV
NAMES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "bf16": 8e-3}


def best(run, repeats=4, limit=8.0):
    """Shortest of some runs, in seconds."""
    return fastest({"": run}, repeats, limit)[""]


def fastest(runs, repeats=4, limit=8.0):
    """Shortest time of each, in seconds; taken in turn, so that other load on the
    machine falls on all of them alike."""
    times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
        if sum(map(sum, times.values())) > limit * len(runs):
            break
    return {name: min(taken) for name, taken in times.items()}


def medians(runs, repeats=40, between=lambda: None):
    """Median time of each, in seconds; in turn, after three runs that do not count.
    Calls `between` before each run, not timed."""
    times = {name: [] for name in runs}
    for turn in range(repeats + 3):
        for name, run in runs.items():
            between()
            start = time.perf_counter()
            run()
            if turn >= 3:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def last_level_cache():
    """Bytes of the largest cache of a core; 64 MiB where the system does not tell."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]])
    return max(sizes, default=64 << 20)


class Case:
    """Layer 16 at `length` tokens, in one type."""

    def __init__(self, context, dtype, length):
        artifact = moa.compile(
            PLAN, f"layers=32,q_heads={HQ},kv_heads={HKV},head_dim={D}",
            dtype=dtype, max_length=1 << 17,
        )  # fmt: skip
        self.module = moa.runtime.Module(context, str(artifact.path))
        self.dtype, self.length = dtype, length
        torch.manual_seed(0)
        make = lambda heads: torch.randn(length, heads, D).to(NAMES[dtype])
        self.q, self.k, self.v = make(HQ), make(HKV), make(HKV)
        rules = [self.module.rule(LAYER, h) for h in range(HQ)]
        self.sink = rules[0].sink
        self.local = [rule.local(length) for rule in rules]

    def visible(self, head, row):
        start = max(0, row + 1 - self.local[head])
        seen = row + 1
        return seen if start <= self.sink else seen - start + self.sink

    def pairs(self):
        return sum(self.visible(head, row) for head in range(HQ) for row in range(self.length))

    def needed_bytes(self):
        last = self.length - 1
        keys = sum(
            max(self.visible(g * GROUP + i, last) for i in range(GROUP)) for g in range(HKV)
        )
        return 2 * keys * D * self.k.element_size()

    def prefill(self):
        cache = moa.runtime.Cache(self.module)
        sequence = moa.runtime.Sequence(cache, self.length)
        out = torch.empty_like(self.q)
        moa.runtime.attend(cache, LAYER, [(sequence, self.q, self.k, self.v, out)])
        return cache, sequence, out

    def error(self, out, rows, first=0):
        """Largest error of rows against float64, relative to the row's norm."""
        worst = 0.0
        keys = torch.arange(self.length)
        for row in rows:
            for head in range(HQ):
                seen = (keys <= row) & ((keys < self.sink) | (row - keys < self.local[head]))
                k = self.k[seen, head // GROUP].double()
                v = self.v[seen, head // GROUP].double()
                p = torch.softmax(k @ self.q[row, head].double() / math.sqrt(D), 0)
                want = p @ v
                got = out[row - first, head].double()
                worst = max(worst, float((got - want).norm() / want.norm()))
        return worst

    def heads_first(self):
        """The inputs as torch likes them best: [1, heads, length, D], packed."""
        return [t.transpose(0, 1)[None].contiguous() for t in (self.q, self.k, self.v)]

    def records(self, kind, method, seconds):
        """A record of each time, ours first."""
        case = {"kind": kind, "batch": 1, "length": self.length, "plan": "moa",
                "dtype": self.dtype, "q_heads": HQ, "kv_heads": HKV, "head_dim": D}  # fmt: skip
        return [
            {**case, "who": who, "mask": "causal" if who == "sdpa" else "plan",
             "method": method, "us": taken * 1e6}
            for who, taken in seconds.items()
        ]  # fmt: skip

    def flex(self):
        """FlexAttention with the plan's mask: (run, seconds to build the mask)."""
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        torch._dynamo.reset()
        local = torch.tensor(self.local)
        sink = self.sink

        def mask(b, h, i, j):
            return (i >= j) & ((j < sink) | (i - j < local[h]))

        start = time.perf_counter()
        block = create_block_mask(mask, None, HQ, self.length, self.length, device="cpu")
        built = time.perf_counter() - start
        compiled = torch.compile(flex_attention, dynamic=False)
        q, k, v = self.heads_first()
        run = lambda: compiled(q, k, v, block_mask=block, enable_gqa=True)
        run()
        return run, built


def ceilings():
    x = torch.randn(max(1 << 26, last_level_cache()))
    rows = {"read_gb_per_s": x.numel() * 4 / best(x.sum, 8) * 1e-9}
    for name in ("f32", "bf16"):
        a = torch.randn(2048, 2048).to(NAMES[name])
        a @ a
        rows[f"matmul_{name}_gflop_per_s"] = 2 * 2048**3 / best(lambda: a @ a) * 1e-9
    return rows


def bench_prefill(context, dtype, length, ceiling, flex):
    case = Case(context, dtype, length)
    _, _, out = case.prefill()
    rows = [0, 63, 64, length // 3, length // 2 + 1, length - 1]
    error = case.error(out, rows)
    useful = 4 * D * case.pairs()
    dense = 4 * D * HQ * length * (length + 1) / 2
    q, k, v = case.heads_first()
    runs = {
        "ours": case.prefill,
        "sdpa": lambda: F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True
        ),
    }
    built = None
    if flex:
        runs["flex"], built = case.flex()
    records = case.records("prefill", "fastest", fastest(runs))
    ours = records[0]
    rate = useful / ours["us"] * 1e-3
    ours |= {"max_rel_err": error, "density": useful / dense,
             "useful_gflop_per_s": rate, "fraction_of_matmul": rate / ceiling}  # fmt: skip
    if flex:
        records[2]["mask_build_ms"] = built * 1e3
    return records


def bench_decode(context, dtype, length, read):
    """A step finds its keys in memory, not in a cache: the other layers of a model
    pass between two steps of one."""
    case = Case(context, dtype, length)
    other = torch.ones(last_level_cache() // 2)  # twice the cache, in f32
    flush = other.sum
    cache = moa.runtime.Cache(case.module)
    sequence = moa.runtime.Sequence(cache, length)
    out = torch.empty_like(case.q)
    # Hold all but the last token, then decode it; later steps repeat it.
    head = [(sequence, case.q[:-1], case.k[:-1], case.v[:-1], out[:-1])]
    moa.runtime.attend(cache, LAYER, head)
    step = [(sequence, case.q[-1:], case.k[-1:], case.v[-1:], out[-1:])]
    moa.runtime.attend(cache, LAYER, step)
    error = case.error(out[-1:], [length - 1], first=length - 1)
    q = case.q[-1].view(1, HKV, GROUP, D)
    _, k, v = case.heads_first()
    seconds = medians({
        "ours": lambda: moa.runtime.attend(cache, LAYER, step),
        "sdpa": lambda: F.scaled_dot_product_attention(q, k, v),
    }, between=flush)  # fmt: skip
    records = case.records("decode", "median", seconds)
    rate = case.needed_bytes() / records[0]["us"] * 1e-3
    records[0] |= {
        "max_rel_err": error,
        "needed_gb_per_s": rate,
        "fraction_of_read": rate / read,
    }
    return records


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefill", default="1024,4096", help="lengths, in tokens")
    parser.add_argument("--decode", default="2048,8192", help="lengths, in tokens")
    parser.add_argument("--no-flex", action="store_true")
    parser.add_argument("--commit", help="of the checkout, for the record")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    context = moa.runtime.Context(args.threads)
    limits = ceilings()
    print(", ".join(f"{name} {value:.1f}" for name, value in limits.items()), flush=True)
    file = record.new_file(
        "attention-cpu", record.processor(), commit=args.commit,
        chip=torch.backends.cpu.get_cpu_capability(),
        setting={"shape": "llama-3-8b", "plan": PLAN.name, "layer": LAYER,
                 "threads": args.threads},
    )  # fmt: skip
    file["ceilings"] = limits

    def add(records):
        file["records"] += records
        print(describe(records), flush=True)

    with torch.no_grad():
        for length in map(int, args.prefill.split(",")):
            for dtype in ("f32", "bf16"):
                ceiling = limits[f"matmul_{dtype}_gflop_per_s"]
                flex = not args.no_flex and dtype == "f32"
                add(bench_prefill(context, dtype, length, ceiling, flex))
        for length in map(int, args.decode.split(",")):
            for dtype in ("f32", "bf16"):
                add(bench_decode(context, dtype, length, limits["read_gb_per_s"]))
    print(f"written to {record.write(file, args.output / 'attention-cpu.json')}")
    wrong = [
        found for found in file["records"]
        if not found.get("max_rel_err", 0) <= TOLERANCE[found["dtype"]]
    ]  # fmt: skip
    for found in wrong:
        print(f"error: {found['kind']} {found['dtype']} is off by {found['max_rel_err']:.2g}")
    return 1 if wrong else 0


def describe(records):
    ours, sdpa, *flex = records
    ms = lambda found: f"{found['us'] * 1e-3:8.2f} ms"
    text = f"{ours['kind']:8}{ours['dtype']:5} N={ours['length']:<6} ours {ms(ours)}"
    if ours["kind"] == "prefill":
        text += f"  dense SDPA {ms(sdpa)}"
        if flex:
            text += f"  Flex {ms(flex[0])} (+ mask {flex[0]['mask_build_ms'] * 1e-3:.1f} s)"
        text += (f"  {ours['useful_gflop_per_s']:.0f} useful GFLOP/s,"
                 f" {ours['fraction_of_matmul']:.2f} of matmul")  # fmt: skip
    else:
        text += (f"  packed dense SDPA {ms(sdpa)}"
                 f"  {ours['needed_gb_per_s']:.1f} needed GB/s,"
                 f" {ours['fraction_of_read']:.2f} of read")  # fmt: skip
    return text + f"  error {ours['max_rel_err']:.1e}"


if __name__ == "__main__":
    sys.exit(main())
