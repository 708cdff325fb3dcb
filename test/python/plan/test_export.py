"""Plans for other programs: run where they can be, and compared with our own mask."""

import itertools
import json
import runpy
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from plan_support import PLANS, run
from torch.nn.attention.flex_attention import create_mask

from conftest import Rule
from moa.plan import load_plan, make_plan
from moa.plan.export import (
    FORMS,
    starts,
    to_flashinfer,
    to_flex,
    to_kvpress,
    to_trtllm_window,
    to_vllm_window,
    visible,
)
from moa.plan.plot import chart, heat_map

LENGTHS = [200, 640]


def small_plan(per_row, window=None):
    alphas = [[0, 100, -100, 64], [0, 0, 300, 128]]
    betas = [[1, 0, 0.6, 0.37], [0.25, 0.25, 0.1, 0]]
    return make_plan(alphas, betas, {
        "span": {"sink": 32, "length": "row" if per_row else "request",
                 "window": [window, None]},
        "model": {"kv_heads": 2},
    })  # fmt: skip


def mask_of(plan, layer, head, n):
    """From the definition, sharing no code."""
    own = plan.windows[layer]
    rule = Rule(
        int(plan.alphas[layer, head]), float(plan.betas[layer, head]),
        sink=0 if own else 32, per_row=plan.span.per_row, most=own,
    )  # fmt: skip
    start = torch.tensor(rule.starts(n, n))[:, None]
    i, j = torch.arange(n)[:, None], torch.arange(n)[None]
    return (j <= i) & ((j < rule.sink) | (j >= start))


@pytest.mark.parametrize("per_row, window", [(False, None), (True, None), (False, 160)])
def test_our_own_mask(per_row, window):
    plan = small_plan(per_row, window)
    for n in LENGTHS:
        for layer in range(2):
            for head in range(4):
                want = mask_of(plan, layer, head, n).numpy()
                np.testing.assert_array_equal(visible(plan, layer, head, n), want)
                assert starts(plan, layer, head, n).shape == (n,)


@pytest.mark.parametrize("per_row, window", [(False, None), (True, None), (True, 160)])
def test_flex_masks_are_ours(per_row, window, tmp_path):
    plan = small_plan(per_row, window)
    path = tmp_path / "masks.py"
    made = to_flex(plan, 2, LENGTHS)
    path.write_bytes(made.data)
    module = runpy.run_path(str(path))
    assert plan.id in module["__doc__"] and any("lengths other" in lost for lost in made.lost)
    for n in LENGTHS:
        for layer in range(2):
            mask = module["mask_mod"](layer, n)
            got = create_mask(mask, 1, 4, n, n, device="cpu")[0]
            for head in range(4):
                assert torch.equal(got[head], mask_of(plan, layer, head, n)), (n, layer, head)
    with pytest.raises(ValueError, match=r"expected n of \[200, 640\], got 100"):
        module["mask_mod"](0, 100)


@pytest.mark.parametrize("per_row, window", [(False, None), (True, None), (False, 160)])
def test_flashinfer_maps_cover_the_mask(per_row, window, tmp_path):
    plan = small_plan(per_row, window)
    path = tmp_path / "maps.npz"
    path.write_bytes(to_flashinfer(plan, 2, [640]).data)
    with np.load(path) as file:
        maps, block = file["map_640"], int(file["block"])
    assert maps.shape == (2, 2, 10, 10) and block == 64
    for layer in range(2):
        for kv in range(2):
            seen = [mask_of(plan, layer, head, 640).numpy() for head in (2 * kv, 2 * kv + 1)]
            blocks = (seen[0] | seen[1]).reshape(10, 64, 10, 64).any(axis=(1, 3))
            np.testing.assert_array_equal(maps[layer, kv], blocks)


def test_windows_and_ratios():
    plan = small_plan(False)
    windows = json.loads(to_vllm_window(plan, 2, LENGTHS).data)["sliding_window"]
    assert windows == {"200": [None, None], "640": [None, 384]}
    theirs = json.loads(to_trtllm_window(plan, 2, LENGTHS).data)
    assert theirs["max_attention_window"] == {"200": [200, 200], "640": [640, 384]}
    assert theirs["sink_token_length"] == 32
    lost = [to_trtllm_window(small_plan(False, own), 2, LENGTHS).lost for own in (None, 160)]
    assert len(lost[0]) == 3 and "no sink" in lost[1][3]
    own = json.loads(to_vllm_window(small_plan(False, 160), 2, LENGTHS).data)
    assert own["sliding_window"] == {"200": [160, None], "640": [160, 384]}
    press = json.loads(to_kvpress(plan, 2, [640]).data)
    assert press["n_sink"] == 32
    # Longest spans of the KV heads: 640 and 320; 192 and 384.
    assert press["compression_ratios"]["640"] == pytest.approx([1 - 480 / 640, 1 - 288 / 640])


def test_every_form_says_what_is_lost(tmp_path, capsys):
    plan = tmp_path / "p.json"
    small_plan(False).write(plan)
    for form in FORMS:
        out = tmp_path / form
        code, said, _ = run(capsys, "export", plan, "--to", form, "--at", "256", "--out", out)
        assert code == 0 and out.stat().st_size and "\nlost: " in said


def test_heat_map_is_a_picture():
    plan = load_plan(PLANS / "llama-3-8b-moa.json")
    root = ElementTree.fromstring(heat_map(plan, [4096, 65536], 8))
    name = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{name}text")]
    assert "N = 4096, KV density 0.616" in texts and "N = 65536, KV density 0.686" in texts
    titled = [
        rect for rect in root.iter(f"{name}rect") if rect.find(f"{name}title") is not None
    ]
    assert len(titled) == 2 * 32 * 32
    borders = list(root.iter(f"{name}path"))
    assert len(borders) == 2 * 9
    full = load_plan(PLANS / "smollm2-moa.json")
    # 11 pixels high, a letter is up to 7 wide: titles of narrow panels do not overlap.
    few = list(
        ElementTree.fromstring(heat_map(full, [1024, 4096, 65536], 3)).iter(f"{name}text")
    )
    titles = [(float(text.get("x")), text.text) for text in few if text.text.startswith("N = ")]
    for (x, title), (after, _) in itertools.pairwise(titles):
        assert x + 7 * len(title) <= after
    cell = next(iter(ElementTree.fromstring(heat_map(full, [512], 3)).iter(f"{name}title")))
    assert cell.text.startswith("layer 0, head 0: ")


def test_charts_are_pictures():
    series = {"ours": ([1024, 2048, 4096], [0.1, 0.3, 0.2]), "a < b": ([1024, 4096], [0, 0.5])}
    for more in ({}, {"marks": True}, {"log_x": True}):
        root = ElementTree.fromstring(chart(series, title="T", x="N", y="loss", **more))
        kinds = [element.tag.rpartition("}")[2] for element in root.iter()]
        assert kinds.count("circle") == (5 if more.get("marks") else 0)
        assert kinds.count("polyline") == (0 if more.get("marks") else 2)
        texts = [element.text for element in root.iter() if element.tag.endswith("text")]
        assert {"T", "N", "loss", "ours", "a < b", "1024", "4096"} <= set(texts)
        # However long the names are, none lies over another.
        places = {x.text: float(x.get("y")) for x in root.iter() if x.tag.endswith("text")}
        assert places["a < b"] - places["ours"] >= 11
        assert places["a < b"] < float(root.get("height"))
    flat = chart({"one": ([1], [-2.0])}, title="", x="", y="")
    assert ElementTree.fromstring(flat) is not None
