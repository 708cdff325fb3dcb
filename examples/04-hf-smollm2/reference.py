"""The masked reference: eager attention with an explicit mask per head.

Written from the definition of a plan alone; shares no code with the compiler or
the runtime, so that agreement means something.
"""

import json
from pathlib import Path

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "masked-reference"


class Reference:
    """Attention masks of a plan.

    plan: a path or its content. lengths: N, prompt + generation budget, of every
    row of a batch or a list with one each (of each prompt, where generate()
    repeats them); not used under the length rule row. windows: of each layer the
    model's own window or None; it bounds spans and hides the sink.
    """

    def __init__(self, plan, lengths=1, windows=None):
        plan = plan if isinstance(plan, dict) else json.loads(Path(plan).read_text())
        span = plan.get("span", {})
        self.alphas, self.betas = plan["alphas"], plan["betas"]
        self.sink, self.block = span.get("sink", 64), span.get("block", 64)
        self.minimum, self.per_row = span.get("min", 128), span.get("length") == "row"
        self.lengths = [lengths] if isinstance(lengths, int) else list(lengths)
        self.windows = windows or [None] * len(self.alphas)
        self._starts = {}

    def local(self, layer, head, n):
        """Keys that a row sees beside the sink, its own among them, at length n."""
        raw = int(self.alphas[layer][head] + self.betas[layer][head] * n)
        span = -(-max(min(raw, n), self.minimum) // self.block) * self.block
        window = self.windows[layer]
        return span - self.sink if window is None else min(span, window)

    def starts(self, layer, head, n, rows):
        """First key of the window of rows 0 to rows - 1."""
        if not self.per_row:
            return torch.arange(1, rows + 1) - self.local(layer, head, n)
        known = self._starts.get((layer, head))
        if known is None or len(known) < rows:
            own = [i + 1 - self.local(layer, head, i + 1) for i in range(2 * rows)]
            known = torch.tensor(own).cummax(0).values
            self._starts[layer, head] = known
        return known[:rows]

    def seen(self, layer, n, tokens, queries):
        """Which keys the last `queries` columns of one row see: [heads, queries, keys].

        tokens: which of the columns are tokens and not padding, [keys].
        """
        keys = len(tokens)
        position = tokens.long().cumsum(0) - 1
        column = torch.arange(keys)
        i, own = position[-queries:, None], column[-queries:, None]
        allowed = tokens & (column <= own)
        sink = self.sink if self.windows[layer] is None else 0
        heads = []
        for head in range(len(self.alphas[layer])):
            start = self.starts(layer, head, n, keys)[position[-queries:].clamp(min=0)][:, None]
            heads.append(allowed & (position <= i) & ((position < sink) | (position >= start)))
        # Padding sees itself alone: what it computes is of no use, but a number.
        return torch.stack(heads) | (~tokens & (column == own))

    def attention(self, module, query, key, value, tokens, scaling, softcap=None, **kwargs):
        """What transformers calls; tokens [B, keys], or None where all are. Masks are
        made on the CPU."""
        batch, heads, queries, _ = query.shape
        keys, group = key.shape[2], heads // key.shape[1]
        if tokens is None:
            tokens = torch.ones(batch, keys, dtype=torch.bool)
        tokens = tokens[:, :keys].bool().cpu()
        repeat = batch // len(self.lengths)
        seen = torch.stack([
            self.seen(module.layer_idx, self.lengths[row // repeat], tokens[row], queries)
            for row in range(batch)
        ]).to(query.device)  # fmt: skip
        score = query @ key.repeat_interleave(group, 1).transpose(2, 3) * scaling
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        weight = torch.softmax(score.float().masked_fill(~seen, -torch.inf), dim=-1)
        out = weight.to(query.dtype) @ value.repeat_interleave(group, 1)
        return out.transpose(1, 2).contiguous(), None

    def use(self, model):
        """Makes `model` attend with these masks, and returns it."""
        AttentionInterface.register(NAME, self.attention)
        AttentionMaskInterface.register(
            NAME, lambda *args, attention_mask=None, **kwargs: attention_mask
        )
        model.set_attn_implementation(NAME)
        return model
