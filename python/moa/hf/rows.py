"""The sequences of a batch: made, shared, reordered, taken back.

Rows that generate() has repeated, for beams or several answers, are one
sequence until they differ: `share` of them, one after the other, each.
"""

from __future__ import annotations

import torch

from .. import runtime
from ..errors import InvalidArgumentError


class Rows:
    """Row r of a batch is sequences[r // share]."""

    def __init__(self):
        self.sequences: list[runtime.Sequence] = []
        self.share = 1

    def __len__(self) -> int:
        return len(self.sequences) * self.share

    def spread(self) -> None:
        """Gives every row a sequence of its own."""
        self.sequences = [
            sequence if copy == 0 else sequence.fork()
            for sequence in self.sequences
            for copy in range(self.share)
        ]
        self.share = 1

    def select(self, rows: list[int]) -> None:
        """Row i becomes what row rows[i] was; the pages of others go back at once."""
        if rows and not 0 <= min(rows) <= max(rows) < len(self):
            raise InvalidArgumentError(
                f"rows {rows} are not all among the {len(self)} of the cache: count from 0"
            )
        self.spread()
        taken: set[int] = set()
        selected = []
        for row in rows:
            sequence = self.sequences[row]
            selected.append(sequence.fork() if row in taken else sequence)
            taken.add(row)
        self.sequences = selected

    def truncate(self, dropped: list[int]) -> None:
        """Takes the newest dropped[s] tokens of sequence s back; all or none.

        moa.errors.NotResidentError where keys that rows to come see are gone.
        """
        lengths = [s.seen(0) - n for s, n in zip(self.sequences, dropped, strict=True)]
        for sequence, tokens in zip(self.sequences, lengths, strict=True):
            if tokens < sequence.min_length:
                sequence.fork().truncate(tokens)
        for sequence, tokens in zip(self.sequences, lengths, strict=True):
            sequence.truncate(tokens)

    def fork(self) -> Rows:
        other = Rows()
        other.sequences, other.share = [s.fork() for s in self.sequences], self.share
        return other


def alike(tensor: torch.Tensor, share: int) -> bool:
    """Whether rows of [B, ...] are equal, `share` after each other at a time."""
    groups = tensor.unflatten(0, (-1, share))
    return bool((groups == groups[:, :1]).all())
