"""Attention and mask functions that transformers finds under the name "moa"."""

from __future__ import annotations

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function

from .cache import Cache

NAME = "moa"


def left_padding(mask: torch.Tensor | None) -> list[int] | None:
    """Pad columns on the left of each row; mask [B, columns], True is a token.

    ValueError for padding on the right and for holes.
    """
    if mask is None:
        return None
    mask = mask.bool()
    pads = (~mask).sum(dim=1)
    columns = torch.arange(mask.shape[1], device=mask.device)
    if not torch.equal(mask, columns[None, :] >= pads[:, None]):
        raise ValueError(
            "attention_mask has padding on the right or holes; the elastic cache "
            "takes padding on the left only (tokenizer.padding_side = 'left')"
        )
    return pads.tolist() if int(pads.max()) else None


def mask_function(
    batch_size,
    q_length,
    kv_length,
    q_offset=0,
    kv_offset=0,
    mask_function=causal_mask_function,
    attention_mask=None,
    **kwargs,
):
    """Called once a forward pass; the 2-D mask goes on to `attention_function`.

    NotImplementedError for any mask beside the causal one, such as that of packed
    sequences; ValueError for a padding mask that does not cover every column.
    """
    if mask_function is not causal_mask_function:
        raise NotImplementedError(
            "compiled attention has the causal mask alone; here is another one, such as "
            "that of packed sequences (position_ids that start again). Pass one sequence "
            "a row, padded on the left"
        )
    if attention_mask is None:
        return None
    columns = int(q_offset) + q_length
    if attention_mask.shape[1] < columns or kv_length != columns:
        raise ValueError(
            f"attention_mask has {attention_mask.shape[1]} columns, expected {columns}: "
            "one for each token, those in the cache included"
        )
    mask = attention_mask[:, :columns]
    if torch.compiler.is_compiling():
        return mask  # The operator looks at its values.
    mask.moa_padding = left_padding(mask)
    return mask


def _refuse(module, attention_mask, dropout, kwargs):
    if module.training or dropout:
        raise NotImplementedError(
            "compiled attention has no backward and no dropout: call model.eval()"
        )
    if attention_mask is not None and attention_mask.dim() != 2:
        raise NotImplementedError(
            f"attention_mask has {attention_mask.dim()} dimensions; compiled attention "
            "takes the 2-D padding mask, windows come from the plan"
        )
    if kwargs.get("output_attentions"):
        raise NotImplementedError(
            "compiled attention never forms the weights: set output_attentions=False, "
            "or load the model with attn_implementation='eager'"
        )
    for name in ("sliding_window", "softcap", "s_aux"):
        if kwargs.get(name) is not None:
            raise NotImplementedError(
                f"the model asks for {name}={kwargs[name]}, which compiled attention "
                "does not have; load it with attn_implementation='eager'"
            )
    if getattr(module, "is_causal", True) is False:
        raise NotImplementedError("compiled attention is causal; this layer is not")


def attention_function(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs
):
    """Attention of a registered layer: [B, T, Hq, D] and no weights.

    query [B, Hq, T, D]; key, value [B, Hkv, T, D], the new tokens alone.
    """
    _refuse(module, attention_mask, dropout, kwargs)
    if query.requires_grad:
        raise NotImplementedError(
            "compiled attention has no backward: run under torch.no_grad()"
        )
    layer = getattr(key, "moa_layer", None)
    if torch.compiler.is_compiling():
        return _traced(module, layer, query, key, value, attention_mask, scaling), None
    padding = None
    if attention_mask is not None:
        padding = (
            attention_mask.moa_padding
            if hasattr(attention_mask, "moa_padding")
            else left_padding(attention_mask)
        )
    if layer is None:
        layer = _without_cache(module, query, key)
    else:
        _check_owner(module, layer)
    return layer.attend(query, key, value, padding, scaling), None


def _check_owner(module, layer):
    if layer.owner.engine is not getattr(module, "moa", None):
        raise ValueError(
            "past_key_values belongs to another model or plan; make one for this model "
            "with moa.hf.Cache(model)"
        )


def _traced(module, layer, query, key, value, mask, scaling):
    """What torch.compile sees of a layer."""
    if layer is None:
        raise NotImplementedError(
            "a compiled model needs a cache: pass past_key_values=moa.hf.Cache(model)"
        )
    _check_owner(module, layer)
    return layer.traced(query, key, value, mask, scaling)


def _without_cache(module, query, key):
    """A layer of a cache that lives for this call (use_cache=False)."""
    engine = getattr(module, "moa", None)
    if engine is None:
        raise RuntimeError("attn_implementation='moa' works on models from moa.hf.load alone")
    if key.shape[2] != query.shape[2]:
        raise TypeError(
            "past_key_values is not a moa.hf.Cache; pass moa.hf.Cache(model), or none"
        )
    cache = Cache(engine)
    cache.leader = module.layer_idx
    return cache.layers[module.layer_idx]


def register() -> None:
    """Makes the name "moa" known to transformers."""
    AttentionInterface.register(NAME, attention_function)
    AttentionMaskInterface.register(NAME, mask_function)
