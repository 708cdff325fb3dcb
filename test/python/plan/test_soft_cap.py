"""Planning for a model whose scores have a soft cap: the cap is in all that is measured."""

import copy

import pytest
import torch

import planner_model
from conftest import make_plan
from moa.plan import kernels, network, schema
from moa.plan.accuracy import true_loss
from moa.plan.calibration import Item
from moa.plan.cli import main
from moa.plan.evaluate import HeavyHitters, loss_of, scores
from moa.plan.jsontext import canonical
from moa.plan.profile import Settings, measure
from moa.plan.validate import Candidate, check_agreement, dense_plan, masked_scorer

one_thread = planner_model.one_thread
pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = Settings(sink=16, block=16)
# Rules differ by layer, KV head and inside a group.
MIXED = make_plan(
    [[0, 0, -64, 64], [128, 32, 0, 0]], [[1, 0.25, 0.5, 0.25], [0, 0.25, 0.75, 0.25]],
    sink=16, block=16, min=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Gemma 2 whose layers all see everything; its scores reach twice the cap."""
    path = tmp_path_factory.mktemp("capped")
    kinds = ["full_attention"] * 2
    return planner_model.save(path, kind="Gemma2", query_pre_attn_scalar=16, layer_types=kinds)


@pytest.fixture(scope="module")
def net(folder):
    return network.load(str(folder), "float32", "cpu", [256])


def ids(tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, 250, (tokens,), generator=generator).tolist())


ITEM = Item("summary", 200, ids(193, 2), ids(7, 3))


def own_loss(model):
    """Of the item, by the model's own eager attention."""
    with torch.no_grad():
        logits = model(torch.tensor([ITEM.prompt + ITEM.response])).logits[0, -8:-1]
    return float(loss_of(ITEM, torch.device("cpu"))(logits))


def uncapped(net):
    model = copy.deepcopy(net.model)
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    return model


def test_the_dense_model_has_its_cap(net):
    assert net.config.attn_logit_softcapping == 50.0
    assert net.config._attn_implementation == "eager"
    assert abs(own_loss(net.model) - own_loss(uncapped(net))) > 0.01


def test_what_is_profiled_is_the_capped_model(net):
    found = measure(net, ITEM, SETTINGS)
    assert found.loss == pytest.approx(own_loss(net.model), abs=1e-4)
    everything = torch.full((2, 4), found.absolute.shape[-1] - 1).numpy()
    assert true_loss(net, ITEM, everything, SETTINGS) == pytest.approx(found.loss, abs=1e-4)
    assert net.config._attn_implementation == "eager"


def test_masks_are_of_the_capped_model(net):
    dense = masked_scorer(net, Candidate("dense", dense_plan(net.config)))([ITEM])[0]
    assert dense.ce == pytest.approx(own_loss(net.model), abs=1e-4)
    heavy = scores(net.model, [ITEM], lambda length: HeavyHitters(2 * length))[0]
    assert heavy.ce == pytest.approx(dense.ce, abs=1e-4)


def test_kernels_and_masks_agree(net):
    plan = schema.parse_plan(canonical(MIXED), "plan")
    wanted = masked_scorer(net, Candidate("mixed", plan))([ITEM])[0]
    found = kernels.KernelScorer(net.model, plan, 256).score(ITEM)
    check_agreement("mixed", found, wanted, torch.float32)
    plain = network.Network(uncapped(net), net.tokenizer, "plain")
    other = masked_scorer(plain, Candidate("mixed", plan))([ITEM])[0]
    assert abs(found.ce - other.ce) > 10 * abs(found.ce - wanted.ce) + 0.01


def test_profile_and_estimate_run(folder, tmp_path, capsys):
    command = [
        "profile", str(folder), "--out", str(tmp_path / "run"), "--lengths", "256",
        "--items", "1", "--data", "summarise", *planner_model.FEW, "--block", "16",
    ]  # fmt: skip
    assert main([*command, "--dry-run"]) == 0
    assert "profile" in capsys.readouterr().out
    assert main(command) == 0
    assert (tmp_path / "run/profile/256/summary.npz").exists()
