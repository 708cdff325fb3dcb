"""Loss curves of a profile: `run/profile/N/summary.npz`.

What profiling leaves and optimising reads: the loss of every query head for every
length of its window.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import PlanError, PlannerError
from .formats import MOST
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
    #: [layers, q_heads, blocks + 1] for each format of 8 bits that was measured: what a
    #: head loses by rounded keys and values that a window of n blocks sees.
    formats: Mapping[str, Floats] = field(default_factory=dict)
    #: The part of each block of rows, as `rows`; where those were kept.
    format_rows: Mapping[str, Floats] = field(default_factory=dict)
    #: [layers, kv_heads, blocks + 1]: what a window costs all query heads of a KV head, by
    #: signed sums, in the unit of `curve` and never rising; None in older profiles.
    signed: Floats | None = None

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

    def by_sign(self) -> Curves:
        """With the losses of signed sums, a KV head's shared evenly by its query heads."""
        if self.signed is None:
            raise PlanError(
                f"profile/{self.length}/summary.npz", "expected signed losses, found none",
                cure="the same moa-plan profile again adds them and measures nothing anew; or "
                "take --losses sizes",
            )  # fmt: skip
        group = self.q_heads // self.kv_heads
        return replace(
            self, curve=np.repeat(self.signed / group, group, axis=1), signed=None, rows=None,
            formats={}, format_rows={}, estimator=self.estimator.replace("abs", "signed"),
        )  # fmt: skip

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
        if self.signed is not None:
            of_kv_heads = (self.layers, self.kv_heads, self.blocks + 1)
            if self.signed.shape != of_kv_heads:
                raise refuse("signed", str(list(of_kv_heads)), list(self.signed.shape))
            _check_losses("signed", self.signed, refuse)
        if self.rows is not None:
            wanted = (self.layers, self.q_heads, most, self.blocks + 1)
            if self.rows.shape != wanted:
                raise refuse("rows", str(list(wanted)), list(self.rows.shape))
            _check_losses("rows", self.rows, refuse)
        for name, losses in self._parts().items():
            like = self.curve if name.startswith("format_") else self.rows
            if like is None or losses.shape != like.shape:
                shape = "none" if like is None else str(list(like.shape))
                raise refuse(name, shape, list(losses.shape))
            _check_losses(name, losses, refuse, rising=True)
        return self

    def _parts(self) -> dict[str, Floats]:
        """Losses of formats by their names in the file."""
        whole = {f"format_{form}": losses for form, losses in self.formats.items()}
        return whole | {f"rows_{form}": losses for form, losses in self.format_rows.items()}

    def write(self, path: str | Path) -> None:
        """Writes the file, whole or not at all; equal curves make equal files."""
        self.check(str(path))
        arrays: dict[str, object] = {
            "curve": np.asarray(self.curve, dtype=np.float64),
            **{key: np.int64(getattr(self, key)) for key in _NUMBERS},
            **{key: np.str_(getattr(self, key)) for key in _TEXTS},
        }
        parts = self._parts() | {"rows": self.rows, "signed": self.signed}
        arrays |= {
            key: np.asarray(part, dtype=np.float64)
            for key, part in parts.items() if part is not None
        }  # fmt: skip
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())


def falling(curve: Floats) -> Floats:
    """The least curve above that never rises with the window."""
    result: Floats = np.maximum.accumulate(curve[..., ::-1], -1)[..., ::-1]
    return result


def _check_losses(
    key: str, losses: Floats, refuse: Callable[[str, str, object], PlanError],
    rising: bool = False,
) -> None:  # fmt: skip
    if not np.isfinite(losses).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(losses))[0]]
        raise refuse(f"{key}/{'/'.join(map(str, at))}", "a finite loss", losses[tuple(at)])
    if losses.min() < 0:
        raise refuse(key, "losses of 0 or more", float(losses.min()))
    rises = np.diff(losses, axis=-1).max(initial=0)
    if not rising and rises > 1e-9 * max(1.0, float(losses.max())):
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
    numbers = {key: int(found[key]) for key in _NUMBERS}
    parts = {
        key: part.astype(np.float64)
        for key, part in found.items() if part.ndim > 2 and part.dtype.kind in "iuf"
    }  # fmt: skip
    return Curves(
        curve=found["curve"].astype(np.float64),
        signed=parts.get("signed"),
        rows=parts.get("rows"),
        formats=of_formats(parts, "format_"),
        format_rows=of_formats(parts, "rows_"),
        model_config_sha256=str(found["model_config_sha256"]),
        estimator=str(found["estimator"]),
        **numbers,
    ).check(str(path))


def of_formats(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """Of arrays by name those of the formats of 8 bits, by format."""
    return {form: arrays[prefix + form] for form in MOST if prefix + form in arrays}


@dataclass(frozen=True, eq=False)
class Profile:
    """Curves of one model at all profiled lengths."""

    curves: dict[int, Curves]  #: By length, ascending; at least one.
    sha256: str  #: Of the files.

    @property
    def has_signs(self) -> bool:
        """Whether losses of signed sums are there at every length."""
        return all(curves.signed is not None for curves in self.curves.values())

    def by_sign(self) -> Profile:
        """See `Curves.by_sign`."""
        return replace(self, curves={n: c.by_sign() for n, c in self.curves.items()})

    @property
    def any(self) -> Curves:
        """What all have in common: geometry, sink, block."""
        return next(iter(self.curves.values()))

    @property
    def formats(self) -> set[str]:
        """Formats of 8 bits whose losses were measured at every length."""
        return set.intersection(*(set(curves.formats) for curves in self.curves.values()))

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
