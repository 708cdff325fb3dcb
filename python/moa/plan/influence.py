"""Influence of attention windows: a by-product of the attention backward.

The loss that a window costs is, to first order, dO . (O masked - O), and that
follows from the products every attention backward forms anyway. Rows are taken
in chunks; no N x N tensor ever exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from .errors import PlannerError
from .formats import sink_end
from .quantise import kept
from .span import PAGE_TOKENS

NAME = "moa-influence"
#: Least probability that may remain in a row; only rows whose weight lies
#: wholly on what is masked come near.
_LEAST = 1e-6


class InfluenceError(PlannerError):
    """The model cannot be profiled, or its numbers are not finite."""


@dataclasses.dataclass(frozen=True)
class Point:
    """Where on the way from dense to windowed attention gradients are taken.

    Each head's output is (1 - mix) of dense and mix of a window of `local`
    tokens beside the sink; mix 0 is the dense model.
    """

    mix: float = 0.0
    local: int = 0


class Recorder:
    """Sums over the rows of one sequence, for every window length at once.

    absolute, signed, squared: float64 [layers, q_heads, blocks + 1]; entry n
    belongs to a window of n blocks beside the sink, and the last one sees all.
    A row's term is the first-order change of the loss when its keys outside
    that window are masked: its size, itself, its square.
    entries: sums of the paper's |E| over block x block squares, [layers,
    q_heads, row blocks, key blocks], or None.
    by_row: float32 [layers, q_heads, row blocks, blocks + 1], `absolute` of each
    block of rows, or None.
    formats: for each format of 8 bits the same as `absolute`, of keys and values
    that are rounded to 8 bits where a window of n blocks sees them: those of
    complete blocks behind the sink's, for the rows behind them. Filled alike:
    format_rows, as by_row.
    rows: of a chunk; a chunk holds q_heads * rows * tokens numbers.
    device: of the sums; it must have float64.
    """

    def __init__(
        self,
        layers: int,
        q_heads: int,
        tokens: int,
        *,
        sink: int,
        block: int,
        rows: int = 256,
        point: Point | None = None,
        entries: bool = False,
        by_row: bool = False,
        formats: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ):
        if sink < 1 or block < 1 or rows < 1 or tokens < 1:
            raise InfluenceError(
                f"expected sink, block, rows and tokens of at least 1, found {sink}, "
                f"{block}, {rows}, {tokens}"
            )
        if (entries or by_row) and rows % block:
            raise InfluenceError(
                f"sums of {'entries' if entries else 'row blocks'} need whole blocks in a "
                f"chunk: {rows} rows are no multiple of {block}"
            )
        self.tokens, self.sink, self.block, self.rows = tokens, sink, block, rows
        self.point = point or Point()
        self.blocks = window_blocks(tokens, sink, block)
        shape = (layers, q_heads, self.blocks + 1)
        self.absolute, self.signed, self.squared = (
            torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(3)
        )
        squares = -(-tokens // block)
        self.entries = (
            torch.zeros(layers, q_heads, squares, squares, dtype=torch.float64, device=device)
            if entries
            else None
        )
        rows_shape = (layers, q_heads, squares, self.blocks + 1)
        self.by_row = torch.zeros(rows_shape, device=device) if by_row else None
        self.formats = {
            form: torch.zeros(shape, dtype=torch.float64, device=device) for form in formats
        }
        self.format_rows = {
            form: torch.zeros(rows_shape, device=device) for form in formats if by_row
        }
        self.seen: set[int] = set()

    def chunks(self) -> Iterator[tuple[int, int]]:
        """First and last-but-one row of each chunk."""
        for begin in range(0, self.tokens, self.rows):
            yield begin, min(self.tokens, begin + self.rows)

    def add(self, layer: int, begin: int, p: Tensor, ds: Tensor) -> None:
        """Adds the rows from `begin`; p and ds [q_heads, rows, keys], keys up to the last.

        p: probabilities of dense attention; ds: gradient of its scores.
        """
        if self.entries is not None:
            self._add_entries(self.entries[layer], begin, p, ds)
        if begin + p.shape[1] <= self.sink:
            return
        blocks = window_blocks(p.shape[2], self.sink, self.block)
        mass = self._outside(p, begin, blocks)
        change = self._outside(ds, begin, blocks)
        change = change.div_((1 - mass).clamp_min_(_LEAST)).neg_()
        for total, terms in (
            (self.absolute, change.abs()),
            (self.signed, change),
            (self.squared, change.square()),
        ):
            total[layer, :, :blocks] += terms.sum(1).to(total.device, torch.float64)
        if self.by_row is not None:
            self._add_rows(self.by_row[layer, ..., :blocks], begin, change.abs())

    def add_format(self, layer: int, begin: int, form: str, change: Tensor) -> None:
        """Adds the rows from `begin`; change [q_heads, rows, keys]: first-order change
        of the loss when a row sees a key and its value rounded."""
        heads, rows, keys = change.shape
        if begin + rows <= self.sink:
            return
        row = torch.arange(begin, begin + rows, device=change.device)[:, None]
        key = torch.arange(keys, device=change.device)
        before = row // PAGE_TOKENS * PAGE_TOKENS
        change = change.masked_fill((key < sink_end(self.sink)) | (key >= before), 0)
        blocks = window_blocks(keys, self.sink, self.block)
        everything = change.sum(-1, keepdim=True)
        inside = everything - self._outside(change, begin, blocks)
        # Longer windows see no more.
        more = everything.expand(-1, -1, self.blocks + 1 - blocks)
        sizes = torch.cat([inside, more], -1).abs_()
        total = self.formats[form]
        total[layer] += sizes.sum(1).to(total.device, torch.float64)
        if self.by_row is not None:
            self._add_rows(self.format_rows[form][layer], begin, sizes)

    def _add_rows(self, total: Tensor, begin: int, sizes: Tensor) -> None:
        """sizes [q_heads, rows, windows] to the blocks of rows they belong to."""
        heads, rows, windows = sizes.shape
        whole = torch.nn.functional.pad(sizes, (0, 0, 0, -rows % self.block))
        sums = whole.view(heads, -1, self.block, windows).sum(2).to(total.device)
        first = begin // self.block
        total[:, first : first + sums.shape[1]] += sums

    def _outside(self, values: Tensor, begin: int, blocks: int) -> Tensor:
        """Sums over the keys outside each window: [q_heads, rows, windows].

        A window of n blocks hides keys `sink` to i - n * block from row i. Rows
        are laid out so that keys of one distance stand below each other; then
        blocks of distances are summed, and those sums from the oldest on.
        """
        heads, rows, keys = values.shape
        pad = max(0, blocks * self.block + self.sink - begin - 1)
        wide = torch.nn.functional.pad(values[..., self.sink :], (pad, 0))
        width = wide.shape[2]
        first = begin - blocks * self.block + 1 - self.sink + pad
        skewed = wide.as_strided(
            (heads, rows, blocks, self.block),
            (rows * width, width + 1, self.block, 1),
            first,
        )
        return skewed.sum(-1).cumsum(-1).flip(-1)

    def _add_entries(self, total: Tensor, begin: int, p: Tensor, ds: Tensor) -> None:
        influence = ds.div((1 - p).clamp_min_(_LEAST)).abs_()
        heads, rows, keys = influence.shape
        padding = (0, -keys % self.block, 0, -rows % self.block)
        squares = torch.nn.functional.pad(influence, padding)
        shape = (heads, -1, self.block, squares.shape[2] // self.block, self.block)
        sums = squares.view(shape).sum((2, 4)).to(total.device, torch.float64)
        row = begin // self.block
        total[:, row : row + sums.shape[1], : sums.shape[2]] += sums

    def check(self, layer: int) -> None:
        """InfluenceError where a sum of the layer is not finite."""
        finite = self.absolute[layer].isfinite() & self.squared[layer].isfinite()
        for sums in self.formats.values():
            finite = finite & sums[layer].isfinite()
        if not finite.all():
            head = int((~finite).any(-1).nonzero()[0, 0])
            raise InfluenceError(
                f"layer {layer} head {head}: influence is not finite; profile in float32 "
                "(--dtype float32), or look at the model's weights"
            )

    def attention(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """What transformers calls: query [1, Hq, T, D], key and value [1, Hkv, T, D]."""
        if query.shape[0] != 1 or query.shape[2] != self.tokens or key.shape[2] != self.tokens:
            raise InfluenceError(
                f"expected one whole sequence of {self.tokens} tokens, found queries "
                f"{tuple(query.shape)} and keys {tuple(key.shape)}"
            )
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        self.seen.add(layer)
        out = attend(query[0], key[0], value[0], scale, layer, self, softcap)
        return out.transpose(0, 1)[None], None


def window_blocks(tokens: int, sink: int, block: int) -> int:
    """Least number of blocks beside the sink with which no row misses a key."""
    return max(0, -(-(tokens - sink) // block))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    layer: int,
    recorder: Recorder,
    cap: float | None = None,
) -> Tensor:
    """Causal attention of one sequence at the recorder's point of the path.

    q [Hq, T, D], k and v [Hkv, T, D], groups of consecutive query heads; cap: soft
    cap of scores. The backward adds the layer's influence to the recorder. Returns
    [Hq, T, D].
    """
    out: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        q, k, v, scale, layer, recorder, cap
    )
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        layer: int,
        recorder: Recorder,
        cap: float | None,
    ) -> Tensor:
        point = recorder.point
        full = torch.empty_like(q, memory_format=torch.contiguous_format)
        windowed = torch.empty_like(full) if point.mix else None
        for begin, end in recorder.chunks():
            p, _ = _probabilities(q, k, scale, cap, begin, end)
            full[:, begin:end] = _values(p, v)
            if windowed is not None:
                windowed[:, begin:end] = _values(_within(p, begin, recorder), v)
        ctx.save_for_backward(q, k, v, full, windowed)
        ctx.scale, ctx.layer, ctx.recorder, ctx.cap = scale, layer, recorder, cap
        if windowed is None:
            return full
        return torch.lerp(full, windowed, point.mix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, full, windowed = ctx.saved_tensors
        recorder, mix = ctx.recorder, ctx.recorder.point.mix
        work = torch.promote_types(q.dtype, torch.float32)
        dq = torch.empty_like(q, memory_format=torch.contiguous_format)
        dk, dv = torch.zeros_like(k, dtype=work), torch.zeros_like(v, dtype=work)
        rounded = {form: (kept(k, form) - k, kept(v, form) - v) for form in recorder.formats}
        for begin, end in recorder.chunks():
            rows = slice(begin, end)
            p, slope = _probabilities(q, k, ctx.scale, ctx.cap, begin, end)
            upstream = grad[:, rows]
            dp = _scores(upstream, v, end)
            ds = p * (dp - _delta(upstream, full[:, rows], work))
            # Masks come behind the cap, keys before it.
            recorder.add(ctx.layer, begin, p, ds)
            if slope is not None:
                ds.mul_(slope)
            for form, (of_k, of_v) in rounded.items():
                change = _scores(q[:, rows], of_k, end).mul_(ctx.scale).mul_(ds)
                change.addcmul_(_scores(upstream, of_v, end), p)
                recorder.add_format(ctx.layer, begin, form, change)
            if windowed is not None:
                within = _within(p, begin, recorder)
                dwithin = dp.sub_(_delta(upstream, windowed[:, rows], work)).mul_(within)
                if slope is not None:
                    dwithin.mul_(slope)
                p, ds = p.lerp_(within, mix), ds.lerp_(dwithin, mix)
            dq[:, rows] = _values(ds, k) * ctx.scale
            dk[:, :end] += _transposed(ds, q[:, rows], k.shape[0]) * ctx.scale
            dv[:, :end] += _transposed(p, upstream, v.shape[0])
        recorder.check(ctx.layer)
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, None, None, None


def _scores(x: Tensor, y: Tensor, end: int) -> Tensor:
    """x [Hq, rows, D] by y [Hkv, T, D] up to `end`: at least float32 [Hq, rows, end]."""
    heads, rows, dim = x.shape
    packed = x.reshape(y.shape[0], -1, dim)
    out = torch.bmm(packed, y[:, :end].transpose(1, 2)).view(heads, rows, end)
    return out.to(torch.promote_types(out.dtype, torch.float32))


def _values(p: Tensor, v: Tensor) -> Tensor:
    """p [Hq, rows, keys] times v [Hkv, T, D] of the first keys: [Hq, rows, D]."""
    heads, rows, keys = p.shape
    packed = p.to(v.dtype).view(v.shape[0], -1, keys)
    return torch.bmm(packed, v[:, :keys]).view(heads, rows, -1)


def _transposed(p: Tensor, x: Tensor, kv_heads: int) -> Tensor:
    """Sum over a group's rows of p^T x: [Hkv, keys, D]."""
    packed = p.to(x.dtype).view(kv_heads, -1, p.shape[2])
    return torch.bmm(packed.transpose(1, 2), x.reshape(kv_heads, -1, x.shape[2]))


def _delta(upstream: Tensor, out: Tensor, work: torch.dtype) -> Tensor:
    return (upstream.to(work) * out.to(work)).sum(-1, keepdim=True)


def _probabilities(
    q: Tensor, k: Tensor, scale: float, cap: float | None, begin: int, end: int
) -> tuple[Tensor, Tensor | None]:
    """Causal probabilities of rows begin to end, at least float32 [Hq, rows, end], and the
    slope of the cap at their scores, None without one."""
    scores, slope = _scores(q[:, begin:end], k, end).mul_(scale), None
    if cap is not None:
        bent = scores.div_(cap).tanh_()
        slope = 1 - bent.square()
        scores = bent.mul_(cap)
    rows = end - begin
    future = torch.ones(rows, rows, dtype=torch.bool, device=q.device).triu_(1)
    scores[..., begin:].masked_fill_(future, -torch.inf)
    return torch.softmax(scores, -1), slope


def _within(p: Tensor, begin: int, recorder: Recorder) -> Tensor:
    """p restricted to the sink and the window of the recorder's point."""
    i = torch.arange(begin, begin + p.shape[1], device=p.device)[:, None]
    j = torch.arange(p.shape[2], device=p.device)[None]
    inside = p * ((j < recorder.sink) | (i - j < recorder.point.local))
    return inside.div_(inside.sum(-1, keepdim=True))


def _checkpointing(model: Any, action: str) -> Callable[..., None]:
    """A model's method of that action; transformers 5.16 has the older name alone."""
    new = getattr(model, f"activation_checkpointing_{action}", None)
    method: Callable[..., None] = new or getattr(model, f"gradient_checkpointing_{action}")
    return method


@contextlib.contextmanager
def attached(model: Any, recorder: Recorder, checkpoint: bool = True) -> Iterator[None]:
    """`model` attends through the recorder meanwhile; layers are checkpointed if asked.

    InfluenceError for a model that computes attention by itself.
    """
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    AttentionInterface.register(NAME, recorder.attention)
    AttentionMaskInterface.register(NAME, _no_mask)
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    model.set_attn_implementation(NAME)
    try:
        if config._attn_implementation != NAME:
            raise InfluenceError(
                f"{type(model).__name__} computes attention by itself, not through "
                "transformers' AttentionInterface, so it cannot be profiled"
            )
        if checkpoint:
            _checkpointing(model, "enable")({"use_reentrant": False})
            for layer in layers:
                layer.training = True  # for its checkpoint; the modules inside stay as they are
        yield
    finally:
        if checkpoint:
            for layer in layers:
                layer.training = False
            _checkpointing(model, "disable")()
        model.set_attn_implementation(before)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """One whole sequence without padding: causal, and nothing else."""


def run(
    model: Any,
    ids: Tensor,
    keep: int,
    recorder: Recorder,
    loss_of: Callable[[Tensor], Tensor],
    checkpoint: bool = True,
) -> float:
    """Forward and backward of one sequence; returns the loss.

    ids: int64 [tokens]. keep: last tokens whose logits are wanted; `loss_of`
    makes a scalar of those logits, [keep, vocabulary] in float32, that predict
    them. checkpoint: keep one layer's activations at a time, for a third more
    work. The weights must be frozen.
    """
    embeddings = model.get_input_embeddings()(ids[None]).detach().requires_grad_(True)
    with attached(model, recorder, checkpoint):
        out = model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=keep + 1)
        logits = out.logits[0, :-1]
        loss = loss_of(logits.to(torch.promote_types(logits.dtype, torch.float32)))
        if not loss.isfinite():
            raise InfluenceError(
                f"the loss is {loss.item()}; profile in float32 (--dtype float32), or look "
                "at the model's weights"
            )
        loss.backward()  # type: ignore[no-untyped-call]
    layers = recorder.absolute.shape[0]
    if recorder.seen != set(range(layers)):
        raise InfluenceError(
            f"{type(model).__name__} has {layers} layers, attention of "
            f"{len(recorder.seen)} went through transformers' AttentionInterface; a model "
            "with other kinds of layers cannot be profiled"
        )
    return float(loss.detach())
