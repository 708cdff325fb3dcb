"""What a KV head keeps of complete blocks: the model's 16 bits, or 8 with a scale.

The first blocks, those of the sink, and the newest keep 16 bits in any format.
"""

from __future__ import annotations

from .span import PAGE_TOKENS

#: By the code that kernels and artifacts use (`MOA_KV_*`).
FORMATS = ("16", "e4m3", "int8")
#: Those of 8 bits, with the code of the largest magnitude of a block.
MOST = {"e4m3": 448.0, "int8": 127.0}


def written(form: str) -> int | str:
    """A format as plan files have it."""
    return 16 if form == FORMATS[0] else form


def sink_end(sink: int) -> int:
    """First key that may be kept in 8 bits: that of the block behind the sink's."""
    return -(-sink // PAGE_TOKENS) * PAGE_TOKENS


def kept_bytes(tokens: int, sink: int, form: str) -> float:
    """Bytes of `tokens` tokens of a window, sink included, over those of a token of 16
    bits. The newest block is taken to be full; the scales, 8 bytes a block, are left
    out."""
    if form == FORMATS[0]:
        return float(tokens)
    return tokens - max(0, tokens - sink_end(sink) - PAGE_TOKENS) / 2
