"""Shared by the Python tests: small plans, the float64 answer, artifacts."""

import json
import math
from pathlib import Path

import pytest
import torch

INPUTS = Path(__file__).resolve().parents[1] / "Inputs"
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "bf16": 8e-3}


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory):
    """Compiled artifacts of the tests stay out of the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def make_plan(alphas, betas, **span):
    plan = {"format": "moa-plan", "version": 1, "alphas": alphas, "betas": betas}
    if span:
        plan["span"] = span
    return json.loads(json.dumps(plan))


class Rule:
    """A head's rule, written from the definition; shares no code with ours."""

    def __init__(self, alpha, beta, sink=64, block=64, minimum=128, per_row=False, most=None):
        self.alpha, self.beta = alpha, beta
        self.sink, self.block, self.minimum = sink, block, minimum
        self.per_row, self.most = per_row, most

    def local(self, n):
        span = max(min(int(self.alpha + self.beta * n), n), self.minimum)
        span = -(-span // self.block) * self.block
        return min(span, self.most or span) - self.sink

    def starts(self, rows, n):
        """Window start of rows 0 to rows - 1."""
        if not self.per_row:
            return [max(0, i + 1 - self.local(n)) for i in range(rows)]
        highest, starts = 0, []
        for i in range(rows):
            highest = max(highest, i + 1 - self.local(i + 1))
            starts.append(highest)
        return starts


def reference(q, k, v, rules, n, scale=None, cap=None):
    """Dense attention in float64 under the rules: q [T, Hq, D] of a whole sequence."""
    tokens, heads, dim = q.shape
    group = heads // k.shape[1]
    i, j = torch.arange(tokens)[:, None], torch.arange(tokens)[None, :]
    out = torch.empty(tokens, heads, dim, dtype=torch.float64)
    for h, rule in enumerate(rules):
        start = torch.tensor(rule.starts(tokens, n))[:, None]
        seen = (j <= i) & ((j < rule.sink) | (j >= start))
        score = q[:, h].double() @ k[:, h // group].double().T
        score *= 1 / math.sqrt(dim) if scale is None else scale
        if cap is not None:
            score = cap * torch.tanh(score / cap)
        p = torch.softmax(score.masked_fill(~seen, -torch.inf), dim=-1)
        out[:, h] = p @ v[:, h // group].double()
    return out


def relative_error(got, want):
    """Largest error of a row relative to its norm."""
    return float(((got.double() - want).norm(dim=-1) / want.norm(dim=-1)).max())
