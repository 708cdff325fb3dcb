"""Loss curves of a profile: `run/profile/N/summary.npz`.

What profiling leaves and optimising reads: the loss of every query head for every
length of its window.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import PlanError, PlannerError
from .jsontext import write_atomically
from .model import ModelShape
from .span import MAX_LENGTH, Floats

_AGAIN = "profile again: moa-plan profile"
_NUMBERS = ("length", "sink", "block", "items", "kv_heads")
_TEXTS = ("model_config_sha256", "estimator")


@dataclass(frozen=True, eq=False)
class Curves:
    """Losses at one profiled length, averaged over items."""

    #: [layers, q_heads, blocks + 1]: loss of a head whose window, beside the sink,
    #: holds n blocks; never rising with n. blocks * block tokens reach the length.
    curve: Floats
    length: int  #: Tokens.
    sink: int  #: Tokens; visible whatever the window.
    block: int  #: Tokens.
    items: int  #: Items that the means are over.
    kv_heads: int
    model_config_sha256: str
    estimator: str  #: How the losses were estimated, such as "set-abs".
    #: [layers, q_heads, row_blocks, blocks + 1]: the part of `curve` of each block of
    #: query rows, oldest first. For the length rule `row`; None where it was not kept.
    rows: Floats | None = None

    @property
    def layers(self) -> int:
        return int(self.curve.shape[0])

    @property
    def q_heads(self) -> int:
        return int(self.curve.shape[1])

    @property
    def blocks(self) -> int:
        """Longest window of the curve, in blocks."""
        return int(self.curve.shape[2]) - 1

    def check(self, name: str = "curves") -> Curves:
        """Itself; PlanError, naming `name` and the key, where it cannot be right."""

        def refuse(key: str, expected: str, found: object) -> PlanError:
            return PlanError(name, f"expected {expected}, found {found}", key=key, cure=_AGAIN)

        for key, low, high in (
            ("length", 1, MAX_LENGTH), ("sink", 0, 1 << 20), ("block", 1, 1 << 20),
            ("items", 1, 1 << 30), ("kv_heads", 1, 1 << 16),
        ):  # fmt: skip
            if not low <= getattr(self, key) <= high:
                raise refuse(key, f"{low} to {high}", getattr(self, key))
        if self.curve.ndim != 3 or 0 in self.curve.shape:
            raise refuse("curve", "[layers, q_heads, blocks + 1]", list(self.curve.shape))
        if self.q_heads % self.kv_heads:
            raise refuse("kv_heads", f"a divisor of {self.q_heads} query heads", self.kv_heads)
        least = -(-max(self.length - self.sink, 0) // self.block)
        most = -(-self.length // self.block)
        if not least <= self.blocks <= most:
            raise refuse(
                "curve",
                f"{least} to {most} blocks of {self.block} tokens for length {self.length} "
                f"beside a sink of {self.sink}",
                self.blocks,
            )
        _check_losses("curve", self.curve, refuse)
        if self.rows is not None:
            wanted = (self.layers, self.q_heads, most, self.blocks + 1)
            if self.rows.shape != wanted:
                raise refuse("rows", str(list(wanted)), list(self.rows.shape))
            _check_losses("rows", self.rows, refuse)
        return self

    def write(self, path: str | Path) -> None:
        """Writes the file, whole or not at all; equal curves make equal files."""
        self.check(str(path))
        arrays: dict[str, object] = {
            "curve": np.asarray(self.curve, dtype=np.float64),
            **{key: np.int64(getattr(self, key)) for key in _NUMBERS},
            **{key: np.str_(getattr(self, key)) for key in _TEXTS},
        }
        if self.rows is not None:
            arrays["rows"] = np.asarray(self.rows, dtype=np.float64)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())


def _check_losses(
    key: str, losses: Floats, refuse: Callable[[str, str, object], PlanError]
) -> None:
    if not np.isfinite(losses).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(losses))[0]]
        raise refuse(f"{key}/{'/'.join(map(str, at))}", "a finite loss", losses[tuple(at)])
    if losses.min() < 0:
        raise refuse(key, "losses of 0 or more", float(losses.min()))
    rises = np.diff(losses, axis=-1).max(initial=0)
    if rises > 1e-9 * max(1.0, float(losses.max())):
        raise refuse(key, "losses that never rise with the window", f"a rise of {rises:.3g}")


def load_curves(path: str | Path) -> Curves:
    """Reads and checks one file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise PlanError(str(path), "expected a profile, found none", cure=_AGAIN) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PlanError(
            str(path), f"expected a profile (.npz), found: {error}", cure=_AGAIN
        ) from None
    for key in ("curve", *_NUMBERS, *_TEXTS):
        kind, what = ("U", "a text") if key in _TEXTS else ("iuf", "numbers")
        if key not in found or found[key].dtype.kind not in kind:
            here = f"{found[key].dtype}" if key in found else "none"
            raise PlanError(str(path), f"expected {what}, found {here}", key=key, cure=_AGAIN)
    rows = found.get("rows")
    numbers = {key: int(found[key]) for key in _NUMBERS}
    return Curves(
        curve=found["curve"].astype(np.float64),
        rows=None if rows is None else rows.astype(np.float64),
        model_config_sha256=str(found["model_config_sha256"]),
        estimator=str(found["estimator"]),
        **numbers,
    ).check(str(path))


@dataclass(frozen=True, eq=False)
class Profile:
    """Curves of one model at all profiled lengths."""

    curves: dict[int, Curves]  #: By length, ascending; at least one.
    sha256: str  #: Of the files.

    @property
    def any(self) -> Curves:
        """What all have in common: geometry, sink, block."""
        return next(iter(self.curves.values()))

    def check_model(self, model: ModelShape) -> None:
        """PlannerError where the profile is of a model of another shape."""
        about = self.any
        found = (about.layers, about.q_heads, about.kv_heads)
        wanted = (model.layers, model.q_heads, model.kv_heads)
        if found != wanted:
            text = "{} layers x {} query heads, {} KV heads".format
            raise PlannerError(
                f"expected a profile of {text(*wanted)}, as the model has, found "
                f"{text(*found)}; profile this model: moa-plan profile"
            )


def load_profile(run: str | Path) -> Profile:
    """Reads `profile/*/summary.npz` of a run folder; all must be of one model with
    one sink and one block."""
    paths = sorted(Path(run).glob("profile/*/summary.npz"))
    if not paths:
        raise PlanError(
            str(run), "expected profile/N/summary.npz, found none",
            cure="profile the model first: moa-plan profile MODEL --out " + str(run),
        )  # fmt: skip
    digest = hashlib.sha256()
    loaded: list[tuple[Path, Curves]] = []
    for path in paths:
        loaded.append((path, load_curves(path)))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    first = loaded[0][1]
    for path, curves in loaded:
        if path.parent.name != str(curves.length):
            raise PlanError(
                str(path), f"expected length {path.parent.name}, found {curves.length}",
                key="length", cure=_AGAIN,
            )  # fmt: skip
        for key in ("model_config_sha256", "estimator", "sink", "block", "kv_heads",
                    "layers", "q_heads"):  # fmt: skip
            if getattr(curves, key) != getattr(first, key):
                raise PlanError(
                    str(path),
                    f"expected {getattr(first, key)}, as {loaded[0][0]} has, found "
                    f"{getattr(curves, key)}",
                    key=key, cure="profile all lengths of one model with one setting",
                )  # fmt: skip
    by_length = {curves.length: curves for _, curves in loaded}
    return Profile(dict(sorted(by_length.items())), digest.hexdigest())
