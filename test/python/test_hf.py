"""transformers under a plan, token for token against masked eager attention."""

import sys

import pytest
import torch
import transformers

import moa
import moa.hf
from conftest import Rule, make_plan

sys.path.insert(
    0, str(__import__("pathlib").Path(__file__).parents[2] / "examples/04-hf-smollm2")
)
from reference import Reference  # noqa: E402

# Two layers, two KV heads; rules differ by layer, KV head and inside a group.
ALPHAS = [[0.0, 0.0, -64.0, 64.0], [128.0, 32.0, 0.0, 0.0]]
BETAS = [[1.0, 0.25, 0.5, 0.25], [0.0, 0.25, 0.75, 0.25]]


def config(**changes):
    sizes = dict(
        vocab_size=199, hidden_size=256, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        max_position_embeddings=2048, initializer_range=0.3,
    )  # fmt: skip
    return transformers.LlamaConfig(**(sizes | changes))


def fresh(seed=0, **changes):
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(config(**changes)).eval()


PLAN = make_plan(ALPHAS, BETAS, sink=16, block=16, min=32)
GREEDY = dict(do_sample=False, pad_token_id=0, eos_token_id=None)


@pytest.fixture(scope="module")
def model():
    return moa.hf.load(fresh(), plan=PLAN, threads=2)


@pytest.fixture
def reference():
    """model -> generate under the masked reference at N."""

    def run(ids, n, new):
        dense = Reference(PLAN, n).use(fresh())
        with torch.no_grad():
            return dense.generate(ids, max_new_tokens=new, **GREEDY)

    return run


def prompt(tokens, seed=1):
    return torch.randint(1, 199, (1, tokens), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tokens", [1, 15, 200, 330])
def test_generate_matches_the_masked_reference(model, reference, tokens):
    ids = prompt(tokens)
    cache = moa.hf.Cache(model)
    ours = model.generate(ids, max_new_tokens=40, past_key_values=cache, **GREEDY)
    assert torch.equal(ours, reference(ids, tokens + 40, 40))
    assert cache.get_seq_length() == tokens + 39
    assert cache.kv_bytes == cache.closed_form_bytes <= cache.dense_bytes
    if tokens > 300:
        assert cache.kv_bytes < cache.dense_bytes


def test_the_plan_changes_what_a_dense_model_says(model):
    ids = prompt(330)
    ours = model.generate(ids, max_new_tokens=40, **GREEDY)
    assert not torch.equal(ours, fresh().generate(ids, max_new_tokens=40, **GREEDY))


def test_dense_plan_is_the_dense_model():
    plan = make_plan([[0.0] * 4] * 2, [[1.0] * 4] * 2)
    dense = moa.hf.load(fresh(), plan=plan)
    ids = prompt(200)
    want = fresh().generate(ids, max_new_tokens=30, **GREEDY)
    assert torch.equal(dense.generate(ids, max_new_tokens=30, **GREEDY), want)


def test_chunked_prefill(model, reference):
    ids = prompt(300)
    ours = model.generate(ids, max_new_tokens=20, prefill_chunk_size=77, **GREEDY)
    assert torch.equal(ours, reference(ids, 320, 20))


def test_left_padded_batch(model, reference):
    prompts = [prompt(n, seed=n) for n in (300, 41, 170)]
    ids = torch.zeros(3, 300, dtype=torch.long)
    mask = torch.zeros(3, 300, dtype=torch.long)
    for row, own in enumerate(prompts):
        ids[row, 300 - own.shape[1] :] = own[0]
        mask[row, 300 - own.shape[1] :] = 1
    ours = model.generate(ids, attention_mask=mask, max_new_tokens=24, **GREEDY)
    for row, own in enumerate(prompts):
        want = reference(own, own.shape[1] + 24, 24)
        assert torch.equal(ours[row, 300:], want[0, own.shape[1] :])


def test_second_turn_on_one_cache(model):
    """A later turn raises N and matches attention bounded by what is resident."""
    cache = moa.hf.Cache(model)
    first = model.generate(prompt(150), max_new_tokens=10, past_key_values=cache, **GREEDY)
    bounds = [
        [cache.sequences[0].first_resident(layer, head) for head in range(2)]
        for layer in range(2)
    ]
    longer = torch.cat([first, prompt(60, seed=9)], dim=1)
    ours = model.generate(longer, max_new_tokens=12, past_key_values=cache, **GREEDY)
    assert cache.get_seq_length() == longer.shape[1] + 11
    assert cache.sequences[0].length == longer.shape[1] + 12
    assert cache.kv_bytes <= cache.closed_form_bytes
    want = two_turns(first.shape[1] - 1, 160, longer, longer.shape[1] + 12, bounds, 12)
    assert torch.equal(ours, want)


def two_turns(cut, n1, ids, n2, bounds, new):
    """Masked eager attention whose rows below `cut` had N = n1, the others n2."""
    dense = fresh()

    def attention(module, query, key, value, attention_mask, scaling, **kwargs):
        rows, keys = query.shape[2], key.shape[2]
        layer = module.layer_idx
        mask = torch.full((1, 4, rows, keys), -torch.inf)
        j = torch.arange(keys)
        for h in range(4):
            rule = Rule(ALPHAS[layer][h], BETAS[layer][h], 16, 16, 32)
            for r, i in enumerate(range(keys - rows, keys)):
                start = i + 1 - rule.local(n1 if i < cut else n2)
                if i >= cut:
                    start = max(start, bounds[layer][h // 2])
                mask[0, h, r, (j <= i) & ((j < 16) | (j >= start))] = 0
        return eager(module, query, key, value, mask, scaling)

    from transformers.models.llama.modeling_llama import (
        eager_attention_forward as eager,
    )

    transformers.AttentionInterface.register("two-turns", attention)
    dense.set_attn_implementation("two-turns")
    with torch.no_grad():
        # One pass a token: each row's mask depends on its turn alone.
        return dense.generate(ids, max_new_tokens=new, **GREEDY)


def test_forward_without_a_cache(model):
    ids = prompt(100)
    with torch.no_grad():
        ours = model(ids, use_cache=False).logits
        cached = model(ids, past_key_values=moa.hf.Cache(model)).logits
    assert torch.allclose(ours, cached, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs(dtype):
    half = moa.hf.load(fresh().to(dtype), plan=PLAN)
    ids = prompt(120)
    with torch.no_grad():
        ours = half(ids, past_key_values=moa.hf.Cache(half)).logits.float()
    assert torch.isfinite(ours).all() and half.moa.info["dtype"] in ("bf16", "f16")


def test_several_samples_of_one_prompt(model):
    ids = prompt(50)
    torch.manual_seed(0)
    out = model.generate(
        ids, max_new_tokens=5, do_sample=True, num_return_sequences=3, pad_token_id=0,
        eos_token_id=None,
    )  # fmt: skip
    assert out.shape == (3, 55)


def padded(rows):
    return dict(attention_mask=torch.tensor(rows))


@pytest.mark.parametrize(
    "arguments, kind, message",
    [
        (dict(cache_implementation="offloaded"), ValueError, "leave it out"),
        (dict(cache_implementation="quantized"), ValueError, "leave it out"),
        (dict(past_key_values=transformers.DynamicCache()), TypeError, "moa.hf.Cache"),
        (dict(assistant_early_exit=1), NotImplementedError, "smaller assistant_model"),
        (padded([[1] * 10 + [0] * 5 + [1] * 25]), NotImplementedError, "holes in row 0"),
    ],
)
def test_generate_refuses(model, arguments, kind, message):
    with pytest.raises(kind, match=message):
        model.generate(prompt(40), max_new_tokens=3, **(GREEDY | arguments))


def test_cache_refuses_other_batches_and_models(model):
    cache = moa.hf.Cache(model)
    with torch.no_grad():
        model(prompt(20), past_key_values=cache)
    with torch.no_grad(), pytest.raises(ValueError, match="1 sequences"):
        model(prompt(3).expand(2, 3), past_key_values=cache)
    with pytest.raises(TypeError, match="moa.hf.load"):
        moa.hf.Cache(fresh())


def test_forward_refuses_training_and_weights(model):
    with pytest.raises(NotImplementedError, match="no_grad"):
        model(prompt(5), use_cache=False)
    model.train()
    try:
        with torch.no_grad(), pytest.raises(NotImplementedError, match="eval"):
            model(prompt(5), use_cache=False)
    finally:
        model.eval()


def test_out_of_pages_names_the_numbers_and_stops_the_cache(model):
    cache = moa.hf.Cache(model, max_bytes=200_000)
    with torch.no_grad():
        with pytest.raises(moa.errors.OutOfPagesError, match="wanted"):
            model(prompt(600), past_key_values=cache)
        with pytest.raises(RuntimeError, match="start a new one"):
            model(prompt(5), past_key_values=cache)


@pytest.mark.parametrize(
    "changes, plan, message",
    [
        (dict(num_hidden_layers=3), PLAN, "layers"),
        (dict(num_attention_heads=8), PLAN, "heads|found"),
        (dict(head_dim=48), PLAN, "head"),
        ({}, {"alphas": [[0.0]]}, "betas"),
    ],
)
def test_load_refuses_what_does_not_fit(changes, plan, message):
    with pytest.raises(moa.errors.CompileError, match=message):
        moa.hf.load(fresh(**changes), plan=plan)


def test_load_refuses_missing_plans():
    with pytest.raises(moa.errors.CompileError, match="plan="):
        moa.hf.load(fresh())


def test_forks_share_what_was_seen_and_go_on_alone(model):
    ids = prompt(200)
    cache = moa.hf.Cache(model)
    cache.expect([240])
    with torch.no_grad():
        model(ids, past_key_values=cache)
        held = cache.kv_bytes
        # Two different continuations, and the second of them without any fork.
        forks = [cache.fork(), cache.fork()]
        ends = [prompt(7, seed) for seed in (5, 6)]
        found = [
            model(end, past_key_values=fork).logits
            for end, fork in zip(ends, forks, strict=True)
        ]
        assert (cache.get_seq_length(), cache.kv_bytes) == (200, held)
        assert [fork.get_seq_length() for fork in forks] == [207, 207]
        wanted = model(ends[1], past_key_values=cache).logits
    assert torch.equal(found[1], wanted)
    assert not torch.equal(found[0], wanted)


def test_a_broken_cache_is_not_forked(model):
    cache = moa.hf.Cache(model)
    cache.broken = "out of pages"
    with pytest.raises(RuntimeError, match="stopped at an error .out of pages.: no fork"):
        cache.fork()
