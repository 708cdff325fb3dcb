"""What a model's config says of its attention, and whether a plan can apply.

Models are known by the fields of their configs, never by their names.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..errors import CompileError

DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
#: What to compile for a model on a device.
TARGETS = {"cpu": ("cpu",), "cuda": ("sm_90a", "sm_80")}

_FULL, _OWN = "full_attention", "sliding_attention"
#: Fields that stand for attention that is not softmax(q k) over a causal prefix.
_OTHER_ATTENTION = {
    "index_topk": "sparse attention, where an indexer chooses keys",
    "keep_window_size": "sparse attention, by masks that it makes itself",
    "kv_lora_rank": "latent (MLA) attention, whose cache has no heads",
    "attention_chunk_size": "chunked attention",
}


def check_model(model, config) -> None:
    """moa.errors.CompileError where compiled attention cannot serve the model."""
    if model.dtype not in DTYPES:
        raise CompileError(
            f"the model is {model.dtype}; compiled attention takes float32, float16, bfloat16: "
            "pass dtype="
        )
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    if len(devices) > 1:
        raise CompileError(
            f"the model is spread over {', '.join(devices)}; compiled attention runs on one "
            "device: load it with device_map set to that device"
        )
    if model.device.type not in TARGETS:
        raise CompileError(
            f"the model is on {model.device}; compiled attention runs on cpu and cuda: "
            "model.to('cpu')"
        )
    if model.config.is_encoder_decoder:
        raise CompileError(
            "the model has an encoder and a decoder; plans apply to decoder-only models: use "
            "it without moa.hf.load"
        )
    _check_attention(model, config)


def _check_attention(model, config) -> None:
    use = "use the model without moa.hf.load"
    for field, meaning in _OTHER_ATTENTION.items():
        if getattr(config, field, None):
            raise CompileError(
                f"the model has {meaning} ({field} = {getattr(config, field)}), which compiled "
                f"attention does not: {use}"
            )
    kinds = set(getattr(config, "layer_types", None) or [_FULL])
    others = sorted(kinds - {_FULL, _OWN})
    if others or getattr(model, "_is_stateful", False):
        raise CompileError(
            f"the model has layers of its own kind ({', '.join(others) or 'recurrent'}) beside "
            f"or instead of attention; plans apply to models with attention alone: {use}"
        )
    for name, module in model.named_modules():
        if hasattr(module, "layer_idx") and getattr(module, "sinks", None) is not None:
            raise CompileError(
                f"the model has learned sinks ({name}.sinks), which compiled attention does "
                f"not: {use}"
            )


def own_windows(config, max_length: int) -> list[int | None]:
    """For each layer the model's own window in tokens, the query's included, or None.

    Windows that no sequence of `max_length` tokens leaves are None.
    """
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = [_FULL if window is None else _OWN] * config.num_hidden_layers
    return [
        window if kind == _OWN and window is not None and window < max_length else None
        for kind in kinds
    ]


def soft_cap(config) -> float:
    """Of the model's scores s, which are cap * tanh(s / cap); 0 where they have none."""
    return float(getattr(config, "attn_logit_softcapping", None) or 0.0)


def is_cap(engine, cap: float) -> bool:
    """Whether a cap, or 0 for none, is that of the artifact, which has it in float32."""
    return abs(engine.info["soft_cap"] - cap) <= 2**-24 * cap


def bound_plan(plan, windows: list[int | None]):
    """The plan with spans of layers bounded by the model's own windows.

    plan: a path or its content; returned as it is where there are no windows,
    and where it is not JSON, as the compiler says so best.
    """
    if not any(windows):
        return plan
    if not isinstance(plan, dict):
        try:
            plan = json.loads(Path(plan).read_text())
        except (OSError, ValueError):
            return plan
        if not isinstance(plan, dict):
            return plan
    named = {"format": "moa-plan", "version": 1, **plan}
    return {**named, "span": {**named.get("span", {}), "window": windows}}


def check_artifact(engine, model, config) -> None:
    """moa.errors.CompileError where the artifact is not one for the model."""
    heads = config.num_attention_heads
    want = {
        "layers": config.num_hidden_layers,
        "q_heads": heads,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "dtype": DTYPES[model.dtype],
    }
    wrong = [
        f"{key} {engine.info[key]}, the model has {value}"
        for key, value in want.items()
        if engine.info[key] != value
    ]
    cap = soft_cap(config)
    if not is_cap(engine, cap):
        wrong.append(f"soft_cap {engine.info['soft_cap']}, the model has {cap}")
    windows = own_windows(config, engine.info["max_length"])
    if not wrong and windows != engine.windows:
        wrong = [f"windows {engine.windows}, the model has {windows}"]
    if wrong:
        raise CompileError(
            f"the artifact does not fit the model: {'; '.join(wrong)}; "
            "compile the plan for this model"
        )
