"""Ways to call transformers whose numbers would not be the plan's: refused.

Beside each refusal stands the nearest use that is right. Where dense attention
defines the answer, a plan that sees everything must give it.
"""

import copy
import types

import pytest
import torch
import transformers
from test_hf import GREEDY, PLAN, fresh, prompt

import moa
import moa.hf
from conftest import make_plan

DENSE = make_plan([[0.0] * 4] * 2, [[1.0] * 4] * 2)


@pytest.fixture(scope="module")
def dense():
    """A model under the plan that sees everything."""
    return moa.hf.load(fresh(), plan=DENSE, threads=2)


@pytest.fixture(scope="module")
def sparse():
    return moa.hf.load(fresh(), plan=PLAN, threads=2)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def left_padded(pads, columns):
    mask = torch.ones(len(pads), columns, dtype=torch.long)
    for row, pad in enumerate(pads):
        mask[row, :pad] = 0
    return mask


def test_code_that_fell_back_is_told(monkeypatch, dense):
    # As where a driver is older than a cubin; test/unit/Cuda has the driver that refuses.
    module, remark = dense.moa.module, "sm_90a cubin refused; sm_80 PTX is used"
    fallen = types.SimpleNamespace(info={**module.info, "remark": remark}, rule=module.rule)
    monkeypatch.setattr(moa.runtime, "Module", lambda *arguments: fallen)
    with pytest.warns(UserWarning, match=f"[.]moa: {remark}"):
        moa.hf.load(fresh(), plan=DENSE)


def test_packed_sequences_are_refused(dense):
    restart = torch.cat([torch.arange(20), torch.arange(20)])[None]
    with pytest.raises(NotImplementedError, match="packed"):
        dense(prompt(40), position_ids=restart, use_cache=False)
    plain = dense(prompt(40), position_ids=torch.arange(40)[None], use_cache=False).logits
    want = fresh()(prompt(40), use_cache=False).logits
    assert torch.allclose(plain, want, atol=2e-3)


def test_padding_mask_must_cover_the_cache(dense):
    cache, ids = moa.hf.Cache(dense), prompt(40).expand(2, -1)
    dense(ids, attention_mask=left_padded([0, 9], 40), past_key_values=cache)
    with pytest.raises(ValueError, match="has 6 columns, expected 46"):
        dense(ids[:, :6], attention_mask=left_padded([0, 2], 6), past_key_values=cache)


@pytest.mark.parametrize("now", [[0, 15], [3, 9], [0, 0], None])
def test_padding_may_not_change(dense, now):
    cache, ids = moa.hf.Cache(dense), prompt(40).expand(2, -1)
    dense(ids, attention_mask=left_padded([0, 9], 40), past_key_values=cache)
    mask = None if now is None else left_padded(now, 46)
    with pytest.raises(ValueError, match="keep each row's padding"):
        dense(ids[:, :6], attention_mask=mask, past_key_values=cache)


def test_second_turn_of_a_padded_batch(dense):
    """The same padding again is right: equal to dense attention, even in chunks."""
    ids, more = prompt(40).expand(2, -1), prompt(6, seed=5).expand(2, -1)
    whole, usual = moa.hf.Cache(dense), transformers.DynamicCache()
    chunks, plain = moa.hf.Cache(dense), fresh()
    mask = left_padded([0, 25], 46)
    for model, cache in ((dense, whole), (plain, usual)):
        model(ids, attention_mask=mask[:, :40], past_key_values=cache)
    for first in (0, 10, 20, 30):  # the first two chunks of row 1 are padding alone
        last = first + 10
        dense(ids[:, first:last], attention_mask=mask[:, :last], past_key_values=chunks)
    want = plain(more, attention_mask=mask, past_key_values=usual).logits
    for cache in (whole, chunks):
        got = dense(more, attention_mask=mask, past_key_values=cache).logits
        assert torch.allclose(got, want, atol=2e-3)


def test_cache_of_another_plan_is_refused(dense, sparse):
    with pytest.raises(ValueError, match="another model or plan"):
        sparse(prompt(20), past_key_values=moa.hf.Cache(dense))


def test_generate_without_a_cache(sparse):
    with pytest.raises(ValueError, match="use_cache=False"):
        sparse.generate(prompt(20), max_new_tokens=3, use_cache=False, **GREEDY)


def test_generate_without_a_cache_under_the_row_rule():
    """Spans do not depend on the budget there, so both ways agree."""
    rows = moa.hf.load(fresh(), plan={**PLAN, "span": {**PLAN["span"], "length": "row"}})
    ids = prompt(200)
    with_cache = rows.generate(ids, max_new_tokens=8, **GREEDY)
    without = rows.generate(ids, max_new_tokens=8, use_cache=False, **GREEDY)
    assert torch.equal(with_cache, without)


def test_chunks_keep_the_length_that_was_told(sparse):
    lengths, held = set(), set()
    for chunk in (None, 77, 299):
        cache = moa.hf.Cache(sparse)
        sparse.generate(
            prompt(300), max_new_tokens=20, past_key_values=cache,
            prefill_chunk_size=chunk, **GREEDY,
        )  # fmt: skip
        lengths.add(cache.sequences[0].length)
        held.add(cache.kv_bytes)
    assert lengths == {320} and len(held) == 1


def test_a_turn_past_the_length_raises_it_near_max_length():
    model = moa.hf.load(fresh(), plan=PLAN, max_length=1500)
    cache = moa.hf.Cache(model)
    model.generate(prompt(700), max_new_tokens=100, past_key_values=cache, **GREEDY)
    assert cache.sequences[0].length == 800
    model(prompt(500, seed=3), past_key_values=cache)
    assert cache.sequences[0].length == 1500


def test_copies_of_a_model_share_the_kernels(sparse):
    other = copy.deepcopy(sparse)
    want = sparse.generate(prompt(150), max_new_tokens=8, **GREEDY)
    assert torch.equal(other.generate(prompt(150), max_new_tokens=8, **GREEDY), want)
    assert other.moa is sparse.moa and other is not sparse


def test_attention_modules_are_found_without_llama_names():
    """GPT-2 has no num_key_value_groups; its plain forward works all the same."""
    torch.manual_seed(0)
    sizes = dict(vocab_size=99, n_embd=128, n_layer=2, n_head=2, n_positions=512)
    tokens = dict(bos_token_id=None, eos_token_id=None)
    plain = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **tokens)).eval()
    ids = torch.randint(1, 99, (1, 50))
    want = plain(ids, use_cache=False).logits
    ours = moa.hf.load(plain, plan=make_plan([[0.0] * 2] * 2, [[1.0] * 2] * 2))
    assert torch.allclose(ours(ids, use_cache=False).logits, want, atol=1e-4)


def test_models_that_attend_by_themselves_are_refused():
    sizes = dict(vocab_size=99, hidden_size=128, n_layer=2, n_head=2)
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(**sizes))
    plan = make_plan([[0.0] * 2] * 2, [[1.0] * 2] * 2)
    with pytest.raises(moa.errors.CompileError, match="AttentionInterface"):
        moa.hf.load(bloom, plan=plan, max_length=512)
    sizes = dict(vocab_size=99, d_model=128, d_kv=64, num_layers=2, num_heads=2, d_ff=64)
    t5 = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    with pytest.raises(moa.errors.CompileError, match="decoder-only"):
        moa.hf.load(t5, plan=plan, max_length=512)
