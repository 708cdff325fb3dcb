"""Prefill of one layer on a CUDA device, beside its peers on the same inputs.

A call of `moa.runtime.attend` (tables to the device, append, attention) runs from
a CUDA graph, so that no host time is in the figures; `ours_kernel` is the attention
kernel of that graph alone. Rows are checked against
float64 first. Useful FLOPs are 4 * D * pairs, where a peer that computes every
causal pair is credited with all of them; a peer is timed by the same methods.
"""

import math

import gpu_peers as peers
import torch

import moa

LAYER = 0


class Prefill:
    """Inputs of a case, and the call of ours as a graph."""

    def __init__(self, model, length):
        self.model, self.length = model, length
        self.q = model.randn(length, model.q_heads, model.dim)
        self.k = model.randn(length, model.kv_heads, model.dim)
        self.v = model.randn(length, model.kv_heads, model.dim)
        self.out = torch.full_like(self.q, float("nan"))
        pages = model.module.kv_bytes(length, length)[1] // model.layers
        self.cache = moa.runtime.Cache(model.module, max_bytes=2 * pages + (64 << 20))
        # A first sequence brings the memory that a second one's capture finds.
        warm = self.sequence()
        model.attend(self.cache, LAYER, self.entry(warm))
        model.synchronize()
        del warm
        self.out.fill_(float("nan"))
        self.own = self.sequence()
        self.call = model.call(lambda: model.attend(self.cache, LAYER, self.entry(self.own)))
        self.replay = self.call.replay
        self.replay()
        model.synchronize()

    def sequence(self):
        return moa.runtime.Sequence(self.cache, self.length)

    def entry(self, sequence):
        return [(sequence, self.q, self.k, self.v, self.out)]

    def error(self, out, heads=None):
        """Of some rows, against float64 under the plan."""
        n = self.length
        rows = sorted({0, 63 % n, 64 % n, 127 % n, 128 % n, n // 3, n // 2 + 1, n - 1})
        error = self.model.error(
            LAYER, n, self.q, self.k, self.v, out, rows, heads=heads
        )  # fmt: skip
        return math.inf if out.isnan().any() else error

    def flops(self):
        """Of the pairs of each mask."""
        n, d = self.length, self.model.dim
        return {"plan": 4 * d * self.model.pairs(LAYER, n),
                "causal": 4 * d * self.model.q_heads * n * (n + 1) / 2}  # fmt: skip

    def heads_first(self):
        """The inputs as [1, heads, rows, D], dense."""
        return [t.transpose(0, 1)[None].contiguous() for t in (self.q, self.k, self.v)]


def measured(timer, run, flops, case, more=None):
    """Records of one run by each method."""
    records = []
    for method in ("clean", "do_bench"):
        us = getattr(timer, method)(run)
        rate = {"useful_tflop_per_s": flops[case["mask"]] / us * 1e-6}
        records.append({**case, "method": method, "us": us, **rate, **(more or {})})
    return records


def peer_records(name, prefill, timer, flops, case):
    """Records of a peer."""
    model = prefill.model
    case = {**case, "who": name, "mask": peers.MASK[name]}
    if name == "jax_mosaic":
        jax = peers.JaxMosaic(prefill.q, prefill.k, prefill.v)
        want = dense_rows(prefill)
        error = (jax.rows().float() - want).norm() / want.norm()
        us = timer.queued(jax.run, jax.wait)
        rate = {"useful_tflop_per_s": flops["causal"] / us * 1e-6}
        case = {**case, "dtype": "f16", "method": "queued"}
        return [{**case, "us": us, "max_rel_err": float(error), **rate}]
    q, k, v = prefill.heads_first()
    if name == "flex":
        flex = peers.Flex(model, LAYER, prefill.length, prefill.length)
        run = flex.call(q, k, v)
        out = run()[0].transpose(0, 1)
        more = {
            "max_rel_err": prefill.error(out, heads=range(0, model.q_heads, 5)),
            **flex.facts,
        }
        return measured(timer, run, flops, case, more)
    k, v = (t.repeat_interleave(model.group, 1) for t in (k, v))
    return measured(timer, peers.sdpa(name, q, k, v, True), flops, case)


def dense_rows(prefill):
    """Causal attention without a plan, by torch."""
    q, k, v = prefill.heads_first()
    k, v = (t.repeat_interleave(prefill.model.group, 1) for t in (k, v))
    return peers.sdpa("cudnn", q, k, v, True)()[0].transpose(0, 1).float()


def bench(model, timer, plan, length, names):
    """Yields the records of one length."""
    case = model.case(kind="prefill", batch=1, length=length, plan=plan)
    prefill = Prefill(model, length)
    flops = prefill.flops()
    more = {"max_rel_err": prefill.error(prefill.out, heads=range(0, model.q_heads, 5)),
            "density": flops["plan"] / flops["causal"]}  # fmt: skip
    ours = {**case, "mask": "plan"}
    yield from measured(timer, prefill.replay, flops, {**ours, "who": "ours"}, more)
    kernel = prefill.call.alone("prefill")
    yield from measured(timer, kernel, flops, {**ours, "who": "ours_kernel"})
    for name in names:
        try:
            with peers.reasons():
                found = peer_records(name, prefill, timer, flops, case)
            yield from found
        except peers.Skipped as reason:
            yield {**case, "who": name, "mask": peers.MASK[name], "skipped": str(reason)}


def describe(record):
    """A line for people."""
    head = (f"prefill {record['plan']:5} D={record['head_dim']:<3} N={record['length']:<6}"
            f" {record['who']:11}")  # fmt: skip
    if "skipped" in record:
        return f"{head} skipped: {record['skipped']}"
    error = f" error {record['max_rel_err']:.1e}" if "max_rel_err" in record else ""
    mask = ""
    if "mask_build_ms" in record:
        mask = f" mask {record['mask_build_ms']:.1f} ms, {record['mask_mb']:.0f} MB"
    return (f"{head} {record['method']:8} {record['us'] * 1e-3:8.3f} ms"
            f" {record['useful_tflop_per_s']:4.0f} useful TFLOP/s{error}{mask}")  # fmt: skip
