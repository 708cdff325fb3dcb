"""torch.compile of whole models: one graph, the same tokens, no code made anew."""

import pytest
import torch
import transformers
from hf_families import fresh

import moa
import moa.hf
from conftest import make_plan

PLAN = make_plan([[0.0, -64.0]], [[0.25, 0.5]], sink=16, block=16, min=32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=199, hidden_size=128, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=64,
        max_position_embeddings=512, initializer_range=0.3,
    )  # fmt: skip
    return moa.hf.load(transformers.LlamaForCausalLM(config), plan=PLAN, threads=1)


def family(name):
    plan = make_plan(
        [[0.0, 64.0, 0.0, 32.0]] * 3, [[0.25, 0.5, 1.0, 0.0]] * 3, sink=16, block=16, min=32
    )
    return moa.hf.load(fresh(name), plan=plan, threads=1)


def prompt(rows, tokens, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 199, (rows, tokens), generator=generator)


def greedy(run, model, ids, new, mask=None):
    """Logits of every step, from a cache of their own."""
    cache = moa.hf.Cache(model)
    cache.expect(
        [int(n) + new for n in (torch.ones_like(ids) if mask is None else mask).sum(1)]
    )
    found = []
    with torch.no_grad():
        for _ in range(new):
            more = {} if mask is None else {"attention_mask": mask}
            if mask is not None:
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                more["position_ids"] = positions
            logits = run(ids, past_key_values=cache, use_cache=True, **more).logits[:, -1:]
            found.append(logits)
            ids = logits.argmax(-1)
            if mask is not None:
                mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    return torch.cat(found, dim=1), cache


def compiled(model, backend):
    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend=backend)


def test_inductor_gives_the_same_without_graph_breaks(model):
    ids = prompt(2, 250)
    want, _ = greedy(model, model, ids, 12)
    run = compiled(model, "inductor")
    found, cache = greedy(run, model, ids, 12)
    assert torch.allclose(found, want, atol=1e-4)
    assert torch.equal(found.argmax(-1), want.argmax(-1))
    assert cache.get_seq_length() == 261
    assert cache.kv_bytes == cache.closed_form_bytes < cache.dense_bytes
    # Other caches, and lengths that were not there yet, take the same code.
    with torch.compiler.set_stance("fail_on_recompile"):
        again, _ = greedy(run, model, ids, 20)
    assert torch.equal(again[:, :12], found)


def test_left_padding_goes_through_the_operator(model):
    ids, mask = prompt(2, 70), torch.ones(2, 70, dtype=torch.long)
    mask[1, :31] = 0
    want, _ = greedy(model, model, ids, 6, mask)
    run = compiled(model, "aot_eager")
    found, _ = greedy(run, model, ids, 6, mask)
    assert torch.equal(found, want)
    mask[1, 20] = 1
    with torch.no_grad(), pytest.raises(moa.errors.UnsupportedError, match="holes in row 1"):
        run(ids, past_key_values=moa.hf.Cache(model), attention_mask=mask)


def test_errors_of_the_runtime_come_through(model):
    run = compiled(model, "aot_eager")
    cache = moa.hf.Cache(model, max_bytes=40_000)
    with torch.no_grad():
        with pytest.raises(moa.errors.OutOfPagesError, match="wanted"):
            run(prompt(1, 400), past_key_values=cache, use_cache=True)
        with pytest.raises(RuntimeError, match="start a new one"):
            run(prompt(1, 400), past_key_values=cache, use_cache=True)


#: Windows of 100 tokens, in all layers or in two of three; scores of Gemma 2 reach its cap.
WINDOWS = [("Gemma 2", "inductor"), ("Gemma 3", "aot_eager"), ("Mistral, windows", "aot_eager")]


@pytest.mark.parametrize("name, backend", WINDOWS)
def test_windows_and_soft_caps_are_traced(name, backend):
    model = family(name)
    run = compiled(model, backend)
    # Chunks of one length, of any, and those again without new code.
    for tokens, stance in ((250, "default"), (170, "default"), (330, "fail_on_recompile")):
        ids = prompt(2, tokens)
        want, _ = greedy(model, model, ids, 12)
        with torch.compiler.set_stance(stance):
            found, cache = greedy(run, model, ids, 12)
        assert torch.allclose(found, want, atol=1e-4)
        assert torch.equal(found.argmax(-1), want.argmax(-1))
        assert cache.kv_bytes == cache.closed_form_bytes < cache.dense_bytes


def test_left_padding_beside_windows():
    model, ids, mask = family("Gemma 2"), prompt(2, 150), torch.ones(2, 150, dtype=torch.long)
    mask[1, :31] = 0
    want, _ = greedy(model, model, ids, 6, mask)
    found, _ = greedy(compiled(model, "aot_eager"), model, ids, 6, mask)
    assert torch.equal(found, want)


@pytest.mark.parametrize("name", ["Mistral", "Mistral, windows"])
@pytest.mark.parametrize("mask", [None, torch.ones(1, 5)])
def test_a_compiled_model_needs_a_cache(name, mask):
    run = compiled(family(name), "eager")
    with torch.no_grad(), pytest.raises(Exception, match="moa.hf.Cache.model"):
        run(prompt(1, 5), attention_mask=mask, use_cache=False)
