"""The benchmarks of serving and of whole models on the CPU: short runs, and their form."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("openai")

BENCH = Path(__file__).resolve().parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import model_cpu
import record
import serve_load

from served import save


def test_a_short_load(tmp_path, monkeypatch):
    """Several clients, a pool that is too small for all: no error, all pages back."""
    tiny = save(tmp_path / "tiny")
    out = tmp_path / "out.json"
    options = "--clients 5 --seconds 3 --single 1 --ratio 0 --growth 1 --threads 1"
    monkeypatch.setattr(serve_load, "LEAVERS", 0.3)
    monkeypatch.setattr(
        sys, "argv",
        ["serve_load.py", str(tiny), *options.split(), "--kv-memory", "4MiB",
         "--output", str(out)],
    )  # fmt: skip
    assert serve_load.main() == 0
    _, many, _ = record.read(out)["records"]
    assert many["errors"] == many["kv_end_bytes"] == 0
    assert many["requests"] > 0
    assert 0 < many["kv_most_bytes"] <= many["kv_limit_bytes"] == 4 << 20


def test_records_of_models_take_the_form(tmp_path, monkeypatch, capsys):
    speeds = {"prefill_tokens_per_s": 100.0, "decode_tokens_per_s": 10.0,
              "prefill_cpu_s": 6.0, "decode_cpu_ms_per_token": 50.0}  # fmt: skip
    ours = {
        "model": "tiny", "plan_id": "0", "dtype": "float32", "attention_threads": 1,
        "torch_threads": 1, "repeats": 2, "new_tokens": 4, "versions": {"torch": "2"},
        "results": [{"prompt_tokens": 512, "moa": speeds | {"kv_bytes": 7},
                     "sdpa": speeds | {"kv_bytes": 9}}],
    }  # fmt: skip
    peer = {"model": "tiny.gguf", "threads": 1, "dtype": "Q4_1", "new_tokens": 4,
            "versions": {}, "results": [{"prompt_tokens": 512, **speeds}]}  # fmt: skip
    for name, content in (("ours", ours), ("peer", peer)):
        (tmp_path / name).write_text(json.dumps(content))
    out = tmp_path / "out.json"
    paths = [str(tmp_path / "ours"), "--peer", str(tmp_path / "peer"), "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["model_cpu.py", *paths])
    assert model_cpu.main() == 0
    found = record.read(out)["records"]
    assert [(r["who"], r["kind"]) for r in found] == [
        (who, kind) for who in ("ours", "sdpa", "llamacpp") for kind in ("prefill", "decode")
    ]
    assert found[0]["us"] == 5.12e6 and found[1]["us"] == 1e5
    assert "llamacpp" in capsys.readouterr().out
