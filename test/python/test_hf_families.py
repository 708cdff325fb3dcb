"""Model families under a plan: tokens equal to the masked reference's.

Recognised by their configs; windows of a model's own bound the plan's spans.
What compiled attention does not have is refused when the model is loaded.
"""

import pytest
import torch
import transformers
from hf_families import FAMILIES, HEAD, SIZES, config, fresh
from hf_modes import Reference, batch, compare, generate, masked, prompt

import moa.hf
from conftest import make_plan

# Three layers; spans below, through and above a window of 100, and all of it.
ALPHAS = [[0, 16, 0, 8], [0, 32, 128, 0], [0, 64, 0, 48]]
BETAS = [[1.0, 0.125, 0.5, 0.25], [0.25, 0.5, 0.0, 1.0], [0.75, 0.0, 0.5, 0.125]]
PLANS = {
    rule: make_plan(ALPHAS, BETAS, sink=16, block=16, min=32, length=rule)
    for rule in ("request", "row")
}
NEW = 16


@pytest.mark.parametrize("rule", list(PLANS))
@pytest.mark.parametrize("name", list(FAMILIES))
def test_tokens_are_the_references(name, rule):
    ours = moa.hf.load(fresh(name), plan=PLANS[rule], threads=2)
    windows = FAMILIES[name][2]
    assert ours.moa.windows == (windows or [None] * 3)
    for rows, mode in (([230], "beams"), ([190], "prompt lookup"), ([230, 37], "greedy")):
        inputs = batch([prompt(n, seed=n) for n in rows])
        found, wanted = compare(ours, fresh(name), PLANS[rule], inputs, NEW, mode, windows)
        assert torch.equal(found, wanted), mode
    ids = prompt(230)
    reference = Reference(PLANS[rule], SIZES["max_position_embeddings"], windows).use(
        fresh(name)
    )
    with torch.no_grad():
        found, wanted, dense = (
            model(ids, use_cache=False).logits for model in (ours, reference, fresh(name))
        )
    assert (found - wanted).abs().max() < 1e-2 * (dense - wanted).abs().max()


@pytest.mark.parametrize("name", ["Gemma 2", "Gemma 3", "Mistral, windows"])
def test_a_plan_that_sees_everything_is_the_model_itself(name):
    plan = make_plan([[0] * 4] * 3, [[1.0] * 4] * 3)
    ours = moa.hf.load(fresh(name), plan=plan, threads=2)
    inputs = batch([prompt(230), prompt(70)])
    assert torch.equal(generate(ours, inputs, NEW), generate(fresh(name), inputs, NEW))


def test_soft_caps_matter():
    """To the tests above: without its cap "Gemma 2" says something else."""
    inputs = batch([prompt(230)])
    capped, plain = fresh("Gemma 2"), fresh("Gemma 2", attn_logit_softcapping=None)
    assert capped.config.attn_logit_softcapping == 50.0
    ours = moa.hf.load(capped, plan=PLANS["row"], threads=2)
    assert ours.moa.info["soft_cap"] == 50.0
    dense = masked(plain, PLANS["row"], inputs, NEW, FAMILIES["Gemma 2"][2])
    assert not torch.equal(generate(ours, inputs, NEW), generate(dense, inputs, NEW))


def test_windows_shrink_the_cache_in_closed_form():
    ours = moa.hf.load(fresh("Gemma 3"), plan=PLANS["request"], threads=2)
    cache = moa.hf.Cache(ours)
    generate(ours, batch([prompt(700)]), NEW, past_key_values=cache)
    assert cache.kv_bytes == cache.closed_form_bytes < cache.dense_bytes
    # At most three pages of 64 tokens see 100 tokens, and there is no sink.
    rule = ours.moa.module.rule(0, 0)
    assert (rule.most, rule.sink, rule.span(700)) == (100, 0, 100)
    assert cache.sequences[0].first_resident(0, 0) >= 715 - 100 - 64


def load(model, plan=None, **more):
    return moa.hf.load(model, plan=plan or PLANS["row"], **more)


def tiny(kind, **changes):
    torch.manual_seed(0)
    sizes = getattr(transformers, kind)(**(SIZES | changes))
    return transformers.AutoModelForCausalLM.from_config(sizes)


DEEPSEEK = dict(n_routed_experts=4, num_experts_per_tok=1, first_k_dense_replace=3, n_group=1,
                topk_group=1)  # fmt: skip
REFUSED = {
    "learned sinks": (
        "GptOssConfig",
        HEAD | dict(num_local_experts=2, num_experts_per_tok=1),
        r"learned sinks \(model.layers.0.self_attn.sinks\)",
    ),
    "MLA": ("DeepseekV3Config", DEEPSEEK, "kv_lora_rank"),
    "an indexer": ("DeepseekV32Config", DEEPSEEK, "sparse attention.*index_topk = 2048"),
    "dynamic masks": ("DogeConfig", {}, "sparse attention.*keep_window_size = 2048"),
    "chunks": (
        "Llama4TextConfig",
        HEAD | dict(attention_chunk_size=64),
        "chunked attention .attention_chunk_size = 64",
    ),
    "convolutions": (
        "Lfm2Config",
        dict(layer_types=["conv", "full_attention", "conv"]),
        "layers of its own kind .conv",
    ),
    "state space": ("MambaConfig", {}, "layers of its own kind"),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_other_attention_is_refused_at_once(what):
    kind, changes, message = REFUSED[what]
    with pytest.raises(moa.errors.CompileError, match=message) as caught:
        load(tiny(kind, **changes))
    assert "without moa.hf.load" in str(caught.value)


def test_packed_sequences_are_refused_beside_windows():
    ours = load(fresh("Mistral, windows"))
    restart = torch.cat([torch.arange(20), torch.arange(20)])[None]
    with torch.no_grad(), pytest.raises(NotImplementedError, match="packed"):
        ours(prompt(40), position_ids=restart, use_cache=False)


def test_an_artifact_without_the_models_windows_is_refused():
    plain = moa.compile(PLANS["row"], config("Gemma 3"), dtype="f32", max_length=1024)
    with pytest.raises(moa.errors.CompileError, match=r"windows \[None, None, None\]"):
        load(fresh("Gemma 3"), artifact=plain)


CAPS = [(50.0, None, "soft_cap 50.0, the model has 0.0"),
        (None, 50.0, "soft_cap 0.0, the model has 50.0"),
        (30.0, 50.0, "soft_cap 30.0, the model has 50.0")]  # fmt: skip


@pytest.mark.parametrize("compiled, had, message", CAPS)
def test_an_artifact_of_another_soft_cap_is_refused(compiled, had, message):
    other = load(fresh("Gemma 2", attn_logit_softcapping=compiled)).moa.artifact
    model = fresh("Gemma 2", attn_logit_softcapping=had)
    with pytest.raises(moa.errors.CompileError, match=message):
        load(model, artifact=other)


def test_a_soft_cap_is_compared_in_the_artifacts_precision():
    ours = load(fresh("Gemma 2", attn_logit_softcapping=0.7))
    assert ours.moa.info["soft_cap"] != 0.7
    again = load(fresh("Gemma 2", attn_logit_softcapping=0.7), artifact=ours.moa.artifact)
    with torch.no_grad():
        assert torch.equal(again(prompt(20)).logits, ours(prompt(20)).logits)


@pytest.mark.parametrize("cap", [0.0, -1.0, 2.0**21])
def test_a_soft_cap_out_of_range_is_the_compilers_to_name(cap):
    with pytest.raises(moa.errors.CompileError, match="2\\^-20 to 2\\^20 for 'soft_cap'"):
        load(fresh("Gemma 2", attn_logit_softcapping=cap))


@pytest.mark.parametrize("cap", [None, 30.0])
def test_a_soft_cap_that_changes_after_loading_is_refused(cap):
    ours = load(fresh("Gemma 2"))
    ours.model.layers[1].self_attn.attn_logit_softcapping = cap
    message = f"layer 1 asks for soft cap {cap}, the artifact has 50.0.*load it again"
    with torch.no_grad(), pytest.raises(NotImplementedError, match=message):
        ours(prompt(20))


def test_layers_that_leave_their_configs_soft_cap_out_are_refused():
    with torch.no_grad(), pytest.raises(NotImplementedError, match="what its layers do not"):
        load(fresh("Gemma 3", attn_logit_softcapping=50.0))(prompt(20))


def test_a_cache_of_another_soft_cap_is_refused():
    other = moa.hf.Cache(load(fresh("Gemma 2", attn_logit_softcapping=30.0)))
    with torch.no_grad(), pytest.raises(ValueError, match="belongs to another model"):
        load(fresh("Gemma 2"))(prompt(20), past_key_values=other)


def test_a_window_that_changes_after_loading_is_refused():
    ours = load(fresh("Gemma 3"))
    for layer in ours.model.layers:
        if layer.self_attn.sliding_window:
            layer.self_attn.sliding_window = 50
    with torch.no_grad(), pytest.raises(NotImplementedError, match="load it again"):
        ours(prompt(20))


def test_a_plan_file_that_is_damaged_is_the_compilers_to_name(tmp_path):
    broken = tmp_path / "plan.json"
    broken.write_text('{"alphas": [[0')
    with pytest.raises(moa.errors.CompileError, match="plan.json:1:"):
        load(fresh("Gemma 3"), plan=broken)
    legacy = tmp_path / "legacy.json"
    legacy.write_text('{"alphas": [[0, 0, 0, 0]], "betas": [[1, 1, 1, 1]]}')
    with pytest.raises(moa.errors.CompileError, match="layers"):
        load(fresh("Gemma 3"), plan=legacy)
