"""`moa doctor`: what it says where attention runs, where it does not, and of what it finds."""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moa import compiler, doctor, programs

BUILD = Path(programs.BUILT).parent
FAKE_PTXAS = Path(__file__).parents[1] / "Tools/Inputs/moa-compile/ptxas-fake.sh"


def ask(*arguments, **environment):
    """Exit code and output of the doctor in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "moa.doctor", *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.fixture
def report(monkeypatch):
    """The report of this process, in which tests replace what they want."""
    monkeypatch.setattr(doctor, "_cuda", lambda folder: {"reason": "no driver", "devices": []})
    return doctor.examine


@pytest.fixture
def without_attention(monkeypatch):
    """For tests of other parts, which need not compile."""
    failed = {"works": False, "reason": "not tried"}
    monkeypatch.setattr(doctor, "_attention", lambda *arguments: failed)


def test_attention_runs_on_this_machine():
    code, out = ask("--json")
    found = json.loads(out)
    assert code == 0
    assert "cpu" in found["works"]
    attention = found["cpu"]["attention"]
    assert 0 < attention["max_rel_err"] < 1e-5
    assert attention["code"].startswith("x86-64-v")
    assert found["cpu"]["threads"] >= 1
    assert found["moa"]["artifact_version"] >= 5
    assert found["moa"]["c_abi_version"].split(".")[0] == "1"
    assert Path(found["moa"]["folder"], "doctor.py").exists()


def test_text_has_a_line_for_each_part():
    code, out = ask(HOME="/nonexistent-home")
    assert code == 0
    names = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert names[:4] == ["moa", "system", "cpu", "cuda" if "none" in out else names[3]]
    assert {"ptxas", "cubins", "artifacts", "torch", "transformers", "numpy"} <= set(names)
    assert names[-1] == "attention"


def test_no_compiler_is_said_and_fails(report, monkeypatch, capsys):
    monkeypatch.setattr(programs, "find", lambda name: None)
    found = report()
    assert found["works"] == []
    assert "moa-compile is not in this installation" in found["cpu"]["attention"]["reason"]
    assert "not in this installation" in found["ptxas"]["reason"]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    assert doctor.run(argparse.Namespace(json=False)) == 1
    out = capsys.readouterr().out
    assert "install the wheel again" in out
    assert "runs on no device" in out


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'plan.json: error: no' >&2; exit 1", "plan.json: error: no"),
        ("exit 3", "exited with 3"),
        ("kill -ILL $$", "was ended by signal 4"),
    ],
)
def test_a_failing_compiler_is_quoted(report, monkeypatch, tmp_path, script, reason):
    program = tmp_path / "moa-compile"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "find", lambda name: str(program))
    found = report()
    assert found["works"] == []
    assert reason in found["cpu"]["attention"]["reason"]


def test_wrong_results_are_not_attention(report, monkeypatch, tmp_path):
    """moa-run exits with 1 beyond its tolerance, whatever it prints."""
    program = tmp_path / "moa-run"
    program.write_text("#!/bin/sh\necho '{}'\necho 'relative error 0.5' >&2\nexit 1\n")
    program.chmod(0o755)
    find = programs.find
    monkeypatch.setattr(
        programs, "find", lambda name: str(program) if name == "moa-run" else find(name)
    )
    found = report()
    assert found["works"] == []
    assert found["cpu"]["attention"]["reason"] == "relative error 0.5"


def test_a_device_that_refuses_is_told_apart():
    """The driver of the unit tests has a device that takes no kernel of ours."""
    fake = BUILD / "lib" / "fake"
    if not (fake / "libcuda.so.1").exists():
        pytest.skip("the unit tests' driver is not built")
    code, out = ask("--json", LD_LIBRARY_PATH=str(fake))
    found = json.loads(out)
    assert code == 0
    assert found["works"] == ["cpu"]
    assert found["cuda"]["cuda_version"] == "12.8"
    (device,) = found["cuda"]["devices"]
    assert device["compute_capability"] == "9.0"
    assert device["memory_bytes"] > 0
    assert not device["attention"]["works"]
    assert "refused" in device["attention"]["reason"]


@pytest.mark.parametrize("variable", ["PATH", "CUDA_HOME", "CUDA_PATH"])
def test_ptxas_is_named_with_its_place(
    report, without_attention, monkeypatch, tmp_path, variable
):
    folder = tmp_path if variable == "PATH" else tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "ptxas").symlink_to(FAKE_PTXAS)
    places = {"PATH": "/usr/bin:/bin", "CUDA_HOME": "", "CUDA_PATH": ""}
    places[variable] = f"{tmp_path}:/usr/bin:/bin" if variable == "PATH" else str(tmp_path)
    for name, value in {"FAKE_VERSION": "13.9.1", **places}.items():
        monkeypatch.setenv(name, value)
    found = report()
    assert found["ptxas"] == {"path": str(folder / "ptxas"), "version": "13.9.1"}
    assert f"ptxas        {folder}/ptxas 13.9.1" in doctor.text_of(found)


def test_packages_outside_their_range(report, without_attention, monkeypatch):
    versions = {"torch": "2.13.0+cpu", "transformers": "5.24.0", "numpy": "1.26.4"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = report()
    by_name = {package["name"]: package for package in found["packages"]}
    assert by_name["torch"]["is_supported"]
    assert not by_name["transformers"]["is_supported"]
    assert not by_name["numpy"]["is_supported"]
    assert by_name["highspy"]["version"] is None
    text = doctor.text_of(found)
    assert "transformers 5.24.0 is outside >=5.16,<5.24; pip install 'moa-mlir[hf]'" in text
    assert "highspy      none; pip install 'moa-mlir[plan]'" in text


def test_folders_are_measured(report, without_attention, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (compiler.cache_dir() / "below").mkdir(parents=True)
    (compiler.cache_dir() / "below" / "a.moa").write_bytes(bytes(1500))
    artifacts = report()["folders"]["artifacts"]
    assert artifacts == {"folder": str(tmp_path / "moa"), "files": 1, "total_bytes": 1500}
