"""Rotations in the runtime against those of transformers, and refusals."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

import moa
from conftest import DTYPES, make_plan, relative_error
from moa.errors import InvalidArgumentError, UnsupportedError
from moa.runtime import Cache, Context, Module, Sequence, attend

HQ, HKV, D, TOKENS = 4, 2, 64, 300
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
DEFAULT = {"rope_type": "default", "rope_theta": 1e4}


def load(rope, dtype="f32"):
    plan = make_plan([[0.0] * HQ], [[1.0, 0.5, 0.5, 1.0]])
    shape = f"layers=1,q_heads={HQ},kv_heads={HKV},head_dim={D}"
    path = moa.compile(plan, shape, dtype=dtype, max_length=4096, rope=rope).path
    return Module(Context(2), str(path))


def tensors(dtype):
    generator = torch.Generator().manual_seed(0)
    make = lambda heads: torch.randn(TOKENS, heads, D, generator=generator).to(DTYPES[dtype])
    return make(HQ), make(HKV), make(HKV)


def run(cache, q, k, v):
    """A prompt, then single tokens."""
    sequence, out, first = Sequence(cache, 400), torch.empty_like(q), 0
    for tokens in [TOKENS - 20] + [1] * 20:
        rows = slice(first, first + tokens)
        attend(cache, 0, [(sequence, q[rows], k[rows], v[rows], out[rows])])
        first += tokens
    return out


@pytest.mark.parametrize("parameters", [DEFAULT, LLAMA3])
@pytest.mark.parametrize("dtype,tolerance", [("f32", 1e-4), ("bf16", 2e-2)])
def test_equals_rotating_with_transformers(parameters, dtype, tolerance):
    config = LlamaConfig(
        hidden_size=HQ * D, num_attention_heads=HQ, head_dim=D, rope_parameters=parameters
    )
    embedding = LlamaRotaryEmbedding(config)
    q, k, v = tensors(dtype)
    cos, sin = embedding(q.float(), torch.arange(TOKENS)[None])
    rotate = lambda x: (
        apply_rotary_pos_emb(x.float()[None], x.float()[None], cos, sin, unsqueeze_dim=2)[0][0]
    ).to(x.dtype)
    want_q, want_k = rotate(q), rotate(k)
    want = run(Cache(load(None, dtype)), want_q.clone(), want_k.clone(), v)

    cache = Cache(load("half", dtype))
    cache.set_rope(embedding.inv_freq.double().tolist(), scale=embedding.attention_scaling)
    got = run(cache, q, k, v)
    assert relative_error(got, want) <= tolerance
    # Both were rotated where they lie.
    assert relative_error(q, want_q) <= tolerance
    assert relative_error(k, want_k) <= tolerance


def test_refusals():
    frequencies = [1.0] * (D // 2)
    with pytest.raises(UnsupportedError, match="compile with --rope half:64"):
        Cache(load(None)).set_rope(frequencies)
    cache = Cache(load("half:32"))
    with pytest.raises(
        UnsupportedError, match="asked for half:64; compile with --rope half:64"
    ):
        cache.set_rope(frequencies)
    with pytest.raises(ValueError, match="expected half or interleaved"):
        cache.set_rope(frequencies[:16], layout="pairs")
    sequence = Sequence(cache, 100)
    with pytest.raises(InvalidArgumentError, match="before the first"):
        cache.set_rope(frequencies[:16])
    del sequence
    cache.set_rope(frequencies[:16], layer=0)
