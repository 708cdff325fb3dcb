"""Shape of a model's attention: from a command line or a Hugging Face config.json.

Reads what `lib/Plan/Model*.cpp` reads, and refuses what that refuses.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import PlanError
from .jsontext import canonical, line_of, parse, read

#: Longest sequence served where nobody said otherwise, tokens.
DEFAULT_MAX_LENGTH = 131072
#: Least and largest soft cap of scores.
MIN_SOFT_CAP, MAX_SOFT_CAP = 2.0**-20, 2.0**20
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_FORM = (
    "write --model layers=32,q_heads=32,kv_heads=8,head_dim=128, or give the model's "
    "config.json"
)
_SHAPE = "give the shape itself: --model layers=32,q_heads=32,kv_heads=8,head_dim=128"


@dataclass(frozen=True)
class ModelShape:
    """Layers and heads of a model."""

    layers: int
    q_heads: int
    kv_heads: int
    head_dim: int  #: Elements.
    max_length: int = DEFAULT_MAX_LENGTH  #: Longest sequence, tokens.
    #: Scores s are soft_cap * tanh(s / soft_cap), in float32; 0 where they stay as they are.
    soft_cap: float = 0.0

    @property
    def group(self) -> int:
        """Query heads of one KV head."""
        return self.q_heads // self.kv_heads


def parse_model_text(text: str) -> ModelShape:
    """Reads `layers=30,q_heads=9,kv_heads=3,head_dim=64[,max_length=8192][,soft_cap=50]`,
    in any order; kv_heads defaults to q_heads."""

    def refuse(message: str) -> PlanError:
        return PlanError("--model", message, cure=_FORM)

    found: dict[str, Any] = {}
    for field in text.split(","):
        key, _, value = (part.strip() for part in field.partition("="))
        if key not in ("layers", "q_heads", "kv_heads", "head_dim", "max_length", "soft_cap"):
            raise refuse(
                "expected layers, q_heads, kv_heads, head_dim, max_length or soft_cap, got "
                f"'{field}'"
            )
        if key in found:
            raise refuse(f"expected '{key}' once, got it twice")
        if key == "soft_cap":
            cap = float(value) if _NUMBER.fullmatch(value) else 0.0
            if not MIN_SOFT_CAP <= cap <= MAX_SOFT_CAP:
                raise refuse(f"expected a number from 2^-20 to 2^20 for '{key}', got '{value}'")
            found[key] = float(np.float32(cap))
            continue
        number = int(value) if re.fullmatch("[0-9]{1,11}", value) else 0
        if not 1 <= number <= 1 << 31:
            raise refuse(f"expected a positive number for '{key}', got '{value}'")
        found[key] = number
    for key in ("layers", "q_heads", "head_dim"):
        if key not in found:
            raise refuse(f"expected '{key}', found only '{text}'")
    heads = found["q_heads"]
    kv_heads = found.setdefault("kv_heads", heads)
    if heads % kv_heads:
        raise refuse(
            f"expected q_heads to be a multiple of kv_heads, got {heads} and {kv_heads}"
        )
    return ModelShape(**found)


def parse_model_config(text: str, file: str) -> ModelShape:
    """Reads num_hidden_layers, num_attention_heads, num_key_value_heads (default:
    num_attention_heads), head_dim (default: hidden_size / num_attention_heads),
    max_position_embeddings and attn_logit_softcapping; inside `text_config` where the file
    has one."""
    root = parse(text, file)
    prefix = ""

    def refuse(key: str, message: str) -> PlanError:
        path = prefix + key
        return PlanError(file, message, line=line_of(text, path), key=path, cure=_SHAPE)

    if not isinstance(root, dict):
        raise refuse("", "expected a JSON object")
    config: dict[str, Any] = root
    if isinstance(root.get("text_config"), dict) and "num_hidden_layers" not in root:
        config, prefix = root["text_config"], "text_config/"

    def positive(key: str, default: int | None = None) -> int:
        value = config.get(key)
        if value is None:
            if default is None:
                raise refuse(key, "expected a positive integer, found no such key")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            shown = f'"{value}"' if isinstance(value, str) else value
            raise refuse(key, f"expected a positive integer, found {shown}")
        return value

    def soft_cap() -> float:
        key = "attn_logit_softcapping"
        cap = config.get(key)
        if cap is None:
            return 0.0
        number = isinstance(cap, (int, float)) and not isinstance(cap, bool)
        if not number or not MIN_SOFT_CAP <= cap <= MAX_SOFT_CAP:
            shown = canonical(cap).strip()
            raise refuse(key, f"expected a number from 2^-20 to 2^20, found {shown}")
        return float(np.float32(cap))

    layers = positive("num_hidden_layers")
    heads = positive("num_attention_heads")
    kv_heads = positive("num_key_value_heads", heads)
    if heads % kv_heads:
        raise refuse(
            "num_key_value_heads",
            f"expected a divisor of num_attention_heads = {heads}, found {kv_heads}",
        )
    if config.get("head_dim") is not None:
        head_dim = positive("head_dim")
    else:
        hidden = positive("hidden_size")
        if hidden % heads:
            raise refuse(
                "hidden_size",
                f"expected a multiple of num_attention_heads = {heads}, found {hidden}",
            )
        head_dim = hidden // heads
    longest = positive("max_position_embeddings", DEFAULT_MAX_LENGTH)
    return ModelShape(layers, heads, kv_heads, head_dim, longest, soft_cap())


def load_model(argument: str) -> ModelShape:
    """What `--model` takes: the text form where `argument` has a '=' and names no
    file, a path to a config.json, or a folder that holds one."""
    if "=" in argument and not os.path.exists(argument):
        return parse_model_text(argument)
    path = os.path.join(argument, "config.json") if os.path.isdir(argument) else argument
    if not os.path.isfile(path):
        raise PlanError(
            path,
            "cannot read the model's configuration: No such file or directory",
            cure=_FORM,
        )
    return parse_model_config(read(path, "configuration"), path)
