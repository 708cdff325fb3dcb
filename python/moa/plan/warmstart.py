"""Columns of earlier solves of a run, `RUN/columns.npz`, for the next one.

They hold for any bounds and any weights of the lengths: whoever asks for another density
of the same profile, grid and form begins with them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from .columns import Pool
from .errors import PlanError
from .jsontext import write_atomically
from .problem import Problem
from .span import Ints


def key_of(problem: Problem) -> str:
    """SHA-256 of all that columns depend on: everything but the bounds."""
    form = (problem.group, problem.rules_per_layer, problem.ranks, problem.formats)
    shapes = (problem.losses.shape, problem.costs.shape)
    sha = hashlib.sha256(repr((form, shapes)).encode())
    for numbers in (problem.losses, problem.costs):
        sha.update(np.ascontiguousarray(numbers, dtype=np.float64).tobytes())
    return sha.hexdigest()


def load_columns(path: Path, key: str, problem: Problem) -> Pool:
    """The uniform columns and those of the file; a file of another key, or one that
    cannot be read, counts as none. `problem` may weigh the objectives otherwise than
    the one that `key` is of."""
    pool = Pool.uniform(problem)
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return pool
            layers, chosen = file["layers"], file["chosen"].astype(np.int64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return pool
    if chosen.shape != (len(layers), problem.units) or not _within(chosen, problem.options):
        return pool
    for layer in range(problem.layers):
        pool.add(layer, chosen[layers == layer])
    return pool


def save_columns(path: Path, key: str, pool: Pool) -> None:
    """Puts all columns of the pool into the file. A folder that cannot be written to
    costs the next solve some time and nothing else."""
    buffer = io.BytesIO()
    every = np.arange(len(pool))
    np.savez(
        buffer, key=np.str_(key), layers=pool.layers.astype(np.int32),
        chosen=pool.assignment(every).astype(np.int16),
    )  # fmt: skip
    with contextlib.suppress(PlanError):
        write_atomically(path, buffer.getvalue())


def _within(chosen: Ints, options: int) -> bool:
    return bool(((chosen >= 0) & (chosen < options)).all())
