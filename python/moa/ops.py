"""Attention as torch operators: `moa::prefill`, `moa::decode`, `moa::append`.

They take tensors and a handle, so that torch.compile traces them and CUDA graphs
capture them. The handle is an int64 tensor of the CPU that names the rows of a
cache (`Rows`) or a batch (`Batch`); the operators say that they write to it, which
keeps calls in order and none of them from being dropped or merged.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Protocol

import torch
from torch import Tensor

from . import runtime

__all__ = ["Batch", "Rows", "append", "decode", "handle_of", "prefill"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Target(Protocol):
    """What a handle stands for; each method is the operator of its name.

    q [B, T, Hq, D], k and v [B, T, Hkv, D] of the new tokens; results [B, T, Hq, D].
    """

    def prefill(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float | None,
        mask: Tensor | None,
    ) -> Tensor: ...

    def decode(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float | None
    ) -> Tensor: ...

    def append(self, layer: int, k: Tensor, v: Tensor) -> None: ...


_targets: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


def handle_of(target: Any) -> Tensor:
    """A new handle of a target, valid as long as the target lives.

    target: an object with some of the methods of `Target`; the others are refused.
    """
    number = next(_numbers)
    _targets[number] = target
    return torch.tensor([number], dtype=torch.int64)


def _method(handle: Tensor, name: str) -> Any:
    """The target's method; ValueError for a dead handle, TypeError for none such."""
    target = _targets.get(int(handle))
    if target is None:
        raise ValueError(
            f"moa::{name}: handle {int(handle)} names no cache or batch; pass the `handle` "
            "of one that is still alive"
        )
    method = getattr(target, name, None)
    if method is None:
        raise TypeError(
            f"moa::{name}: the handle is of a {type(target).__name__}, which has no "
            f"{name}; prefill and append take rows of a cache, decode takes a batch"
        )
    return method


def _stream(tensor: Tensor) -> int:
    """The stream that torch works on now; 0 on the CPU."""
    if tensor.device.type == "cpu":
        return 0
    return int(torch.cuda.current_stream(tensor.device).cuda_stream)


class Rows:
    """Sequences of a cache as the rows of a batch; `handle` names them.

    cache: a moa.runtime.Cache. sequences: one a row, in the order of the tensors'
    rows; the list may be changed between calls.
    """

    def __init__(self, cache: runtime.Cache, sequences: list[runtime.Sequence]):
        self.cache, self.sequences = cache, sequences
        self.handle = handle_of(self)

    def _check(self, rows: int) -> None:
        if rows != len(self.sequences):
            raise ValueError(
                f"the tensors have {rows} rows, expected {len(self.sequences)}: one for each "
                "sequence"
            )

    def prefill(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float | None,
        mask: Tensor | None,
    ) -> Tensor:
        """The operator `moa::prefill`; there is no padding in these rows."""
        self._check(len(q))
        if mask is not None:
            raise ValueError("mask: rows of a moa.ops.Rows have no padding; leave it out")
        out = q.new_empty(q.shape)
        entries = list(zip(self.sequences, q, k, v, out))
        runtime.attend(self.cache, layer, entries, scale, _stream(q))
        return out

    def append(self, layer: int, k: Tensor, v: Tensor) -> None:
        """The operator `moa::append`."""
        self._check(len(k))
        runtime.append(self.cache, layer, list(zip(self.sequences, k, v)), _stream(k))


class Batch(runtime.Batch):  # type: ignore[misc]
    """A moa.runtime.Batch with a `handle`, for `moa::decode` between begin and end."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.handle = handle_of(self)

    def decode(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float | None
    ) -> Tensor:
        """The operator `moa::decode`."""
        out = q.new_empty(q.shape)
        self.attend(layer, q, k, v, out, scale, _stream(q))
        return out


def _check(name: str, handle: Tensor, k: Tensor, v: Tensor, q: Tensor | None = None) -> None:
    """What must hold of the tensors of every call, in tracing and in running."""

    def refuse(message: str, kind: type[Exception] = ValueError) -> None:
        raise kind(f"moa::{name}: {message}")

    if handle.dtype != torch.int64 or handle.device.type not in ("cpu", "meta"):
        refuse(
            f"the handle is {handle.dtype} on {handle.device}, expected the int64 tensor of "
            "the CPU that is the `handle` of a cache or batch"
        )
    tensors = {"k": k, "v": v} if q is None else {"q": q, "k": k, "v": v}
    first = k if q is None else q
    for key, tensor in tensors.items():
        if tensor.dim() != 4:
            refuse(
                f"{key} has {tensor.dim()} dimensions, expected [rows, tokens, heads, head_dim]"
            )
        if tensor.dtype not in _DTYPES or tensor.dtype != first.dtype:
            refuse(
                f"{key} is {tensor.dtype}, expected all of float32, float16 or bfloat16, the "
                "artifact's",
                TypeError,
            )
        if tensor.device != first.device:
            refuse(f"{key} is on {tensor.device}, expected {first.device} as the others")
        if tensor.shape[:2] != first.shape[:2] or tensor.shape[3] != first.shape[3]:
            refuse(
                f"{key} has shape {tuple(tensor.shape)}, which does not go with "
                f"{tuple(first.shape)}: rows, tokens and head_dim must agree"
            )
    if k.shape[2] != v.shape[2]:
        refuse(f"k has {k.shape[2]} heads, v has {v.shape[2]}: pass as many")


def _prefill(
    handle: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layer: int,
    scale: float | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    _check("prefill", handle, k, v, q)
    q, k, v = q.detach(), k.detach(), v.detach()
    out: Tensor = _method(handle, "prefill")(layer, q, k, v, scale, mask)
    return out


def _decode(
    handle: Tensor, q: Tensor, k: Tensor, v: Tensor, layer: int, scale: float | None = None
) -> Tensor:
    _check("decode", handle, k, v, q)
    out: Tensor = _method(handle, "decode")(layer, q.detach(), k.detach(), v.detach(), scale)
    return out


def _append(handle: Tensor, k: Tensor, v: Tensor, layer: int) -> None:
    _check("append", handle, k, v)
    _method(handle, "append")(layer, k.detach(), v.detach())


def _fake_prefill(handle, q, k, v, layer, scale=None, mask=None):  # type: ignore[no-untyped-def]
    _check("prefill", handle, k, v, q)
    return q.new_empty(q.shape)


def _fake_decode(handle, q, k, v, layer, scale=None):  # type: ignore[no-untyped-def]
    _check("decode", handle, k, v, q)
    return q.new_empty(q.shape)


def _fake_append(handle, k, v, layer):  # type: ignore[no-untyped-def]
    _check("append", handle, k, v)


_library: Any = torch.library.Library("moa", "DEF")  # type: ignore[no-untyped-call]


def _define(name: str, run: Any, fake: Any, tags: tuple[torch.Tag, ...]) -> Any:
    """Makes the operator `moa::name` and returns it."""
    schema = torch.library.infer_schema(run, mutates_args=("handle",))
    _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag, *tags))
    for device in ("CPU", "CUDA"):
        _library.impl(name, run, device)
    torch.library.register_fake(f"moa::{name}", fake, lib=_library)
    operator = getattr(torch.ops.moa, name).default

    def below_autograd(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            raise NotImplementedError(
                f"moa::{name} has no backward: run under torch.no_grad() or "
                "torch.inference_mode(), and train with dense attention"
            )
        with torch._C._AutoDispatchBelowAutograd():
            after = keyset & torch._C._after_autograd_keyset
            return operator.redispatch(after, *args, **kwargs)

    _library.impl(name, below_autograd, "Autograd", with_keyset=True)
    return getattr(torch.ops.moa, name)


# A replayed graph does not repeat what the host keeps of sequences, so torch may not
# capture these two; decode's bookkeeping is in Batch.begin and Batch.end.
_HOST = (torch.Tag.cudagraph_unsafe,)

#: moa::prefill(handle, q, k, v, layer, scale=None, mask=None) -> [B, T, Hq, D]: appends
#: the new tokens of one layer and attends to all that they see; a chunk of any size.
#: mask: [B, tokens of the rows so far] of a padded batch, where the target takes one.
prefill = _define("prefill", _prefill, _fake_prefill, _HOST)
#: moa::decode(handle, q, k, v, layer, scale=None) -> [B, T, Hq, D]: one layer of a
#: batch's step under way; may be captured in a CUDA graph. Rows of the result behind
#: the step's sequences have any content.
decode = _define("decode", _decode, _fake_decode, ())
#: moa::append(handle, k, v, layer): appends keys and values, rotated already, without
#: attention.
append = _define("append", _append, _fake_append, _HOST)
