"""Padding on the left, on the right and on both sides; holes are refused."""

import pytest
import torch
from hf_modes import batch, generate, masked, prompt
from test_hf import PLAN, fresh

import moa.hf


@pytest.fixture(scope="module")
def ours():
    return moa.hf.load(fresh(), plan=PLAN, threads=2)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def right():
    return batch([prompt(n, seed=n) for n in (230, 41, 170)], left=False)


def both(left_pads, right_pads, columns):
    mask = torch.ones(len(left_pads), columns, dtype=torch.long)
    for row, (left, right) in enumerate(zip(left_pads, right_pads)):
        mask[row, :left] = 0
        mask[row, columns - right :] = 0
    return mask


def test_right_padded_logits(ours, right):
    """Those of the tokens; padding computes nothing that anyone reads."""
    cache = moa.hf.Cache(ours)
    cache.expect((right["attention_mask"].sum(1) + 20).tolist())
    found = ours(**right, past_key_values=cache).logits
    wanted = masked(fresh(), PLAN, right, 20)(**right, use_cache=False).logits
    for row, tokens in enumerate(right["attention_mask"].sum(1).tolist()):
        assert torch.allclose(found[row, :tokens], wanted[row, :tokens], atol=2e-3)
        assert cache.sequences[row].seen(0) == tokens
    assert torch.isfinite(found).all()
    assert cache.kv_bytes == cache.closed_form_bytes


def test_a_right_padded_prompt_goes_on(ours, right):
    """Tokens that come behind padding follow the row's own, with their positions."""
    mask, tokens = right["attention_mask"], right["attention_mask"].sum(1)
    cache = moa.hf.Cache(ours)
    cache.expect((tokens + 20).tolist())
    ours(**right, past_key_values=cache)
    more = prompt(6, seed=5).expand(3, -1)
    mask = torch.cat([mask, torch.ones(3, 6).long()], 1)
    places = tokens[:, None] + torch.arange(6)
    found = ours(more, attention_mask=mask, position_ids=places, past_key_values=cache).logits
    for row, own in enumerate(tokens.tolist()):
        ids = torch.cat([right["input_ids"][row : row + 1, :own], more[:1]], 1)
        alone = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
        wanted = masked(fresh(), PLAN, alone, 14)(**alone, use_cache=False).logits
        assert torch.allclose(found[row], wanted[0, own:], atol=2e-3)


def test_padding_on_both_sides_in_chunks(ours):
    ids = prompt(90).expand(3, -1)
    mask = both([0, 9, 40], [0, 30, 11], 90)
    whole, chunks = moa.hf.Cache(ours), moa.hf.Cache(ours)
    for cache in (whole, chunks):
        cache.expect([200] * 3)
    wanted = ours(ids, attention_mask=mask, past_key_values=whole).logits
    found = [
        ours(
            ids[:, i : i + 30], attention_mask=mask[:, : i + 30], past_key_values=chunks
        ).logits
        for i in (0, 30, 60)
    ]
    real = mask.bool()
    assert torch.allclose(torch.cat(found, 1)[real], wanted[real], atol=2e-3)
    assert [s.seen(0) for s in chunks.sequences] == mask.sum(1).tolist()


def test_generate_with_right_padding_runs_as_transformers_does(ours, right):
    """It takes the last column's answer, padding or not: rows without padding are right."""
    found = generate(ours, right, 8)
    wanted = generate(masked(fresh(), PLAN, right, 8), right, 8)
    assert torch.equal(found[0], wanted[0]) and found.shape == wanted.shape


@pytest.mark.parametrize("chunk", [None, 9])
def test_holes_are_refused(ours, chunk):
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[1, 8:10] = 0
    cache = moa.hf.Cache(ours)
    inputs = dict(input_ids=prompt(30).expand(2, -1), attention_mask=mask)
    with pytest.raises(NotImplementedError, match="holes in row 1: column 8 of 30"):
        generate(ours, inputs, 3, past_key_values=cache, prefill_chunk_size=chunk)
    assert cache.get_seq_length() == 0
    if chunk is None:
        with pytest.raises(NotImplementedError, match="holes in row 1: column 8 of 30"):
            ours(**inputs, past_key_values=cache)
        ours(inputs["input_ids"], past_key_values=cache)  # the cache is as it was


def test_crop_of_a_padded_batch(ours, right):
    cache, plain = moa.hf.Cache(ours, rollback_tokens=30), moa.hf.Cache(ours)
    for which in (cache, plain):
        which.expect([300] * 3)
        ours(**right, past_key_values=which)
    mask = torch.cat([right["attention_mask"], both([0, 2, 0], [0, 0, 3], 5)], 1)
    ours(prompt(5).expand(3, -1), attention_mask=mask, past_key_values=cache)
    cache.crop(-5)
    assert cache.get_seq_length() == 230
    more, mask = prompt(3, seed=2).expand(3, -1), mask[:, :230]
    mask = torch.cat([mask, torch.ones(3, 3).long()], 1)
    found, wanted = (
        ours(more, attention_mask=mask, past_key_values=which).logits
        for which in (cache, plain)
    )
    assert torch.equal(found, wanted)
