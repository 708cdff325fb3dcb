"""The profiler's attention against materialised float64 references."""

import pytest
import torch
import transformers

import planner_model
from moa.plan.influence import InfluenceError, Point, Recorder, attend, run, window_blocks

SINK, BLOCK = 6, 4


one_thread = planner_model.one_thread
pytestmark = pytest.mark.usefixtures("one_thread")


def qkv(heads=6, kv_heads=2, tokens=29, dim=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    make = lambda h: torch.randn(h, tokens, dim, generator=generator).to(dtype)
    return [x.requires_grad_() for x in (make(heads), make(kv_heads), make(kv_heads))]


def masked(q, k, v, scale, local, sink=SINK, cap=None):
    """Attention within sink and window; None for dense. Returns output, probabilities."""
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    i, j = torch.arange(q.shape[1])[:, None], torch.arange(q.shape[1])[None]
    seen = j <= i
    if local is not None:
        seen = seen & ((j < sink) | (i - j < local))
    scores = q @ k.mT * scale
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    p = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1)
    return p @ v, p


def recorder(tokens=29, rows=256, **more):
    return Recorder(1, 6, tokens, sink=SINK, block=BLOCK, rows=rows, **more)


def backward(r, tensors, upstream, cap=None):
    out = attend(*tensors, 0.3, 0, r, cap)
    out.backward(upstream)
    return out


#: None, and one that scores exceed.
CAPS = [None, 0.8]


@pytest.mark.parametrize("rows", [1, 4, 7, 256])
@pytest.mark.parametrize("mix", [0.0, 0.5])
@pytest.mark.parametrize("heads, kv_heads", [(6, 6), (6, 2), (6, 1)])
@pytest.mark.parametrize("cap", CAPS)
def test_output_and_input_gradients(rows, mix, heads, kv_heads, cap):
    tensors = qkv(heads, kv_heads)
    upstream = torch.randn(heads, 29, 8, dtype=torch.float64)
    r = Recorder(
        1, heads, 29, sink=SINK, block=BLOCK, rows=rows, point=Point(mix, 5 if mix else 0)
    )
    out = backward(r, tensors, upstream, cap)
    got = [t.grad.clone() for t in tensors]
    for t in tensors:
        t.grad = None
    dense, windowed = (masked(*tensors, 0.3, local, cap=cap)[0] for local in (None, 5))
    want = (1 - mix) * dense + mix * windowed
    want.backward(upstream)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)
    for ours, t in zip(got, tensors):
        torch.testing.assert_close(ours, t.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 3, 8, 256])
@pytest.mark.parametrize("tokens", [7, 10, 28, 29, 30, 31])
@pytest.mark.parametrize("cap", CAPS)
def test_the_set_form_is_the_change_of_finite_masking(rows, tokens, cap):
    tensors = qkv(tokens=tokens)
    upstream = torch.randn(6, tokens, 8, dtype=torch.float64)
    r = recorder(tokens, rows)
    backward(r, tensors, upstream, cap)
    with torch.no_grad():
        dense = masked(*tensors, 0.3, None, cap=cap)[0]
        assert r.absolute.shape == (1, 6, window_blocks(tokens, SINK, BLOCK) + 1)
        for n in range(r.blocks + 1):
            window = masked(*tensors, 0.3, n * BLOCK, cap=cap)[0]
            change = ((window - dense) * upstream).sum(-1)
            want = [change.abs().sum(-1), change.sum(-1), change.square().sum(-1)]
            for ours, theirs in zip((r.absolute, r.signed, r.squared), want):
                torch.testing.assert_close(ours[0, :, n], theirs, rtol=1e-9, atol=1e-12)
        assert not r.absolute[..., -1].any()
        assert (r.absolute[..., 0] > 0).all()


@pytest.mark.parametrize("rows", [4, 8, 256])
def test_entries_are_the_papers_formula(rows):
    tensors = qkv()
    upstream = torch.randn(6, 29, 8, dtype=torch.float64)
    r = recorder(rows=rows, entries=True)
    backward(r, tensors, upstream)
    with torch.no_grad():
        v = tensors[2].repeat_interleave(3, 0)
        a = masked(*tensors, 0.3, None)[1]
        g = upstream @ v.mT
        d = (g * a).sum(-1, keepdim=True)
        e = (a * (g - d) / (1 - a)).nan_to_num(0).abs()  # row 0 has nothing else to see
        for row in range(8):
            for column in range(8):
                square = e[:, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
                torch.testing.assert_close(
                    r.entries[0, :, row, column], square.sum((1, 2)), rtol=1e-9, atol=1e-12
                )


def test_the_midpoint_uses_its_own_gradient_for_the_same_masks():
    tensors = qkv()
    upstream = torch.randn(6, 29, 8, dtype=torch.float64)
    at_dense, between = recorder(), recorder(point=Point(0.5, 5))
    backward(at_dense, tensors, upstream)
    backward(between, tensors, upstream)
    torch.testing.assert_close(at_dense.signed, between.signed)


def test_float32_and_bfloat16_stay_near_float64():
    sums = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        r = recorder()
        upstream = torch.randn(6, 29, 8, generator=torch.Generator().manual_seed(1))
        backward(r, qkv(dtype=dtype), upstream.to(dtype))
        assert r.absolute.dtype == torch.float64
        sums[dtype] = r.absolute
    torch.testing.assert_close(sums[torch.float32], sums[torch.float64], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sums[torch.bfloat16], sums[torch.float64], rtol=0.05, atol=0.1)


def model(**changes):
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=97, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        max_position_embeddings=256, initializer_range=0.4,
    )  # fmt: skip
    net = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(sizes | changes)))
    # transformers' own norms compute in float32, whatever the model's type.
    norm = lambda: torch.nn.RMSNorm(64, eps=1e-6)
    net.model.norm = norm()
    for layer in net.model.layers:
        layer.input_layernorm, layer.post_attention_layernorm = norm(), norm()
    return net.double().eval().requires_grad_(False)


def ids(tokens=41):
    return torch.randint(0, 97, (tokens,), generator=torch.Generator().manual_seed(2))


def cross_entropy(logits):
    return torch.nn.functional.cross_entropy(logits, ids()[-logits.shape[0] :])


def whole(**more):
    return Recorder(2, 4, 41, sink=SINK, block=BLOCK, **more)


def test_a_model_attends_as_before_and_is_given_back():
    net = model()
    before = net.config._attn_implementation
    loss = run(net, ids(), 5, whole(), cross_entropy)
    with torch.no_grad():
        want = cross_entropy(net(ids()[None]).logits[0, -6:-1])
    assert loss == pytest.approx(float(want), abs=1e-10)
    assert net.config._attn_implementation == before
    assert not any(m.training for m in net.modules())
    assert not any(getattr(part, "gradient_checkpointing", False) for part in net.modules())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("layer, head, n", [(0, 1, 2), (1, 0, 5), (1, 3, 1)])
def test_the_signed_sum_is_the_derivative_of_the_loss_of_a_model(layer, head, n):
    """Finite differences: one head moves a little way to its masked output."""
    r = whole(rows=8)
    run(model(), ids(), 5, r, cross_entropy)
    step, losses = 1e-4, {}
    for sign in (-1, 1):

        def attention(module, q, k, v, mask, scaling, **kwargs):
            out = masked(q[0], k[0], v[0], scaling, None)[0]
            if module.layer_idx == layer:
                window = masked(q[0], k[0], v[0], scaling, n * BLOCK)[0]
                out[head] += sign * step * (window[head] - out[head])
            return out.transpose(0, 1)[None], None

        transformers.AttentionInterface.register("moved-head", attention)
        net = model()
        net.set_attn_implementation("moved-head")
        with torch.no_grad():
            losses[sign] = float(cross_entropy(net(ids()[None]).logits[0, -6:-1]))
    derivative = (losses[1] - losses[-1]) / (2 * step)
    assert float(r.signed[layer, head, n]) == pytest.approx(derivative, rel=1e-5, abs=1e-8)


def test_weights_that_are_not_finite_are_told():
    net = model()
    net.model.layers[1].self_attn.v_proj.weight[3, 3] = torch.nan
    with pytest.raises(InfluenceError, match="loss is nan.*float32"):
        run(net, ids(), 5, whole(), cross_entropy)
    assert net.config._attn_implementation != "moa-influence"


def test_sums_that_are_not_finite_name_layer_and_head():
    tensors = qkv()
    upstream = torch.zeros(6, 29, 8, dtype=torch.float64)
    upstream[4, 20, 0] = torch.inf
    with pytest.raises(InfluenceError, match="layer 0 head 4.*not finite.*float32"):
        backward(recorder(), tensors, upstream)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(sink=0), "at least 1"),
        (dict(block=0), "at least 1"),
        (dict(rows=0), "at least 1"),
        (dict(rows=6, entries=True), "6 rows are no multiple of 4"),
        (dict(rows=6, by_row=True), "sums of row blocks .* 6 rows are no multiple of 4"),
    ],
)
def test_bad_recorders(changes, message):
    with pytest.raises(InfluenceError, match=message):
        Recorder(1, 1, 8, **(dict(sink=4, block=4) | changes))


def test_a_sequence_of_another_length_is_refused():
    with pytest.raises(InfluenceError, match="one whole sequence of 41 tokens"):
        run(model(), ids(40), 5, whole(), cross_entropy)


def test_layers_that_attend_by_themselves_are_refused():
    net = model()
    net.model.layers[1] = torch.nn.Module()
    net.model.layers[1].forward = lambda hidden, **kwargs: hidden
    with pytest.raises(InfluenceError, match="2 layers, attention of 1 went"):
        run(net, ids(), 5, whole(), cross_entropy)


def test_an_architecture_without_the_interface_is_refused():
    class Own(transformers.LlamaForCausalLM):
        def set_attn_implementation(self, name, *args, **kwargs):
            pass

    net = Own(model().config).double().requires_grad_(False)
    with pytest.raises(InfluenceError, match="computes attention by itself"):
        run(net, ids(), 5, whole(), cross_entropy)
