"""What a wheel says of itself, and what its commands say where an extra is missing."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_hf import PLAN as PLAN_OF_TINY
from test_hf import fresh
from test_hf_library import write_gguf

from moa import extras, programs

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLAN = ROOT / "examples" / "plans" / "smollm2-135m.json"

#: Runs a command as if packages were not installed.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv[:] = {argv!r}
from moa.programs import moa_plan
sys.exit(moa_plan())
"""


def without(missing, *argv):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing, argv=["moa-plan", *argv])],
        capture_output=True, text=True,
    )  # fmt: skip


def test_extras_have_one_range():
    declared = {
        extra: dict(re.match(r"([\w-]+)(.*)", package).groups() for package in packages)
        for extra, packages in PROJECT["optional-dependencies"].items()
    }
    assert declared == extras.EXTRAS


def install(packages, folder):
    """Links to what `pip install` of some packages brings, all their own needs included."""
    left, seen = list(packages), set()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # Of another platform.
        needs = [Requirement(line) for line in found.requires or []]
        left += [need.name for need in needs if not need.marker or need.marker.evaluate()]
        for part in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            link = folder / part
            if not link.exists():
                link.symlink_to(found.locate_file(part))


def test_the_extra_hf_suffices_for_gguf_files_and_devices(tmp_path):
    """transformers by itself asks for more packages where it meets these."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file, fresh())
    code = f"""
import moa.hf
model = moa.hf.load({str(file)!r}, plan={PLAN_OF_TINY!r}, threads=1)
model.save_pretrained({str(tmp_path / "saved")!r})
moa.hf.load({str(tmp_path / "saved")!r}, plan={PLAN_OF_TINY!r}, device_map="cpu")
"""
    (tmp_path / "site").mkdir()
    install(extras.EXTRAS["hf"], tmp_path / "site")
    here = Path(programs.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}:{here}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_wheel_needs_nothing_by_itself():
    assert PROJECT["name"] == "moa-mlir"
    assert "dependencies" not in PROJECT


def test_scripts_lead_somewhere():
    for target in PROJECT["scripts"].values():
        module, function = target.split(":")
        __import__(module)
        assert callable(getattr(sys.modules[module], function)), target


def test_programs_are_found_in_the_build_tree():
    assert programs.find("moa-compile")
    assert programs.find("no-such-program-of-ours") is None


@pytest.mark.parametrize(
    ("version", "inside"),
    [
        ("5.16.0", True), ("5.16", True), ("5.23.9", True), ("5.24", False), ("5.24.0", False),
        ("5.15.99", False), ("5.16.0.dev0", True), ("4.57.1", False), ("6.0", False),
        ("5.23.0+local.1", True),
    ],
)  # fmt: skip
def test_ranges_of_versions(version, inside):
    assert extras.is_supported("transformers", version) is inside


def pinned(file):
    """The version of transformers in a file of tools/."""
    text = (ROOT / "tools" / file).read_text()
    return re.search(r"^transformers==(.*)$", text, re.MULTILINE)[1]


def test_both_ends_of_the_range_are_tested():
    oldest, newest = pinned("requirements-oldest.txt"), pinned("requirements.txt")
    low, high = extras.range_of("transformers").split(",")
    assert extras.is_supported("transformers", oldest) and f">={oldest}" == f"{low}.0"
    major, minor, _ = newest.split(".")
    assert extras.is_supported("transformers", newest) and high == f"<{major}.{int(minor) + 1}"


def test_what_has_no_range_is_supported():
    assert extras.is_supported("requests", "0.1")
    assert extras.range_of("requests") is None


@pytest.mark.parametrize("command", [["check", str(PLAN)], ["--help"], ["optimize", "--help"]])
def test_no_numpy_is_one_line(command):
    done = without({"numpy", "highspy", "torch", "transformers"}, *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "moa-plan: error: expected the package numpy, found none; "
        "pip install 'moa-mlir[plan]'\n"
    )


def test_no_torch_is_one_line_where_it_is_needed(tmp_path):
    done = without({"torch"}, "check", str(PLAN))
    assert done.returncode == 0, done.stderr
    done = without({"torch"}, "profile", str(tmp_path), "--out", str(tmp_path / "run"))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].endswith("pip install 'moa-mlir[hf]'")


def test_other_missing_modules_are_not_hidden():
    def load():
        raise ModuleNotFoundError("No module named 'moa.gone'", name="moa.gone")

    with pytest.raises(ModuleNotFoundError):
        extras.run_program("moa-plan", load)
