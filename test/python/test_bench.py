"""The benchmarks, without a GPU: records, plans, checks, counters, plots."""

import sys
from pathlib import Path

import pytest
import torch

import moa
from conftest import Rule, reference

BENCH = Path(__file__).resolve().parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import compile_plans
import gpu_artifacts
import gpu_invariant
import gpu_ncu
import gpu_prefix
import gpu_replay
import plan_quality
import plan_solver
import record
from gpu_decode import Decode
from gpu_model import TOLERANCE, Model
from gpu_prefill import Prefill

RESULTS = sorted((BENCH / "results").glob("*.json"))
DEVICES = {"cpu": ["x86-64-v3"], "cuda": ["sm_90a", "sm_80"]}
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Rows in float64 are many small products, which threads only slow down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory):
    """Path of a benchmark's artifact for a device."""

    def find(name, device="cpu"):
        folder = tmp_path_factory.getbasetemp() / f"bench-{device}"
        path = folder / f"{name}.moa"
        if not path.exists():
            list(gpu_artifacts.build(folder, DEVICES[device], [name]))
        return path

    return find


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_results_have_the_form(path, tmp_path):
    file = record.read(path)
    assert file["records"]
    assert record.read(record.write(file, tmp_path / "again.json")) == file


def test_faults_of_records_are_named(tmp_path):
    good = {"kind": "decode", "who": "ours", "method": "graph", "mask": "plan", "us": 1.0}
    file = record.new_file("attention-gpu", "a device", setting={})
    file["records"] = [good]
    record.write(file, tmp_path / "good.json")
    wrong = {
        "kind": {**good, "kind": "encode"}, "method": {**good, "method": "guess"},
        "mask": {**good, "mask": None}, "unit at its end": {**good, "speed": 2.0},
        "expected a number": {**good, "us": "1"}, "batch": {**good, "batch": 1.5},
        "neither": {k: v for k, v in good.items() if k != "us"},
        "expected a reason": {**good, "skipped": ""},
    }  # fmt: skip
    for message, found in wrong.items():
        file["records"] = [good, found]
        with pytest.raises(ValueError, match=f"bad.json: record 1: .*{message}"):
            record.write(file, tmp_path / "bad.json")
        assert not (tmp_path / "bad.json").exists()
    file["records"] = [{k: v for k, v in good.items() if k != "us"} | {"skipped": "absent"}]
    record.write(file | {"nsight": [{"kernel": "a"}]}, tmp_path / "good.json")
    for key, value in (("schema", 1), ("device", None), ("more", [])):
        with pytest.raises(ValueError, match=key):
            record.check({**file, key: value}, "a file")


def test_files_of_one_run_are_joined():
    record_ = {"kind": "decode", "who": "ours", "method": "graph", "mask": "plan", "us": 1.0}
    files = [
        record.new_file("attention-gpu", "a device", setting={}) | {"records": [record_]}
        for _ in range(2)
    ]
    files.append(record.new_file("nsight-gpu", "a device", setting={}) | {"nsight": [{}]})
    joined = record.join(files)
    assert joined["records"] == [record_] * 2 and joined["nsight"] == [{}]
    assert joined["suite"] == "attention-gpu"
    assert "nsight" not in record.join(files[:2])
    with pytest.raises(ValueError, match="device: expected 'a device' in all, found 'another'"):
        record.join([*files, {**files[0], "device": "another"}])


def test_equal_layers_have_the_rules_of_one(artifact):
    published = gpu_artifacts.published_plan("llama-3-8b")
    plan = gpu_artifacts.equal_layers(published, 16, 3)
    assert plan == {key: [published[key][16]] * 3 for key in ("alphas", "betas")}
    with pytest.raises(ValueError, match="layer 32: the plan has layers 0 to 31"):
        gpu_artifacts.equal_layers(published, 32, 3)
    model = Model(artifact("layers"), "cpu")
    assert (model.layers, model.q_heads, model.kv_heads, model.dim) == (32, 32, 8, 128)
    for layer in (0, 31):
        for head in range(32):
            rule = Rule(published["alphas"][16][head], published["betas"][16][head])
            assert model.rules[layer][head].local(8192) == rule.local(8192)
    # Of one layer at 8192 tokens, and its density at 4096.
    assert model.needed_bytes(0, 8192) == 23068672
    assert model.pairs(0, 4096) / (32 * 4096 * 4097 / 2) == pytest.approx(0.68745, abs=1e-5)


def test_rows_in_float64_follow_the_definition(artifact):
    for name in gpu_replay.FORMATS:
        model = Model(artifact(name), "cpu")
        plan = gpu_artifacts.sources()[name][0]
        windows = plan["span"].get("window", [None] * model.layers)
        q, k, v = (
            model.randn(300, h, model.dim) for h in (model.q_heads, *[model.kv_heads] * 2)
        )
        for layer in range(model.layers):
            pairs = zip(plan["alphas"][layer], plan["betas"][layer])
            most = windows[layer]
            sink = 64 if most is None else 0
            rules = [Rule(a, b, sink, per_row=model.per_row, most=most) for a, b in pairs]
            out = reference(q, k, v, rules, 320, cap=model.soft_cap or None)
            assert model.error(layer, 320, q, k, v, out, range(0, 300, 23)) < 1e-12
            out[150, 3] += 0.1
            assert model.error(layer, 320, q, k, v, out, [149, 150]) > 1e-2


@pytest.mark.parametrize("name", ["one", "d64", "dense"])
def test_prefill_case(artifact, name):
    model = Model(artifact(name), "cpu")
    case = Prefill(model, 700)
    assert case.error(case.out) <= TOLERANCE
    flops = case.flops()
    assert (flops["plan"] == flops["causal"]) == (name == "dense")
    case.out[699, 31] *= 1.1
    assert case.error(case.out) > TOLERANCE


def test_decode_case(artifact):
    case = Decode(Model(artifact("layers"), "cpu"), 2, 500, steps=4)
    case.capture()
    for _ in range(3):
        case.step()
    assert case.error() > TOLERANCE  # Not yet at the last token.
    case.begin()
    case.all()
    assert case.error() <= TOLERANCE
    case.out[31, 1, 0, 5] *= 1.1
    assert case.error() > TOLERANCE
    case.batch.cancel()
    with pytest.raises(ValueError, match="expected more than 10 tokens, found 10"):
        Decode(case.model, 1, 10, steps=10)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("name", gpu_replay.FORMATS)
@pytest.mark.parametrize("tokens", [1, 4])
def test_replay_equals_eager_calls(artifact, device, name, tokens):
    steps = 200 if device == "cuda" else 40
    done = gpu_replay.check(artifact(name, device), device, steps, tokens=tokens)
    assert done.batches[0].replays == (device == "cuda")
    assert done.compared > 0.9 * steps
    assert done.checked > 0 and done.worst <= TOLERANCE


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("name", ["replay", "kv8_mixed"])
def test_rows_do_not_depend_on_their_neighbours(artifact, device, name, monkeypatch):
    model, kv8 = Model(artifact(name, device), device), name == "kv8_mixed"
    lengths = gpu_invariant.drawn(7, 700)
    with torch.no_grad():
        counts, worst = gpu_invariant.check(model, lengths, (0, 3), kv8)
        assert counts[3] == 0 and worst <= TOLERANCE and (kv8 or worst > 0)
        call = gpu_invariant.Sequences.call

        def wrong(self, rows, chunk=0):
            outs = call(self, rows, chunk)
            if chunk:
                next(iter(outs.values()))[0, 0, 1, 2] += 0.1
            return outs

        monkeypatch.setattr(gpu_invariant.Sequences, "call", wrong)
        with pytest.raises(AssertionError, match="decode_parts 3: rows depend"):
            gpu_invariant.check(model, lengths, (3,), kv8)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_prefix_reuse_gives_the_rows_of_all_tokens(artifact, device, monkeypatch, capsys):
    monkeypatch.setattr(gpu_prefix, "TURNS", 2)
    model = Model(artifact("replay_row", device), device)
    with torch.no_grad():
        assert gpu_prefix.check(model) == []
        assert "run twice: equal bits" in capsys.readouterr().out
        # Tokens that are not those of the rows.
        reuse = moa.runtime.Sequence.reuse
        monkeypatch.setattr(
            moa.runtime.Sequence, "reuse", lambda self, ids: reuse(self, [7, *ids[1:]])
        )
        twin = gpu_prefix.Toy.__call__
        monkeypatch.setattr(
            gpu_prefix.Toy,
            "__call__",
            lambda self, cache, sequence, ids: (
                twin(self, cache, sequence, [*ids[:3], 9, *ids[4:]])
                if cache.counters["prefix_tokens_asked"]
                else twin(self, cache, sequence, ids)
            ),
        )
        assert any("differ from scratch" in fault for fault in gpu_prefix.check(model))


def test_replay_sees_wrong_rows(artifact):
    class Wrong(gpu_replay.Replay):
        def layers(self, side):
            super().layers(side)
            change(self, side)

    def run(what):
        nonlocal change
        change = what
        with torch.no_grad():
            Wrong(model, 3, 1, 0).run(40)

    model = Model(artifact("replay"), "cpu")
    change = None

    def one_side(replay, side):
        if side == 0 and replay.compared == 3:
            replay.outs[0][1, 0] *= 1.01

    def both(replay, side):
        replay.outs[side][2, 0] *= 1.05

    def behind(replay, side):
        replay.outs[side].nan_to_num_(0.0)

    for what, message in (
        (one_side, r"layer 1: replay and eager calls differ in sequences \[0\]"),
        (both, "layer 2: sequence 0 .* off float64"),
        (behind, "rows behind the batch were written"),
    ):
        with pytest.raises(AssertionError, match=message):
            run(what)
    # Rows of 8 bits are not those of the model's type.
    model = Model(artifact("kv8_mixed"), "cpu")
    with pytest.raises(AssertionError, match="off float64"):
        run(lambda replay, side: None)


def test_counters_of_ncu():
    text = (
        "==PROF== Profiling\n"
        '"ID","Kernel Name","gpu__time_duration.sum","dram__bytes.sum.per_second",'
        '"smsp__average_warps_issue_stalled_wait_per_issue_active.ratio",'
        '"smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio",'
        '"smsp__average_warps_issue_stalled_wait_not_issued_per_issue_active.ratio",'
        '"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active"\n'
        '"","","ns","byte/s","warp","warp","warp","%"\n'
        '"0","decode_d128_g4_bf16","91,100","4.05e12","0.5","2.5","9","40.5"\n'
    )
    (kernel,) = gpu_ncu.parse(text)
    assert kernel == {
        "kernel": "decode_d128_g4_bf16", "duration_us": pytest.approx(91.1),
        "dram_tb_per_s": pytest.approx(4.05), "tensor_pipe_percent": 40.5,
        "stalled_warps": {"barrier": 2.5, "wait": 0.5},
    }  # fmt: skip
    assert list(kernel["stalled_warps"]) == ["barrier", "wait"]
    with pytest.raises(ValueError, match="expected a table of ncu"):
        gpu_ncu.parse("==ERROR== no permission\n")
    read = gpu_ncu.parse_smi("1980, 120.5\n1710, 690.0\n1695, 698.5\n17")
    assert read == {"steady_sm_ghz": pytest.approx(1.71), "steady_watts": 690.0}
    with pytest.raises(ValueError, match="found 'No devices"):
        gpu_ncu.parse_smi("No devices were found\n")


def test_compile_times(tmp_path):
    cold, cached = compile_plans.measure("smollm2-moa", "x86-64-v3")
    assert (cold["method"], cached["method"]) == ("cold", "cached")
    assert cached["us"] < cold["us"] and cached["processor_s"] < cold["processor_s"]
    assert 0 < cold["artifact_bytes"] == cached["artifact_bytes"] and not cold["spill_bytes"]
    file = record.new_file("compile", "a device", setting={})
    file["records"] = [cold, cached]
    assert record.read(record.write(file, tmp_path / "compile.json")) == file
    assert {path.stem.rsplit("-", 1)[0] for path in compile_plans.PLANS.glob("*.json")} == {
        *compile_plans.MODELS
    }


def test_solver_of_plans(tmp_path):
    case = ("small", 2, 4, 0, [2048, 8192], 2, "paper")
    exact = ("small_exact", 2, 4, 2, [8192], 2, "default")
    ours, compact = plan_solver.measure(case, "highs"), plan_solver.measure_compact(case, 60)
    # The two forms of one problem have one optimum, up to how their sums round.
    most = compact["objective"] * (1 + 1e-12)
    assert ours["objective"] * (1 + 1e-12) >= compact["objective"] * (1 - compact["gap"])
    assert ours["objective"] * (1 - ours["gap"]) <= most
    found = plan_solver.measure(exact, "subgradient")
    assert (ours["rules"], found["rules"], found["who"]) == (48, 62, "subgradient")
    file = record.new_file("plan-solver", "a device", setting={})
    file["records"] = [ours, compact, plan_solver.measure_pareto(case)]
    assert record.read(record.write(file, tmp_path / "solver.json")) == file
    assert "gap" in plan_solver.describe(ours)
    assert "plans" in plan_solver.describe(file["records"][2])


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """(model, run folder, plan) of a tiny model."""
    sys.path.insert(0, str(Path(__file__).parent / "plan"))
    import planner_model
    from moa.plan.cli import main

    folder = tmp_path_factory.mktemp("quality")
    model, run = str(planner_model.save(folder / "model")), folder / "run"
    command = [
        "profile", model, "--out", str(run), "--lengths", "512", "--items", "2", "--data",
        "summarise", "--budget", "8", "--max-ce", "12", "--check-rules", "0",
    ]  # fmt: skip
    assert main(command) == 0
    assert main(["optimize", str(run), "--density", "0.5", "--extend", "640"]) == 0
    return model, run, run / "plans/plan-1.json"


def test_quality_of_plans(profiled, tmp_path, capsys):
    model, run, plan = profiled
    command = [
        model, str(run), "--plans", f"0.5={plan}", "--lengths", "512,640", "--items", "3",
        "--summaries", "2", "--output", str(tmp_path),
    ]  # fmt: skip
    assert plan_quality.main(command) == 0
    said = capsys.readouterr().out
    assert "in a batch of" in said and "N = 640" in said
    file = record.read(tmp_path / "plan-quality.json")
    for length in (512, 640):
        rows = [r for r in file["records"] if r["length"] == length]
        assert [r["who"] for r in rows] == ["dense", *plan_quality.METHODS]
        for row in rows[1:]:
            assert row["scored_items"] == 3 and row["told_items"] == 2
            assert row["density"] <= 0.5 or row["who"] == "one span"
        ours = rows[1]["margin_change_nats"]
        for row in rows[2:]:
            change = row["margin_change_nats"] - ours
            assert row["margin_less_ours_nats"] == pytest.approx(change, abs=1e-9)
            assert row["margin_less_ours_se_nats"] >= 0
    with pytest.raises(plan_quality.PlannerError, match="lengths was"):
        plan_quality.main([*command, "--lengths", "512"])
    # A second time nothing is scored.
    before = (tmp_path / "validate/512.jsonl").read_bytes()
    assert plan_quality.main(command) == 0
    assert (tmp_path / "validate/512.jsonl").read_bytes() == before
    assert record.read(tmp_path / "plan-quality.json")["records"] == file["records"]


def test_quality_goes_on_where_it_was_stopped(profiled, tmp_path, monkeypatch, capsys):
    from moa.plan.runfolder import Progress

    model, run, plan = profiled
    command = [
        model, str(run), "--plans", f"0.5={plan}", "--lengths", "512", "--items", "2",
        "--summaries", "0", "--output", str(tmp_path),
    ]  # fmt: skip
    step, count = Progress.step, iter(range(100))

    def stopped(progress):
        if next(count) == 8:
            progress._stopped = True
        step(progress)

    monkeypatch.setattr(Progress, "step", stopped)
    assert plan_quality.main(command) == 3
    kept = (tmp_path / "validate/512.jsonl").read_text()
    assert kept.count("\n") == 7
    some = record.read(tmp_path / "plan-quality.json")["records"]
    assert [r["who"] for r in some] == ["dense", "ours", "duo"]
    monkeypatch.undo()
    assert plan_quality.main(command) == 0
    assert (tmp_path / "validate/512.jsonl").read_text().startswith(kept)
    assert record.read(tmp_path / "plan-quality.json")["records"][:3] == some


def test_quality_refuses_masks_that_differ(profiled, tmp_path, monkeypatch, capsys):
    model, run, plan = profiled
    monkeypatch.setattr(plan_quality, "explicit_margin", lambda *_: 1e3)
    assert plan_quality.main([
        model, str(run), "--plans", f"0.5={plan}", "--lengths", "512", "--items", "2",
        "--summaries", "0", "--output", str(tmp_path),
    ]) == 1  # fmt: skip
    assert "differ from explicit ones" in capsys.readouterr().err
    assert not (tmp_path / "validate").exists()


def test_plots_are_the_same_again(tmp_path):
    pytest.importorskip("matplotlib")
    import plot

    for name, picture in (
        ("attention-gpu-h200.json", "attention-gpu-h200-prefill.svg"),
        ("decode-gpu-h200.json", "decode-gpu-h200-decode.svg"),
    ):
        path = BENCH / "results" / name
        (first,) = plot.plot(path, tmp_path)
        assert first.name == picture
        text = first.read_text()
        assert "ours" in text and "dense" in text and "<dc:date>" not in text
        (again,) = plot.plot(path, tmp_path)
        assert again.read_text() == text


def test_without_a_device_the_programs_say_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    from gpu_model import need_artifact, need_cuda

    with pytest.raises(SystemExit, match="expected a CUDA device, torch .* sees none"):
        need_cuda()
    with pytest.raises(SystemExit, match="expected the artifact .*one.moa, found none"):
        need_artifact(tmp_path, "one")
    with pytest.raises(moa.errors.NoDeviceError):
        Model("none.moa", "cuda")
