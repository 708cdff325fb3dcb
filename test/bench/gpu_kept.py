"""What attention sees of keys and values that pages keep in 8 bits."""

import torch

BLOCK = 64
#: Of what a format keeps: largest code.
MOST = {"e4m3": 448.0, "int8": 127.0}


def kept(x, kept_as):
    """Keys or values of whole blocks [tokens, D] as their codes stand for them."""
    blocks = x.float().view(-1, BLOCK, x.shape[-1])
    # Tensor by tensor, which is exact on a GPU too: many elements lie between two codes.
    largest = blocks.abs().amax((1, 2), keepdim=True)
    scale = (largest / torch.full_like(largest, MOST[kept_as])).clamp(min=2.0**-100)
    codes = blocks * (torch.ones_like(scale) / scale)
    if kept_as == "e4m3":
        codes = codes.to(torch.float8_e4m3fn).double()
    else:
        codes = codes.round().clamp(-127, 127).double()
    return (codes * scale.double()).view(x.shape)


def as_seen(model, layer, formats, length, k, v, past, total, rounded=False):
    """Keys and values [tokens, heads, D] as rows [past, total) see them: blocks that
    were complete before, behind the sink's, in 8 bits. `rounded` to bf16 is what
    chunks of prompts see on a GPU."""
    k, v = k.double(), v.double()
    first, last = -(-model.rules[layer][0].sink // BLOCK), past // BLOCK
    for head, kept_as in enumerate(formats[layer]):
        if kept_as == 16:
            continue
        # The newest block before the call stays as it is if no row behind the call sees it.
        begin = min(model.start(layer, head * model.group + i, length, total, 0)
                    for i in range(model.group)) // BLOCK  # fmt: skip
        end = last if begin < last else min(last, (past - 1) // BLOCK)
        if first < end:
            rows = slice(first * BLOCK, end * BLOCK)
            for tensor in (k, v):
                stands_for = kept(tensor[rows, head], kept_as)
                tensor[rows, head] = stands_for.bfloat16().double() if rounded else stands_for
    return k, v
