"""`load`: an ordinary transformers model that attends under a plan."""

from __future__ import annotations

import types
from pathlib import Path

import torch
import transformers

from ..compiler import Artifact, compile
from ..errors import CompileError, InvalidArgumentError, WrongTypeError
from ..modelfiles import load_weights
from . import attention, generate, geometry, graph
from .engine import Engine


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
    max_length: longest sequence in tokens; default, and at most, the model's
    max_position_embeddings.
    The model's device is where it attends: load it there (device_map="cuda"),
    as moving it later does not move its attention.
    Spans of layers that have a window of the model's own (sliding_window) are
    bounded by it, and have no sink there. kwargs go to from_pretrained. Returns
    the transformers model (the PEFT model where that was given): generate()
    and forward work as they are, with an elastic cache. Raises
    moa.errors.ModelFileError where the model cannot be read,
    moa.errors.CompileError where plan and model do not fit.
    """
    attention.register()
    if not isinstance(model, torch.nn.Module):
        model = _from_pretrained(model, dtype, kwargs)
    # A PEFT model lends its methods to the model inside, whose layers it changed.
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(base, transformers.PreTrainedModel):
        raise WrongTypeError(
            f"moa.hf.load expected a transformers model, its folder, .gguf file or hub id, got "
            f"a {type(base).__name__}"
        )
    config = base.config.get_text_config(decoder=True)
    geometry.check_model(base, config)
    if artifact is None:
        artifact = _compile(plan, base, config, max_length)
    engine = Engine(artifact, threads, str(base.device))
    geometry.check_artifact(engine, base, config)
    base.set_attn_implementation(attention.NAME)
    if config._attn_implementation != attention.NAME:
        raise CompileError(
            f"{type(base).__name__} computes attention by itself, not through "
            "transformers' AttentionInterface, so a plan cannot apply to it: use the model "
            "without moa.hf.load"
        )
    for module in base.modules():
        if hasattr(module, "layer_idx"):
            module.moa = engine
    base.moa = engine
    base._prepare_cache_for_generation = types.MethodType(generate.prepare_cache, base)
    graph.install(base)
    return model.eval()


def _compile(plan, model, config, max_length) -> Artifact:
    if plan is None:
        raise CompileError("pass plan=... (a plan file), or artifact=...")
    most = getattr(config, "max_position_embeddings", None)
    longest = max_length or most
    if longest is None:
        raise CompileError(
            "the model's config has no max_position_embeddings: pass max_length=, the longest "
            "sequence in tokens"
        )
    if most and longest > most:
        raise InvalidArgumentError(
            f"max_length is {longest}, the model's max_position_embeddings {most}: ask for at "
            "most that, or raise it in the model's config, where its positions allow that"
        )
    return compile(
        geometry.bound_plan(plan, geometry.own_windows(config, longest)),
        config,
        geometry.TARGETS[model.device.type],
        dtype=geometry.DTYPES[model.dtype],
        max_length=longest,
    )


def _from_pretrained(name, dtype, kwargs):
    if dtype is None and Path(name).suffix == ".gguf":
        dtype = torch.float32
    return load_weights(name, **kwargs, **({} if dtype is None else {"dtype": dtype}))
