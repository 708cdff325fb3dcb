"""Torch operators: values, registration, tracing, and every refusal."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import moa
import moa.ops
from conftest import DTYPES, TOLERANCE, Rule, make_plan, reference, relative_error
from moa.runtime import Cache, Context, Module, Sequence

HQ, HKV, D = 4, 2, 64
RULES = [(0, 1.0), (-64, 0.5), (128, 0.0), (0, 0.25)]
N = 400


def load(dtype="f32", layers=1, more=""):
    plan = make_plan([[float(a) for a, _ in RULES]] * layers, [[b for _, b in RULES]] * layers)
    shape = f"layers={layers},q_heads={HQ},kv_heads={HKV},head_dim={D}{more}"
    artifact = moa.compile(plan, shape, dtype=dtype, max_length=1024)
    return Module(Context(1), str(artifact.path))


@pytest.fixture(scope="module")
def module():
    return load()


def tensors(rows, tokens, dtype="f32", seed=0):
    generator = torch.Generator().manual_seed(seed)
    make = lambda heads: torch.randn(rows, tokens, heads, D, generator=generator).to(
        DTYPES[dtype]
    )
    return make(HQ), make(HKV), make(HKV)


def rows_of(module, count=2):
    cache = Cache(module)
    return moa.ops.Rows(cache, [Sequence(cache, N) for _ in range(count)])


def cut(tensors, begin, end):
    return [tensor[:, begin:end] for tensor in tensors]


@pytest.mark.parametrize("dtype", DTYPES)
def test_prefill_append_and_decode_give_the_definition(dtype):
    module = load(dtype)
    rows, qkv = rows_of(module), tensors(2, N, dtype)
    out = torch.full_like(qkv[0], float("nan"))
    out[:, :200] = moa.ops.prefill(rows.handle, *cut(qkv, 0, 200), 0)
    # Rows that are appended alone are seen like any other.
    moa.ops.append(rows.handle, *cut(qkv, 200, 270)[1:], 0)
    batch = moa.ops.Batch(rows.cache, 2)
    for row in range(270, 300):
        batch.begin(rows.sequences)
        out[:, row : row + 1] = moa.ops.decode(batch.handle, *cut(qkv, row, row + 1), 0)
        batch.end()
    out[:, 300:] = moa.ops.prefill(rows.handle, *cut(qkv, 300, N), 0)
    assert [sequence.seen() for sequence in rows.sequences] == [N, N]
    rules = [Rule(*rule) for rule in RULES]
    seen = [i for i in range(N) if not 200 <= i < 270]
    for i in range(2):
        want = reference(*(tensor[i] for tensor in qkv), rules, N)
        assert relative_error(out[i, seen], want[seen]) <= TOLERANCE[dtype]
    assert out[:, 200:270].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_have_the_artifacts_soft_cap(dtype):
    """A chunk, single rows and a chunk again, at a scale that takes scores beyond the cap."""
    cap, scale = 1.5, 0.5
    module = load(dtype, more=f",soft_cap={cap}")
    assert module.info["soft_cap"] == cap and load(dtype).info["soft_cap"] == 0.0
    rows, qkv = rows_of(module), tensors(2, N, dtype)
    out = torch.empty_like(qkv[0])
    out[:, :270] = moa.ops.prefill(rows.handle, *cut(qkv, 0, 270), 0, scale)
    batch = moa.ops.Batch(rows.cache, 2)
    for row in range(270, 290):
        batch.begin(rows.sequences)
        token = moa.ops.decode(batch.handle, *cut(qkv, row, row + 1), 0, scale)
        out[:, row : row + 1] = token
        batch.end()
    out[:, 290:] = moa.ops.prefill(rows.handle, *cut(qkv, 290, N), 0, scale)
    rules = [Rule(*rule) for rule in RULES]
    for i in range(2):
        given = [tensor[i] for tensor in qkv]
        want = reference(*given, rules, N, scale, cap)
        assert relative_error(out[i], want) <= TOLERANCE[dtype]
        assert relative_error(reference(*given, rules, N, scale), want) > 0.5


def test_scale_and_strides(module):
    qkv = tensors(1, 90)
    moved = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in qkv]
    outs = []
    for given in (qkv, moved):
        rows = rows_of(module, 1)
        outs.append(moa.ops.prefill(rows.handle, *given, 0, scale=0.3))
    assert torch.equal(*outs)
    want = reference(*(tensor[0] for tensor in qkv), [Rule(*r) for r in RULES], N, scale=0.3)
    assert relative_error(outs[0][0], want) <= TOLERANCE["f32"]


class Fresh:
    """Answers every call with new sequences, so that a call can be repeated."""

    def __init__(self, module):
        self.module, self.handle = module, moa.ops.handle_of(self)

    def prefill(self, layer, q, k, v, scale, mask):
        return rows_of(self.module, len(q)).prefill(layer, q, k, v, scale, mask)

    def append(self, layer, k, v):
        rows_of(self.module, len(k)).append(layer, k, v)


def test_opcheck(module):
    fresh, qkv = Fresh(module), tensors(2, 70)
    torch.library.opcheck(torch.ops.moa.prefill.default, (fresh.handle, *qkv, 0))
    torch.library.opcheck(torch.ops.moa.prefill.default, (fresh.handle, *qkv, 0, 0.5))
    torch.library.opcheck(torch.ops.moa.append.default, (fresh.handle, *qkv[1:], 0))
    rows = rows_of(module)
    moa.ops.prefill(rows.handle, *qkv, 0)
    batch = moa.ops.Batch(rows.cache, 2)
    batch.begin(rows.sequences)
    # A layer of a step may be computed again until the step ends.
    token = tensors(2, 1, seed=1)
    torch.library.opcheck(torch.ops.moa.decode.default, (batch.handle, *token, 0))
    batch.end()


def test_calls_are_neither_dropped_nor_reordered(module):
    """Two calls of equal arguments whose results are not used stay two."""

    def run(handle, q, k, v):
        moa.ops.prefill(handle, q, k, v, 0)
        moa.ops.prefill(handle, q, k, v, 0)
        moa.ops.append(handle, k, v, 0)
        return moa.ops.prefill(handle, q * 2, k, v, 0)

    qkv = tensors(2, 40)
    rows, other = rows_of(module), rows_of(module)
    compiled = torch.compile(run, fullgraph=True, backend="inductor")
    with torch.no_grad():
        found, want = compiled(rows.handle, *qkv), run(other.handle, *qkv)
        assert [sequence.seen() for sequence in rows.sequences] == [160, 160]
        assert torch.equal(found, want)
        # Another cache takes the same code.
        with torch.compiler.set_stance("fail_on_recompile"):
            again = rows_of(module)
            assert torch.equal(compiled(again.handle, *qkv), want)


def test_fake_tensors_have_shapes_and_touch_nothing(module):
    rows = rows_of(module)
    with FakeTensorMode(allow_non_fake_inputs=True):
        q, k = torch.empty(2, 5, HQ, D), torch.empty(2, 5, HKV, D)
        assert moa.ops.prefill(rows.handle, q, k, k, 0).shape == q.shape
        assert moa.ops.decode(rows.handle, q, k, k, 0).shape == q.shape
        assert moa.ops.append(rows.handle, k, k, 0) is None
        with pytest.raises(ValueError, match="must agree"):
            moa.ops.prefill(rows.handle, q, k[:, :4], k, 0)
    assert rows.sequences[0].seen() == 0


def test_no_backward(module):
    rows = rows_of(module)
    q, k, v = tensors(2, 8)
    q.requires_grad_()
    with pytest.raises(NotImplementedError, match="no backward: run under torch.no_grad"):
        moa.ops.prefill(rows.handle, q, k, v, 0)
    with pytest.raises(NotImplementedError, match="moa::append has no backward"):
        moa.ops.append(rows.handle, k, v.requires_grad_(), 0)
    assert rows.sequences[0].seen() == 0
    with torch.no_grad():
        assert not moa.ops.prefill(rows.handle, q, k, v, 0).requires_grad


def test_refusals(module):
    rows = rows_of(module)
    q, k, v = tensors(2, 8)
    batch = moa.ops.Batch(rows.cache, 2)
    dead = rows_of(module).handle
    call = moa.ops.prefill
    for kind, message, arguments in [
        (ValueError, "names no cache or batch", (dead, q, k, v, 0)),
        (TypeError, "Batch, which has no prefill", (batch.handle, q, k, v, 0)),
        (ValueError, "expected the int64 tensor", (q, q, k, v, 0)),
        (ValueError, "q has 3 dimensions", (rows.handle, q[0], k, v, 0)),
        (ValueError, "k has 2 heads, v has 1", (rows.handle, q, k, v[:, :, :1], 0)),
        (ValueError, "v has shape .*must agree", (rows.handle, q, k, v[:1], 0)),
        (TypeError, "q is torch.float64", (rows.handle, q.double(), k.double(), v, 0)),
        (TypeError, "v is torch.float16", (rows.handle, q, k, v.half(), 0)),
        (TypeError, "another dtype", (rows.handle, q.half(), k.half(), v.half(), 0)),
        (ValueError, "expected \\[8, 4, 64\\]", (rows.handle, k, k, v, 0)),
        (ValueError, "3 rows, expected 2", (rows.handle, *tensors(3, 8), 0)),
        (ValueError, "no padding", (rows.handle, q, k, v, 0, None, torch.ones(2, 8))),
        (moa.errors.InvalidArgumentError, "layer", (rows.handle, q, k, v, 1)),
    ]:  # fmt: skip
        with pytest.raises(kind, match=message):
            call(*arguments)
    with pytest.raises(TypeError, match="Rows, which has no decode"):
        moa.ops.decode(rows.handle, q, k, v, 0)
    with pytest.raises(moa.errors.InvalidArgumentError, match="moa_batch_begin first"):
        moa.ops.decode(batch.handle, *tensors(2, 1), 0)
    assert [sequence.seen() for sequence in rows.sequences] == [0, 0]


def test_append_of_the_runtime_refuses_what_attend_does(module):
    cache = Cache(module)
    sequence = Sequence(cache, N)
    _, k, v = (tensor[0] for tensor in tensors(1, 8))
    append = moa.runtime.append
    with pytest.raises(ValueError, match="entry 0: v has shape"):
        append(cache, 0, [(sequence, k, v[:7])])
    with pytest.raises(TypeError, match="entry 1: k has another dtype"):
        append(cache, 0, [(sequence, k, v), (sequence, k.half(), v)])
    with pytest.raises(moa.errors.InvalidArgumentError, match="name the same sequence"):
        append(cache, 0, [(sequence, k, v)] * 2)
    with pytest.raises(moa.errors.InvalidArgumentError, match="layer"):
        append(cache, 3, [(sequence, k, v)])
    assert sequence.seen() == 0
    append(cache, 0, [(sequence, k, v)])
    assert sequence.seen() == 8 and cache.counters["prefill_rows"] == 0
