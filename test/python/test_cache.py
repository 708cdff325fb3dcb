"""moa.Cache made of an artifact, without the model that it is for."""

import pytest
import torch
from test_hf import GREEDY, PLAN, config, fresh, prompt

import moa
import moa.hf
from conftest import make_plan


@pytest.fixture(scope="module")
def artifact():
    return moa.compile(PLAN, config(), dtype="f32", max_length=2048)


def test_a_cache_of_an_artifact_serves_models_loaded_with_it(artifact):
    assert moa.Cache is moa.hf.Cache
    model = moa.hf.load(fresh(), artifact=artifact, threads=1)
    ids = prompt(150)
    want = model.generate(ids, max_new_tokens=8, **GREEDY)
    cache = moa.Cache(artifact, device="cpu", pages=300)
    assert torch.equal(
        model.generate(ids, max_new_tokens=8, past_key_values=cache, **GREEDY), want
    )
    assert cache.get_seq_length() == 157
    assert cache.stats["pages_limit"] == 300
    cache.reorder_cache(torch.tensor([0]))
    cache.crop(-3)
    assert cache.get_seq_length() == 154


def test_pages_are_a_limit(artifact):
    model = moa.hf.load(fresh(), artifact=artifact, threads=1)
    with torch.no_grad(), pytest.raises(moa.errors.OutOfPagesError, match="wanted"):
        model(prompt(600), past_key_values=moa.Cache(artifact, pages=5))


def test_refusals(artifact):
    model = moa.hf.load(fresh(), artifact=artifact, threads=1)
    for kind, message, arguments in [
        (moa.errors.WrongTypeError, "or an artifact", dict(model="a.moa")),
        (moa.errors.InvalidArgumentError, "leave device out", dict(model=model, device="cpu")),
        (moa.errors.InvalidArgumentError, "pages of 1 or more", dict(model=artifact, pages=0)),
        (
            moa.errors.InvalidArgumentError,
            "one of the two",
            dict(model=artifact, pages=3, max_bytes=1 << 20),
        ),
        (ValueError, "expected cpu, cuda", dict(model=artifact, device="tpu")),
    ]:
        with pytest.raises(kind, match=message):
            moa.Cache(**arguments)
    dense = make_plan([[0.0] * 4] * 2, [[1.0] * 4] * 2)
    other = moa.hf.load(fresh(), plan=dense, threads=1)
    with torch.no_grad(), pytest.raises(moa.errors.InvalidArgumentError, match="another model"):
        other(prompt(5), past_key_values=moa.Cache(artifact))
