"""What transformers asks of attention beside queries, keys and values.

The mask function is called once a forward pass and kind of layer; the 2-D
padding mask goes on to the attention function. Everything that compiled
attention does not have is refused here, before a number is computed.
"""

from __future__ import annotations

import torch
from transformers.masking_utils import (
    causal_mask_function,
    sliding_window_causal_mask_function,
)

from ..errors import InvalidArgumentError, UnsupportedError
from . import geometry, padding


def _parts(function) -> tuple:
    """What a mask function is made of: its code and, for closures, that of its parts."""
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    inside: list = []
    for cell in cells:
        value = cell.cell_contents
        items = value if isinstance(value, tuple) else (value,)
        inside += [_parts(item) if callable(item) else item for item in items]
    return code, tuple(inside)


@torch.compiler.assume_constant_result
def _is_window(function, window: int) -> bool:
    """Whether a mask function is that of a causal window of so many tokens.

    torch.compile does not trace this, as functions that it traces show no closure: it
    makes the function and calls this, once for each of its graphs.
    """
    return _parts(function) == _parts(sliding_window_causal_mask_function(window))


def is_causal(function, window: int | None) -> bool:
    """Whether a mask function is the causal one, or that of a layer's own window."""
    if function is causal_mask_function:
        return True
    return window is not None and _is_window(function, window)


def mask_function(
    batch_size,
    q_length,
    kv_length,
    q_offset=0,
    kv_offset=0,
    mask_function=causal_mask_function,
    attention_mask=None,
    local_size=None,
    **kwargs,
):
    """The 2-D mask, which goes on to the attention function, or None.

    moa.errors.UnsupportedError for any mask beside the causal one and those of
    the model's own windows, such as that of packed sequences;
    InvalidArgumentError for a padding mask that does not cover every column.
    """
    traced = torch.compiler.is_compiling()
    if traced and not kwargs.get("allow_is_causal_skip", True):
        # Something lies over the window, tensors mostly, which are no constants of a trace.
        local_size = None
    if not is_causal(mask_function, local_size):
        raise UnsupportedError(
            "compiled attention has the causal mask alone; here is another one, such as "
            "that of packed sequences (position_ids that start again), which torch.compile "
            "takes all for where there is no cache. Pass one sequence a row, padded on the "
            "left, and to a compiled model past_key_values=moa.hf.Cache(model)"
        )
    if attention_mask is None:
        return None
    columns = int(q_offset) + q_length
    if attention_mask.shape[1] < columns or kv_length != columns:
        raise InvalidArgumentError(
            f"attention_mask has {attention_mask.shape[1]} columns, expected {columns}: "
            "one for each token, those in the cache included"
        )
    mask = attention_mask[:, :columns]
    if traced:
        return mask  # The operator looks at its values.
    mask.moa_mask = padding.on_host(mask)
    return mask


def columns_of(attention_mask: torch.Tensor | None) -> torch.Tensor | None:
    """Which columns are tokens, on the CPU; None where all are."""
    if attention_mask is None:
        return None
    if hasattr(attention_mask, "moa_mask"):
        return attention_mask.moa_mask
    return padding.on_host(attention_mask)


def refuse(module, query, attention_mask, dropout, kwargs) -> None:
    """moa.errors.UnsupportedError for what compiled attention does not have."""
    if module.training or dropout:
        raise UnsupportedError(
            "compiled attention has no backward and no dropout: call model.eval()"
        )
    if query.requires_grad:
        raise UnsupportedError("compiled attention has no backward: run under torch.no_grad()")
    if attention_mask is not None and attention_mask.dim() != 2:
        raise UnsupportedError(
            f"attention_mask has {attention_mask.dim()} dimensions; compiled attention "
            "takes the 2-D padding mask, windows come from the plan"
        )
    if kwargs.get("output_attentions"):
        raise UnsupportedError(
            "compiled attention never forms the weights: set output_attentions=False, "
            "or load the model with attn_implementation='eager'"
        )
    if kwargs.get("s_aux") is not None:
        raise UnsupportedError(
            f"the model asks for s_aux={kwargs['s_aux']}, which compiled attention does not "
            "have; load it with attn_implementation='eager'"
        )
    if getattr(module, "is_causal", True) is False:
        raise UnsupportedError(
            "compiled attention is causal, this layer is not: load the model with "
            "attn_implementation='eager'"
        )


def check_window(engine, layer: int, window: int | None) -> None:
    """moa.errors.UnsupportedError where a layer's own window is not that of its plan."""
    if window is None:
        return
    planned = engine.windows[layer] or engine.info["max_length"]
    if planned != min(window, engine.info["max_length"]):
        raise UnsupportedError(
            f"layer {layer} asks for a window of {window} tokens, the artifact has "
            f"{planned}: the model's config changed after moa.hf.load, so load it again"
        )


def check_cap(engine, layer: int, cap: float | None) -> None:
    """moa.errors.UnsupportedError where a layer's soft cap is not the artifact's."""
    if not geometry.is_cap(engine, cap or 0.0):
        raise UnsupportedError(
            f"layer {layer} asks for soft cap {cap}, the artifact has "
            f"{engine.info['soft_cap'] or None}: the model's config changed after moa.hf.load, "
            "or says what its layers do not do, so load it again with "
            f"attn_logit_softcapping = {cap}"
        )
