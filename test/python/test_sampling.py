"""Sampling against the definition of each option, written out in float64."""

import math

import pytest
import torch

from moa.serving.sampling import Sampler, Sampling, choose


def allowed(logits, sampling):
    """Probability of each token: the definition, with a full sort."""
    p = torch.softmax(logits.double() / sampling.temperature, dim=0)
    order = p.argsort(descending=True, stable=True)
    if sampling.top_k:
        p[order[sampling.top_k :]] = 0
        p /= p.sum()
    total = 0.0
    for token in order.tolist():
        if total >= sampling.top_p:
            p[token] = 0
        total += float(p[token])
    return p / p.sum()


@pytest.mark.parametrize("size", [5, 300, 2000])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"top_p": 0.5}, {"top_p": 0.999}, {"top_k": 7}, {"top_k": 20, "top_p": 0.7},
        {"top_p": 1e-9},
    ],
)  # fmt: skip
def test_draws_follow_the_definition(size, options):
    logits = 2 * torch.randn(size, generator=torch.Generator().manual_seed(size))
    sampling = Sampling(temperature=1.3, seed=5, **options)
    want = allowed(logits, sampling)
    sampler, count = Sampler(sampling), 1500
    seen = torch.zeros(size)
    for _ in range(count):
        seen[choose([sampler], logits[None])[0]] += 1
    assert not seen[want == 0].any()
    likely = want > 0.02
    error = (seen / count - want).abs()[likely]
    assert (error < 5 * (want[likely] / count).sqrt()).all()


def test_greedy_takes_the_likeliest():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    samplers = [Sampler(Sampling(temperature=0)) for _ in range(3)]
    samplers.append(Sampler(Sampling(temperature=5.0, top_k=1)))
    assert choose(samplers, logits) == logits.argmax(dim=-1).tolist()


@pytest.mark.parametrize("options", [{}, {"top_p": 0.6}, {"top_k": 9}])
def test_a_row_does_not_depend_on_the_others(options):
    """Rows of like options, of others, and greedy ones; flat rows need more candidates."""
    logits = torch.randn(6, 900, generator=torch.Generator().manual_seed(2))
    logits[:4] *= 6
    make = lambda seed: Sampler(Sampling(temperature=2.0, seed=seed, **options))
    others = [Sampler(Sampling(temperature=0)), Sampler(Sampling(top_p=0.9))]
    alone = [make(11), make(12), make(13)]
    together = [others[0], make(11), others[1], make(12), others[1], make(13)]
    for _ in range(50):
        picks = choose(together, logits)
        single = [choose([own], logits[[row]])[0] for own, row in zip(alone, (1, 3, 5))]
        assert picks[1::2] == single and picks[0] == int(logits[0].argmax())


def test_impossible_tokens_are_never_drawn():
    logits = torch.full((40,), -math.inf)
    logits[3], logits[17] = 0.0, 1.0
    sampler = Sampler(Sampling(seed=1))
    assert {choose([sampler], logits[None])[0] for _ in range(200)} == {3, 17}


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1}, {"temperature": math.nan}, {"temperature": math.inf},
        {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"seed": 2**63},
    ],
)  # fmt: skip
def test_values_out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is .*, expected"):
        Sampling(**wrong)
