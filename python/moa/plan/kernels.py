"""Scores with the compiled kernels: the plan as users run it, through `moa.hf`.

The one module of the planner that uses the compiler and the runtime; loaded
where they are wanted.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers

import moa.compiler
import moa.hf

from .calibration import Item
from .evaluate import Score, answers_of, score_of
from .schema import Plan


def check() -> None:
    """CompileError where there is no compiler."""
    moa.compiler.find_compiler()


class KernelScorer:
    """Scores items of a model under one plan; the model itself stays as it is."""

    def __init__(self, model: Any, plan: Plan, length: int):
        """length: of the longest item, tokens. CompileError where they do not fit."""
        shared = {id(x): x for x in (*model.parameters(), *model.buffers())}
        self.model: transformers.PreTrainedModel = moa.hf.load(
            copy.deepcopy(model, shared), plan=dict(plan.document), max_length=length
        )
        #: Pages of the item at hand; the next one has them.
        self.pages = moa.hf.Cache(self.model).pages

    @torch.inference_mode()
    def score(self, item: Item) -> Score:
        """The prompt once; then each candidate on a fork of its cache."""
        answers = answers_of(item)
        device = self.model.device
        cache = moa.hf.Cache(self.model, pages=self.pages)
        cache.expect([len(item.prompt) + max(map(len, answers))])
        prompt = torch.tensor([item.prompt], device=device)
        first = self.model(prompt, past_key_values=cache, logits_to_keep=1).logits[0]
        rows = []
        for answer in answers:
            logits = [first]
            if len(answer) > 1:
                tokens = torch.tensor([answer[:-1]], device=device)
                fork = cache.fork()
                logits.append(self.model(tokens, past_key_values=fork).logits[0])
                fork.drop()
            rows.append(torch.cat(logits))
        cache.drop()
        return score_of(item, rows)
