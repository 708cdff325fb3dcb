"""Killed at any moment, moa.compile leaves a cache folder that serves the next run."""

import os
import signal
import subprocess
import sys
import time

import pytest

from moa.runtime import Context, Module

COMPILE = """
import moa
plan = {"format": "moa-plan", "version": 1, "alphas": [[0, 128]], "betas": [[1.0, 0.0]]}
shape = "layers=1,q_heads=2,kv_heads=1,head_dim=64"
print(moa.compile(plan, shape, dtype="f32", max_length=1024).path)
"""
# The process dies in moa.compile: with half of the artifact copied to the cache,
# or all of it, but not yet under its name.
HALF = """
import os, shutil, signal
def copy(source, target):
    with open(source, "rb") as whole, open(target, "wb") as part:
        part.write(whole.read(1000))
    os.kill(os.getpid(), signal.SIGKILL)
shutil.copyfile = copy
"""
UNNAMED = """
import os, signal
os.replace = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
"""


def start(folder, before=""):
    """Compiles in a process group of its own; moa-compile is in it too."""
    return subprocess.Popen(
        [sys.executable, "-c", before + COMPILE],
        env={**os.environ, "XDG_CACHE_HOME": str(folder), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(folder):
    """A whole run; the artifact's path."""
    run = start(folder)
    path, _ = run.communicate()
    assert run.returncode == 0
    return path.strip()


def check(folder, artifact):
    """Whatever bears an artifact's name is one, and the next run ends well."""
    context = Context(1)
    for kept in (folder / "moa").glob("*.moa"):
        Module(context, str(kept))
    with open(finish(folder), "rb") as made:
        assert made.read() == artifact


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The artifact's bytes, and how long a run takes that finds no cache."""
    folder = tmp_path_factory.mktemp("whole")
    begin = time.monotonic()
    with open(finish(folder), "rb") as made:
        return made.read(), time.monotonic() - begin


@pytest.mark.parametrize("before", [HALF, UNNAMED], ids=["half", "unnamed"])
def test_killed_while_the_artifact_is_kept(tmp_path, whole, before):
    run = start(tmp_path, before)
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    left = list((tmp_path / "moa").glob("*.tmp"))
    assert len(left) == 1, "the kill did not come while it was kept"
    check(tmp_path, whole[0])


def test_killed_at_moments_over_the_run(tmp_path, whole):
    artifact, seconds = whole
    killed = 0
    for i in range(6):
        folder = tmp_path / str(i)
        folder.mkdir()
        run = start(folder)
        time.sleep(seconds * (i + 1) / 7)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        killed += run.returncode == -signal.SIGKILL
        check(folder, artifact)
    assert killed, "no kill came before the end"
