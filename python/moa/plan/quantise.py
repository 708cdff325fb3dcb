"""Keys and values as blocks of 8 bits hold them, in torch: what the runtime's kernels
make of them, written from the definition.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .formats import MOST
from .span import PAGE_TOKENS

#: Least scale, so that its inverse is finite.
_LEAST_SCALE = 2.0**-100


def kept(x: Tensor, form: str) -> Tensor:
    """x [heads, tokens, dim] after a way through 8 bits, "e4m3" or "int8": each complete
    block of PAGE_TOKENS tokens of a head has a scale; the tokens of the last, incomplete
    one stay as they are."""
    heads, tokens, dim = x.shape
    whole = tokens // PAGE_TOKENS * PAGE_TOKENS
    blocks = x[:, :whole].float().reshape(heads, -1, PAGE_TOKENS * dim)
    scale = blocks.abs().amax(-1, keepdim=True).div(MOST[form]).clamp_min(_LEAST_SCALE)
    scaled = (blocks * scale.reciprocal()).clamp(-MOST[form], MOST[form])
    e4m3 = torch.float8_e4m3fn
    codes = scaled.round() if form == "int8" else scaled.to(e4m3).float()
    held = (codes * scale).view(heads, whole, dim).to(x.dtype)
    return torch.cat([held, x[:, whole:]], 1)
