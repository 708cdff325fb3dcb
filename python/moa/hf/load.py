"""`load`: an ordinary transformers model that attends under a plan."""

from __future__ import annotations

import types
from pathlib import Path

import torch
import transformers

from ..compiler import Artifact, compile
from ..errors import CompileError
from . import attention, graph
from .cache import Cache
from .engine import DEFAULT_BUDGET, Engine

_DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
#: What to compile for a model on a device.
_TARGETS = {"cpu": ("cpu",), "cuda": ("sm_90a", "sm_80")}


def load(
    model,
    plan=None,
    *,
    artifact: Artifact | None = None,
    dtype: torch.dtype | None = None,
    threads: int = 0,
    max_length: int | None = None,
    **kwargs,
):
    """Load a model whose attention is compiled from `plan`.

    model: a hub id, a folder, a .gguf file, or a model already loaded.
    plan: path of a plan file or its content; or `artifact` from moa.compile.
    dtype: of the weights; default as the checkpoint's (float32 for GGUF).
    threads: of the runtime; 0 for one a core.
    max_length: longest sequence in tokens; default the model's
    max_position_embeddings.
    The model's device is where it attends: load it there (device_map="cuda"),
    as moving it later does not move its attention.
    kwargs go to from_pretrained. Returns the transformers model: generate()
    and forward work as they are, with an elastic cache. Raises
    moa.errors.CompileError where plan and model do not fit.
    """
    attention.register()
    if not isinstance(model, transformers.PreTrainedModel):
        model = _from_pretrained(model, dtype, kwargs)
    config = model.config.get_text_config(decoder=True)
    _check(model, config)
    if artifact is None:
        if plan is None:
            raise CompileError("pass plan=... (a plan file), or artifact=...")
        artifact = compile(
            plan,
            config,
            _TARGETS[model.device.type],
            dtype=_DTYPES[model.dtype],
            max_length=max_length or config.max_position_embeddings,
        )
    engine = Engine(artifact, threads, str(model.device))
    _check_artifact(engine, model, config)
    model.set_attn_implementation(attention.NAME)
    if config._attn_implementation != attention.NAME:
        raise CompileError(
            f"{type(model).__name__} computes attention by itself, not through "
            "transformers' AttentionInterface, so a plan cannot apply to it"
        )
    for module in model.modules():
        if hasattr(module, "layer_idx"):
            module.moa = engine
    model.moa = engine
    model._prepare_cache_for_generation = types.MethodType(_prepare_cache, model)
    graph.install(model)
    return model.eval()


def _from_pretrained(name, dtype, kwargs):
    path = Path(name)
    if path.suffix == ".gguf":
        # Newer transformers keep GGUF weights quantised unless told; 5.16 never does.
        if config := getattr(transformers, "GgufConfig", None):
            kwargs = {"quantization_config": config(dequantize=True), **kwargs}
        kwargs = {**kwargs, "gguf_file": path.name}
        name, dtype = str(path.parent), dtype or torch.float32
    if dtype is not None:
        kwargs["dtype"] = dtype
    return transformers.AutoModelForCausalLM.from_pretrained(name, **kwargs)


def _check(model, config) -> None:
    if model.dtype not in _DTYPES:
        raise CompileError(
            f"the model is {model.dtype}; compiled attention takes float32, float16, bfloat16"
        )
    if model.device.type not in _TARGETS:
        raise CompileError(
            f"the model is on {model.device}; compiled attention runs on cpu and cuda: "
            "model.to('cpu')"
        )
    if model.config.is_encoder_decoder:
        raise CompileError(
            "the model has an encoder and a decoder; plans apply to decoder-only models"
        )
    types_found = set(getattr(config, "layer_types", None) or ["full_attention"])
    if types_found != {"full_attention"} or getattr(config, "sliding_window", None):
        raise CompileError(
            "the model has attention windows of its own (sliding_window = "
            f"{getattr(config, 'sliding_window', None)}, layers: "
            f"{', '.join(sorted(types_found))}); plans apply to dense models"
        )
    if getattr(config, "kv_lora_rank", None):
        raise CompileError("the model has latent (MLA) attention, which has no plans")


def _check_artifact(engine, model, config) -> None:
    heads = config.num_attention_heads
    want = {
        "layers": config.num_hidden_layers,
        "q_heads": heads,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "dtype": _DTYPES[model.dtype],
    }
    wrong = [
        f"{key} {engine.info[key]}, the model has {value}"
        for key, value in want.items()
        if engine.info[key] != value
    ]
    if wrong:
        raise CompileError(
            f"the artifact does not fit the model: {'; '.join(wrong)}; "
            "compile the plan for this model"
        )


def _prepare_cache(
    self, generation_config, model_kwargs, generation_mode, batch_size, max_cache_length
):
    """Stands in for transformers' own: generate() gets an elastic cache."""
    if (generation_config.num_beams or 1) > 1:
        raise NotImplementedError(
            "the elastic cache cannot reorder sequences, as keys outside the windows "
            "are gone: generate with num_beams=1"
        )
    if generation_mode == transformers.generation.GenerationMode.ASSISTED_GENERATION:
        raise NotImplementedError(
            "assisted and prompt-lookup decoding roll the cache back, which the elastic "
            "cache cannot: generate without them"
        )
    if generation_config.cache_implementation is not None:
        raise ValueError(
            f"cache_implementation='{generation_config.cache_implementation}' would replace "
            "the elastic cache; leave it out"
        )
    if generation_config.use_cache is False:
        if self.moa.info["length"] == "request":
            raise ValueError(
                "use_cache=False computes each token with a longer N than the last, and so "
                "with other spans; leave use_cache on, or use a plan with length rule 'row'"
            )
        return
    cache = model_kwargs.get("past_key_values")
    if cache is None:
        cache = Cache(self)
        model_kwargs["past_key_values"] = cache
    elif not isinstance(cache, Cache):
        raise TypeError(
            f"past_key_values is a {type(cache).__name__}; pass moa.hf.Cache(model), or none"
        )
    mask = model_kwargs.get("attention_mask")
    total = max_cache_length + 1
    if mask is None or mask.dim() != 2:
        cache.expect([total] * batch_size)
        return
    budget = total - mask.shape[1]
    if budget < 1:
        budget = DEFAULT_BUDGET
    cache.expect([int(n) + budget for n in mask.bool().sum(dim=1).tolist()])
