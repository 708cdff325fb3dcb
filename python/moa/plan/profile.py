"""Profiles a model: for each length, the loss of every head at every window.

An item is measured at two points of the way from dense attention to windows, as
gradients at the dense point alone are saturated; each item has a file of its own,
and what is there is not measured again.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import moa

from .calibration import Item
from .collect import Collector, Wish, items_of
from .curves import Curves, falling, of_formats
from .errors import PlannerError
from .evaluate import loss_of
from .influence import Point, Recorder, run, window_blocks
from .jsontext import write_atomically
from .network import Network, geometry
from .runfolder import Progress, RunFolder, digest
from .span import Floats

#: Named in summaries: the set form, the mean of both points, each item scaled.
ESTIMATOR = "set-abs,dense+midpoint,item-scaled"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to measure; tokens."""

    sink: int = 64
    block: int = 64
    rows: int = 256  #: Of a chunk of attention.
    entries: bool = False  #: Keep the paper's scores of single entries, for heat maps.
    checkpoint: bool = True  #: Keep one layer's activations at a time.
    by_row: bool = False  #: Keep the curves of each block of rows, for the rule `row`.
    formats: tuple[str, ...] = ()  #: Of 8 bits, whose losses are measured too.


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """An item's influence at the points of the path: [points, layers, q_heads, blocks + 1].

    Beside it what was asked for, all float32: the paper's scores, and means of both
    points: `rows` [layers, q_heads, row blocks, blocks + 1], `formats` [layers, q_heads,
    blocks + 1] of each format, and `format_rows`.
    """

    absolute: NDArray[np.float32]
    signed: NDArray[np.float32]
    squared: NDArray[np.float32]
    loss: float  #: Of the dense model.
    entries: NDArray[np.float32] | None = None
    rows: NDArray[np.float32] | None = None
    formats: Mapping[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    format_rows: Mapping[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)

    def write(self, path: Path, key: str) -> None:
        arrays: dict[str, Any] = {
            "absolute": self.absolute,
            "signed": self.signed,
            "squared": self.squared,
            "loss": np.float64(self.loss),
            "key": np.str_(key),
            **{f"format_{form}": sums for form, sums in self.formats.items()},
            **{f"rows_{form}": sums for form, sums in self.format_rows.items()},
        }
        for name in ("entries", "rows"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomically(path, buffer.getvalue())

    @staticmethod
    def read(path: Path, key: str) -> Measured | None:
        """The item of an earlier run; None where there is none under this key."""
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            if str(found["key"]) != key:
                return None
            return Measured(
                found["absolute"],
                found["signed"],
                found["squared"],
                float(found["loss"]),
                found.get("entries"),
                found.get("rows"),
                of_formats(found, "format_"),
                of_formats(found, "rows_"),
            )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def points(length: int, settings: Settings) -> tuple[Point, Point]:
    """The dense model, and half way to windows of a quarter of the length."""
    quarter = (length // 4 - settings.sink) // settings.block * settings.block
    return Point(), Point(0.5, max(settings.block, quarter))


def measure(network: Network, item: Item, settings: Settings) -> Measured:
    """Two forward and backward passes of an item; PlannerError says what failed."""
    shape = geometry(network.config)
    ids = torch.tensor(item.prompt + item.response, device=network.device)
    recorders, losses = [], []
    for point in points(item.bucket, settings):
        recorder = Recorder(
            shape["layers"],
            shape["q_heads"],
            item.tokens,
            sink=settings.sink,
            block=settings.block,
            rows=settings.rows,
            point=point,
            entries=settings.entries and point.mix == 0,
            by_row=settings.by_row,
            formats=settings.formats,
            device=sums_on(network.device),
        )
        try:
            losses.append(
                run(
                    network.model,
                    ids,
                    len(item.response),
                    recorder,
                    loss_of(item, network.device),
                    settings.checkpoint,
                )
            )
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise _out_of_memory(item, settings) from error
        except RuntimeError as error:
            if "memory" not in str(error) or isinstance(error, PlannerError):
                raise
            raise _out_of_memory(item, settings) from error
        recorders.append(recorder)
    blocks = window_blocks(item.bucket, settings.sink, settings.block)
    entries = recorders[0].entries
    rows = [r.by_row for r in recorders if r.by_row is not None]
    longest = -(-item.bucket // settings.block)
    return Measured(
        _stacked([r.absolute for r in recorders], blocks),
        _stacked([r.signed for r in recorders], blocks),
        _stacked([r.squared for r in recorders], blocks),
        losses[0],
        None if entries is None else entries.to("cpu", torch.float32).numpy(),
        _mean_of_rows(rows, blocks, longest) if rows else None,
        {
            form: _stacked([r.formats[form] for r in recorders], blocks).mean(0)
            for form in settings.formats
        },
        {
            form: _mean_of_rows([r.format_rows[form] for r in recorders], blocks, longest)
            for form in recorders[0].format_rows
        },
    )


def sums_on(device: torch.device) -> torch.device:
    """CUDA keeps sums, without a wait for each chunk; not every device has float64."""
    return device if device.type == "cuda" else torch.device("cpu")


def _stacked(sums: Sequence[torch.Tensor], blocks: int) -> NDArray[np.float32]:
    """[points, .., blocks + 1]: windows longer than those of a shorter item are alike."""
    stacked: NDArray[np.float32] = torch.stack(list(sums)).to("cpu", torch.float32).numpy()
    missing = blocks + 1 - stacked.shape[-1]
    return np.concatenate([stacked, np.repeat(stacked[..., -1:], missing, -1)], -1)


def _mean_of_rows(
    sums: Sequence[torch.Tensor], blocks: int, row_blocks: int
) -> NDArray[np.float32]:
    """[layers, q_heads, row_blocks, blocks + 1]: a shorter item has no further rows."""
    mean = _stacked(sums, blocks).mean(0)
    missing = row_blocks - mean.shape[2]
    padded: NDArray[np.float32] = np.pad(mean, ((0, 0), (0, 0), (0, missing), (0, 0)))
    return padded


def _out_of_memory(item: Item, settings: Settings) -> PlannerError:
    return PlannerError(
        f"out of memory at {item.tokens} tokens with chunks of {settings.rows} rows; take "
        f"fewer rows (--rows {max(64, settings.rows // 4)}), shorter lengths, --dtype bfloat16"
        + ("" if settings.checkpoint else ", or leave out --keep-activations")
    )


def combine(items: Iterable[Measured], length: int) -> Floats:
    """The curve of a length: [layers, q_heads, blocks + 1], never rising.

    Means over both points and over items, each item scaled by its own total, so
    that no item decides alone.
    """
    mean: Floats = np.mean([curve / total for curve, total in _curves(items, length)], axis=0)
    return mean


def _curves(items: Iterable[Measured], length: int) -> Iterator[tuple[Floats, float]]:
    """Each item's curve and its total."""
    for item in items:
        curve = falling(item.absolute.astype(np.float64).mean(0))
        total = float(curve[..., 1:].sum((0, 1)).mean())
        if not np.isfinite(total) or total <= 0:
            raise PlannerError(
                f"length {length}: an item's influence adds up to {total}; take other data, "
                "or profile in float32"
            )
        yield curve, total


def combine_parts(items: Sequence[Measured], length: int, kv_heads: int) -> dict[str, Any]:
    """What `Curves` has beside the curve, scaled as it: `signed`, `rows`, `formats`,
    `format_rows`."""
    totals = [total for _, total in _curves(items, length)]

    def mean(parts: Sequence[NDArray[np.float32]]) -> Floats:
        scaled = [part / total for part, total in zip(parts, totals, strict=True)]
        result: Floats = np.mean(scaled, axis=0, dtype=np.float64)
        return result

    first, rows = items[0], [item.rows for item in items if item.rows is not None]
    return {
        "signed": falling(mean([_lost(item, kv_heads) for item in items])),
        "rows": falling(mean(rows)) if rows else None,
        "formats": {f: mean([item.formats[f] for item in items]) for f in first.formats},
        "format_rows": {
            f: mean([item.format_rows[f] for item in items]) for f in first.format_rows
        },
    }


def _lost(item: Measured, kv_heads: int) -> NDArray[np.float32]:
    """[layers, kv_heads, blocks + 1]: what an item loses by signed sums. Its query heads'
    losses and gains add up, as they see one window; an item that gains in all pays for no
    other."""
    layers, q_heads, windows = item.signed.shape[1:]
    groups = item.signed.mean(0).reshape(layers, kv_heads, q_heads // kv_heads, windows)
    lost: NDArray[np.float32] = groups.sum(2).clip(min=0)
    return lost


def profile_length(
    folder: RunFolder,
    collector: Collector,
    length: int,
    settings: Settings,
    as_json: bool = False,
) -> tuple[list[Item], list[Measured]]:
    """Measures what is missing of a length and writes its summary."""
    network = collector.network
    items = items_of(folder, "calib", collector, length, as_json)
    step = f"profile/{length}"
    key = network.identity | {
        "length": length,
        "items": digest([item.hash for item in items]),
        "sink": settings.sink,
        "block": settings.block,
        "entries": settings.entries,
        "estimator": ESTIMATOR,
        "version": moa.__version__,
    }
    # What was not asked for is no field, so that older folders fit.
    asked = {"by_row": settings.by_row, "formats": list(settings.formats)}
    key |= {name: value for name, value in asked.items() if value}
    folder.claim(step, key)
    measured = []
    with Progress(f"profile {length}", len(items), as_json=as_json) as progress:
        for index, item in enumerate(items):
            path = folder / f"{step}/item-{index:04d}.npz"
            mark = digest(key | {"item": item.hash})
            known = Measured.read(path, mark)
            if known is None:
                known = measure(network, item, settings)
                known.write(path, mark)
                progress.step()
            else:
                progress.skip()
            measured.append(known)
    shape = geometry(network.config)
    Curves(
        curve=combine(measured, length),
        length=length,
        sink=settings.sink,
        block=settings.block,
        items=len(items),
        kv_heads=shape["kv_heads"],
        model_config_sha256=network.identity["model_config_sha256"],
        estimator=ESTIMATOR,
        **combine_parts(measured, length, shape["kv_heads"]),
    ).write(folder / f"{step}/summary.npz")
    folder.log(f"{step}: {len(items)} items")
    return items, measured


def collector_for(network: Network, wish: Wish) -> Collector:
    """The collector of a profile; PlannerError for lengths too short for a window."""
    for length in wish.lengths:
        if length <= wish.sink + 1:
            raise PlannerError(
                f"length {length} has no room beside a sink of {wish.sink} tokens; choose "
                "longer lengths"
            )
    return Collector(network, wish)
