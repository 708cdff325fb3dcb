"""Decode steps through `moa.hf.graph`, run eagerly as on a CPU: buckets, generate()'s
calls, and what falls back. Graphs themselves are captured where there is a GPU."""

import pytest
import torch
import transformers
from test_hf import GREEDY, PLAN, fresh, prompt

import moa
import moa.hf
from conftest import make_plan
from moa.hf import graph


@pytest.fixture(scope="module")
def model():
    return moa.hf.load(fresh(), plan=PLAN, threads=1)


def prefilled(model, rows, n=400):
    """Pages, and sequences in them with random prompts of different lengths."""
    cache = moa.runtime.Cache(model.moa.module)
    sequences = []
    for row in range(rows):
        one = moa.hf.Cache(model, pages=cache)
        one.expect([n])
        with torch.no_grad():
            model(prompt(40 + 50 * row, seed=row), past_key_values=one)
        sequences += one.sequences
    return cache, sequences


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 9, 17])
def test_buckets(count):
    rows = graph.bucket_of(count)
    assert count <= rows < max(2, 2 * count) and (rows < 8 or rows % 8 == 0)


def test_ragged_steps_equal_single_ones(monkeypatch):
    """Sequences join, leave and change places between steps.

    torch multiplies one row and several by different code, whose last bits depend on the
    processor. Scores of up to 100, as here, carry them into weights and logits (3e-4 from
    float64, batched or alone). So each row is multiplied by itself, and nothing may differ.
    """
    linear = torch.nn.functional.linear
    one_by_one = lambda x, *weights: torch.cat([linear(row, *weights) for row in x.split(1)])
    monkeypatch.setattr(torch.nn.functional, "linear", one_by_one)
    model = moa.hf.load(fresh(), plan=PLAN, threads=1)
    pages, sequences = prefilled(model, 5)
    alone = [sequence.fork() for sequence in sequences]
    decoder, single = graph.Decoder(model, pages), graph.Decoder(model, pages)
    for chosen in ([0, 1, 2], [2, 0], [4, 3, 1, 0, 2], [3]):
        tokens = torch.tensor([[7 + i] for i in chosen])
        found = decoder.step([sequences[i] for i in chosen], tokens)
        assert found.shape == (len(chosen), 1, 199)
        for row, i in enumerate(chosen):
            want = single.step([alone[i]], tokens[row : row + 1])
            assert torch.equal(found[row : row + 1], want)
    assert [s.seen() for s in sequences] == [s.seen() for s in alone]
    assert decoder.graphs == 0


def test_a_step_without_pages_changes_nothing(model):
    pages, sequences = prefilled(model, 2)
    decoder = graph.Decoder(model, pages)
    stats = pages.stats
    pages.set_limit(stats["pages_used"] * stats["page_bytes"])
    before = [sequence.seen() for sequence in sequences]
    tokens = torch.tensor([[1], [2]])
    with pytest.raises(moa.errors.OutOfPagesError, match="wanted"):
        for _ in range(70):
            decoder.step(sequences, tokens)
    after = [sequence.seen() for sequence in sequences]
    assert after[0] - before[0] == after[1] - before[1] < 65
    pages.set_limit(0)
    decoder.step(sequences, tokens)
    assert sequences[0].seen() == after[0] + 1


def test_a_failing_forward_pass_gives_the_step_up(model):
    pages, sequences = prefilled(model, 1)

    def broken(**inputs):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        graph.Decoder(model, pages, broken).step(sequences, torch.tensor([[1]]))
    seen = sequences[0].seen()
    graph.Decoder(model, pages).step(sequences, torch.tensor([[1]]))
    assert sequences[0].seen() == seen + 1


@pytest.fixture
def as_on_cuda(model, monkeypatch):
    """generate() asks for the call of each step here too; those that it made."""
    calls = []

    class Recorded(graph._Decoding):
        def __init__(self, *args):
            super().__init__(*args)
            calls.append(self)

    monkeypatch.setattr(graph, "_Decoding", Recorded)
    monkeypatch.setattr(
        model, "_valid_auto_compile_criteria", lambda _, config: not config.disable_compile
    )
    return calls


def test_generate_makes_its_steps_by_the_decoder(model, as_on_cuda):
    ids = prompt(150)
    want = model.generate(ids, max_new_tokens=40, disable_compile=True, **GREEDY)
    assert not as_on_cuda
    cache = moa.hf.Cache(model)
    found = model.generate(ids, max_new_tokens=40, past_key_values=cache, **GREEDY)
    assert torch.equal(found, want)
    assert cache.pages.counters["batch_steps"] == 39
    assert as_on_cuda[0].decoder is not None and not as_on_cuda[0].said
    assert cache.get_seq_length() == 189 and cache.kv_bytes == cache.closed_form_bytes
    # A second turn, and plain calls behind it.
    longer = torch.cat([found, prompt(20, seed=3)], dim=1)
    again = model.generate(
        longer, attention_mask=torch.ones_like(longer), max_new_tokens=8,
        past_key_values=cache, **GREEDY,
    )  # fmt: skip
    with torch.no_grad():
        model(again[:, -1:], past_key_values=cache)
    assert cache.get_seq_length() == again.shape[1]


def test_padded_batches(model, as_on_cuda):
    ids = torch.cat([prompt(80), prompt(80, seed=4)])
    mask = torch.ones(2, 80, dtype=torch.long)
    mask[1, :33] = 0
    args = dict(attention_mask=mask, max_new_tokens=20, **GREEDY)
    want = model.generate(ids, disable_compile=True, **args)
    assert torch.equal(model.generate(ids, **args), want)
    assert as_on_cuda[0].decoder is not None


def test_what_does_not_fit_a_step_runs_eagerly_and_says_so(model, as_on_cuda, caplog):
    ids = prompt(60)
    args = dict(
        max_new_tokens=5, output_hidden_states=True, return_dict_in_generate=True, **GREEDY
    )
    want = model.generate(ids, disable_compile=True, **args)
    with caplog.at_level("DEBUG", logger="moa.hf.graph"):
        found = model.generate(ids, **args)
    assert torch.equal(found.sequences, want.sequences)
    assert len(found.hidden_states) == len(want.hidden_states)
    lines = [r.message for r in caplog.records if r.name == "moa.hf.graph"]
    assert lines == ["a step runs without a CUDA graph: the forward pass takes "
                     "output_hidden_states"]  # fmt: skip
    assert as_on_cuda[0].decoder is None


@pytest.mark.parametrize("kind", ["Llama", "Mistral"])
def test_compiled_layers_share_their_code(kind):
    """Layers of compile_config: one code for many, other numbers of rows, own windows."""
    own = {"sliding_window": 100} if kind == "Mistral" else {}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=199, hidden_size=64, intermediate_size=64, num_hidden_layers=6,
        num_attention_heads=2, num_key_value_heads=1, head_dim=64,
        max_position_embeddings=512, initializer_range=0.3, **own,
    )  # fmt: skip
    torch.manual_seed(0)
    plan = make_plan([[0.0, 64.0]] * 6, [[0.3, 0.0]] * 6)
    made = getattr(transformers, f"{kind}ForCausalLM")(config)
    model = moa.hf.load(made, plan=plan, threads=1)
    pages, sequences = prefilled(model, 6)
    others = [sequence.fork() for sequence in sequences]
    config = transformers.CompileConfig(fullgraph=True, backend="aot_eager", mode=None)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = graph.Decoder(model, pages, graph._compiled(model, config))
    plain = graph.Decoder(model, pages)
    for count in (2, 2, 3, 6, 1, 5):
        tokens = torch.arange(count)[:, None]
        found = compiled.step(sequences[:count], tokens)
        want = plain.step(others[:count], tokens)
        assert torch.allclose(found, want, atol=1e-4)
    # The first layer, all others, all for any number of rows, and for one row.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4
    assert not any("forward" in vars(part) for part in model.modules())


def test_layers_are_theirs_again_after_an_error(model):
    config = transformers.CompileConfig(fullgraph=True, backend="eager", mode=None)
    forward = graph._compiled(model, config)
    model.model.layers[0].forward = mine = model.model.layers[0].forward
    with pytest.raises(ValueError, match="exactly one of input_ids"):
        forward()
    assert vars(model.model.layers[0]).pop("forward") is mine
    assert "forward" not in vars(model.model.layers[1])


def test_models_whose_positions_are_read_by_the_host_are_not_captured():
    config = dict(num_hidden_layers=1, rope_parameters={
        "rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})  # fmt: skip
    model = moa.hf.load(fresh(**config), plan=make_plan([[0.0] * 4], [[1.0] * 4]))
    assert graph._host_decides(model)
    assert not graph._host_decides(fresh())
