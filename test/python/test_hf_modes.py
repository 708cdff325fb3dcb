"""Every way to call generate: tokens equal to the masked reference's.

Both length rules, one prompt and padded batches; and what the modes leave in
the cache: shared pages, rows that went back, nothing that is held twice.
"""

import pytest
import torch
from hf_modes import BOTH, OURS, batch, compare, generate, masked, prompt, turns
from test_hf import PLAN, fresh

import moa.hf
from conftest import make_plan

RULES = {"request": PLAN, "row": {**PLAN, "span": {**PLAN["span"], "length": "row"}}}
NEW = 24


@pytest.fixture(scope="module", params=list(RULES))
def rule(request):
    return request.param


@pytest.fixture(scope="module")
def ours(rule):
    return moa.hf.load(fresh(), plan=RULES[rule], threads=2)


@pytest.fixture(scope="module")
def several():
    return batch([prompt(n, seed=n) for n in (230, 41, 170)])


@pytest.mark.parametrize("mode", [*BOTH, *OURS])
def test_one_prompt(ours, rule, mode):
    inputs = batch([prompt(230)])
    found, wanted = compare(ours, fresh(), RULES[rule], inputs, NEW, mode)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("mode", [*BOTH, "chunked prefill"])
def test_padded_batch(ours, rule, several, mode):
    found, wanted = compare(ours, fresh(), RULES[rule], several, NEW, mode)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("draft", ["dense", "the same plan", "another model under the plan"])
def test_assisted(ours, rule, draft):
    """A draft that is often right, always, and hardly ever."""
    assistant = fresh()
    if draft != "dense":
        model = fresh(seed=0 if draft == "the same plan" else 7)
        assistant = moa.hf.load(model, plan=RULES[rule], threads=2)
    inputs = batch([prompt(230)])
    found = generate(ours, inputs, NEW, assistant_model=assistant)
    assert torch.equal(found, generate(masked(fresh(), RULES[rule], inputs, NEW), inputs, NEW))


def test_turns_on_one_cache():
    ours = moa.hf.load(fresh(), plan=RULES["row"], threads=2)
    inputs = batch([prompt(n, seed=n) for n in (150, 41)])
    more = prompt(60, seed=5).expand(2, -1)
    found, wanted = turns(ours, fresh(), RULES["row"], inputs, more, NEW)
    assert torch.equal(found, wanted)


def test_several_answers_on_one_cache():
    """A turn that asks for three answers where the cache has one row."""
    ours = moa.hf.load(fresh(), plan=RULES["row"], threads=2)
    inputs = batch([prompt(150)])
    cache = moa.hf.Cache(ours)
    with torch.no_grad():
        ours(inputs["input_ids"][:, :100], past_key_values=cache)
    found = generate(ours, inputs, NEW, past_key_values=cache, num_beams=3)
    wanted = generate(masked(fresh(), RULES["row"], inputs, NEW), inputs, NEW, num_beams=3)
    assert torch.equal(found, wanted)
    assert cache.batch_size == 3


def pages(ours, **options):
    """Most pages of a pool that generates, and of that of a single answer."""
    found = []
    for more in ({}, options):
        cache = moa.hf.Cache(ours)
        generate(ours, batch([prompt(600)]), 4, past_key_values=cache, **more)
        found.append(cache.stats["pages_high_water"])
    return found


@pytest.mark.parametrize(
    "options", [dict(num_beams=8), dict(num_return_sequences=8, do_sample=True)]
)
def test_copies_share_the_pages_of_the_prompt(ours, options):
    one, eight = pages(ours, **options)
    heads = 4  # 2 layers of 2 KV heads: one page each that is not full, for each copy
    assert eight <= one + 8 * heads


def test_pages_of_lost_beams_go_back(ours):
    cache = moa.hf.Cache(ours)
    ids = prompt(600)
    with torch.no_grad():
        ours(ids, past_key_values=cache)
        held = cache.stats["pages_used"]
        cache.batch_repeat_interleave(4)
        assert cache.stats["pages_used"] == held
        ours(torch.tensor([[1], [2], [3], [4]]), past_key_values=cache)
        assert cache.stats["pages_used"] > held
        cache.reorder_cache(torch.tensor([2, 2, 2, 2]))
        assert cache.stats["pages_used"] == held
        cache.batch_select_indices(torch.tensor([0]))
        assert (cache.batch_size, cache.stats["pages_used"]) == (1, held)


def test_rows_go_on_as_those_they_were_chosen_from(ours):
    """Contrastive search and the like: repeat, try, select, go on."""
    inputs = batch([prompt(n, seed=n) for n in (230, 170)])
    cache = moa.hf.Cache(ours)
    tried = torch.tensor([[5], [6], [7], [8], [9], [10]])
    masks = inputs["attention_mask"]
    with torch.no_grad():
        ours(**inputs, past_key_values=cache)
        alone = cache.fork()
        cache.batch_repeat_interleave(3)
        more = torch.cat([masks.repeat_interleave(3, 0), torch.ones(6, 1).long()], 1)
        ours(tried, attention_mask=more, past_key_values=cache)
        cache.batch_select_indices(torch.tensor([1, 5]))
        last = torch.cat([more[[1, 5]], torch.ones(2, 1).long()], 1)
        found = ours(tried[:2], attention_mask=last, past_key_values=cache).logits
        for token in (tried[[1, 5]], tried[:2]):
            masks = torch.cat([masks, torch.ones(2, 1).long()], 1)
            wanted = ours(token, attention_mask=masks, past_key_values=alone).logits
    assert torch.equal(found, wanted)


def test_crop_takes_rows_back(ours):
    """With a margin from anywhere; what follows is as if they had never been."""
    ids, other = prompt(500), prompt(40, seed=3)
    cache, plain = (moa.hf.Cache(ours, rollback_tokens=m) for m in (40, 0))
    assert cache.is_croppable and not plain.is_croppable
    for which in (cache, plain):
        which.expect([600])
    with torch.no_grad():
        ours(ids, past_key_values=cache)
        ours(other, past_key_values=cache)
        cache.crop(0)
        assert cache.kv_bytes == cache.closed_form_bytes
        cache.crop(-40)
        assert cache.get_seq_length() == 500
        ours(ids, past_key_values=plain)
        found, wanted = (
            ours(other[:, :9], past_key_values=which).logits for which in (cache, plain)
        )
        assert torch.equal(found, wanted)
        ours(other, past_key_values=plain)
        with pytest.raises(moa.errors.NotResidentError, match="rollback_tokens"):
            plain.crop(-200)
        assert plain.get_seq_length() == 549
        with pytest.raises(ValueError, match=r"crop\(3\)"):
            cache.crop(3)


def test_a_cache_without_margin_is_refused_before_anything_runs(ours):
    cache = moa.hf.Cache(ours)
    with pytest.raises(ValueError, match=r"Cache\(model, rollback_tokens=5\)"):
        generate(
            ours, batch([prompt(90)]), 5, past_key_values=cache, prompt_lookup_num_tokens=5
        )
    assert cache.get_seq_length() == 0
    cache = moa.hf.Cache(ours, rollback_tokens=5)
    generate(ours, batch([prompt(90)]), 5, past_key_values=cache, prompt_lookup_num_tokens=5)


def test_a_dense_plan_needs_no_margin():
    ours = moa.hf.load(fresh(), plan=make_plan([[0.0] * 4] * 2, [[1.0] * 4] * 2), threads=2)
    cache = moa.hf.Cache(ours)
    assert cache.is_croppable
    inputs = batch([prompt(90)])
    found = generate(ours, inputs, 9, past_key_values=cache, prompt_lookup_num_tokens=5)
    assert torch.equal(found, generate(fresh(), inputs, 9))


def test_rows_out_of_range_are_refused(ours):
    cache = moa.hf.Cache(ours)
    with torch.no_grad():
        ours(prompt(20), past_key_values=cache)
        with pytest.raises(ValueError, match="not all among the 1"):
            cache.reorder_cache(torch.tensor([1]))
        ours(prompt(3), past_key_values=cache)
    for call in ("reorder_cache", "crop", "batch_select_indices"):
        with pytest.raises(NotImplementedError, match="call it on the cache"):
            getattr(cache.layers[0], call)(0)


def test_a_prompt_beyond_the_artifact_is_refused_and_changes_nothing(ours):
    cache = moa.hf.Cache(ours)
    for inputs in (batch([prompt(2049)]), batch([prompt(2049), prompt(9)])):
        with pytest.raises(
            moa.errors.OutOfRangeError, match="2049 tokens, the artifact serves 2048|would have"
        ):
            generate(ours, inputs, 3, past_key_values=cache)
    assert cache.get_seq_length() == 0 and cache.broken is None
