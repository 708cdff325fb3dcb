"""What torch and JAX offer for the same attention, in the same process.

A peer that is absent, fails or runs out of memory gives the reason instead of a
figure, and the others go on.
"""

import contextlib
import math
import os
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash2": SDPBackend.FLASH_ATTENTION}
#: Which keys each computes with: those of the plan, or all up to the row's own.
MASK = {"cudnn": "causal", "flash2": "causal", "flex": "plan", "jax_mosaic": "causal"}


class Skipped(Exception):
    """Why a peer gives no figure."""


@contextlib.contextmanager
def reasons():
    """Turns every failure of a peer into Skipped; gives its memory back."""
    try:
        yield
    except Skipped:
        raise
    except torch.cuda.OutOfMemoryError as error:
        raise Skipped(f"out of memory: {first_line(error)}") from None
    except Exception as error:  # Whatever a compiler or a library raises.
        raise Skipped(f"{type(error).__name__}: {first_line(error)}") from None
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def first_line(error):
    return (str(error).strip().split("\n")[0] or "no message")[:200]


def sdpa(name, q, k, v, causal):
    """A call of torch's dense attention by one backend."""

    def run():
        with sdpa_kernel(BACKENDS[name]):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return run


class Flex:
    """FlexAttention with the windows of one layer as its mask, compiled.

    mask_build_ms is the second building of the mask, without its compilation;
    mask_mb what it holds, mask_peak_mb what building it took besides.
    """

    def __init__(self, model, layer, length, rows):
        """`rows`: the last ones of `length`."""
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        torch._dynamo.reset()
        device = model.device
        rules = model.rules[layer]
        local = torch.tensor([rule.local(length) for rule in rules], device=device)
        sink, first = rules[0].sink, length - rows

        def mask(b, h, i, j):
            row = i + first
            return (row >= j) & ((j < sink) | (row - j < local[h]))

        def build():
            return create_block_mask(
                mask, None, model.q_heads, rows, length, device=device, _compile=True
            )  # fmt: skip

        build()
        model.synchronize()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        begun = time.perf_counter()
        self.block_mask = build()
        model.synchronize()
        tensors = [t for t in self.block_mask.as_tuple() if isinstance(t, torch.Tensor)]
        held = sum(t.numel() * t.element_size() for t in tensors)
        self.facts = {"mask_build_ms": (time.perf_counter() - begun) * 1e3,
                      "mask_mb": held * 1e-6}  # fmt: skip
        if device == "cuda":
            peak = torch.cuda.max_memory_allocated() - before - held
            self.facts["mask_peak_mb"] = max(0, peak) * 1e-6
        cap = model.soft_cap

        def capped(score, b, h, i, j):
            return cap * torch.tanh(score / cap)

        self.score_mod = capped if cap else None
        self.compiled = torch.compile(flex_attention, dynamic=False)

    def call(self, q, k, v):
        """A call on tensors [batch, heads, rows, D]; compiled when it first runs."""
        return lambda: self.compiled(
            q, k, v, score_mod=self.score_mod, block_mask=self.block_mask, enable_gqa=True
        )


class JaxMosaic:
    """The attention of JAX's Mosaic GPU examples, dense and causal.

    It scales nothing, so q comes scaled. In f16, as its tiles in shared memory are
    of that type whatever its inputs are (jax 0.11).
    """

    def __init__(self, q, k, v):
        """Tensors [rows, heads, D] of torch, shared with JAX."""
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        try:
            import jax
            from jax.experimental.pallas.ops.gpu import attention_mgpu as mosaic
        except (ImportError, AttributeError) as error:
            raise Skipped(f"absent: {first_line(error)}") from None
        if jax.default_backend() != "gpu":
            raise Skipped(f"JAX runs on {jax.default_backend()}, not on a GPU")
        self.wait = jax.block_until_ready
        config = mosaic.TuningConfig(
            block_q=64, block_kv=128, max_concurrent_steps=2, causal=True
        )  # fmt: skip
        scaled = q.float() / math.sqrt(q.shape[-1])
        torch.cuda.synchronize()
        tensors = [jax.dlpack.from_dlpack(t[None].half().contiguous()) for t in (scaled, k, v)]
        self.run = lambda: mosaic.attention(*tensors, config)

    def rows(self):
        """The output as a tensor [rows, heads, D] of torch."""
        return torch.from_dlpack(self.wait(self.run()))[0].clone()
