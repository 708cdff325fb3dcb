"""The model to plan for: loaded, frozen, checked, and named by hashes.

A model can be planned for when it is a dense decoder whose layers attend through
transformers' AttentionInterface; no model is recognised by its name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from .. import modelfiles
from ..errors import Error
from .errors import PlannerError
from .runfolder import digest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: Keys of a config that say where it came from or how it is run, not what it is.
_INCIDENTAL = {
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "quantization_config",
    "use_cache", "architectures", "_attn_implementation",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Network:
    """A causal language model in evaluation mode with frozen weights, and its tokenizer."""

    model: Any
    tokenizer: Any
    name: str

    @property
    def config(self) -> Any:
        return self.model.config.get_text_config(decoder=True)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """Hashes of configuration, weights and tokenizer."""
        return {
            "model_config_sha256": config_sha256(self.config),
            "weights_id": weights_id(self.model),
            "tokenizer_sha256": tokenizer_sha256(self.tokenizer),
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }


def geometry(config: Any) -> dict[str, int]:
    """layers, q_heads, kv_heads, head_dim and max_position of a config."""
    heads = int(config.num_attention_heads)
    return {
        "layers": int(config.num_hidden_layers),
        "q_heads": heads,
        "kv_heads": int(getattr(config, "num_key_value_heads", None) or heads),
        "head_dim": int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        "max_position": int(config.max_position_embeddings),
    }


def soft_cap(config: Any) -> float | None:
    """Soft cap of a config's scores; None where they have none."""
    cap = getattr(config, "attn_logit_softcapping", None)
    return float(cap) if cap else None


def dense_attention(config: Any) -> str:
    """What the dense model attends by, as transformers names it: SDPA has no soft caps, and
    some versions leave them out without a word."""
    return "sdpa" if soft_cap(config) is None else "eager"


def config_sha256(config: Any) -> str:
    """SHA-256 of what a config says about the model."""
    fields = json.loads(json.dumps(config.to_dict(), default=str))
    return digest({k: v for k, v in fields.items() if k not in _INCIDENTAL})


def weights_id(model: Any) -> str:
    """SHA-256 over each parameter's name, shape and 64 of its elements."""
    sha = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        picked = flat[:: max(1, flat.numel() // 64)][:64].to("cpu", torch.float32)
        sha.update(f"{name}{tuple(parameter.shape)}".encode() + picked.numpy().tobytes())
    return sha.hexdigest()


def tokenizer_sha256(tokenizer: Any) -> str:
    """SHA-256 of the vocabulary and the chat template."""
    return digest([sorted(tokenizer.get_vocab().items()), tokenizer.chat_template])


def check_config(config: Any, lengths: list[int]) -> None:
    """PlannerError for a model that has no plans, or not at these lengths."""
    if getattr(config, "is_encoder_decoder", False):
        raise PlannerError("the model has an encoder; plans apply to decoder-only models")
    told, window = (getattr(config, key, None) for key in ("layer_types", "sliding_window"))
    kinds = set(told or ["full_attention"])
    # Where layers tell their kinds, a window is that of those that slide.
    if kinds != {"full_attention"} or (window and not told):
        raise PlannerError(
            f"the model is sparse already (layers: {', '.join(sorted(kinds))}; sliding_window "
            f"= {window}); choose a model with dense attention"
        )
    if getattr(config, "kv_lora_rank", None):
        raise PlannerError(
            "the model has latent attention (MLA), which has no spans per head; choose a "
            "model with ordinary or grouped heads"
        )
    try:
        limit = geometry(config)["max_position"]
    except (AttributeError, TypeError):
        raise PlannerError(
            "the config lacks num_hidden_layers, num_attention_heads or "
            "max_position_embeddings; choose a decoder with rotary positions"
        ) from None
    for length in lengths:
        if length > limit:
            raise PlannerError(
                f"length {length} is above the model's max_position_embeddings {limit}; "
                "choose shorter lengths"
            )


def load_config(name: str) -> Any:
    """The text config of a model by folder, .gguf file or hub id, without its weights."""
    return _loaded(modelfiles.load_config, name).get_text_config(decoder=True)


def load(name: str, dtype: str, device: str, lengths: list[int]) -> Network:
    """Loads model and tokenizer and checks them; PlannerError says what is wrong.

    name: a folder, a .gguf file or a hub id. device: "auto" takes CUDA where
    there is one. lengths: in tokens, to be profiled or evaluated.
    """
    target = pick_device(device)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = _loaded(modelfiles.load_tokenizer, name)
    config = load_config(name)
    check_config(config, lengths)
    model = _loaded(
        modelfiles.load_weights,
        name,
        dtype=DTYPES[dtype],
        attn_implementation=dense_attention(config),
    )
    model = model.to(target).eval().requires_grad_(False)
    return Network(model, tokenizer, Path(name).name)


def pick_device(wanted: str) -> str:
    """The device; "auto" is CUDA where there is one. PlannerError for one that is not there."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise PlannerError(f"--device {wanted}: {reason}; choose cpu") from None
    return wanted


def _loaded(load: Callable[..., Any], name: str, **options: Any) -> Any:
    try:
        return load(name, **options)
    except Error as error:
        raise PlannerError(str(error)) from error
