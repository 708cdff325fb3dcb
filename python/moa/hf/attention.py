"""Attention and mask functions that transformers finds under the name "moa"."""

from __future__ import annotations

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from ..errors import Error, InvalidArgumentError, UnsupportedError, WrongTypeError
from . import masks
from .cache import Cache

NAME = "moa"


def attention_function(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs
):
    """Attention of a registered layer: [B, T, Hq, D] and no weights.

    query [B, Hq, T, D]; key, value [B, Hkv, T, D], the new tokens alone.
    """
    masks.refuse(module, query, attention_mask, dropout, kwargs)
    engine = getattr(module, "moa", None)
    if engine is None:
        raise Error("attn_implementation='moa' works on models from moa.hf.load alone")
    layer = getattr(key, "moa_layer", None)
    if not getattr(layer, "checked", False):
        masks.check_window(engine, module.layer_idx, kwargs.get("sliding_window"))
        masks.check_cap(engine, module.layer_idx, kwargs.get("softcap"))
    traced = torch.compiler.is_compiling()
    if layer is None and traced:
        raise UnsupportedError(
            "a compiled model needs a cache: pass past_key_values=moa.hf.Cache(model)"
        )
    if layer is None:
        layer = _without_cache(module, engine, query, key)
    elif layer.owner.engine is not engine and layer.owner.engine.key != engine.key:
        raise InvalidArgumentError(
            "past_key_values belongs to another model or plan; make one for this model "
            "with moa.hf.Cache(model)"
        )
    if traced:
        return layer.traced(query, key, value, attention_mask, scaling), None
    return layer.attend(query, key, value, masks.columns_of(attention_mask), scaling), None


def _without_cache(module, engine, query, key):
    """A layer of a cache that lives for this call (use_cache=False)."""
    if key.shape[2] != query.shape[2]:
        raise WrongTypeError(
            "past_key_values is not a moa.hf.Cache; pass moa.hf.Cache(model), or none"
        )
    cache = Cache(engine)
    cache.leader = module.layer_idx
    return cache.layers[module.layer_idx]


def register() -> None:
    """Makes the name "moa" known to transformers."""
    AttentionInterface.register(NAME, attention_function)
    AttentionMaskInterface.register(NAME, masks.mask_function)
