"""The command `moa` on a tiny model: text, JSON, plans found, refusals, Ctrl-C."""

import importlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from moa import cli
from moa.cli import bench, models, plans, session
from moa.hf import graph
from served import END, PLAN, planned, save, tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model and, beside it, nothing."""
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "some.json"
    path.write_text(json.dumps(PLAN))
    return path


def moa(*arguments):
    return cli.main([str(argument) for argument in arguments])


def greedy(ids, new):
    """Of moa.hf.generate, as tokens."""
    row = torch.tensor([ids])
    out = planned().generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=new, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return out[0, len(ids) :].tolist()


def test_generate_says_what_transformers_does(folder, plan, capsys):
    text = "To be or not to be. " * 17
    arguments = ["generate", folder, "--plan", plan, "--max-new-tokens", 12, "--prompt", text]
    assert moa(*arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    want = greedy(tokenizer()(text)["input_ids"], 12)
    assert told["tokens"] == want
    assert told["text"] == tokenizer().decode(want, skip_special_tokens=True)
    assert told["prompt_tokens"] == told["fed_tokens"] == len(text)
    assert told["generated_tokens"] == 12
    assert 0 < told["kv_bytes"] < told["dense_kv_bytes"]
    assert told["prefill_tokens_per_s"] > 0 < told["decode_tokens_per_s"]
    assert moa(*arguments) == 0
    out, err = capsys.readouterr()
    assert out == told["text"] + "\n"
    assert f"plan {plan}" in err and "KV" in err


def test_prompt_from_a_file(folder, plan, tmp_path, capsys, monkeypatch):
    path = tmp_path / "prompt.txt"
    path.write_text("From a file \u20ac")
    arguments = ["generate", folder, "--plan", plan, "--max-new-tokens", 5]
    assert moa(*arguments, "--prompt", f"@{path}") == 0
    out = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("From a file \u20ac"))
    assert moa(*arguments, "--prompt", "@-") == 0
    assert capsys.readouterr().out == out


def test_sampling_options(folder, plan, capsys):
    arguments = ["generate", folder, "--plan", plan, "--prompt", "a", "--max-new-tokens", 30]
    texts = []
    for seed in (1, 1, 2):
        assert moa(*arguments, "--temperature", 1.5, "--top-p", 0.9, "--seed", seed) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert moa(*arguments) == 0
    whole = capsys.readouterr().out
    assert moa(*arguments, "--stop", whole[5:7]) == 0
    assert capsys.readouterr().out == whole[: whole.index(whole[5:7])] + "\n"


def test_chat_goes_on_from_its_cache(folder, plan, capsys, monkeypatch):
    monkeypatch.setattr(
        sys, "stdin", io.StringIO("first\nsecond\n/reset\n\nfirst\n/exit\nno\n")
    )
    arguments = ["chat", folder, "--plan", plan, "--temperature", 0, "--max-new-tokens", 8]
    assert moa(*arguments, "--system", "Be brief.") == 0
    out, err = capsys.readouterr()
    head = len("<system>Be brief.\n<user>first\n<assistant>")
    fed = [int(number) for number in re.findall(r"\[([0-9]+) prompt tokens", err)]
    assert len(fed) == 3 and fed[0] == fed[2] == head
    # The last token of an answer was not fed yet; text that no token has is read anew.
    assert fed[1] >= len("\n<user>second\n<assistant>")
    text = "<system>Be brief.\n<user>first\n<assistant>"
    want = greedy(tokenizer()(text)["input_ids"], 8)
    first = tokenizer().decode(want[: want.index(END)] if END in want else want)
    assert out.startswith(f"{first}\n") and out.endswith(f"\n{first}\n")
    assert out.count(first) == 2


def test_steps_as_on_a_gpu(folder, plan, capsys, monkeypatch):
    """Single tokens through the decoder, which the CPU runs eagerly: the same texts."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(2 * "first\nsecond\n/reset\nfirst\n/exit\n"))
    arguments = ["chat", folder, "--plan", plan, "--temperature", 0, "--max-new-tokens", 8]
    assert moa(*arguments) == 0
    want, made = capsys.readouterr().out, []
    as_there = lambda model: made.append(graph._Decoding(model, None)) or made[-1]
    monkeypatch.setattr(session, "decoding", as_there)
    assert moa(*arguments) == 0
    assert capsys.readouterr().out == want
    assert any(step.decoder for step in made)
    monkeypatch.setattr(graph, "decoding", as_there)
    measured = ["bench", folder, "--plan", plan, "--lengths", 100, "--new", 4, "--repeat", 1]
    assert moa(*measured) == 0 and made[-1].decoder is not None


def test_bench(folder, plan, capsys):
    arguments = ["bench", folder, "--plan", plan, "--lengths", "100,300", "--new", 4]
    assert moa(*arguments, "--repeat", 1, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [line["prompt_tokens"] for line in told["results"]] == [100, 300]
    for line in told["results"]:
        for who in ("moa", "sdpa"):
            assert line[who]["prefill_tokens_per_s"] > 0 < line[who]["decode_tokens_per_s"]
        tokens = line["prompt_tokens"] + bench.WARM + 4
        assert line["sdpa"]["kv_bytes"] == tokens * 2 * 2 * 2 * 64 * 4
    assert told["results"][1]["moa"]["kv_bytes"] < told["results"][1]["sdpa"]["kv_bytes"]
    assert moa(*arguments, "--repeat", 1) == 0
    assert "prefill tokens/s" in capsys.readouterr().out
    assert moa("bench", folder, "--plan", plan, "--lengths", "2k") == 1
    assert "ask for less by --lengths" in capsys.readouterr().err


def test_a_model_with_a_soft_cap_is_measured_beside_eager_attention(plan, tmp_path, capsys):
    own = save(tmp_path / "gemma", kind="Gemma2", query_pre_attn_scalar=16)
    options = [own, "--plan", plan]
    assert moa("generate", *options, "--prompt", "To be", "--max-new-tokens", 4) == 0
    capsys.readouterr()
    measured = ["--lengths", 100, "--new", 4, "--repeat", 1]
    assert moa("bench", *options, *measured, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dense"] == "eager"
    assert told["results"][0]["eager"]["prefill_tokens_per_s"] > 0
    (tmp_path / "bench.json").write_text(json.dumps(told))
    page = [
        "report",
        *options,
        "--bench",
        tmp_path / "bench.json",
        "-o",
        tmp_path / "page.html",
    ]
    assert moa(*page) == 0
    assert "dense, eager" in (tmp_path / "page.html").read_text()
    assert moa("bench", *options, *measured) == 0
    assert "eager" in capsys.readouterr().out


def test_report(folder, plan, tmp_path, capsys):
    out, record = tmp_path / "out.html", tmp_path / "bench.json"
    measured = ["--lengths", "100,300", "--new", 2, "--repeat", 1]
    assert moa("report", folder, "--plan", plan, *measured, "--at", "512,1k", "-o", out) == 0
    assert capsys.readouterr().out == f"{out}\n"
    page = out.read_text()
    assert page.count("<svg") == page.count("</svg>") == 4
    assert "N = 512" in page and "N = 1024" in page and "decode" in page
    # Bytes are those of the runtime.
    ours, dense = planned().moa.module.kv_bytes(1024, 1024)
    assert f"At 1024 tokens {ours / 2**20:.1f} MiB, dense {dense / 2**20:.1f} MiB." in page
    assert not re.search(r"(src|href)=|@import|url\(", page)
    assert moa("bench", folder, "--plan", plan, *measured, "--json") == 0
    record.write_text(capsys.readouterr().out)
    assert moa("report", folder, "--plan", "dense", "--bench", record, "-o", out) == 0
    assert "no plan" in out.read_text()
    out.write_text("old")
    record.write_text('{"results": []}')
    assert moa("report", folder, "--bench", record, "-o", out) == 1
    assert "is not a record of moa bench" in capsys.readouterr().err
    assert moa("report", folder, "--bench", tmp_path / "absent.json", "-o", out) == 1
    assert "absent.json is not a record of moa bench" in capsys.readouterr().err
    assert out.read_text() == "old"


def test_auto_finds_a_plan_beside_the_model(folder, plan, tmp_path, capsys):
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    arguments = ["generate", own, "--prompt", "a" * 340, "--max-new-tokens", 2, "--json"]
    assert moa(*arguments) == 0
    out, err = capsys.readouterr()
    assert "none is shipped for it: runs dense; --plan PLAN names one" in err
    assert json.loads(out)["kv_bytes"] == json.loads(out)["dense_kv_bytes"]
    shutil.copy(plan, own / "plan.json")
    assert moa(*arguments) == 0
    out, err = capsys.readouterr()
    assert f"plan {own}/plan.json, found beside the model" in err
    assert json.loads(out)["kv_bytes"] < json.loads(out)["dense_kv_bytes"]
    shutil.copy(plan, own / "moa-plan.json")
    assert moa(*arguments) == 1
    assert "several plans lie beside the model" in capsys.readouterr().err


class Config:
    num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim = 30, 9, 3, 64


def test_auto_takes_shipped_plans_by_name_and_geometry(tmp_path):
    for name in ("HuggingFaceTB/SmolLM2-135M-Instruct", "x/smollm2-135m-instruct.Q4_1.gguf"):
        found = plans.choose("auto", name, Config)
        assert "shipped for SmolLM2-135M-Instruct" in found.line
        assert json.loads(Path(found.plan).read_text())["model"]["layers"] == 30
    other = plans.choose("auto", "some/Other-135M", Config)
    assert isinstance(other.plan, dict)
    assert "same geometry, another model" in other.line
    larger = type("Larger", (Config,), {"num_hidden_layers": 31})
    unknown = plans.choose("auto", "SmolLM2-135M-Instruct", larger)
    assert "same geometry" not in unknown.line and isinstance(unknown.plan, dict)


def test_a_soft_cap_is_no_part_of_a_plan():
    capped = type("Capped", (Config,), {"attn_logit_softcapping": 50.0})
    found = plans.choose("auto", "SmolLM2-135M-Instruct", capped)
    assert "shipped for SmolLM2-135M-Instruct" in found.line
    assert plans.dense(capped) == plans.dense(Config)


def test_a_plan_beside_a_gguf_file(tmp_path):
    file = tmp_path / "name.Q4_1.gguf"
    (tmp_path / "plan.json").write_text("{}")
    assert plans.choose("auto", str(file), Config).plan == str(tmp_path / "plan.json")
    (tmp_path / "name.Q4_1.plan.json").write_text("{}")
    assert plans.choose("auto", str(file), Config).plan == str(tmp_path / "name.Q4_1.plan.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan", "nowhere.json"], "nowhere.json is not a file; --plan takes a plan file"),
        (["--prompt", "@nowhere.txt"], "cannot read nowhere.txt as text"),
        (["--prompt", "a" * 1025], "the maximum context length is 1024"),
        (["--max-new-tokens", "1024"], "ask for at most 1023 new tokens"),
        (["--temperature", "-1"], "temperature is -1.0, expected 0 to 100"),
        (["--device", "tpu"], "expected cpu, cuda or cuda:NUMBER"),
    ],
)
def test_refused_input_is_one_line(folder, arguments, message, capsys):
    assert moa("generate", folder, "--prompt", "a", "--plan", "dense", *arguments) == 1
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert out == "" and last.startswith("moa: error: ") and message in last


def test_a_plan_of_another_model(folder, tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text(
        json.dumps(PLAN | {"alphas": PLAN["alphas"][:1], "betas": PLAN["betas"][:1]})
    )
    assert moa("generate", folder, "--prompt", "a", "--plan", path) == 1
    assert "layers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["generate"], ["generate", "m"], ["nothing"], ["serve", "m", "--port", "x"],
        ["serve", "m", "--port", "65536"],
        ["serve", "m", "--api-key", ""], ["serve", "m", "--kv-memory", "much"],
        ["serve", "m", "--kv-memory", "0"], ["serve", "m", "--kv-memory", "99999999999TiB"],
        ["serve", "m", "--kv-memory", "9" * 400],
        ["generate", "m", "--prompt", "a", "--stop", ""], ["generate", "m", "--prompt", ""],
        ["generate", "m", "--prompt", "a\udcff"], ["chat", "m", "--system", ""],
        ["bench", "m", "--lengths", "0"],
    ],
)  # fmt: skip
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        moa(*arguments)
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_missing_package_names_its_cure(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for name in [name for name in sys.modules if name.startswith("moa.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    assert moa("serve", folder, "--port", 0) == 1
    assert "pip install 'moa-mlir[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["doctor", "--help"], ["--help"]])
def test_doctor_and_help_run_without_any_extra(arguments):
    packages = ("numpy", "torch", "transformers", "highspy", "fastapi")
    lines = [f"sys.modules[{name!r}] = None" for name in packages]
    code = "\n".join(["import sys", *lines, "from moa.cli import main", f"main({arguments})"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: moa" in done.stdout and not done.stderr


def test_help_has_the_first_line_of_each_subcommand():
    for path, line in cli.COMMANDS.values():
        assert importlib.import_module(path).__doc__.splitlines()[0] == line


def start(*arguments):
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    # Where the tests run in the background, Ctrl-C is ignored, and children inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "moa.cli"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_ctrl_c_ends_generate(folder, plan):
    process = start(
        "generate", folder, "--plan", plan, "--prompt", "a", "--max-new-tokens", 1000
    )
    assert process.stdout.read(1)  # The text has begun.
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "moa: interrupted"


def test_serve_from_the_command_line(folder, plan):
    httpx = pytest.importorskip("httpx")
    process = start("serve", folder, "--plan", plan, "--port", 0, "--kv-memory", "64MiB")
    while " at http://" not in (line := process.stderr.readline()):
        assert line, "the server ended"
    assert "KV cache at most 0.06 GiB" in line
    address = line.split(" at ")[1].split("/v1")[0]
    answer = httpx.post(f"{address}/v1/completions", json={"prompt": "a", "max_tokens": 3})
    assert answer.json()["model"] == "tiny"
    with httpx.stream(
        "POST", f"{address}/v1/completions",
        json={"prompt": "a", "max_tokens": 1000, "stream": True, "ignore_eos": True},
    ) as stream:  # fmt: skip
        next(stream.iter_raw())
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    assert time.monotonic() - began < 15
    assert process.returncode == 130


def test_a_host_that_is_none(folder, capsys):
    assert moa("serve", folder, "--host", "256.1.1.1") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot listen at 256.1.1.1, port 8000" in line and "--host" in line


def test_a_taken_port_is_said_before_loading(folder, monkeypatch, capsys):
    monkeypatch.setattr(models, "load", lambda args: pytest.fail("loaded before listening"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert moa("serve", folder, "--port", taken.getsockname()[1]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "in use" in line and "--port" in line
