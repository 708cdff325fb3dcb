"""Which columns of a padded batch are tokens.

A row's tokens are one run of the columns of a call, with padding on its left,
its right or both; padding is neither stored nor counted, so the tokens of a
row have positions without gaps, whatever stands between them.
"""

from __future__ import annotations

import torch

from ..errors import InvalidArgumentError, UnsupportedError


def on_host(mask: torch.Tensor | None) -> torch.Tensor | None:
    """A mask [B, columns] as booleans of the CPU, None where all columns are tokens."""
    if mask is None:
        return None
    mask = mask.bool().cpu()
    return None if bool(mask.all()) else mask


def runs(mask: torch.Tensor | None, batch: int, tokens: int) -> list[tuple[int, int]]:
    """For each row the half-open run of its tokens among the last `tokens` columns.

    moa.errors.UnsupportedError where a row has holes.
    """
    if mask is None:
        return [(0, tokens)] * batch
    found = []
    for row, columns in enumerate(mask[:, -tokens:].tolist()):
        first = columns.index(True) if True in columns else 0
        end = first + sum(columns)
        if not all(columns[first:end]):
            raise UnsupportedError(
                f"attention_mask has holes in row {row}: column {columns.index(False, first)} "
                f"of {tokens} new ones is masked, a later one is not; take masked tokens out "
                "of the row and pad it on the left"
            )
        found.append((first, end))
    return found


class History:
    """The columns that a cache has seen: which of each row were tokens."""

    def __init__(self):
        self.mask: torch.Tensor | None = None  # [B, columns]; None: all are tokens

    def check(self, mask: torch.Tensor | None, columns: int) -> None:
        """A row's padding is its own for the life of the cache.

        mask: of the columns seen and of new ones; InvalidArgumentError where it
        says something else about those that were seen.
        """
        if columns == 0:
            return
        before = None if mask is None else on_host(mask[:, :columns])
        if before is None and self.mask is None:
            return
        known = torch.ones_like(before) if self.mask is None else self.mask
        now = torch.ones_like(known) if before is None else before
        wrong = (known != now).any(dim=1) if known.shape == now.shape else None
        if wrong is None or bool(wrong.any()):
            row = 0 if wrong is None else int(wrong.int().argmax())
            pads = [columns - int(m[row].sum()) for m in (known, now)]
            raise InvalidArgumentError(
                f"row {row} had {pads[0]} columns of padding in this cache, the mask now has "
                f"{pads[1]} there, or elsewhere; keep each row's padding, or start a new cache"
            )

    def count(self, mask: torch.Tensor | None, batch: int, columns: int) -> list[int]:
        """Tokens of each row in `columns` columns."""
        if mask is None:
            return [columns] * batch
        return [int(n) for n in mask[:, :columns].sum(dim=1).tolist()]

    def advance(self, mask: torch.Tensor | None) -> None:
        """The columns of `mask` are seen."""
        self.mask = mask

    def dropped(self, columns: int, count: int) -> list[int] | None:
        """Tokens of each row among the last `count` of `columns`; None: all."""
        if self.mask is None:
            return None
        return [int(n) for n in self.mask[:, columns - count : columns].sum(dim=1).tolist()]

    def crop(self, columns: int) -> None:
        """Only the first `columns` are seen any more."""
        if self.mask is not None:
            self.mask = on_host(self.mask[:, :columns])

    def select(self, rows: list[int]) -> None:
        """Row i is what row rows[i] was."""
        if self.mask is not None:
            self.mask = on_host(self.mask[rows])

    def copy(self) -> History:
        other = History()
        other.mask = self.mask
        return other
