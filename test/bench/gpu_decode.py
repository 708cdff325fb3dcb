"""Decode by batches on a CUDA device, beside peers on the same shapes.

Every layer of an artifact of equal layers is filled by `moa.runtime.attend`; then
the batch steps as a model would: `Batch.begin`, the captured calls of all layers,
`Batch.end`, up to the last token, where rows are checked against float64 and the
calls are timed. By `graph`, launches follow each other over the pages of all
layers, which no L2 cache holds, with programmatic dependent launch. `steps` is
that graph with its preparation (begin: a copy and a kernel for all layers) ahead
of each replay, in steps that go on for a page of tokens; `prepare` is the
preparation alone. Peers are replayed over as many dense caches as memory allows;
`rotated_layers` tells how many.
"""

import math
import statistics
import time

import gpu_peers as peers
import torch

import moa

#: Consecutive steps of which a mean is taken: in them every head begins one page.
PAGE = 64
#: Most bytes of the caches of a peer.
PEER_BYTES = 20e9


class Decode:
    """A batch of sequences, all of `length` tokens after `steps` steps."""

    def __init__(self, model, batch, length, steps):
        self.model, self.length, self.steps = model, length, steps
        self.past = length - steps
        if self.past < 1:
            raise ValueError(f"expected more than {steps} tokens, found {length}")
        self.cache = moa.runtime.Cache(model.module, max_bytes=self.bytes(model, batch, length))
        self.sequences = [moa.runtime.Sequence(self.cache, length) for _ in range(batch)]
        q = model.randn(self.past, model.q_heads, model.dim)
        out = torch.empty_like(q)
        for i, sequence in enumerate(self.sequences):
            for layer in range(model.layers):
                k, v = self.prompt(layer, i)
                model.attend(self.cache, layer, [(sequence, q, k, v, out)])
        model.synchronize()
        make = lambda heads: model.randn(model.layers, batch, 1, heads, model.dim)
        self.q, self.k, self.v = make(model.q_heads), make(model.kv_heads), make(model.kv_heads)
        self.out = torch.full_like(self.q, float("nan"))
        self.batch = moa.runtime.Batch(self.cache, batch, max_length=length)

    @staticmethod
    def bytes(model, batch, length):
        """Of pages: a block beside the closed form, and a prompt in one layer as it comes."""
        held, dense = model.module.kv_bytes(length, length)
        return int(1.04 * batch * held) + dense + (64 << 20)

    def prompt(self, layer, sequence):
        """Keys and values of a sequence's prompt, the same again when asked again."""
        model = self.model
        generator = torch.Generator(model.device).manual_seed(1000 * layer + sequence)
        make = lambda: model.randn(self.past, model.kv_heads, model.dim, generator=generator)
        return make(), make()

    def begin(self):
        self.batch.begin(self.sequences, stream=self.model.stream())

    def attend(self, layer):
        self.batch.attend(
            layer, self.q[layer], self.k[layer], self.v[layer], self.out[layer],
            stream=self.model.stream(),
        )  # fmt: skip

    def all_layers(self):
        for layer in range(self.model.layers):
            self.attend(layer)

    def capture(self):
        """Makes the calls of one layer, and those of all, ready for replay."""
        self.begin()
        self.one = self.model.captured(lambda: self.attend(0))
        self.batch.cancel()
        self.begin()
        self.all = self.model.captured(self.all_layers)
        self.batch.cancel()

    def step(self):
        self.begin()
        self.all()
        self.batch.end()

    def seen(self, layer, k, v):
        """Keys and values as the last row meets them."""
        return k, v

    def error(self):
        """Of all heads of the first and last sequence in three layers, after the
        replay of the last step."""
        model = self.model
        if self.out.isnan().any():
            return math.inf
        last, worst = self.length - 1, 0.0
        for layer in {0, model.layers // 2, model.layers - 1}:
            for i in {0, len(self.sequences) - 1}:
                # Each step gave the same row.
                k, v = (
                    torch.cat([old, new[layer, i].expand(self.steps, -1, -1)])
                    for old, new in zip(self.prompt(layer, i), (self.k, self.v))
                )
                k, v = self.seen(layer, k, v)
                error = model.error(
                    layer, self.length, self.q[layer, i], k, v, self.out[layer, i], [last],
                    first=last,
                )  # fmt: skip
                worst = max(worst, error)
        return worst


def ours(model, timer, case, batch, length, kind=Decode):
    """Records of a batch, of a `kind` of Decode, by each method."""
    decode = kind(model, batch, length, steps=2 * PAGE + 2)
    if not decode.batch.replays:
        raise ValueError("expected an artifact with a decode kernel for this device")
    decode.capture()
    decode.step()

    # The preparation alone, on the device and on the host.
    device, host = [], []

    def timed_begin():
        begun = time.perf_counter()
        decode.begin()
        host.append((time.perf_counter() - begun) * 1e6)

    for _ in range(PAGE):
        device.append(timer.between(timed_begin))
        decode.all()
        decode.batch.end()
    prepare = statistics.fmean(device)

    def steps():
        for _ in range(PAGE):
            decode.step()

    stepped = timer.between(steps) / PAGE / model.layers
    decode.begin()
    decode.all()
    model.synchronize()
    error = decode.error()
    graph = timer.repeated(decode.all, model.layers)
    us = {"clean": timer.clean(decode.one), "do_bench": timer.do_bench(decode.one),
          "graph": graph, "steps": stepped}  # fmt: skip
    decode.batch.cancel()

    needed = batch * model.needed_bytes(0, length)
    case = {**case, "who": "ours", "mask": "plan"}
    more = {"needed_mb": needed * 1e-6, "rotated_layers": model.layers, "max_rel_err": error}
    records = [
        {
            **case,
            "method": method,
            "us": value,
            "needed_tb_per_s": needed / value * 1e-6,
            **more,
        }
        for method, value in us.items()
    ]
    records.append({
        **case, "kind": "prepare", "method": "clean", "us": prepare,
        "median_us": statistics.median(device), "longest_us": max(device),
        "host_us": statistics.median(host), "rotated_layers": model.layers,
        "amortised_layer_us": graph + prepare / model.layers,
    })  # fmt: skip
    return records


def peer(name, model, timer, case, batch, length):
    """Records of a peer over dense caches."""
    bytes_ = 2 * batch * model.kv_heads * length * model.dim * 2
    free = torch.cuda.mem_get_info()[0]
    layers = max(1, min(model.layers, int(min(PEER_BYTES, free * 0.7) / bytes_)))
    make = lambda: model.randn(layers, batch, model.kv_heads, length, model.dim)
    k, v = make(), make()
    q = model.randn(batch, model.q_heads, 1, model.dim)
    case = {**case, "who": name, "mask": peers.MASK[name]}
    more = {"rotated_layers": layers}
    if name == "flex":
        flex = peers.Flex(model, 0, length, 1)
        calls = [flex.call(q, k[i], v[i]) for i in range(layers)]
        out = calls[0]()
        more |= flex.facts
        more["max_rel_err"] = max(
            model.error(
                0, length, *(t[b].transpose(0, 1) for t in (q, k[0], v[0], out)),
                [length - 1], first=length - 1,
            )
            for b in {0, batch - 1}
        )  # fmt: skip
    else:
        packed = q.view(batch, model.kv_heads, model.group, model.dim)
        calls = [peers.sdpa(name, packed, k[i], v[i], False) for i in range(layers)]
    for call in calls:  # Whatever is compiled or allocated, before a capture.
        call()
    torch.cuda.synchronize()
    try:
        one = model.captured(calls[0])
        several = model.captured(lambda: [call() for call in calls])
        more["captured"] = 1
    except RuntimeError:
        torch.cuda.synchronize()
        one, several = calls[0], lambda: [call() for call in calls]
        more["captured"] = 0
    us = {"clean": timer.clean(one), "do_bench": timer.do_bench(one),
          "graph": timer.repeated(several, layers)}  # fmt: skip
    needed = bytes_ if case["mask"] == "causal" else batch * model.needed_bytes(0, length)
    more["needed_mb"] = needed * 1e-6
    return [
        {
            **case,
            "method": method,
            "us": value,
            "needed_tb_per_s": needed / value * 1e-6,
            **more,
        }
        for method, value in us.items()
    ]


def bench(model, timer, plan, batch, length, names):
    """Yields the records of one case."""
    case = model.case(kind="decode", batch=batch, length=length, plan=plan)
    try:
        yield from ours(model, timer, case, batch, length)
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        yield {**case, "who": "ours", "mask": "plan", "skipped": f"out of memory: {error}"}
    for name in names:
        try:
            with peers.reasons():
                found = peer(name, model, timer, case, batch, length)
            yield from found
        except peers.Skipped as reason:
            yield {**case, "who": name, "mask": peers.MASK[name], "skipped": str(reason)}


def describe(record):
    """A line for people."""
    head = (f"{record['kind']:7} B={record['batch']:<3} N={record['length']:<6}"
            f" {record['who']:7}")  # fmt: skip
    if "skipped" in record:
        return f"{head} skipped: {record['skipped']}"
    text = f"{head} {record['method']:9} {record['us']:8.1f} us"
    if record["kind"] == "prepare":
        return (
            f"{text} mean, {record['median_us']:.1f} median, {record['host_us']:.0f} on"
            f" the host; a layer with its share {record['amortised_layer_us']:.1f}"
        )
    if "tokens" in record:
        text += f" for {record['tokens']} tokens of at most {record['max_tokens']}:"
    error = f" error {record['max_rel_err']:.1e}" if "max_rel_err" in record else ""
    return (
        f"{text} {record['needed_tb_per_s']:.2f} TB/s, {record['rotated_layers']} layers{error}"
    )
