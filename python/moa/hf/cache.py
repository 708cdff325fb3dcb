"""A transformers cache whose keys and values live in the runtime's pages.

transformers calls `update` with the new chunk of keys and values. It is handed
through unchanged, tagged with its layer; our attention function then appends,
attends and evicts in one call. No layer ever holds a dense history.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache as HFCache

from .. import ops, runtime
from ..compiler import Artifact
from ..errors import (
    Error,
    InvalidArgumentError,
    OutOfRangeError,
    WrongTypeError,
)
from . import masks, padding
from .engine import DEFAULT_BUDGET, Engine
from .layer import Layer
from .rows import Rows, alike


def _engine_of(model, device: str | None) -> Engine:
    if isinstance(model, Artifact):
        return Engine(model, device=device or "cpu")
    engine = model if isinstance(model, Engine) else getattr(model, "moa", None)
    if not isinstance(engine, Engine):
        raise WrongTypeError(
            "moa.hf.Cache expected a model from moa.hf.load or an artifact of moa.compile, got "
            f"a {type(model).__name__}"
        )
    if device is not None:
        raise InvalidArgumentError(
            f"device='{device}': the cache is where its model is, on {engine.context.device}; "
            "leave device out"
        )
    return engine


class Cache(HFCache):
    """Elastic KV cache of one batch: pass it as `past_key_values`.

    model: a model from `moa.hf.load`, or the artifact of one, which `device` says
    the place of ("cpu", "cuda", "cuda:1"). max_bytes: most bytes of pages, 0 for
    no limit (on CUDA, 90 % of the memory that is free);
    moa.errors.OutOfPagesError when they do not suffice. rollback_tokens: so
    many of the newest tokens can always be taken back (`crop`), as assisted
    decoding does; their windows' pages stay. pages: how many there are at most,
    in place of max_bytes; or those of another cache of the model, to share them.
    """

    def __init__(
        self,
        model,
        max_bytes: int = 0,
        *,
        device: str | None = None,
        rollback_tokens: int = 0,
        pages: runtime.Cache | int | None = None,
    ):
        self.engine = engine = _engine_of(model, device)
        if isinstance(pages, int):
            if pages < 1 or max_bytes:
                raise InvalidArgumentError(
                    f"pages={pages}, max_bytes={max_bytes}: expected pages of 1 or more, and "
                    "one of the two"
                )
            max_bytes, pages = pages * engine.page_bytes, None
        self.max_bytes, self.rollback_tokens = max_bytes, rollback_tokens
        self.rows, self.history = Rows(), padding.History()
        #: N of the rows to come, and how many rows generate() made of each.
        self.lengths: list[int] | None = None
        self.copies = 1
        self.broken: str | None = None
        #: Of each sequence, the run of its tokens in the forward pass at hand.
        self.runs: list[tuple[int, int]] = []
        #: The layer that a forward pass meets first; it makes sequences.
        self.leader = 0
        if pages is None:
            pages = runtime.Cache(engine.module, max_bytes, rollback_tokens)
        self._pages = pages
        super().__init__(layers=[Layer(self, i) for i in range(engine.layers)])
        #: Names this cache to the operators of `moa.ops`.
        self.handle = ops.handle_of(self)

    @property
    def sequences(self) -> list[runtime.Sequence]:
        """One for each row, or for each few rows that are still the same."""
        return self.rows.sequences

    @property
    def batch_size(self) -> int:
        """Rows of the batch; -1 before the first forward pass."""
        return len(self.rows) or -1

    @property
    def is_croppable(self) -> bool:
        """Whether the newest rollback_tokens columns can be taken back at any time."""
        return self.rollback_tokens > 0 or self.engine.is_dense

    def expect(self, lengths: list[int], copies: int = 1) -> None:
        """Sets N of each row: its tokens, prompt and budget, padding not counted.

        copies: of each row, that the batch to come has one after the other.
        """
        self.lengths, self.copies = [self.engine.clamp(n) for n in lengths], copies

    def begin(self, layer: Layer, key, mask) -> None:
        """Makes or raises sequences; the first layer of a forward pass decides."""
        self._check_usable()
        batch, tokens = key.shape[0], key.shape[2]
        if layer.index != self.leader:
            self._check_batch(batch, len(self.rows))
            return
        share, same = self._shared(layer, key, mask)
        held = batch // share if same else batch
        history = self.history.copy()
        if not same:
            history.select([row // share for row in range(batch)])
        elif mask is not None:
            mask = mask[::share]
        history.check(mask, layer.columns)
        runs = padding.runs(mask, held, tokens)
        seen = history.count(mask, held, layer.columns + tokens)
        most = self.engine.info["max_length"]
        if max(seen) > most:
            raise OutOfRangeError(
                f"row {seen.index(max(seen))} would have {max(seen)} tokens, the artifact "
                f"serves {most}: shorten it, or pass max_length= to moa.hf.load where the "
                "model's max_position_embeddings allow it"
            )
        lengths = self._wanted(seen)
        self.rows.share = share
        if not same:
            self.rows.spread()
        self._lengthen(seen, lengths, tokens)
        history.advance(mask)
        self.history, self.runs, self.copies = history, runs, 1

    def _shared(self, layer, key, mask) -> tuple[int, bool]:
        """How many rows are one sequence until now, and whether they stay the same."""
        batch, tokens = key.shape[0], key.shape[2]
        share = self.rows.share
        if self.copies > 1 and len(self.rows) in (0, batch // self.copies) and share == 1:
            # Copies that generate() made of a prompt, or of a turn on this cache.
            share = self.copies
        elif self.sequences:
            self._check_batch(batch, len(self.rows))
        if share == 1 or batch % share:
            return 1, True
        same = not (tokens == 1 and layer.columns) and alike(key, share)
        return share, same and (mask is None or alike(mask, share))

    def _lengthen(self, seen, lengths, tokens) -> None:
        """Makes sequences, or raises the N of those there are."""
        told, self.lengths = self.lengths is not None, None
        if not self.rows.sequences:
            self.rows.sequences = [runtime.Sequence(self._pages, n) for n in lengths]
            return
        for sequence, rows, n in zip(self.rows.sequences, seen, lengths, strict=True):
            # A chunk within N keeps N; one that goes past it is a new turn. Single
            # tokens past the budget, and drafts, keep the spans they have.
            past = tokens > 1 and rows > sequence.length + self.rollback_tokens
            if n > sequence.length and (told or past):
                sequence.set_length(n)

    def _wanted(self, seen) -> list[int]:
        """N of each sequence, whose tokens up to the end of this call are `seen`."""
        if self.lengths is not None:
            if len(seen) % len(self.lengths):
                raise InvalidArgumentError(
                    f"lengths are set for {len(self.lengths)} rows, the batch has {len(seen)}: "
                    "give expect() a length for each row"
                )
            repeat = len(seen) // len(self.lengths)
            return [n for n in self.lengths for _ in range(repeat)]
        return [self.engine.clamp(max(1, rows) + DEFAULT_BUDGET) for rows in seen]

    def run(self, index: int, entries, scaling) -> None:
        try:
            runtime.attend(self._pages, index, entries, scaling, self.engine.stream())
        except Exception as error:
            self.broken = str(error)
            raise

    def prefill(self, layer, q, k, v, scale, mask):
        """The operator `moa::prefill`: what a traced model calls; see `moa.ops`."""
        # The first layer decides about the rows.
        columns = masks.columns_of(mask) if layer == self.leader else None
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        return self.layers[layer].attend(q, k, v, columns, scale)

    def _check_usable(self) -> None:
        if self.broken:
            raise Error(
                f"this cache stopped at an error ({self.broken}); layers are out "
                "of step, so start a new one"
            )

    def _check_batch(self, batch: int, held: int) -> None:
        if held != batch:
            raise InvalidArgumentError(
                f"the cache holds {held} sequences, the batch has {batch}: start a new cache, "
                "or bring it to the batch with batch_repeat_interleave or batch_select_indices"
            )

    def crop(self, tokens_to_remove: int) -> None:
        """Takes the newest -tokens_to_remove columns back, in all rows or in none.

        moa.errors.NotResidentError where keys that later rows see were given up:
        make the cache with rollback_tokens.
        """
        count = -tokens_to_remove
        columns = self.get_seq_length()
        if not 0 <= count <= columns:
            raise InvalidArgumentError(
                f"crop({tokens_to_remove}): expected minus the number of columns to remove, "
                f"of {columns}"
            )
        self._check_usable()
        if count == 0:
            return
        dropped = self.history.dropped(columns, count)
        self.rows.truncate([count] * len(self.sequences) if dropped is None else dropped)
        self.history.crop(columns - count)
        for layer in self.layers:
            layer.columns = columns - count

    def _select(self, rows: list[int]) -> None:
        self._check_usable()
        if self.rows.sequences:
            share = self.rows.share
            self.rows.select(rows)
            self.history.select([row // share for row in rows])

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row i goes on as row beam_idx[i] did; copies share pages, others go back."""
        self._select(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times, one after the other; copies share pages."""
        self._select([row for row in range(len(self.rows)) for _ in range(repeats)])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps the rows of `indices` (numbers, or a mask), in their order."""
        self._select(torch.arange(len(self.rows))[indices.cpu()].tolist())

    def advance(self) -> None:
        """Counts a step that a graph ran: a token in every row."""
        known = self.history.mask
        if known is not None:
            self.history.advance(torch.cat([known, torch.ones_like(known[:, :1])], dim=1))
        for layer in self.layers:
            layer.columns += 1

    def fork(self) -> Cache:
        """A cache that has seen the same and shares its pages; each goes on by itself.

        moa.errors.Error on a cache that stopped at an error.
        """
        if self.broken:
            raise Error(f"this cache stopped at an error ({self.broken}): no fork of it")
        other = Cache(
            self.engine, self.max_bytes, rollback_tokens=self.rollback_tokens, pages=self._pages
        )
        other.rows, other.history = self.rows.fork(), self.history.copy()
        other.lengths, other.copies, other.leader = self.lengths, self.copies, self.leader
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            theirs.columns = mine.columns
        return other

    def drop(self) -> None:
        """Gives every page back."""
        self.rows, self.history = Rows(), padding.History()
        self.lengths = self.broken = None
        self.copies = 1

    @property
    def pages(self) -> runtime.Cache:
        """Where the sequences' pages lie."""
        return self._pages

    @property
    def kv_bytes(self) -> int:
        """Bytes of pages held now, over all layers and sequences; shared ones each time."""
        return sum(sequence.bytes for sequence in self.sequences)

    def _bytes(self, kind: int) -> int:
        kv_bytes, margin = self.engine.module.kv_bytes, self.rollback_tokens
        return sum(kv_bytes(s.length, s.seen(0), margin)[kind] for s in self.sequences)

    @property
    def closed_form_bytes(self) -> int:
        """The same from the plan alone: what the sequences must hold now."""
        return self._bytes(0)

    @property
    def dense_bytes(self) -> int:
        """What a dense cache of whole pages would hold."""
        return self._bytes(1)

    @property
    def stats(self) -> dict:
        """Counters of the page pool."""
        return self._pages.stats
