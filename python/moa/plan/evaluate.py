"""Masked attention: what each head of a model sees under a plan, key by key.

Written from the definition of a plan, through torch alone, for any plan and for
H2O-like selection; `kernels.py` does the same with the compiled kernels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
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
from .span import PAGE_TOKENS, Ints, window_start

NAME = "moa-masked"
#: Rows that are masked at a time.
ROWS = 256


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


class Sight(Protocol):
    """Which keys the heads of a model see, beside causality."""

    sink: int

    def visible(
        self, layer: int, rows: slice, layout: Layout, keys: int
    ) -> tuple[Tensor, Tensor]:
        """Masks [kinds, rows, keys] and the kind of each query head [q_heads]."""

    def saw(self, layer: int, query: Tensor, key: Tensor, scale: float, layout: Layout) -> None:
        """Called once a layer, before its rows are masked."""

    def held(
        self, layer: int, key: Tensor, value: Tensor, prompt: int
    ) -> tuple[Tensor, Tensor]:
        """Keys and values [kv_heads, tokens, dim] as the cache gives them to the rows
        behind a prompt of so many tokens, which went into it as one call."""


class Windows:
    """A sink and a window for each head.

    starts: int64 [kinds, positions], first key of the window of the query at a
    position; kind: int64 [layers, q_heads]; plan: whose formats KV heads have.
    """

    def __init__(self, starts: Tensor, kind: Tensor, sink: int, plan: Plan | None = None):
        self.starts, self.kind, self.sink, self.plan = starts, kind, sink, plan

    @staticmethod
    def of_plan(plan: Plan, length: int, device: torch.device) -> Windows:
        """The windows of a plan for a sequence of `length` tokens in all."""
        rules = sorted({rule for layer in plan.rules() for rule in layer})
        starts = torch.tensor(
            [
                [window_start(a, b, i, length, plan.span) for i in range(length)]
                for a, b in rules
            ]
        )
        kind = torch.tensor([[rules.index(rule) for rule in layer] for layer in plan.rules()])
        return Windows(starts.to(device), kind.to(device), plan.span.sink, plan)

    @staticmethod
    def of_blocks(
        blocks: Ints, block: int, sink: int, length: int, device: torch.device
    ) -> Windows:
        """Windows of whole blocks: blocks [layers, q_heads]."""
        lengths, kind = np.unique(blocks, return_inverse=True)
        local = torch.from_numpy(lengths * block)[:, None]
        starts = (torch.arange(length) + 1 - local).clamp_min(0)
        kinds = torch.from_numpy(kind.reshape(blocks.shape))
        return Windows(starts.to(device), kinds.to(device), sink)

    def visible(
        self, layer: int, rows: slice, layout: Layout, keys: int
    ) -> tuple[Tensor, Tensor]:
        used, kind = torch.unique(self.kind[layer], return_inverse=True)
        start = self.starts[used][:, layout.position[rows]]
        key = layout.position[:keys]
        return (key < self.sink) | (key >= start[..., None]), kind

    def saw(self, layer: int, query: Tensor, key: Tensor, scale: float, layout: Layout) -> None:
        """Windows do not depend on what is attended to."""

    def held(
        self, layer: int, key: Tensor, value: Tensor, prompt: int
    ) -> tuple[Tensor, Tensor]:
        """Complete blocks behind the sink's as the KV head's format has them."""
        if self.plan is None or not self.plan.has_8_bits:
            return key, value
        first, end = sink_end(self.sink), prompt // PAGE_TOKENS * PAGE_TOKENS
        key, value = key.clone(), value.clone()
        for head, form in enumerate(self.plan.formats(len(key))[layer]):
            if form != FORMATS[0] and first < end:
                for x in (key, value):
                    x[head, first:end] = kept(x[head, first:end][None], form)[0]
        return key, value


class HeavyHitters:
    """H2O-like: a dense prompt; answers see the recent keys and the heaviest others.

    Half of `kept` tokens are recent, half are those that the prompt's queries of
    the KV head's group gave most weight in sum.
    """

    sink = 0

    def __init__(self, kept: int):
        if kept < 2:
            raise PlannerError(
                f"H2O keeps at least 2 tokens, asked for {kept}; raise the density"
            )
        self.kept = kept
        self._heavy: dict[int, Tensor] = {}

    def saw(self, layer: int, query: Tensor, key: Tensor, scale: float, layout: Layout) -> None:
        heads, kv_heads, prompt = query.shape[0], key.shape[0], layout.prompt
        weight = torch.zeros(kv_heads, prompt, device=query.device)
        keys = key[:, :prompt].float().repeat_interleave(heads // kv_heads, 0)
        for begin in range(0, prompt, ROWS):
            end = min(prompt, begin + ROWS)
            scores = query[:, begin:end].float() @ keys[:, :end].mT * scale
            future = torch.ones(end - begin, end - begin, device=query.device).triu_(1).bool()
            scores[..., begin:].masked_fill_(future, -torch.inf)
            sums = torch.softmax(scores, -1).sum(1)
            weight[:, :end] += sums.view(kv_heads, -1, end).sum(1)
        recent = self.kept // 2
        old = weight[:, : max(0, prompt - recent)]
        heavy = torch.zeros(kv_heads, prompt, dtype=torch.bool, device=query.device)
        chosen = old.topk(min(self.kept - recent, old.shape[1]), -1).indices
        heavy.scatter_(1, chosen, True)
        heavy[:, old.shape[1] :] = True
        self._heavy[layer] = heavy

    def visible(
        self, layer: int, rows: slice, layout: Layout, keys: int
    ) -> tuple[Tensor, Tensor]:
        heavy = self._heavy[layer]
        kinds = torch.arange(heavy.shape[0], device=heavy.device)
        seen = F.pad(heavy, (0, max(0, keys - heavy.shape[1])), value=True)[:, None, :keys]
        in_prompt = (layout.branch[rows] == 0)[:, None]
        return seen | in_prompt, kinds

    def held(
        self, layer: int, key: Tensor, value: Tensor, prompt: int
    ) -> tuple[Tensor, Tensor]:
        """As they came."""
        return key, value


@contextlib.contextmanager
def masked(model: Any, sight: Sight, layout: Layout) -> Iterator[None]:
    """`model` attends with these masks meanwhile; batches of one sequence."""

    def attention(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        sight.saw(layer, query[0], key[0], scale, layout)
        group = query.shape[1] // key.shape[1]
        out = torch.empty_like(query)
        prompt, tokens = layout.prompt, query.shape[2]
        starts = [*range(0, prompt, ROWS), *range(prompt, tokens, ROWS), tokens]
        for begin, end in itertools.pairwise(starts):
            if begin in (0, prompt):
                held = (key[0], value[0])
                if begin == prompt:
                    held = sight.held(layer, *held, prompt)
                keys, values = (x.repeat_interleave(group, 0)[None] for x in held)
            rows = slice(begin, end)
            seen, kind = sight.visible(layer, rows, layout, end)
            seen = seen & _causal(layout, rows, end)
            if kind.shape[0] != query.shape[1]:
                kind = kind.repeat_interleave(query.shape[1] // kind.shape[0])
            out[:, :, rows] = F.scaled_dot_product_attention(
                query[:, :, rows],
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=seen[kind][None],
                scale=scale,
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


def _causal(layout: Layout, rows: slice, keys: int) -> Tensor:
    """Keys before a row, of the prompt or of its own branch: [rows, keys]."""
    position, branch = layout.position, layout.branch
    before = position[:keys] <= position[rows][:, None]
    return before & ((branch[:keys] == 0) | (branch[:keys] == branch[rows][:, None]))


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
    totals = []
    for answer, rows in zip(answers_of(item), logits, strict=True):
        wanted = torch.tensor(answer, device=rows.device)
        totals.append(-float(F.cross_entropy(rows.float(), wanted, reduction="sum")))
    right = torch.tensor(item.response, device=logits[0].device)
    return Score(
        ce=-totals[0] / len(item.response),
        exact=bool((logits[0].argmax(-1) == right).all()),
        margin=totals[0] - max(totals[1:]) if len(totals) > 1 else None,
    )


@torch.inference_mode()
def score(model: Any, item: Item, sight_of: Callable[[int], Sight]) -> Score:
    """Scores an item under masks; `sight_of` is given the length in tokens.

    Prompt and all candidates go through the model at once.
    """
    device = model.device
    answers, prompt = answers_of(item), len(item.prompt)
    tokens = max(map(len, answers))
    layout = Layout.of(prompt, len(answers), tokens, device)
    packed = [*item.prompt]
    for answer in answers:
        packed += [*answer, *[answer[-1]] * (tokens - len(answer))]
    with masked(model, sight_of(prompt + tokens), layout):
        logits = model(
            torch.tensor([packed], device=device),
            position_ids=layout.position[None],
            use_cache=False,
            logits_to_keep=len(answers) * tokens + 1,
        ).logits[0]
    rows = []
    for index, answer in enumerate(answers):
        first = 1 + index * tokens
        rows.append(torch.cat([logits[:1], logits[first : first + len(answer) - 1]]))
    return score_of(item, rows)
