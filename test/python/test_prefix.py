"""Prefix reuse through Python: compiled kernels, bit for bit from scratch.

Bits of prefilled rows depend on where calls begin within 64 rows, where windows do not
begin with a page; what is reused ends with one, so calls here do.
"""

import pytest
import torch

import moa
from conftest import DTYPES, make_plan
from moa.runtime import Cache, Context, Module, Sequence, attend

LAYERS, HQ, HKV, D = 3, 4, 2, 64
SHAPE = f"layers={LAYERS},q_heads={HQ},kv_heads={HKV},head_dim={D}"
# Odd spans: alphas and betas of each layer's heads.
PLANS = {
    "growing": [[(0, 1.0), (-64, 0.5), (192, 0.0), (0, 0.25)]] * LAYERS,
    "short": [[(131, 0.0), (150, 0.0), (200, 0.0), (129, 0.03)]] * LAYERS,
    "mixed": [
        [(0, 1.0), (0, 1.0), (129, 0.0), (65, 0.1)],
        [(177, 0.0), (-33, 0.4), (333, 0.0), (0, 1.0)],
        [(128, 0.0), (128, 0.0), (0, 0.7), (90, 0.2)],
    ],
}


def load(plan="mixed", dtype="f32", length="row", **span):
    rules = PLANS[plan]
    alphas = [[float(a) for a, _ in layer] for layer in rules]
    betas = [[b for _, b in layer] for layer in rules]
    made = make_plan(alphas, betas, length=length, **span)
    artifact = moa.compile(made, SHAPE, dtype=dtype, max_length=2048)
    return Module(Context(2), str(artifact.path))


class Toy:
    """Layers over token ids; each row is made by itself, so equal keys give equal bits."""

    def __init__(self, dtype):
        generator = torch.Generator().manual_seed(7)
        self.table = torch.randn(500, HQ, D, generator=generator).to(DTYPES[dtype])

    def __call__(self, cache, sequence, ids, begin, end):
        """Feeds rows [begin, end); what the last layer makes of them."""
        hidden = self.table[torch.tensor(ids[begin:end])]
        for layer in range(LAYERS):
            q = (hidden - 0.5 * hidden.roll(1, -1)).contiguous()
            k = (hidden + hidden.roll(3, -1))[:, :HKV].contiguous()
            v = (hidden.roll(5, -1) - hidden.roll(2, -1))[:, HQ - HKV :].contiguous()
            out = torch.full_like(q, float("nan"))
            attend(cache, layer, [(sequence, q, k, v, out)])
            hidden = 0.5 * hidden + out
        return hidden

    def scratch(self, module, ids, chunk, decoded):
        """All rows in a cache of their own; those of `decoded` one by one."""
        cache = Cache(module)
        sequence = Sequence(cache, 1)
        rows, begin = [], 0
        while begin < len(ids):
            end = begin + 1
            while end < len(ids) and end - begin < chunk and not {begin, end} & decoded:
                end += 1
            rows.append(self(cache, sequence, ids, begin, end))
            begin = end
        return torch.cat(rows)


def reusing(module, kept=1 << 26, **kwargs):
    cache = Cache(module, **kwargs)
    cache.set_prefix_reuse(kept)
    return cache


def prompt(seed, tokens):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 500, (tokens,), generator=generator).tolist()


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("dtype, sink", [("f32", 64), ("f32", 37), ("bf16", 37)])
def test_conversations_equal_from_scratch_bit_for_bit(plan, dtype, sink):
    module = load(plan, dtype, sink=sink)
    toy, cache = Toy(dtype), reusing(module)
    system = prompt(1, 333)
    texts = [list(system) for _ in range(3)]
    decoded = [set() for _ in texts]
    for turn in range(3):
        for c, ids in enumerate(texts):
            ids += prompt(10 * turn + c, 20 + 31 * c)
            sequence = Sequence(cache, 1)
            reused, common = sequence.reuse(ids)
            assert reused % 64 == 0 and reused <= common < len(ids)
            assert sequence.seen() == reused
            assert sequence.bytes == module.kv_bytes(1, reused)[0]
            # What is not there is fed by prefill, even if it was decoded once.
            decoded[c] = {row for row in decoded[c] if row < reused}
            rows, begin = [], reused
            for end in [common, len(ids)]:
                # A row alone would be decoded.
                if end > begin and end != len(ids) - 1:
                    rows.append(toy(cache, sequence, ids, begin, end))
                    begin = end
            for _ in range(30):
                ids.append(int(rows[-1][-1, 0, :8].float().abs().sum() * 1000) % 500)
                decoded[c].add(len(ids) - 1)
                sequence.add_tokens(ids[-1:])
                rows.append(toy(cache, sequence, ids, len(ids) - 1, len(ids)))
            seen = len(ids)
            assert sequence.bytes == module.kv_bytes(1, seen, rollback_tokens=seen % 64)[0]
            want = toy.scratch(module, ids, [64, 1000, 128][turn % 3], decoded[c])
            assert torch.equal(torch.cat(rows), want[reused:])
            del sequence
    counters = cache.counters
    assert counters["prefix_tokens_reused"] > 0.6 * counters["prefix_tokens_asked"]
    assert counters["prefix_bytes_saved"] > 0
    stats = cache.stats
    assert stats["pages_used"] == 0 and stats["pages_kept"] == stats["pages_indexed"] > 0
    assert counters["prefix_bytes"] == stats["pages_kept"] * stats["page_bytes"]


def test_short_of_pages():
    module = load()
    toy = Toy("f32")
    most = module.kv_bytes(1, 512)[1] // 2  # Dense bytes of 256 tokens.
    cache = reusing(module, 0, max_bytes=most)
    for seed in range(6):
        ids = prompt(seed, 200)
        sequence = Sequence(cache, 1)
        assert sequence.reuse(ids)[0] == 0
        rows = toy(cache, sequence, ids, 0, 200)
        assert torch.equal(rows, toy.scratch(module, ids, 64, set()))
        del sequence
    stats = cache.stats
    assert cache.counters["prefix_pages_evicted"] > 0
    assert stats["pages_kept"] <= stats["pages_limit"]
    assert Sequence(cache, 1).reuse(ids)[0] == 192
    assert Sequence(cache, 1).reuse(ids, salt=1) == (0, 0)


def test_rotations_empty_it():
    artifact = moa.compile(
        make_plan([[0.0, 128.0]], [[1.0, 0.0]], length="row"),
        "layers=1,q_heads=2,kv_heads=1,head_dim=64",
        dtype="f32",
        max_length=1024,
        rope="half:64",
    )
    cache = reusing(Module(Context(1), str(artifact.path)))
    ids = prompt(0, 100)
    for _ in range(2):
        sequence = Sequence(cache, 1)
        assert sequence.reuse(ids)[0] == 0
        q, k, v = (torch.ones(100, heads, 64) for heads in (2, 1, 1))
        attend(cache, 0, [(sequence, q, k, v, torch.empty_like(q))])
        del sequence
        assert cache.stats["pages_kept"] == 1
        cache.set_rope([1.0 / (i + 1) for i in range(32)])
        assert cache.stats["pages_kept"] == 0


def test_refusals():
    fixed = Cache(load(length="request"))
    with pytest.raises(moa.errors.UnsupportedError, match="length rule request"):
        fixed.set_prefix_reuse(1 << 20)
    cache = Cache(load())
    with pytest.raises(moa.errors.InvalidArgumentError, match="a cache that has a limit"):
        cache.set_prefix_reuse()
    sequence = Sequence(cache, 1)
    with pytest.raises(moa.errors.InvalidArgumentError, match="does not reuse prefixes"):
        sequence.reuse([1, 2])
    with pytest.raises(moa.errors.InvalidArgumentError, match="has 1 sequences"):
        cache.set_prefix_reuse(1 << 20)
    del sequence
    cache.set_prefix_reuse(1 << 20)
    sequence = Sequence(cache, 1)
    with pytest.raises(moa.errors.InvalidArgumentError, match="no tokens"):
        sequence.reuse([])
    with pytest.raises(moa.errors.OutOfRangeError, match="max length 2048"):
        sequence.reuse([0] * 2049)
    with pytest.raises(TypeError):
        sequence.reuse(["a"])
    assert sequence.reuse([1, 2]) == (0, 0)
    with pytest.raises(moa.errors.InvalidArgumentError, match="knows 2"):
        sequence.reuse([1, 2])
