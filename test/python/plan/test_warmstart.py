"""Columns that are kept from one `optimize` to the next."""

from dataclasses import replace

import numpy as np
import pytest
from plan_support import run, write_profile
from solver_support import FORMS, make_problem

from moa.plan.columns import Pool
from moa.plan.optimize import solve
from moa.plan.warmstart import key_of, load_columns, save_columns


@pytest.mark.parametrize("form", ["two_rules", "group_formats"])
def test_columns_are_kept(form, tmp_path):
    problem = make_problem(1, objectives=2, **FORMS[form])
    path, key, pool = tmp_path / "columns.npz", key_of(problem), Pool.uniform(problem)
    first = solve(problem, pool=pool)
    save_columns(path, key, pool)
    loaded = load_columns(path, key, problem)
    assert len(loaded) == len(pool) > len(Pool.uniform(problem))
    columns = lambda p: set(zip(p.layers, map(bytes, p.assignment(np.arange(len(p))))))
    assert columns(loaded) == columns(pool)
    again = solve(problem, pool=loaded)
    assert again.objective == pytest.approx(first.objective, rel=1e-4)
    # Other bounds and weights have the same columns, another problem has not.
    assert key_of(replace(problem, bounds=problem.bounds * 1.1)) == key
    weighed = replace(problem, losses=problem.losses[:1])
    assert len(load_columns(path, key, weighed)) == len(pool)
    for other in (replace(problem, costs=problem.costs * 0.9), weighed):
        assert key_of(other) != key
        assert len(load_columns(path, key_of(other), other)) == len(Pool.uniform(other))


def test_files_that_cannot_be_used_count_as_none(tmp_path):
    problem = make_problem(1)
    path, key, none = tmp_path / "columns.npz", key_of(problem), len(Pool.uniform(problem))
    assert len(load_columns(path, key, problem)) == none
    for content in (b"", b"PK not a zip"):
        path.write_bytes(content)
        assert len(load_columns(path, key, problem)) == none
    for layers, chosen in (
        ([0], [[0, 0, 1]]),  # Three units, not four.
        ([0], [[0, 0, 1, problem.options]]),
        ([0], [[0, 0, 1, -1]]),
        ([0, 1], [[0, 0, 1, 1]]),
    ):
        np.savez(path, key=key, layers=np.array(layers), chosen=np.array(chosen))
        assert len(load_columns(path, key, problem)) == none
    np.savez(path, key=key, layers=np.array([0]), chosen=np.array([[0, 0, 1, 1]]))
    assert len(load_columns(path, key, problem)) == none + 1
    folder = tmp_path / "file"
    folder.write_text("")
    save_columns(folder / "columns.npz", key, Pool.uniform(problem))


def test_optimize_begins_with_them(capsys, tmp_path):
    folder, keys = write_profile(tmp_path / "run"), set()
    counts = []
    for more in ([], ["--density", "0.4", "--pareto", "3"], ["--density", "0.3"]):
        assert run(capsys, "optimize", folder, *more)[0] == 0
        with np.load(folder / "columns.npz") as file:
            counts.append(len(file["layers"]))
            keys.add(str(file["key"]))
    assert counts[0] < counts[1] <= counts[2] and len(keys) == 1
    assert run(capsys, "optimize", folder, "--hull")[0] == 0
    with np.load(folder / "columns.npz") as file:
        assert str(file["key"]) not in keys
