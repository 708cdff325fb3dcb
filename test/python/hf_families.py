"""Tiny random models of the families that moa.hf serves, by their configs."""

from __future__ import annotations

import torch
import transformers

SIZES = dict(
    vocab_size=199, hidden_size=256, intermediate_size=128, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
    initializer_range=0.2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
HEAD = dict(head_dim=64)
#: Norms keep layers of Gemma 2 and 3 small beside the embeddings: tied ones would repeat
#: a prompt's last token, whatever is attended to.
UNTIED = dict(tie_word_embeddings=False)
OWN, FULL = "sliding_attention", "full_attention"
MIXED = dict(layer_types=[OWN, FULL, OWN], sliding_window=100)

#: name: (config class, changes to SIZES, the model's own windows).
FAMILIES = {
    "Llama": ("LlamaConfig", HEAD, None),
    "Mistral": ("MistralConfig", HEAD | dict(sliding_window=None), None),
    "Mistral, windows": ("MistralConfig", HEAD | dict(sliding_window=100), [100] * 3),
    "Mistral, no sequence leaves its windows": (
        "MistralConfig", HEAD | dict(sliding_window=4096), None,
    ),
    "Qwen2": ("Qwen2Config", {}, None),
    "Qwen2, windows": (
        "Qwen2Config", MIXED | dict(use_sliding_window=True), [100, None, 100],
    ),
    "Qwen3": ("Qwen3Config", HEAD, None),
    "Gemma": ("GemmaConfig", HEAD, None),
    # Scores reach twice the cap. SDPA of older transformers leaves the cap out.
    "Gemma 2": (
        "Gemma2Config",
        HEAD | MIXED | UNTIED | dict(query_pre_attn_scalar=16, attn_implementation="eager"),
        [100, None, 100],
    ),
    "Gemma 2 without soft caps": (
        "Gemma2Config",
        HEAD | MIXED | UNTIED | dict(attn_logit_softcapping=None, query_pre_attn_scalar=64),
        [100, None, 100],
    ),
    "Gemma 3": (
        "Gemma3TextConfig", HEAD | MIXED | UNTIED | dict(query_pre_attn_scalar=64),
        [100, None, 100],
    ),
    "Phi-3": ("Phi3Config", dict(sliding_window=100), [100] * 3),
    "SmolLM3, layers without RoPE": (
        "SmolLM3Config", dict(no_rope_layers=[1, 0, 1], use_sliding_window=False), None,
    ),
}  # fmt: skip


def config(name, **changes):
    kind, own, _ = FAMILIES[name]
    return getattr(transformers, kind)(**(SIZES | own | changes))


def fresh(name, seed=0, **changes):
    """A model of a family, the same for the same seed."""
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config(name, **changes)).eval()
