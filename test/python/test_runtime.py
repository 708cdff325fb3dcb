"""The runtime through Python: values against float64, and every refusal."""

import json
import os

import pytest
import torch

import moa
from conftest import DTYPES, TOLERANCE, Rule, make_plan, reference, relative_error
from moa.runtime import Cache, Context, Module, Sequence, attend

HQ, HKV, D = 6, 2, 64
RULES = [(0, 1.0), (-64, 0.5), (192, 0.0), (256, 0.25), (0, 0.5), (128, 0.0)]
SHAPE = f"layers=1,q_heads={HQ},kv_heads={HKV},head_dim={D}"


def compiled(dtype="f32", length="request"):
    plan = make_plan([[float(a) for a, _ in RULES]], [[b for _, b in RULES]], length=length)
    return moa.compile(plan, SHAPE, dtype=dtype, max_length=4096)


def load(dtype="f32", threads=2, length="request"):
    return Module(Context(threads), str(compiled(dtype, length).path))


def tensors(tokens, dtype="f32", seed=0):
    generator = torch.Generator().manual_seed(seed)
    make = lambda heads: torch.randn(tokens, heads, D, generator=generator).to(DTYPES[dtype])
    return make(HQ), make(HKV), make(HKV)


def run(module, q, k, v, chunks, n, cache, **kwargs):
    """Feeds the sequence in chunks; the outputs together, and the sequence."""
    sequence = Sequence(cache, n)
    out = torch.full_like(q, float("nan"))
    first = 0
    for tokens in chunks:
        rows = slice(first, first + tokens)
        attend(cache, 0, [(sequence, q[rows], k[rows], v[rows], out[rows])], **kwargs)
        first += tokens
    assert first == len(q)
    return out, sequence


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("chunks", [[700], [1, 63, 64, 65, 500, 1, 1, 5], [1] * 70 + [630]])
def test_chunks_match_float64(dtype, chunks):
    module = load(dtype)
    q, k, v = tensors(700, dtype)
    cache = Cache(module)
    out, sequence = run(module, q, k, v, chunks, 900, cache)
    want = reference(q, k, v, [Rule(a, b) for a, b in RULES], 900)
    assert relative_error(out, want) <= TOLERANCE[dtype]
    assert sequence.bytes == module.kv_bytes(900, 700)[0]
    assert cache.stats["pages_used"] * cache.stats["page_bytes"] == sequence.bytes


def test_row_rule_is_independent_of_chunks():
    module = load(length="row")
    q, k, v = tensors(600)
    want = reference(q, k, v, [Rule(a, b, per_row=True) for a, b in RULES], 0)
    for chunks in ([600], [100, 1, 1, 398, 100]):
        out, _ = run(module, q, k, v, chunks, 1, Cache(module))
        assert relative_error(out, want) <= TOLERANCE["f32"]


@pytest.mark.parametrize("scale", [0.0, -0.3, 1.0])
def test_scale(scale):
    module = load()
    q, k, v = tensors(200)
    out, _ = run(module, q, k, v, [199, 1], 200, Cache(module), scale=scale)
    want = reference(q, k, v, [Rule(a, b) for a, b in RULES], 200, scale)
    assert relative_error(out, want) <= 2e-5


def test_ragged_batch_equals_each_alone_bit_for_bit():
    module = load(threads=2)
    lengths = [1, 64, 65, 300]
    cache = Cache(module)
    sequences = [Sequence(cache, n + 3) for n in lengths]
    data = [tensors(n + 3, seed=n) for n in lengths]
    outs = [torch.empty_like(q) for q, _, _ in data]

    def step(rows):
        attend(cache, 0, [
            (s, q[r], k[r], v[r], o[r])
            for s, (q, k, v), o, r in zip(sequences, data, outs, rows)
        ])  # fmt: skip

    step([slice(0, n) for n in lengths])
    for i in range(3):
        step([slice(n + i, n + i + 1) for n in lengths])
    other = load(threads=1)
    for n, (q, k, v), out in zip(lengths, data, outs):
        alone, _ = run(other, q, k, v, [n, 1, 1, 1], n + 3, Cache(other))
        assert torch.equal(alone, out)


def test_strided_tensors():
    module = load()
    q, k, v = tensors(130)
    wide = lambda t: torch.stack([t, torch.full_like(t, float("nan"))], 2)[:, :, 0]
    views = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (q, k, v)]
    want = reference(q, k, v, [Rule(a, b) for a, b in RULES], 130)
    for a, b, c in (views, [wide(t) for t in (q, k, v)]):
        out, _ = run(module, a, b, c, [129, 1], 130, Cache(module))
        assert relative_error(out, want) <= TOLERANCE["f32"]


def test_out_of_pages_changes_nothing():
    module = load()
    q, k, v = tensors(640)
    page = Cache(module).stats["page_bytes"]
    cache = Cache(module, max_bytes=6 * page)
    sequence = Sequence(cache, 640)
    out = torch.empty_like(q)
    attend(cache, 0, [(sequence, q[:64], k[:64], v[:64], out[:64])])
    before = cache.stats
    with pytest.raises(moa.errors.OutOfPagesError, match="wanted .* free"):
        attend(cache, 0, [(sequence, q[64:], k[64:], v[64:], out[64:])])
    assert cache.stats == before and sequence.seen(0) == 64
    assert issubclass(moa.errors.OutOfPagesError, MemoryError)
    attend(cache, 0, [(sequence, q[64:65], k[64:65], v[64:65], out[64:65])])
    want = reference(q[:65], k[:65], v[:65], [Rule(a, b) for a, b in RULES], 640)
    assert relative_error(out[:65], want) <= TOLERANCE["f32"]
    del sequence
    assert cache.stats["pages_used"] == 0


def test_first_resident_and_raised_length():
    module = load()
    q, k, v = tensors(1200)
    cache = Cache(module)
    sequence = Sequence(cache, 400)
    out = torch.empty_like(q)
    attend(cache, 0, [(sequence, q[:1000], k[:1000], v[:1000], out[:1000])])
    bounds = [sequence.first_resident(0, h) for h in range(HKV)]
    assert bounds[0] == 0 or bounds[0] % 64 == 0
    assert bounds[1] > 64
    sequence.set_length(1200)
    attend(cache, 0, [(sequence, q[1000:], k[1000:], v[1000:], out[1000:])])
    group = HQ // HKV
    for h, (alpha, beta) in enumerate(RULES):
        rule = Rule(alpha, beta)
        for row in (1000, 1100, 1199):
            start = max(row + 1 - rule.local(1200), bounds[h // group])
            j = torch.arange(1200)
            seen = (j <= row) & ((j < 64) | (j >= start))
            p = torch.softmax(k[seen, h // group].double() @ q[row, h].double() / 8, 0)
            want = p @ v[seen, h // group].double()
            assert float((out[row, h].double() - want).norm() / want.norm()) < 1e-5
    with pytest.raises(moa.errors.InvalidArgumentError, match="may only rise"):
        sequence.set_length(100)


def test_refusals():
    module = load()
    cache, (q, k, v) = Cache(module), tensors(8)
    sequence, out = Sequence(cache, 100), torch.empty_like(q)
    entry = (sequence, q, k, v, out)
    cases = [
        (dict(entries=[]), ValueError, "no entries"),
        (dict(layer=1), ValueError, "layer 1"),
        (dict(entries=[entry, entry]), ValueError, "same sequence"),
        (dict(entries=[(sequence, q[:0], k[:0], v[:0], out[:0])]), ValueError, "at least 1"),
        (dict(entries=[(sequence, q.half(), k, v, out)]), TypeError, "float32"),
        (dict(entries=[(sequence, q, k[:4], v, out)]), ValueError, "expected \\[8"),
        (dict(entries=[(sequence, q.transpose(1, 2).contiguous().transpose(1, 2), k, v, out)]),
         ValueError, "adjacent"),
        (dict(entries=[(sequence, q[:1].expand(8, HQ, D), k, v, out)]), ValueError, "stride"),
        (dict(scale=float("inf")), ValueError, "finite"),
        (dict(entries=[(Sequence(Cache(module), 9), q, k, v, out)]), ValueError, "another"),
    ]  # fmt: skip
    for change, kind, message in cases:
        arguments = {"cache": cache, "layer": 0, "entries": [entry]} | change
        with pytest.raises(kind, match=message):
            attend(**arguments)
    assert sequence.seen(0) == 0 and cache.stats["pages_used"] == 0
    big, bk, bv = tensors(4097)
    with pytest.raises(moa.errors.OutOfRangeError, match="max length"):
        attend(cache, 0, [(sequence, big, bk, bv, torch.empty_like(big))])
    with pytest.raises(moa.errors.OutOfRangeError):
        Sequence(cache, 5000)


def test_damaged_artifacts(tmp_path):
    good = compiled().path.read_bytes()
    path = tmp_path / "x.moa"
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    newer = bytearray(good)
    newer[4] += 1
    for data, kind, message in [
        (good[:100], moa.errors.CorruptError, "bytes"),
        (good[:-1], moa.errors.CorruptError, "bytes"),
        (bytes(flipped), moa.errors.CorruptError, "checksum"),
        (bytes(newer), moa.errors.IncompatibleError, f"version {newer[4]}"),
        (b"not an artifact" * 20, moa.errors.CorruptError, "not a MoA artifact"),
    ]:
        path.write_bytes(data)
        with pytest.raises(kind, match=message):
            Module(Context(1), str(path))
    with pytest.raises(moa.errors.ArtifactIOError, match="cannot be opened"):
        Module(Context(1), str(tmp_path / "missing.moa"))


def test_compile_errors_carry_the_compilers_words(tmp_path):
    bad = tmp_path / "plan.json"
    bad.write_text('{"alphas": [[0]], "betas": [[2.0]]}')
    with pytest.raises(moa.errors.CompileError, match="betas"):
        moa.compile(bad, "layers=1,q_heads=1,kv_heads=1,head_dim=64")
    with pytest.raises(moa.errors.CompileError, match="layers"):
        moa.compile(make_plan([[0.0]], [[1.0]]), "layers=2,q_heads=1,kv_heads=1,head_dim=64")
    with pytest.raises(moa.errors.CompileError, match="num_hidden_layers|lacks"):
        moa.compile(make_plan([[0.0]], [[1.0]]), {})


def test_context_names_its_device():
    context = Context(3)
    assert context.device == "cpu"
    assert context.info["processors"] == 3
    for device in ("gpu", "cuda:", "cuda:x", "cuda1", "cuda:99999", ""):
        with pytest.raises(ValueError, match="expected cpu, cuda or cuda:NUMBER"):
            Context(device=device)


def test_no_driver():
    with pytest.raises(moa.errors.NoDeviceError, match="no CUDA driver: .*/nowhere/cuda"):
        Context(device="cuda:1", driver_path="/nowhere/cuda.so")


def test_stream_means_nothing_on_the_cpu():
    module = load()
    q, k, v = tensors(70)
    outs = [run(module, q, k, v, [70], 70, Cache(module), stream=s)[0] for s in (0, 1234)]
    assert torch.equal(*outs)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("length", ["request", "row"])
def test_forked_truncated_restored_equal_from_scratch_bit_for_bit(dtype, length, tmp_path):
    module = load(dtype, length=length)
    cache = Cache(module, rollback_tokens=8)
    q, k, v = tensors(400, dtype)
    other = tensors(400, dtype, seed=1)
    want, _ = run(module, q, k, v, [300] + [1] * 40 + [60], 500, cache)

    def feed(sequence, chunks, source=(q, k, v)):
        for tokens in chunks:
            first = sequence.seen()
            rows = slice(first, first + tokens)
            out = torch.empty_like(q[rows])
            attend(cache, 0, [(sequence, *(t[rows] for t in source), out)])
            if source[0] is q:
                assert torch.equal(out, want[rows])

    sequence = Sequence(cache, 500)
    feed(sequence, [300])
    assert sequence.bytes == module.kv_bytes(500, 300, rollback_tokens=8)[0]
    used = cache.stats["pages_used"]
    fork = sequence.fork()
    assert cache.stats["pages_used"] == used
    assert cache.stats["pages_referenced"] == used + sequence.bytes // cache.stats["page_bytes"]
    feed(fork, [1] * 3, other)
    feed(sequence, [1] * 20)
    fork.truncate(300)
    assert fork.min_length <= 300
    feed(fork, [1] * 40)
    for draft in (8, 5):  # Speculation: rejected drafts leave nothing.
        feed(sequence, [draft], other)
        sequence.truncate(sequence.seen() - draft)
        feed(sequence, [1] * 10)
    fork.snapshot(str(tmp_path / "fork.mos"))
    stored = fork.snapshot()
    del fork
    assert (tmp_path / "fork.mos").read_bytes() == stored
    for source in (stored, tmp_path / "fork.mos"):
        again = Sequence.restore(cache, source)
        assert again.length == 500 and again.seen() == 340
        feed(again, [60])
    feed(sequence, [60])


def test_counters_and_traces(tmp_path):
    context = Context(2)
    module = Module(context, str(compiled().path))
    cache = Cache(module)
    with pytest.raises(moa.errors.ArtifactIOError, match="cannot be opened"):
        context.trace("/nowhere/trace.json")
    context.trace(str(tmp_path / "trace.json"))
    q, k, v = tensors(70)
    run(module, q, k, v, [64, 1, 5], 100, cache)
    context.trace(None)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    calls = [e["args"] for e in events if e["name"] == "attend"]
    assert [c["rows"] for c in calls] == [64, 1, 5]
    counters = cache.counters
    assert counters["tokens"] == 70 and counters["failed_calls"] == 0
    assert counters["attend_calls"] == 3 and counters["decode_rows"] == 1
    text = cache.prometheus('model="a"')
    assert 'moa_cache_tokens_total{model="a"} 70\n' in text
    assert "moa_cache_tokens_total 70\n" in cache.prometheus()
    with pytest.raises(moa.errors.InvalidArgumentError, match="expected ="):
        cache.prometheus("model")


def test_prometheus_reads_the_counters():
    """With the parser of Prometheus' own client: every value is a counter's."""
    from prometheus_client.parser import text_string_to_metric_families

    module = load()
    cache = Cache(module)
    q, k, v = tensors(70)
    _, sequence = run(module, q, k, v, [70], 100, cache)
    value = 'a "b" \\ \n'
    text = cache.prometheus('model="a \\"b\\" \\\\ \\n",_x9=""')
    families = list(text_string_to_metric_families(text))
    found = {}
    for family in families:
        (sample,) = family.samples
        assert family.documentation.endswith(".")
        assert sample.name == family.name + ("_total" if family.type == "counter" else "")
        assert family.type in ("counter", "gauge")
        assert sample.labels == {"model": value, "_x9": ""}
        found[family.name.removeprefix("moa_cache_")] = sample.value
    assert len(found) == len(families) == len(cache.counters)
    units = {"staging_wait_ns": ("staging_wait_seconds", 1e-9)}
    order = {
        "page_bytes_high_water": "page_high_water_bytes",
        "prefix_bytes_saved": "prefix_saved_bytes",
    }
    for name, count in cache.counters.items():
        name, unit = units.get(name, (order.get(name, name), 1))
        assert found.pop(name) == pytest.approx(count * unit), name
    assert not found and cache.counters["page_bytes"] == sequence.bytes > 0


def test_traces_are_chrome_events(tmp_path):
    """The fields that Perfetto's reader of this format asks for, and spans of a
    thread that lie within each other or apart, as it draws them."""
    context = Context(2)
    module = Module(context, str(compiled().path))
    cache = Cache(module)
    q, k, v = tensors(70)
    context.trace(str(tmp_path / "trace.json"))
    run(module, q, k, v, [64, 1, 5], 100, cache)
    context.trace(None)
    process, *spans = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert process["ph"] == "M" and process["name"] == "process_name"
    assert process["args"]["name"] == "moa" and len(spans) == 6
    open_until = []
    for e in sorted(spans, key=lambda e: (e["ts"], -e["dur"])):
        assert e["ph"] == "X" and e["cat"] == "moa" and e["name"] in ("attend", "run")
        assert e["pid"] == process["pid"] == os.getpid() and e["tid"] == spans[0]["tid"]
        assert type(e["ts"]) is float and e["ts"] >= 0 and e["dur"] >= 0
        while open_until and open_until[-1] <= e["ts"]:
            open_until.pop()
        assert not open_until or e["ts"] + e["dur"] <= open_until[-1] + 1e-3
        open_until.append(e["ts"] + e["dur"])


def test_what_was_given_up_cannot_be_truncated():
    module = load()
    cache = Cache(module, max_bytes=1 << 24)
    q, k, v = tensors(700)
    _, sequence = run(module, q, k, v, [700], 800, cache)
    with pytest.raises(
        moa.errors.NotResidentError, match="layer 0, KV head 1: rows to come see"
    ):
        sequence.truncate(100)
    assert sequence.seen() == 700
    assert 100 < sequence.min_length <= 700
    sequence.truncate(sequence.min_length)
    sequence.truncate(64)  # The sink's page is there.
    used = cache.stats["pages_used"] * cache.stats["page_bytes"]
    with pytest.raises(moa.errors.InvalidArgumentError, match="are in use"):
        cache.set_limit(used // 2)
    with pytest.raises(moa.errors.CorruptError, match="not a snapshot"):
        Sequence.restore(cache, b"x" * 200)
    with pytest.raises(moa.errors.ArtifactIOError, match="cannot be opened"):
        Sequence.restore(cache, "/no/such/file")
