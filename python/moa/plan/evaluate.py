"""Masked attention: what each head of a model sees under a plan, key by key.

Written from the definition of a plan, through torch alone, for any plan and for
H2O-like selection; `kernels.py` does the same with the compiled kernels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from .calibration import RETRIEVAL, Item
from .errors import PlannerError
from .formats import FORMATS, sink_end
from .quantise import kept
from .schema import Plan
from .span import PAGE_TOKENS, Ints, window_starts

NAME = "moa-masked"
#: Rows that are masked at a time: many at once keep a GPU busy.
ROWS = {"cpu": 256}
MANY_ROWS = 1024
#: Tokens that go through the model at once, by device: one sequence on a CPU.
BATCH = {"cpu": 1}
MANY_TOKENS = 1 << 15
#: Bytes of masks that are kept from layer to layer.
KEPT = {"cpu": 0}
MANY_KEPT = 1 << 32


def cross_entropy(logits: Tensor, answer: Tensor) -> Tensor:
    """Mean negative log-probability of an answer, nats; logits [answer, vocabulary]."""
    return F.cross_entropy(logits, answer)


def shortfall(logits: Tensor, answer: Tensor) -> Tensor:
    """Mean of (best other logit - answer's logit): below 0 where the answer is given.

    Unlike cross-entropy it does not saturate where the model is sure.
    """
    right = logits.gather(1, answer[:, None])[:, 0]
    others = logits.scatter(1, answer[:, None], -torch.inf)
    return (others.amax(-1) - right).mean()


def loss_of(item: Item, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The loss that an item is profiled with, of the logits of its response."""
    answer = torch.tensor(item.response, device=device)
    form = shortfall if item.kind in RETRIEVAL else cross_entropy
    return lambda logits: form(logits, answer)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A prompt and, behind it, answers that do not see each other.

    position, branch: int64 [tokens]; branch 0 is the prompt.
    """

    prompt: int
    position: Tensor
    branch: Tensor

    @staticmethod
    def of(prompt: int, answers: int, tokens: int, device: torch.device) -> Layout:
        """`answers` branches of `tokens` tokens each behind `prompt` tokens."""
        behind = torch.arange(tokens, device=device).repeat(answers) + prompt
        position = torch.cat([torch.arange(prompt, device=device), behind])
        branch = torch.arange(1, answers + 1, device=device).repeat_interleave(tokens)
        return Layout(prompt, position, F.pad(branch, (prompt, 0)))

    def causal(self, rows: slice, keys: slice | Tensor) -> Tensor:
        """Keys up to a row, of the prompt or of its own branch: [rows, keys]."""
        before = self.position[keys] <= self.position[rows][:, None]
        branch = self.branch[keys]
        return before & ((branch == 0) | (branch == self.branch[rows][:, None]))


@dataclasses.dataclass(frozen=True)
class View:
    """What some query heads see of a chunk of rows.

    heads: int64 [n]. keys: the keys that any of the rows sees, a slice or int64 [k].
    mask: bool [rows, k], causality included.
    """

    heads: Tensor
    keys: slice | Tensor
    mask: Tensor


@dataclasses.dataclass(frozen=True)
class Scores:
    """How a layer scores keys: scale * q k, then cap * tanh(score / cap) where it has one."""

    scale: float
    cap: float | None = None

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """[.., rows, D] by [.., keys, D]: float32 [.., rows, keys]."""
        scores = query.float() @ key.float().mT * self.scale
        return scores if self.cap is None else self.cap * torch.tanh(scores / self.cap)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Rows of query that see what the mask has: [.., rows, D]."""
        if self.cap is None:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, scale=self.scale
            )
        scores = self(query, key).masked_fill(~mask, -torch.inf)
        return torch.softmax(scores, -1).to(value.dtype) @ value


class Sight(Protocol):
    """Which keys the heads of a model see."""

    #: Whether what is seen does not depend on the sequence.
    batches: bool

    def views(self, layer: int, rows: slice, layout: Layout) -> Iterable[View]:
        """All query heads of a layer, each once; rows.stop keys are there."""

    def saw(
        self, layer: int, query: Tensor, key: Tensor, scores: Scores, layout: Layout
    ) -> None:
        """Called once a layer with [heads, tokens, head_dim], before its rows are masked."""

    def held(
        self, layer: int, key: Tensor, value: Tensor, prompt: int
    ) -> tuple[Tensor, Tensor]:
        """Keys and values [sequences, kv_heads, tokens, head_dim] as the cache gives them
        to the rows behind a prompt of so many tokens, which went into it as one call."""


class Windows:
    """A sink and a window for each head.

    starts: int64 [kinds, positions], first key of the window of the query at a
    position, never falling; kind: int64 [layers, q_heads], on the CPU; plan: whose
    formats KV heads have.
    """

    batches = True

    def __init__(
        self,
        starts: Tensor,
        kind: Tensor,
        sink: int,
        device: torch.device,
        plan: Plan | None = None,
    ):
        self.starts, self.kind, self.sink, self.plan = starts.to(device), kind, sink, plan
        self._first = starts.numpy()
        #: What layers have in common, where there is memory for it.
        self._kept: dict[tuple[int, ...], tuple[slice | Tensor, Tensor]] = {}
        self._room = KEPT.get(device.type, MANY_KEPT)

    @staticmethod
    def of_plan(plan: Plan, length: int, device: torch.device) -> Windows:
        """The windows of a plan for a sequence of `length` tokens in all."""
        if any(plan.windows):
            raise PlannerError(
                "span/window: models with windows of their own are not measured; leave the key "
                "out for a model with dense attention"
            )
        rules = sorted({rule for layer in plan.rules() for rule in layer})
        starts = np.stack([window_starts(a, b, length, plan.span) for a, b in rules])
        kind = torch.tensor([[rules.index(rule) for rule in layer] for layer in plan.rules()])
        return Windows(torch.from_numpy(starts), kind, plan.span.sink, device, plan)

    @staticmethod
    def of_blocks(
        blocks: Ints, block: int, sink: int, length: int, device: torch.device
    ) -> Windows:
        """Windows of whole blocks: blocks [layers, q_heads]."""
        lengths, kind = np.unique(blocks, return_inverse=True)
        local = torch.from_numpy(lengths * block)[:, None]
        starts = (torch.arange(length) + 1 - local).clamp_min(0)
        return Windows(starts, torch.from_numpy(kind.reshape(blocks.shape)), sink, device)

    def views(self, layer: int, rows: slice, layout: Layout) -> Iterator[View]:
        kinds = self.kind[layer]
        for kind in sorted(set(kinds.tolist())):
            name = (kind, rows.start, rows.stop, layout.prompt, len(layout.position))
            seen = self._kept.get(name)
            if seen is None:
                seen = self._seen(kind, rows, layout)
                if seen[1].numel() <= self._room:
                    self._room -= seen[1].numel()
                    self._kept[name] = seen
            yield View((kinds == kind).nonzero()[:, 0].to(self.starts.device), *seen)

    def _seen(self, kind: int, rows: slice, layout: Layout) -> tuple[slice | Tensor, Tensor]:
        """Keys and mask of a view."""
        # The first row in the order of positions; keys before its window go.
        first = int(self._first[kind, min(rows.start, layout.prompt)])
        keys: slice | Tensor = slice(0, rows.stop)
        if first > self.sink:
            device = layout.position.device
            near = torch.arange(first, rows.stop, device=device)
            keys = torch.cat([torch.arange(self.sink, device=device), near])
        position = layout.position[keys]
        start = self.starts[kind][layout.position[rows]][:, None]
        seen = (position < self.sink) | (position >= start)
        return keys, seen & layout.causal(rows, keys)

    def saw(
        self, layer: int, query: Tensor, key: Tensor, scores: Scores, layout: Layout
    ) -> None:
        """Windows do not depend on what is attended to."""

    def held(
        self, layer: int, key: Tensor, value: Tensor, prompt: int
    ) -> tuple[Tensor, Tensor]:
        """Complete blocks behind the sink's as the KV head's format has them."""
        if self.plan is None or not self.plan.has_8_bits:
            return key, value
        first, end = sink_end(self.sink), prompt // PAGE_TOKENS * PAGE_TOKENS
        key, value = key.clone(), value.clone()
        for head, form in enumerate(self.plan.formats(key.shape[1])[layer]):
            if form != FORMATS[0] and first < end:
                for x in (key, value):
                    x[:, head, first:end] = kept(x[:, head, first:end], form)
        return key, value


class HeavyHitters:
    """H2O-like: a dense prompt; answers see the recent keys and the heaviest others.

    Half of `kept` tokens are recent, half are those that the prompt's queries of
    the KV head's group gave most weight in sum.
    """

    batches = False

    def __init__(self, kept: int):
        if kept < 2:
            raise PlannerError(
                f"H2O keeps at least 2 tokens, asked for {kept}; raise the density"
            )
        self.kept = kept
        self._heavy: dict[int, Tensor] = {}

    def saw(
        self, layer: int, query: Tensor, key: Tensor, scores: Scores, layout: Layout
    ) -> None:
        heads, kv_heads, prompt = query.shape[0], key.shape[0], layout.prompt
        weight = torch.zeros(kv_heads, prompt, device=query.device)
        self._group = heads // kv_heads
        keys = key[:, :prompt].repeat_interleave(self._group, 0)
        rows = _rows(query.device)
        for begin in range(0, prompt, rows):
            end = min(prompt, begin + rows)
            found = scores(query[:, begin:end], keys[:, :end])
            future = torch.ones(end - begin, end - begin, device=query.device).triu_(1).bool()
            found[..., begin:].masked_fill_(future, -torch.inf)
            sums = torch.softmax(found, -1).sum(1)
            weight[:, :end] += sums.view(kv_heads, -1, end).sum(1)
        recent = self.kept // 2
        old = weight[:, : max(0, prompt - recent)]
        heavy = torch.zeros(kv_heads, prompt, dtype=torch.bool, device=query.device)
        chosen = old.topk(min(self.kept - recent, old.shape[1]), -1).indices
        heavy.scatter_(1, chosen, True)
        heavy[:, old.shape[1] :] = True
        self._heavy[layer] = heavy

    def views(self, layer: int, rows: slice, layout: Layout) -> Iterator[View]:
        keys = slice(0, rows.stop)
        heavy = self._heavy[layer]
        seen = F.pad(heavy, (0, max(0, rows.stop - heavy.shape[1])), value=True)[:, keys]
        in_prompt = (layout.branch[rows] == 0)[:, None]
        causal = layout.causal(rows, keys)
        for kv_head in range(heavy.shape[0]):
            first = kv_head * self._group
            heads = torch.arange(first, first + self._group, device=heavy.device)
            yield View(heads, keys, (seen[kv_head] | in_prompt) & causal)

    def held(
        self, layer: int, key: Tensor, value: Tensor, prompt: int
    ) -> tuple[Tensor, Tensor]:
        """As they came."""
        return key, value


def _rows(device: torch.device) -> int:
    return ROWS.get(device.type, MANY_ROWS)


@contextlib.contextmanager
def masked(model: Any, sight: Sight, layout: Layout) -> Iterator[None]:
    """`model` attends with these masks meanwhile; all sequences have this layout."""

    def attention(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        scores = Scores(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap)
        if not sight.batches and len(query) > 1:
            raise PlannerError(f"expected one sequence at a time, found {len(query)}")
        sight.saw(layer, query[0], key[0], scores, layout)
        group = query.shape[1] // key.shape[1]
        out = torch.empty_like(query)
        prompt, tokens, step = layout.prompt, query.shape[2], _rows(query.device)
        starts = [*range(0, prompt, step), *range(prompt, tokens, step), tokens]
        for begin, end in itertools.pairwise(starts):
            if begin == prompt:
                key, value = sight.held(layer, key, value, prompt)
            rows = slice(begin, end)
            for view in sight.views(layer, rows, layout):
                owners = view.heads // group
                out[:, view.heads, rows] = scores.attend(
                    query[:, view.heads, rows],
                    key[:, owners][:, :, view.keys],
                    value[:, owners][:, :, view.keys],
                    view.mask[None, None],
                )
        return out.transpose(1, 2), None

    before = model.config.get_text_config(decoder=True)._attn_implementation
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@dataclasses.dataclass(frozen=True)
class Score:
    """How a model answers an item.

    ce: mean cross-entropy of the response, nats; exact: each of its tokens is the
    likeliest; margin: log-probability of the right candidate less the best wrong
    one's, nats, None without candidates.
    """

    ce: float
    exact: bool
    margin: float | None = None

    @property
    def first(self) -> bool | None:
        """Whether the right candidate is the likeliest."""
        return None if self.margin is None else self.margin > 0


def answers_of(item: Item) -> tuple[tuple[int, ...], ...]:
    """The candidates, the response first; or the response alone."""
    return item.candidates or (item.response,)


def score_of(item: Item, logits: list[Tensor]) -> Score:
    """logits: for each answer of the item, [its tokens, vocabulary]."""
    answers = answers_of(item)
    rows = torch.cat(logits).float()
    wanted = torch.tensor([token for answer in answers for token in answer], device=rows.device)
    right = rows[: len(item.response)].argmax(-1) == wanted[: len(item.response)]
    told = torch.log_softmax(rows, -1).gather(1, wanted[:, None])[:, 0].tolist()
    ends = list(itertools.accumulate(map(len, answers)))
    totals = [math.fsum(told[a:b]) for a, b in itertools.pairwise([0, *ends])]
    return Score(
        ce=-totals[0] / len(item.response),
        exact=bool(right.all()),
        margin=totals[0] - max(totals[1:]) if len(totals) > 1 else None,
    )


@torch.inference_mode()
def scores(model: Any, items: Sequence[Item], sight_of: Callable[[int], Sight]) -> list[Score]:
    """Scores items of one form (`form_of`) under masks; `sight_of` is given the length
    in tokens.

    Prompts and all candidates go through the model in one pass.
    """
    device = model.device
    prompt, answers, tokens = form_of(items[0])
    layout = Layout.of(prompt, answers, tokens, device)
    packed = []
    for item in items:
        if form_of(item) != (prompt, answers, tokens):
            raise PlannerError("expected items of one form, found others")
        line = [*item.prompt]
        for answer in answers_of(item):
            line += [*answer, *[answer[-1]] * (tokens - len(answer))]
        packed.append(line)
    with masked(model, sight_of(prompt + tokens), layout):
        logits = model(
            torch.tensor(packed, device=device),
            position_ids=layout.position[None].expand(len(items), -1),
            use_cache=False,
            logits_to_keep=answers * tokens + 1,
        ).logits
    found = []
    for item, known in zip(items, logits, strict=True):
        rows = []
        for index, answer in enumerate(answers_of(item)):
            first = 1 + index * tokens
            rows.append(torch.cat([known[:1], known[first : first + len(answer) - 1]]))
        found.append(score_of(item, rows))
    return found


def form_of(item: Item) -> tuple[int, int, int]:
    """Tokens of the prompt, answers, tokens of the longest: alike in one pass."""
    answers = answers_of(item)
    return len(item.prompt), len(answers), max(map(len, answers))


def batch_size(tokens: int, device: torch.device) -> int:
    """Sequences of so many tokens that go through a model at once."""
    return max(1, BATCH.get(device.type, MANY_TOKENS) // tokens)


def batches(items: Sequence[Item], device: torch.device) -> Iterator[list[Item]]:
    """Items of one form in batches that fit the device, in the order of first items."""
    forms: dict[tuple[int, int, int], list[Item]] = {}
    for item in items:
        forms.setdefault(form_of(item), []).append(item)
    for (prompt, answers, tokens), alike in forms.items():
        size = batch_size(prompt + answers * tokens, device)
        for begin in range(0, len(alike), size):
            yield alike[begin : begin + size]
