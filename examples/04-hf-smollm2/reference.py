"""The masked reference: eager attention with an explicit mask per head.

Written from the definition of a plan alone; shares no code with the compiler or
the runtime, so that agreement means something.
"""

import json
from pathlib import Path

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
from transformers.models.llama.modeling_llama import eager_attention_forward

NAME = "masked-reference"


class Reference:
    """Attention masks of a plan at length `n` (prompt + generation budget)."""

    def __init__(self, plan_path, n):
        plan = json.loads(Path(plan_path).read_text())
        rules = plan.get("span", {})
        self.sink = rules.get("sink", 64)
        block, minimum = rules.get("block", 64), rules.get("min", 128)
        self.local = []
        for alphas, betas in zip(plan["alphas"], plan["betas"]):
            spans = [max(min(int(a + b * n), n), minimum) for a, b in zip(alphas, betas)]
            self.local.append([-(-s // block) * block - self.sink for s in spans])

    def mask(self, layer, rows, keys, dtype):
        """Additive mask [1, heads, rows, keys] of the last `rows` positions."""
        i = torch.arange(keys - rows, keys)[:, None]
        j = torch.arange(keys)[None, :]
        local = torch.tensor(self.local[layer])[:, None, None]
        seen = (j <= i) & ((j < self.sink) | (i - j < local))
        return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)[None]

    def use(self, model):
        """Makes `model` attend with these masks."""

        def attention(module, query, key, value, attention_mask, scaling, **kwargs):
            mask = self.mask(module.layer_idx, query.shape[2], key.shape[2], query.dtype)
            return eager_attention_forward(module, query, key, value, mask, scaling)

        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
        model.set_attn_implementation(NAME)
