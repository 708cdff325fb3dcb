"""Decode of several tokens a sequence, as speculation verifies them.

One sequence after another is filled up to the last 64 of `length` tokens; then a
batch begins a step of 1 to 8 tokens, whose captured calls of all layers are
replayed. `max_tokens` is what the batch was made for: it chooses the kernel, so
one token is timed in a batch of up to four as well. The rows of the last sequence
in the first and last layer are checked against float64.
"""

import gpu_decode
import torch

import moa

#: Tokens of a step, and the most of its batch.
STEPS = ((1, 1), (1, 4), (2, 2), (4, 4), (8, 8))
LEFT = 64


def fill(model, batch, length):
    """A cache, its sequences of all but LEFT tokens, and the keys and values of each."""
    past = length - LEFT
    cache = moa.runtime.Cache(
        model.module, max_bytes=gpu_decode.Decode.bytes(model, batch, length)
    )
    sequences = [moa.runtime.Sequence(cache, length) for _ in range(batch)]
    q = model.randn(past, model.q_heads, model.dim)
    out = torch.empty_like(q)
    k, v = (model.randn(past, model.kv_heads, model.dim) for _ in range(2))
    for sequence in sequences:
        for layer in range(model.layers):
            model.attend(cache, layer, [(sequence, q, k, v, out)])
    model.synchronize()
    return cache, sequences, k, v


def bench(model, timer, plan, batch, length):
    """Yields a record for each of STEPS."""
    past = length - LEFT
    case = model.case(kind="decode", batch=batch, length=length, plan=plan)
    cache, sequences, k, v = fill(model, batch, length)
    for tokens, most in STEPS:
        step = moa.runtime.Batch(cache, batch, max_tokens=most, max_length=length)
        make = lambda heads, tokens=tokens: model.randn(
            model.layers, batch, tokens, heads, model.dim
        )
        new_q, new_k, new_v = (make(n) for n in (model.q_heads, model.kv_heads, model.kv_heads))
        out = torch.full_like(new_q, float("nan"))
        step.begin(sequences, tokens, stream=model.stream())

        def all_layers(step=step, q=new_q, k=new_k, v=new_v, out=out):
            for layer in range(model.layers):
                step.attend(layer, q[layer], k[layer], v[layer], out[layer],
                            stream=model.stream())  # fmt: skip

        replay = model.captured(all_layers)
        replay()
        model.synchronize()
        error = max(
            model.error(
                layer, length, new_q[layer, -1], torch.cat([k, new_k[layer, -1]]),
                torch.cat([v, new_v[layer, -1]]), out[layer, -1], range(past, past + tokens),
                first=past,
            )
            for layer in {0, model.layers - 1}
        )  # fmt: skip
        us = timer.repeated(replay, model.layers)
        step.cancel()
        needed = batch * model.needed_bytes(0, past + tokens)
        yield {
            **case, "who": "ours", "mask": "plan", "method": "graph", "us": us,
            "tokens": tokens, "max_tokens": most, "needed_tb_per_s": needed / us * 1e-6,
            "needed_mb": needed * 1e-6, "rotated_layers": model.layers, "max_rel_err": error,
        }  # fmt: skip
